// Reading and writing little-endian numbers in bytes of any alignment: how every part of a snapshot stores them.
// Called by whoever encodes or decodes a layout. Never checks bounds: the caller has done that.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace apikey {

static_assert(std::endian::native == std::endian::little, "snapshots are read in place: little-endian machines only");

template <std::unsigned_integral Number>
[[nodiscard]] inline Number load_le(const std::byte* at) noexcept {
  Number number;
  std::memcpy(&number, at, sizeof number);
  return number;
}

template <std::unsigned_integral Number>
inline void store_le(std::byte* at, Number number) noexcept {
  std::memcpy(at, &number, sizeof number);
}

}  // namespace apikey
