// A rough estimate of a key's entropy. Called by import. Must never keep or print the key.
#include "entropy.hpp"

#include <algorithm>
#include <bitset>
#include <cmath>

namespace keyloader {
namespace {

bool is_hex_lower(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }
bool is_hex_upper(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); }
bool is_separator(char c) { return c == '-' || c == '_' || c == '.' || c == ':'; }

double alphabet_size(std::string_view text) {
  const auto all = [&](auto&& is_in) {
    return std::all_of(text.begin(), text.end(), [&](char c) { return is_separator(c) || is_in(c); });
  };
  const auto any = [&](char first, char last) {
    return std::any_of(text.begin(), text.end(), [&](char c) { return c >= first && c <= last; });
  };
  if (all(is_hex_lower) || all(is_hex_upper)) {
    return any('a', 'f') || any('A', 'F') ? 16.0 : 10.0;
  }
  double size = (any('0', '9') ? 10.0 : 0.0) + (any('a', 'z') ? 26.0 : 0.0) + (any('A', 'Z') ? 26.0 : 0.0);
  if (!all([](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); })) {
    size += 32.0;
  }
  return size;
}

}  // namespace

double estimated_entropy_bits(std::string_view text) {
  std::bitset<256> seen;
  double length = 0;
  for (const char c : text) {
    if (!is_separator(c)) {
      seen.set(static_cast<unsigned char>(c));
      length += 1;
    }
  }
  if (length == 0) {
    return 0;
  }
  const auto distinct = static_cast<double>(seen.count());
  // A random text of this length would show more different characters.
  const double alphabet = distinct * 4 < length ? std::min(distinct, alphabet_size(text)) : alphabet_size(text);
  return length * std::log2(std::max(alphabet, 1.0));
}

}  // namespace keyloader
