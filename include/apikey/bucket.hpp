// Arithmetic of one token bucket: pure functions of (slot value, limit, now). No memory, no clock.
// The bucket is kept as its theoretical arrival time (GCRA, ITU-T I.371 annex A): the moment at which it will be full
// again. `100r/s, burst=50`: interval 10 ms; an idle key may send 50 at once, then one each 10 ms.
//   admitted  when max(arrival, now) + cost·interval <= now + burst·interval;  then arrival := that sum
//   remaining = (now + burst·interval - max(arrival, now)) / interval, rounded down
#pragma once

#include <cstdint>

#include "apikey/rate_spec.hpp"
#include "apikey/units.hpp"

namespace apikey {

// A rate in the form it is counted in. The interval is rounded up and representable in 16 bits of float
// (see bucket_table.hpp), so that nobody gets more than the rate that was written.
struct RateLimit {
  std::uint64_t interval_ns = 0;                                    // per token, >= 1
  std::uint64_t burst = 0;                                          // tokens, >= 1
  [[nodiscard]] constexpr std::uint64_t depth_ns() const noexcept;  // burst · interval, saturated to 2^62
};

[[nodiscard]] RateLimit make_rate_limit(const Rate& rate, std::uint64_t burst) noexcept;

struct BucketResult {
  bool is_admitted = false;
  std::uint64_t arrival_ns = 0;      // new arrival time; the old one when not admitted
  std::uint64_t remaining = 0;       // whole tokens left after this
  std::uint64_t reset_ns = 0;        // until the bucket is full again
  std::uint64_t retry_after_ns = 0;  // until this cost would be admitted; 0 when it was, UINT64_MAX for never
                                     // (the cost is larger than the bucket)
};
[[nodiscard]] BucketResult take_tokens(std::uint64_t arrival_ns, const RateLimit& limit, std::uint64_t cost,
                                       MonoNs now) noexcept;

// The arrival time that keeps the same number of tokens owed under another interval.
[[nodiscard]] std::uint64_t rescale_arrival(std::uint64_t arrival_ns, std::uint64_t old_interval_ns,
                                            std::uint64_t new_interval_ns, MonoNs now) noexcept;

constexpr std::uint64_t RateLimit::depth_ns() const noexcept {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 62;
  return burst > kMost / interval_ns ? kMost : burst * interval_ns;
}

}  // namespace apikey
