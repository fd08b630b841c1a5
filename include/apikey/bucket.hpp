// Arithmetic of one token bucket: pure functions of (slot value, limit, now). No memory, no clock.
// The bucket is kept as its theoretical arrival time (GCRA, ITU-T I.371 annex A): the moment at which it will be full
// again. `100r/s, burst=50`: a token takes 10 ms; an idle key may send 50 at once, then one each 10 ms.
//   admitted  when max(arrival, now) + price(cost) <= now + depth;  then arrival := that sum
//   remaining = (now + depth - max(arrival, now)) in tokens, rounded down
// Prices are rounded up to a nanosecond per take, not per token: what was written is what is given.
#pragma once

#include <cstdint>

#include "apikey/rate_spec.hpp"
#include "apikey/units.hpp"

namespace apikey {

// How long a token takes, as a slot remembers it: 16 bits of float, exponent e in the high 5, mantissa m in the low 11;
// e = 0 means m, else (2048 + m) << (e - 1). Encoding rounds down; all that is longer than the longest (73 minutes)
// becomes the longest. Only a change of the rate reads it (rescale_arrival()).
[[nodiscard]] std::uint16_t encode_interval(std::uint64_t interval_ns) noexcept;
[[nodiscard]] std::uint64_t decode_interval(std::uint16_t code) noexcept;

// A rate and the size of its bucket. An amount or a period of 0 is a limit that admits nothing.
struct RateLimit {
  std::uint64_t amount = 0;     // tokens …
  std::uint64_t period_ns = 0;  // … per this time
  std::uint64_t burst = 0;      // size of the bucket in tokens

  // How long so many tokens take to come back, rounded up and at most 2^61.
  [[nodiscard]] std::uint64_t price_ns(std::uint64_t tokens) const noexcept;
  [[nodiscard]] std::uint64_t depth_ns() const noexcept { return price_ns(burst); }
  [[nodiscard]] std::uint64_t tokens_in(std::uint64_t ns) const noexcept;  // rounded down
  [[nodiscard]] std::uint16_t interval_code() const noexcept;
};

[[nodiscard]] inline RateLimit make_rate_limit(const Rate& rate, std::uint64_t burst) noexcept {
  return {rate.amount, rate.period_ns, burst};
}

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

// Takes what was used already, whatever is left: the bucket may go below empty, and then recovers.
[[nodiscard]] BucketResult charge_tokens(std::uint64_t arrival_ns, const RateLimit& limit, std::uint64_t cost,
                                         MonoNs now) noexcept;

// The arrival time that keeps the number of tokens owed (or a few more, since the code is rounded down) where a token
// took as long as `old_code` says.
[[nodiscard]] std::uint64_t rescale_arrival(std::uint64_t arrival_ns, std::uint16_t old_code, const RateLimit& limit,
                                            MonoNs now) noexcept;

}  // namespace apikey
