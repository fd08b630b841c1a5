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

void an_interval_code_is_rounded_up_and_exact_on_its_own_values(void**) {
  for (unsigned code = 0; code <= UINT16_MAX; ++code) {
    assert_int_equal(encode_interval(decode_interval(static_cast<std::uint16_t>(code))), code);
  }
  for (std::uint64_t ns = 1; ns < 4'000'000'000'000; ns = ns * 9 / 8 + 1) {
    const std::uint64_t decoded = decode_interval(encode_interval(ns));
    assert_true(decoded >= ns);
    assert_true(decoded - ns <= ns / 2048);
  }
  assert_int_equal(decode_interval(UINT16_MAX), 4095ULL << 30U);
  assert_int_equal(encode_interval(UINT64_MAX), UINT16_MAX);
  assert_int_equal(encode_interval((4095ULL << 30U) + 1), UINT16_MAX);
}

void a_limit_never_gives_more_than_the_rate(void**) {
  for (const std::uint64_t amount : {1ULL, 3ULL, 7ULL, 100ULL, 999ULL, 1'000'000ULL, 1'000'000'000ULL}) {
    for (const std::uint64_t period : {kNsPerSecond, 60 * kNsPerSecond, 3600 * kNsPerSecond, 86400 * kNsPerSecond}) {
      const RateLimit limit = make_rate_limit({amount, period}, 5);
      __extension__ using Wide = unsigned __int128;
      assert_true(Wide{limit.interval_ns} * amount >= period);
      assert_true(limit.interval_ns >= 1);
      assert_int_equal(limit.burst, 5);
    }
  }
  // Longer than any code: kept as it is.
  assert_int_equal(make_rate_limit({1, 86400 * kNsPerSecond}, 1).interval_ns, 86400 * kNsPerSecond);
  assert_int_equal(limit_of(1, 3).interval_ns, 1'000'079'360);
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
    assert_int_equal(result.reset_ns, (i + 1) * limit.interval_ns);
    assert_int_equal(result.retry_after_ns, 0);
    arrival = result.arrival_ns;
  }
  const BucketResult refused = take_tokens(arrival, limit, 1, {kNow});
  assert_false(refused.is_admitted);
  assert_int_equal(refused.arrival_ns, arrival);
  assert_int_equal(refused.remaining, 0);
  assert_int_equal(refused.retry_after_ns, limit.interval_ns);
  // Exactly then, and not one nanosecond before.
  assert_false(take_tokens(arrival, limit, 1, {kNow + limit.interval_ns - 1}).is_admitted);
  assert_true(take_tokens(arrival, limit, 1, {kNow + limit.interval_ns}).is_admitted);
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
  const BucketResult overdrawn = take_tokens(kNow + 1000 * limit.interval_ns, limit, 0, {kNow});
  assert_true(overdrawn.is_admitted);
  assert_int_equal(overdrawn.remaining, 0);
}

void extreme_limits_do_not_overflow(void**) {
  RateLimit limit;
  limit.interval_ns = UINT64_MAX / 2;
  limit.burst = UINT64_MAX;
  assert_true(limit.depth_ns() == std::uint64_t{1} << 62U);
  assert_true(take_tokens(0, limit, 1, {kNow}).is_admitted);
  assert_false(take_tokens(std::uint64_t{1} << 62U, limit, 1, {kNow}).is_admitted);
}

void another_rate_keeps_the_tokens_owed(void**) {
  // 30 tokens owed at 10 ms each are 30 tokens at 1 ms each.
  assert_int_equal(rescale_arrival(kNow + 300 * kMs, 10 * kMs, kMs, {kNow}), kNow + 30 * kMs);
  assert_int_equal(rescale_arrival(kNow + 30 * kMs, kMs, 10 * kMs, {kNow}), kNow + 300 * kMs);
  assert_int_equal(rescale_arrival(kNow + 1, 3, 1, {kNow}), kNow + 1);  // rounded up
  assert_int_equal(rescale_arrival(kNow - 5, kMs, 10 * kMs, {kNow}), kNow - 5);
  assert_true(rescale_arrival(kNow + kNow, 1, UINT64_MAX, {kNow}) == kNow + (std::uint64_t{1} << 62U));
}

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(an_interval_code_is_rounded_up_and_exact_on_its_own_values),
      cmocka_unit_test(a_limit_never_gives_more_than_the_rate),
      cmocka_unit_test(what_is_no_rate_admits_nothing),
      cmocka_unit_test(an_idle_bucket_gives_its_burst_then_one_per_interval),
      cmocka_unit_test(time_going_back_gives_nothing),
      cmocka_unit_test(a_cost_larger_than_the_bucket_never_passes),
      cmocka_unit_test(a_cost_of_nothing_always_passes_and_changes_nothing),
      cmocka_unit_test(extreme_limits_do_not_overflow),
      cmocka_unit_test(another_rate_keeps_the_tokens_owed),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
