// Turns a Status into a sentence.
// Called by keyloader and by the adapter's log lines. Never allocates, never writes past `out`.
#include "apikey/status.hpp"

#include <algorithm>
#include <charconv>

namespace apikey {
namespace {

constexpr std::string_view kError = "{error}";  // a library's own number, where there is one

// Appends as much of `text` as there is room for.
void append(std::span<char> out, std::size_t& length, std::string_view text) noexcept {
  const std::size_t n = std::min(text.size(), out.size() - length);
  std::copy_n(text.begin(), n, out.begin() + static_cast<std::ptrdiff_t>(length));
  length += n;
}

void append(std::span<char> out, std::size_t& length, std::uint64_t number) noexcept {
  char digits[20];
  const auto end = std::to_chars(std::begin(digits), std::end(digits), number).ptr;
  append(out, length, std::string_view(digits, static_cast<std::size_t>(end - digits)));
}

}  // namespace

std::string_view describe(const Status& status, std::span<char> out) noexcept {
  std::string_view rest = status.text;
  std::size_t length = 0;
  while (!rest.empty()) {
    if (rest.starts_with(kError)) {
      rest.remove_prefix(kError.size());
      if (status.a != 0) {
        append(out, length, " (error -");
        append(out, length, status.a);
        append(out, length, ")");
      }
      continue;
    }
    const bool is_a = rest.starts_with("{0}");
    if (is_a || rest.starts_with("{1}")) {
      append(out, length, is_a ? status.a : status.b);
      rest.remove_prefix(3);
      continue;
    }
    const std::size_t literal = std::min(rest.find('{', 1), rest.size());
    append(out, length, std::string_view(rest.data(), literal));
    rest.remove_prefix(literal);
  }
  return {out.data(), length};
}

}  // namespace apikey
