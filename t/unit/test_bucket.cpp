// Tests of bucket.cpp: the interval's 16-bit float, limits from rates, taking, refusing, and changing the rate.
#include "apikey/bucket.hpp"

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

constexpr std::uint64_t kMs = 1'000'000;
constexpr std::uint64_t kNow = 5'000'000'000'000;

RateLimit limit_of(std::uint64_t per_second, std::uint64_t burst) {
  return make_rate_limit({per_second, kNsPerSecond}, burst);
}

void an_interval_code_is_rounded_down_and_exact_on_its_own_values(void**) {
  for (unsigned code = 0; code <= UINT16_MAX; ++code) {
    assert_int_equal(encode_interval(decode_interval(static_cast<std::uint16_t>(code))), code);
  }
  for (std::uint64_t ns = 1; ns < 4'000'000'000'000; ns = ns * 9 / 8 + 1) {
    const std::uint64_t decoded = decode_interval(encode_interval(ns));
    assert_true(decoded <= ns);
    assert_true(ns - decoded <= ns / 2048);
  }
  assert_int_equal(decode_interval(UINT16_MAX), 4095ULL << 30U);
  assert_int_equal(encode_interval(UINT64_MAX), UINT16_MAX);
  assert_int_equal(encode_interval(4096ULL << 30U), UINT16_MAX);
}

