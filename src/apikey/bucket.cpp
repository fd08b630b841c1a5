// Arithmetic of one token bucket (see bucket.hpp). Called by the steps of the bucket table, and by its tests' model.
// Pure functions: no memory, no clock. All sums are kept below 2^63, and what is rounded is rounded against the client.
#include "apikey/bucket.hpp"

#include <algorithm>
#include <bit>

namespace apikey {

namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::uint64_t kMostNs = std::uint64_t{1} << 62U;
constexpr unsigned kMantissaBits = 11;
constexpr std::uint64_t kHidden = std::uint64_t{1} << kMantissaBits;
constexpr unsigned kMaxExponent = 31;

std::uint64_t capped(Wide value) noexcept { return value > kMostNs ? kMostNs : static_cast<std::uint64_t>(value); }

// Divides, rounding up. REQUIRES: divisor != 0.
Wide divide_up(Wide dividend, Wide divisor) noexcept { return (dividend + divisor - 1) / divisor; }

}  // namespace

std::uint16_t encode_interval(std::uint64_t interval_ns) noexcept {
  if (interval_ns < kHidden) {
    return static_cast<std::uint16_t>(interval_ns);
  }
  unsigned exponent = static_cast<unsigned>(std::bit_width(interval_ns)) - kMantissaBits;
  const unsigned shift = exponent - 1;
  std::uint64_t mantissa = (interval_ns >> shift) + ((interval_ns & ((std::uint64_t{1} << shift) - 1)) != 0 ? 1 : 0);
  if (mantissa == 2 * kHidden) {
    mantissa = kHidden;
    ++exponent;
  }
  if (exponent > kMaxExponent) {
    return UINT16_MAX;
  }
  return static_cast<std::uint16_t>(exponent << kMantissaBits | (mantissa - kHidden));
}

std::uint64_t decode_interval(std::uint16_t code) noexcept {
  const unsigned exponent = code >> kMantissaBits;
  const std::uint64_t mantissa = code & (kHidden - 1);
  return exponent == 0 ? mantissa : (kHidden + mantissa) << (exponent - 1);
}

RateLimit make_rate_limit(const Rate& rate, std::uint64_t burst) noexcept {
  if (rate.amount == 0 || rate.period_ns == 0) {
    return {1, 0};
  }
  const std::uint64_t exact = std::min(static_cast<std::uint64_t>(divide_up(rate.period_ns, rate.amount)), kMostNs);
  return {std::max(exact, decode_interval(encode_interval(exact))), burst};
}

BucketResult take_tokens(std::uint64_t arrival_ns, const RateLimit& limit, std::uint64_t cost, MonoNs now) noexcept {
  const std::uint64_t base = std::max(arrival_ns, now.value);
  const std::uint64_t full = now.value + limit.depth_ns();
  const std::uint64_t price = capped(Wide{cost} * limit.interval_ns);
  const std::uint64_t after = base + price;

  BucketResult result;
  result.is_admitted = cost == 0 || (cost <= limit.burst && after <= full);
  result.arrival_ns = result.is_admitted && cost != 0 ? after : arrival_ns;
  const std::uint64_t owed = std::max(result.arrival_ns, now.value);
  result.remaining = owed < full ? (full - owed) / limit.interval_ns : 0;
  result.reset_ns = owed - now.value;
  if (!result.is_admitted) {
    result.retry_after_ns = cost > limit.burst ? UINT64_MAX : after - full;
  }
  return result;
}

std::uint64_t rescale_arrival(std::uint64_t arrival_ns, std::uint64_t old_interval_ns, std::uint64_t new_interval_ns,
                              MonoNs now) noexcept {
  if (arrival_ns <= now.value || old_interval_ns == new_interval_ns || old_interval_ns == 0) {
    return arrival_ns;
  }
  const std::uint64_t debt = arrival_ns - now.value;
  return now.value + capped(divide_up(Wide{debt} * new_interval_ns, old_interval_ns));
}

}  // namespace apikey
