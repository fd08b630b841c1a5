// Comparing texts and bytes in unit tests with a message that shows both.
// Include after cmocka_cpp.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string_view>

// Names the caller's line, not this one.
inline void expect_text(std::string_view actual, std::string_view expected, const char* file = __builtin_FILE(),
                        int line = __builtin_LINE()) {
  if (actual != expected) {
    print_error("got \"%.*s\", expected \"%.*s\"\n", static_cast<int>(actual.size()), actual.data(),
                static_cast<int>(expected.size()), expected.data());
    _assert_true(0, "actual == expected", file, line);
  }
}

constexpr unsigned hex_value(char c) { return static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10); }

// bytes_of<3>("0102ff")
template <std::size_t N>
constexpr std::array<std::byte, N> bytes_of(std::string_view hex) {
  std::array<std::byte, N> bytes{};
  for (std::size_t i = 0; i < N; ++i) {
    bytes[i] = static_cast<std::byte>(hex_value(hex[2 * i]) << 4 | hex_value(hex[2 * i + 1]));
  }
  return bytes;
}

inline void expect_bytes(std::span<const std::byte> actual, std::span<const std::byte> expected,
                         const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  _assert_int_equal(actual.size(), expected.size(), file, line);
  if (!expected.empty()) {
    _assert_memory_equal(actual.data(), expected.data(), expected.size(), file, line);
  }
}