void a_price_is_exact_to_the_nanosecond(void**) {
  __extension__ using Wide = unsigned __int128;
  for (const std::uint64_t amount : {1ULL, 3ULL, 7ULL, 100ULL, 999ULL, 600'000'001ULL, 1'000'000'000ULL}) {
    for (const std::uint64_t period : {kNsPerSecond, 60 * kNsPerSecond, 3600 * kNsPerSecond}) {
      const RateLimit limit = make_rate_limit({amount, period}, 5);
      for (const std::uint64_t tokens : {1ULL, 2ULL, 999ULL, 600'000ULL}) {
        const Wide price = limit.price_ns(tokens);
        assert_true(price * amount >= Wide{tokens} * period);
        assert_true((price - 1) * amount < Wide{tokens} * period);
        assert_int_equal(limit.tokens_in(limit.price_ns(tokens)) >= tokens, 1);
        assert_true(limit.tokens_in(limit.price_ns(tokens) - 1) < tokens);
      }
    }
  }
  assert_int_equal(limit_of(1, 3).price_ns(3), 3 * kNsPerSecond);
}

void what_is_no_rate_admits_nothing(void**) {
  for (const Rate& rate : {Rate{0, kNsPerSecond}, Rate{1, 0}}) {
    const BucketResult result = take_tokens(0, make_rate_limit(rate, 10), 1, {kNow});
    assert_false(result.is_admitted);
    assert_true(result.retry_after_ns == UINT64_MAX);
  }
}

void an_idle_bucket_gives_its_burst_then_one_per_interval(void**) {
  const RateLimit limit = limit_of(100, 50);
  std::uint64_t arrival = 0;
  for (std::uint64_t i = 0; i < 50; ++i) {
    const BucketResult result = take_tokens(arrival, limit, 1, {kNow});
    assert_true(result.is_admitted);
    assert_int_equal(result.remaining, 49 - i);
    assert_int_equal(result.reset_ns, limit.price_ns(i + 1));
    assert_int_equal(result.retry_after_ns, 0);
    arrival = result.arrival_ns;
  }
  const BucketResult refused = take_tokens(arrival, limit, 1, {kNow});
  assert_false(refused.is_admitted);
  assert_int_equal(refused.arrival_ns, arrival);
  assert_int_equal(refused.remaining, 0);
  assert_int_equal(refused.retry_after_ns, limit.price_ns(1));
  // Exactly then, and not one nanosecond before.
  assert_false(take_tokens(arrival, limit, 1, {kNow + limit.price_ns(1) - 1}).is_admitted);
  assert_true(take_tokens(arrival, limit, 1, {kNow + limit.price_ns(1)}).is_admitted);
}

void time_going_back_gives_nothing(void**) {
  const RateLimit limit = limit_of(10, 2);
  BucketResult result = take_tokens(0, limit, 2, {kNow});
  assert_true(result.is_admitted);
  const std::uint64_t arrival = result.arrival_ns;
  result = take_tokens(arrival, limit, 1, {kNow - 500 * kMs});
  assert_false(result.is_admitted);
  assert_int_equal(result.arrival_ns, arrival);
}

void a_cost_larger_than_the_bucket_never_passes(void**) {
  const RateLimit limit = limit_of(10, 5);
  const BucketResult result = take_tokens(0, limit, 6, {kNow});
  assert_false(result.is_admitted);
  assert_true(result.retry_after_ns == UINT64_MAX);
  assert_int_equal(result.remaining, 5);
  assert_true(take_tokens(0, limit, 5, {kNow}).is_admitted);
  assert_false(take_tokens(0, limit, UINT64_MAX, {kNow}).is_admitted);
}

void a_cost_of_nothing_always_passes_and_changes_nothing(void**) {
  const RateLimit limit = limit_of(10, 5);
  const BucketResult idle = take_tokens(77, limit, 0, {kNow});
  assert_true(idle.is_admitted);
  assert_int_equal(idle.arrival_ns, 77);
  assert_int_equal(idle.remaining, 5);
  const BucketResult overdrawn = take_tokens(kNow + 1000 * limit.price_ns(1), limit, 0, {kNow});
  assert_true(overdrawn.is_admitted);
  assert_int_equal(overdrawn.remaining, 0);
}

void what_was_used_is_charged_below_nothing_and_recovers(void**) {
  const RateLimit limit = limit_of(10, 5);
  BucketResult result = charge_tokens(0, limit, 25, {kNow});
  assert_int_equal(result.arrival_ns, kNow + 2500 * kMs);
  assert_int_equal(result.remaining, 0);
  assert_int_equal(result.reset_ns, 2500 * kMs);
  const std::uint64_t arrival = result.arrival_ns;
  result = take_tokens(arrival, limit, 1, {kNow});
  assert_false(result.is_admitted);
  assert_int_equal(result.retry_after_ns, 2100 * kMs);
  assert_true(take_tokens(arrival, limit, 1, {kNow + 2100 * kMs}).is_admitted);
  assert_int_equal(charge_tokens(77, limit, 0, {kNow}).arrival_ns, 77);
}

void extreme_limits_do_not_overflow(void**) {
  const RateLimit limit = {1, UINT64_MAX / 2, UINT64_MAX};
  assert_true(limit.depth_ns() == std::uint64_t{1} << 61U);
  assert_true(take_tokens(0, limit, 1, {kNow}).is_admitted);
  assert_false(take_tokens(std::uint64_t{1} << 61U, limit, 1, {kNow}).is_admitted);
  assert_true(charge_tokens(std::uint64_t{1} << 61U, limit, UINT64_MAX, {kNow}).arrival_ns == std::uint64_t{1} << 62U);
}

std::uint64_t rescaled(std::uint64_t arrival_ns, std::uint64_t old_interval_ns, std::uint64_t interval_ns) {
  return rescale_arrival(arrival_ns, encode_interval(old_interval_ns), {1, interval_ns, 1}, {kNow});
}

void another_rate_keeps_the_tokens_owed(void**) {
  // 30 tokens owed at 10 ns each are 30 tokens at 1000 ns each.
  assert_int_equal(rescaled(kNow + 300, 10, 1000), kNow + 30'000);
  assert_int_equal(rescaled(kNow + 30'000, 1000, 10), kNow + 300);
  assert_int_equal(rescaled(kNow + 1, 3, 1), kNow + 1);  // rounded up
  assert_int_equal(rescaled(kNow - 5, kMs, 10 * kMs), kNow - 5);
  assert_true(rescaled(kNow + kNow, 1, UINT64_MAX) == kNow + (std::uint64_t{1} << 61U));
  // An interval between two codes: never fewer tokens than were owed.
  const std::uint64_t debt = rescaled(kNow + 300 * kMs, 10 * kMs, kMs) - kNow;
  assert_true(debt >= 30 * kMs && debt < 30 * kMs + 30 * kMs / 2000);
}

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(an_interval_code_is_rounded_down_and_exact_on_its_own_values),
      cmocka_unit_test(a_price_is_exact_to_the_nanosecond),
      cmocka_unit_test(what_is_no_rate_admits_nothing),
      cmocka_unit_test(an_idle_bucket_gives_its_burst_then_one_per_interval),
      cmocka_unit_test(time_going_back_gives_nothing),
      cmocka_unit_test(a_cost_larger_than_the_bucket_never_passes),
      cmocka_unit_test(a_cost_of_nothing_always_passes_and_changes_nothing),
      cmocka_unit_test(what_was_used_is_charged_below_nothing_and_recovers),
      cmocka_unit_test(extreme_limits_do_not_overflow),
      cmocka_unit_test(another_rate_keeps_the_tokens_owed),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
