// Clocks and amounts as types, so that they cannot be mixed up.
// The core reads no clock: every function that needs a time is given one.
#pragma once

#include <compare>
#include <cstdint>

namespace apikey {

// CLOCK_MONOTONIC in nanoseconds: arrival times of token buckets, heartbeats.
struct MonoNs {
  std::uint64_t value = 0;
  friend constexpr auto operator<=>(MonoNs, MonoNs) = default;
};

// Seconds since 1970-01-01 UTC: expiry, not-before, creation.
struct UnixSec {
  std::int64_t value = 0;
  friend constexpr auto operator<=>(UnixSec, UnixSec) = default;
};

inline constexpr std::uint64_t kNsPerSecond = 1'000'000'000;

}  // namespace apikey
