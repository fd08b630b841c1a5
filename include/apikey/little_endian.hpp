// Integers as they stand in a snapshot: little-endian, at any alignment.
// Used by everything that encodes or decodes bytes. Checks no bounds: the caller has.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <span>

namespace apikey {

static_assert(std::endian::native == std::endian::little, "a snapshot's integers are read in place");

// REQUIRES: offset + sizeof(T) <= bytes.size().
template <std::integral T>
[[nodiscard]] T load_le(std::span<const std::byte> bytes, std::size_t offset) noexcept {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

// REQUIRES: offset + sizeof(T) <= out.size().
template <std::integral T>
void store_le(std::span<std::byte> out, std::size_t offset, T value) noexcept {
  std::memcpy(out.data() + offset, &value, sizeof value);
}

}  // namespace apikey
