// Cutting a fuzzer's bytes into the arguments of a function under test, and ending the run where a property fails.
// Used by the fuzz targets only.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

// A failed property is a crash, in builds without assertions too.
inline void require(bool property) {
  if (!property) {
    __builtin_trap();
  }
}

class FuzzInput {
 public:
  FuzzInput(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

  std::uint8_t byte() {
    std::uint8_t value = 0;
    fill(std::span(&value, 1));
    return value;
  }

  // What the input has no bytes for is zero.
  template <typename T>
  T value() {
    std::array<std::uint8_t, sizeof(T)> bytes{};
    fill(bytes);
    T value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }

  std::span<const std::uint8_t> take(std::size_t most) {
    const auto taken = rest_.first(std::min(most, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }

  // A text whose length stands in front of it.
  std::string_view text() { return as_text(take(byte())); }

  std::string_view remaining_text() { return as_text(take(rest_.size())); }
  std::span<const std::byte> remaining_bytes() { return std::as_bytes(take(rest_.size())); }

 private:
  static std::string_view as_text(std::span<const std::uint8_t> bytes) {
    return {static_cast<const char*>(static_cast<const void*>(bytes.data())), bytes.size()};
  }
  void fill(std::span<std::uint8_t> out) {
    const auto taken = take(out.size());
    std::copy(taken.begin(), taken.end(), out.begin());
  }

  std::span<const std::uint8_t> rest_;
};
