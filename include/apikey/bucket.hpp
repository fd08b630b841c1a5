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

// The interval as a slot remembers it: 16 bits of float, exponent e in the high 5, mantissa m in the low 11; e = 0
// means m, else (2048 + m) << (e - 1). Encoding rounds up; all that is longer than the longest (73 minutes) becomes the
// longest.
[[nodiscard]] std::uint16_t encode_interval(std::uint64_t interval_ns) noexcept;
[[nodiscard]] std::uint64_t decode_interval(std::uint16_t code) noexcept;

// A rate in the form it is counted in. The interval is rounded up, to one that has a code where it is not too long
// for that, so that nobody gets more than the rate that was written.
struct RateLimit {
  std::uint64_t interval_ns = 1;                                    // per token, >= 1
  std::uint64_t burst = 0;                                          // tokens
  [[nodiscard]] constexpr std::uint64_t depth_ns() const noexcept;  // burst · interval, saturated to 2^62
};

// What is no rate (an amount or a period of 0) becomes a limit that admits nothing.
[[nodiscard]] RateLimit make_rate_limit(const Rate& rate, std::uint64_t burst) noexcept;

struct BucketResult {
  bool is_admitted = false;
  std::uint64_t arrival_ns = 0;      // new arrival time; the old one when not admitted
  std::uint64_t remaining = 0;       // whole tokens left after this
  std::uint64_t reset_ns = 0;        // until the bucket is full again
  std::uint64_t retry_after_ns = 0;  // until this cost would be admitted; 0 when it was, UINT64_MAX for never
                                     // (the cost is larger than the bucket)
};
// A cost of 0 is always admitted and changes nothing.
[[nodiscard]] BucketResult take_tokens(std::uint64_t arrival_ns, const RateLimit& limit, std::uint64_t cost,
                                       MonoNs now) noexcept;

// The arrival time that keeps the same number of tokens owed under another interval.
[[nodiscard]] std::uint64_t rescale_arrival(std::uint64_t arrival_ns, std::uint64_t old_interval_ns,
                                            std::uint64_t new_interval_ns, MonoNs now) noexcept;

constexpr std::uint64_t RateLimit::depth_ns() const noexcept {
  constexpr std::uint64_t most = std::uint64_t{1} << 62;
  return burst > most / interval_ns ? most : burst * interval_ns;
}

}  // namespace apikey
