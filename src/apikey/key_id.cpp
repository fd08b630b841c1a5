// Public ids of keys: from time and randomness to 13 bytes, and to their text and back.
// Called by keyloader when it makes a key, by variables and logs when they show one. Never made from the secret.
#include "apikey/key_id.hpp"

#include <algorithm>

namespace apikey {
namespace {

constexpr std::string_view kAlphabet = "0123456789abcdefghijklmnopqrstuv";
constexpr std::size_t kDigits = kKeyIdTextLength - kKeyIdPrefix.size();
constexpr std::size_t kTimeBytes = 6;
constexpr unsigned kBitsPerDigit = 5;
static_assert(kDigits * kBitsPerDigit == 100);

}  // namespace

KeyId make_key_id(std::uint64_t unix_ms, std::span<const std::uint8_t, 7> random) noexcept {
  KeyId id;
  for (std::size_t i = 0; i < kTimeBytes; ++i) {
    id.bytes[i] = static_cast<std::uint8_t>(unix_ms >> (8 * (kTimeBytes - 1 - i)));
  }
  std::copy(random.begin(), random.end(), id.bytes.begin() + kTimeBytes);
  id.bytes.back() &= 0xf0;
  return id;
}

bool parse_key_id(std::string_view text, KeyId& id) noexcept {
  if (text.size() != kKeyIdTextLength || !text.starts_with(kKeyIdPrefix)) {
    return false;
  }
  text.remove_prefix(kKeyIdPrefix.size());
  KeyId found;
  unsigned pending = 0;
  unsigned bits = 0;
  std::size_t at = 0;
  for (const char c : text) {
    const std::size_t digit = kAlphabet.find(c);
    if (digit == std::string_view::npos) {
      return false;
    }
    pending = (pending << kBitsPerDigit) | static_cast<unsigned>(digit);
    bits += kBitsPerDigit;
    if (bits >= 8) {
      bits -= 8;
      found.bytes[at++] = static_cast<std::uint8_t>(pending >> bits);
    }
  }
  found.bytes[at] = static_cast<std::uint8_t>(pending << (8 - bits));
  id = found;
  return true;
}

std::array<char, kKeyIdTextLength> key_id_text(const KeyId& id) noexcept {
  std::array<char, kKeyIdTextLength> text;
  auto out = std::copy(kKeyIdPrefix.begin(), kKeyIdPrefix.end(), text.begin());
  unsigned pending = 0;
  unsigned bits = 0;
  auto next = id.bytes.begin();
  for (std::size_t i = 0; i < kDigits; ++i) {
    if (bits < kBitsPerDigit) {
      pending = (pending << 8) | *next++;
      bits += 8;
    }
    bits -= kBitsPerDigit;
    *out++ = kAlphabet[(pending >> bits) % kAlphabet.size()];
  }
  return text;
}

}  // namespace apikey
