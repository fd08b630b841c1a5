// Arithmetic of one token bucket (see bucket.hpp). Called by the steps of the bucket table, and by its tests' model.
// Pure functions: no memory, no clock. All sums are kept below 2^62, and what is rounded is rounded against the client.
#include "apikey/bucket.hpp"

#include <algorithm>
#include <bit>

namespace apikey {

namespace {

__extension__ using Wide = unsigned __int128;

// Beside a clock that runs for as long, it fits into the 62 bits that a table has for an arrival.
constexpr std::uint64_t kMostNs = std::uint64_t{1} << 61U;
constexpr unsigned kMantissaBits = 11;
constexpr std::uint64_t kHidden = std::uint64_t{1} << kMantissaBits;
constexpr unsigned kMaxExponent = 31;

std::uint64_t capped(Wide value) noexcept { return value > kMostNs ? kMostNs : static_cast<std::uint64_t>(value); }

// a·b / c. One word is enough for nearly all; a division of two words costs ten times as much. REQUIRES: c != 0.
std::uint64_t scale_down(std::uint64_t a, std::uint64_t b, std::uint64_t c) noexcept {
  std::uint64_t product = 0;
  if (!__builtin_mul_overflow(a, b, &product)) {
    return product / c;
  }
  return capped(Wide{a} * b / c);
}
std::uint64_t scale_up(std::uint64_t a, std::uint64_t b, std::uint64_t c) noexcept {
  std::uint64_t product = 0;
  if (!__builtin_mul_overflow(a, b, &product)) {
    return std::min(product / c + (product % c == 0 ? 0U : 1U), kMostNs);
  }
  return capped((Wide{a} * b + c - 1) / c);
}

bool is_rate(const RateLimit& limit) noexcept { return limit.amount != 0 && limit.period_ns != 0; }

// What is left and how long it takes, `full` being when a token more than all would be owed.
void describe(const RateLimit& limit, std::uint64_t full, MonoNs now, BucketResult& result) noexcept {
  const std::uint64_t owed = std::max(result.arrival_ns, now.value);
  result.remaining = owed < full ? std::min(limit.tokens_in(full - owed), limit.burst) : 0;
  result.reset_ns = owed - now.value;
}

}  // namespace

std::uint16_t encode_interval(std::uint64_t interval_ns) noexcept {
  if (interval_ns < kHidden) {
    return static_cast<std::uint16_t>(interval_ns);
  }
  const unsigned exponent = static_cast<unsigned>(std::bit_width(interval_ns)) - kMantissaBits;
  if (exponent > kMaxExponent) {
    return UINT16_MAX;
  }
  return static_cast<std::uint16_t>(exponent << kMantissaBits | ((interval_ns >> (exponent - 1)) - kHidden));
}

std::uint64_t decode_interval(std::uint16_t code) noexcept {
  const unsigned exponent = code >> kMantissaBits;
  const std::uint64_t mantissa = code & (kHidden - 1);
  return exponent == 0 ? mantissa : (kHidden + mantissa) << (exponent - 1);
}

std::uint64_t RateLimit::price_ns(std::uint64_t tokens) const noexcept {
  return amount == 0 ? kMostNs : scale_up(tokens, period_ns, amount);
}

std::uint64_t RateLimit::tokens_in(std::uint64_t ns) const noexcept {
  return period_ns == 0 ? 0 : scale_down(ns, amount, period_ns);
}

std::uint16_t RateLimit::interval_code() const noexcept {
  return encode_interval(amount == 0 ? UINT64_MAX : period_ns / amount);
}

BucketResult take_tokens(std::uint64_t arrival_ns, const RateLimit& limit, std::uint64_t cost, MonoNs now) noexcept {
  const bool can_pass = is_rate(limit) && cost <= limit.burst;
  const std::uint64_t full = is_rate(limit) ? now.value + limit.depth_ns() : now.value;
  const std::uint64_t after = std::max(arrival_ns, now.value) + limit.price_ns(cost);

  BucketResult result;
  result.is_admitted = cost == 0 || (can_pass && after <= full);
  result.arrival_ns = result.is_admitted && cost != 0 ? after : arrival_ns;
  if (!result.is_admitted) {
    result.retry_after_ns = can_pass ? after - full : UINT64_MAX;
  }
  describe(limit, full, now, result);
  return result;
}

BucketResult charge_tokens(std::uint64_t arrival_ns, const RateLimit& limit, std::uint64_t cost, MonoNs now) noexcept {
  BucketResult result;
  result.is_admitted = true;
  result.arrival_ns = cost == 0 ? arrival_ns : std::max(arrival_ns, now.value) + limit.price_ns(cost);
  describe(limit, is_rate(limit) ? now.value + limit.depth_ns() : now.value, now, result);
  return result;
}

std::uint64_t rescale_arrival(std::uint64_t arrival_ns, std::uint16_t old_code, const RateLimit& limit,
                              MonoNs now) noexcept {
  const std::uint64_t old_interval = decode_interval(old_code);
  if (arrival_ns <= now.value || old_interval == 0 || !is_rate(limit)) {
    return arrival_ns;
  }
  // tokens owed = debt / old interval; what they take now = tokens · period / amount
  const Wide dividend = Wide{arrival_ns - now.value} * limit.period_ns;
  const Wide divisor = Wide{old_interval} * limit.amount;
  return now.value + capped((dividend + divisor - 1) / divisor);
}

}  // namespace apikey
