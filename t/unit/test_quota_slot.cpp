// Tests of quota_slot.cpp: the arithmetic of calendar and rolling quotas, against models that are simpler and slower.
#include "apikey/quota_slot.hpp"

#include <cstdlib>

#include "table_fixture.hpp"

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

__extension__ using Wide = __int128;
using Status = QuotaResult::Status;

constexpr std::uint64_t kSecondUs = 1'000'000;
constexpr std::int64_t kNoon = 1'760'011'200;  // 2025-10-09 12:00:00
constexpr std::uint64_t kTag = 0x7ab'cdef'0123;

constexpr WallUs at(std::int64_t second, std::uint64_t us = 0) {
  return {static_cast<std::uint64_t>(second) * kSecondUs + us};
}

QuotaOrder calendar(CalendarUnit unit, std::int64_t now, std::uint64_t amount, std::uint64_t cost = 1) {
  QuotaOrder order;
  order.amount = amount;
  order.window = window_at(unit, {now});
  order.cost = cost;
  return order;
}

QuotaOrder rolling(std::uint64_t period_us, std::uint64_t amount, std::uint64_t cost = 1, std::int64_t reset = 0) {
  QuotaOrder order;
  order.amount = amount;
  order.period_ns = period_us * 1000;
  order.window.begin = {reset};
  order.cost = cost;
  return order;
}

// Use as the slot keeps it: through its 16 bytes and back.
QuotaUse kept(const QuotaUse& use) {
  const WidePair word = encode_use(kTag, use);
  assert_int_equal(quota_tag(word), kTag);
  return decode_use(word);
}

QuotaResult take(QuotaUse& slot, const QuotaOrder& order, WallUs now) {
  const QuotaStep step = take_from(use_under(slot, order, now), order, now);
  slot = kept(step.use);
  return step.result;
}

void charge(QuotaUse& slot, const QuotaOrder& order, WallUs now) {
  slot = kept(charge_to(use_under(slot, order, now), order, now).use);
}

void give_back(QuotaUse& slot, const QuotaOrder& order, WallUs now) { slot = kept(give_back_to(slot, order, now)); }

std::uint64_t remaining(const QuotaUse& slot, const QuotaOrder& order, WallUs now) {
  QuotaOrder look = order;
  look.cost = 0;
  return take_from(use_under(slot, look, now), look, now).result.remaining;
}

void a_slot_keeps_what_it_is_given(void**) {
  for (const std::uint64_t tag : {std::uint64_t{1}, kTag, (std::uint64_t{1} << kQuotaTagBits) - 1}) {
    const QuotaUse use = {kRollingKind, {kNoon}, kMaxQuotaValue};
    const WidePair word = encode_use(tag, use);
    assert_int_equal(quota_tag(word), tag);
    assert_int_equal(decode_use(word).kind, kRollingKind);
    assert_int_equal(decode_use(word).begin.value, kNoon);
    assert_int_equal(decode_use(word).value, kMaxQuotaValue);
  }
  assert_int_equal(kept({1, {kNoon}, UINT64_MAX}).value, kMaxQuotaValue);
  // No two claims are the same, far beyond what a counter reaches.
  assert_false(encode_claim(kTag, 7) == encode_claim(kTag, 8));
  assert_false(encode_claim(kTag, 7) == encode_claim(kTag, 7 + (std::uint64_t{1} << 50)));
  assert_int_equal(quota_tag(encode_claim(kTag, UINT64_MAX)), kTag);
}

void a_calendar_quota_is_used_up_and_begins_anew(void**) {
  QuotaUse slot;
  const QuotaOrder day = calendar(CalendarUnit::day, kNoon, 10, 4);
  assert_int_equal(take(slot, day, at(kNoon)).remaining, 6);
  assert_int_equal(take(slot, day, at(kNoon)).remaining, 2);
  const QuotaResult refused = take(slot, day, at(kNoon, 250'000));
  assert_true(refused.status == Status::refused);
  assert_int_equal(refused.remaining, 2);
  assert_int_equal(refused.retry_after_ns, (12 * 3600 * kSecondUs - 250'000) * 1000);
  assert_int_equal(refused.reset_ns, refused.retry_after_ns);
  // Just before midnight, and at midnight.
  const std::int64_t midnight = day.window.end.value;
  assert_true(take(slot, day, at(midnight - 1, 999'999)).status == Status::refused);
  assert_int_equal(take(slot, calendar(CalendarUnit::day, midnight, 10, 4), at(midnight)).remaining, 6);
  // More than there ever is.
  assert_true(take(slot, calendar(CalendarUnit::day, midnight, 10, 11), at(midnight)).retry_after_ns == UINT64_MAX);
}

void what_is_left_follows_the_amount(void**) {
  QuotaUse slot;
  assert_int_equal(take(slot, calendar(CalendarUnit::month, kNoon, 100, 60), at(kNoon)).remaining, 40);
  assert_int_equal(remaining(slot, calendar(CalendarUnit::month, kNoon, 1000), at(kNoon)), 940);
  assert_int_equal(remaining(slot, calendar(CalendarUnit::month, kNoon, 50), at(kNoon)), 0);
  assert_true(take(slot, calendar(CalendarUnit::month, kNoon, 50), at(kNoon)).status == Status::refused);
}

void a_charge_goes_past_the_end(void**) {
  QuotaUse slot;
  QuotaOrder hour = calendar(CalendarUnit::hour, kNoon, 100, 90);
  assert_true(take(slot, hour, at(kNoon)).status == Status::admitted);
  charge(slot, hour, at(kNoon));
  assert_int_equal(remaining(slot, hour, at(kNoon)), 0);
  assert_int_equal(remaining(slot, calendar(CalendarUnit::hour, kNoon, 200), at(kNoon)), 20);
  give_back(slot, hour, at(kNoon));
  assert_int_equal(remaining(slot, hour, at(kNoon)), 10);
  // Saturates.
  hour.cost = UINT64_MAX;
  charge(slot, hour, at(kNoon));
  charge(slot, hour, at(kNoon));
  assert_int_equal(slot.value, kMaxQuotaValue);
  give_back(slot, hour, at(kNoon));
  assert_int_equal(slot.value, 0);
}

void nothing_is_given_back_to_another_window(void**) {
  QuotaUse slot;
  const QuotaOrder before = calendar(CalendarUnit::minute, kNoon, 10, 5);
  assert_true(take(slot, before, at(kNoon)).status == Status::admitted);
  const QuotaOrder after = calendar(CalendarUnit::minute, kNoon + 60, 10, 5);
  assert_int_equal(take(slot, after, at(kNoon + 60)).remaining, 5);
  give_back(slot, before, at(kNoon + 60));
  assert_int_equal(remaining(slot, after, at(kNoon + 60)), 5);
  give_back(slot, after, at(kNoon + 60));
  assert_int_equal(remaining(slot, after, at(kNoon + 60)), 10);
}

// A long answer must not be free because a window ended meanwhile.
void what_is_known_late_is_charged_to_the_window_that_runs(void**) {
  QuotaUse slot;
  const QuotaOrder first = calendar(CalendarUnit::minute, kNoon, 10, 2);
  assert_true(take(slot, first, at(kNoon)).status == Status::admitted);
  QuotaOrder rest = first;
  rest.cost = 7;
  assert_true(order_at(rest, at(kNoon + 59)).window == first.window);
  charge(slot, order_at(rest, at(kNoon + 300)), at(kNoon + 300));
  assert_int_equal(remaining(slot, calendar(CalendarUnit::minute, kNoon + 300, 10), at(kNoon + 300)), 3);
  // A clock that was set back by an hour keeps what was used since.
  charge(slot, order_at(rest, at(kNoon - 3600)), at(kNoon - 3600));
  assert_int_equal(remaining(slot, calendar(CalendarUnit::minute, kNoon - 3600, 20), at(kNoon - 3600)), 6);
  assert_true(order_at(rolling(60 * kSecondUs, 1), at(kNoon)).window.begin.value == 0);
}

void a_reset_forgets_what_was_used_before(void**) {
  QuotaUse slot;
  QuotaOrder order = calendar(CalendarUnit::day, kNoon, 10, 8);
  assert_true(take(slot, order, at(kNoon)).status == Status::admitted);
  const QuotaOrder old = order;
  order.window = begun_anew(order.window, {kNoon + 30}, {kNoon + 40});
  assert_int_equal(take(slot, order, at(kNoon + 40)).remaining, 2);
  // Whoever has not heard of the reset counts on; and nothing from before is given back.
  assert_true(take(slot, old, at(kNoon + 41)).status == Status::refused);
  give_back(slot, old, at(kNoon + 41));
  assert_int_equal(remaining(slot, order, at(kNoon + 41)), 2);
  assert_int_equal(end_of(slot).value, old.window.end.value);
}

// A worker's clock may be behind at the change of a window: by what the others have begun it counts.
void a_clock_that_is_behind_begins_nothing(void**) {
  constexpr std::int64_t change = kNoon + 3600;
  const QuotaOrder next = calendar(CalendarUnit::hour, change, 10, 6);
  const QuotaOrder last = calendar(CalendarUnit::hour, change - 1, 10, 6);
  QuotaUse slot;
  assert_int_equal(take(slot, next, at(change)).remaining, 4);
  const QuotaResult late = take(slot, last, at(change - kClockTolerance));
  assert_true(late.status == Status::refused);
  assert_int_equal(late.remaining, 4);
  assert_int_equal(late.retry_after_ns, (3600 + kClockTolerance) * kNsPerSecond);
  assert_int_equal(slot.begin.value, change);
}

void a_clock_that_is_set_back_keeps_the_use(void**) {
  const QuotaOrder next = calendar(CalendarUnit::hour, kNoon + 3600, 10, 6);
  const QuotaOrder last = calendar(CalendarUnit::hour, kNoon, 10, 6);
  QuotaUse slot;
  assert_int_equal(take(slot, next, at(kNoon + 3600)).remaining, 4);
  const QuotaResult refused = take(slot, last, at(kNoon + 3600 - kClockTolerance - 1));
  assert_true(refused.status == Status::refused);
  assert_int_equal(refused.remaining, 4);
  assert_int_equal(refused.retry_after_ns, (kClockTolerance + 1) * kNsPerSecond);
  assert_int_equal(slot.begin.value, kNoon);
  // And the next window begins when its time has come.
  assert_int_equal(take(slot, next, at(kNoon + 3600)).remaining, 4);
}

// The slot must not be free for others before the order's own window is over.
void another_unit_is_counted_to_its_end(void**) {
  QuotaUse slot;
  assert_int_equal(take(slot, calendar(CalendarUnit::day, kNoon, 10, 3), at(kNoon)).remaining, 7);
  assert_int_equal(take(slot, calendar(CalendarUnit::month, kNoon, 10, 3), at(kNoon)).remaining, 4);
  assert_int_equal(end_of(slot).value, window_at(CalendarUnit::month, {kNoon}).end.value);
  // A shorter one begins when its own window does.
  assert_int_equal(take(slot, calendar(CalendarUnit::minute, kNoon + 60, 10, 3), at(kNoon + 60)).remaining, 7);
  // From calendar to rolling and back nothing is known.
  assert_int_equal(take(slot, rolling(3600 * kSecondUs, 10, 3), at(kNoon + 60)).remaining, 7);
  assert_int_equal(take(slot, calendar(CalendarUnit::minute, kNoon + 60, 10, 3), at(kNoon + 60)).remaining, 7);
}

void a_slot_is_free_when_every_clock_says_so(void**) {
  QuotaUse slot;
  const QuotaOrder minute = calendar(CalendarUnit::minute, kNoon, 10);
  assert_true(take(slot, minute, at(kNoon)).status == Status::admitted);
  assert_false(is_over(slot, at(kNoon + 59 + kClockTolerance, 999'999)));
  assert_true(is_over(slot, at(kNoon + 60 + kClockTolerance)));
  slot = {};
  assert_true(take(slot, rolling(100 * kSecondUs, 10, 1), at(kNoon)).status == Status::admitted);  // whole in 10 s
  assert_false(is_over(slot, at(kNoon + 9 + kClockTolerance)));
  assert_true(is_over(slot, at(kNoon + 10 + kClockTolerance)));
}

// Whatever n is, and however it is taken: n tokens and not one more, and the next one to the microsecond.
void a_rolling_quota_holds_exactly_its_amount(void**) {
  Random random(11);
  for (int n = 0; n < 3000; ++n) {
    const std::uint64_t period_us = kSecondUs + random.below(std::uint64_t{1} << (21 + random.below(24)));
    const std::uint64_t amount = 1 + random.below(std::min(period_us, std::uint64_t{1} << random.below(40)));
    const WallUs now = at(kNoon, random.below(std::uint64_t{1} << 40));
    QuotaUse slot;
    std::uint64_t left = amount;
    while (left != 0) {
      const std::uint64_t cost = 1 + random.below(std::min(left, amount / 20 + 1));
      const QuotaResult result = take(slot, rolling(period_us, amount, cost), now);
      assert_true(result.status == Status::admitted);
      left -= cost;
      assert_int_equal(result.remaining, left);
    }
    const QuotaOrder one = rolling(period_us, amount, 1);
    const QuotaResult refused = take(slot, one, now);
    assert_true(refused.status == Status::refused);
    const std::uint64_t wait_us = refused.retry_after_ns / 1000;
    assert_true(refused.retry_after_ns % 1000 == 0 && wait_us >= 1 && wait_us <= period_us / amount + 1);
    if (period_us / amount > 4) {
      assert_true(wait_us + 2 >= period_us / amount);
    }
    if (wait_us > 1) {
      assert_true(take(slot, one, {now.value + wait_us - 1}).status == Status::refused);
    }
    assert_true(take(slot, one, {now.value + wait_us}).status == Status::admitted);
    assert_int_equal(remaining(slot, one, {now.value + 2 * period_us + wait_us}), amount);
  }
}

// Against arithmetic with fractions: arrival times times amount, which are whole numbers. Exact to 2 µs, for ever.
void a_simple_model_of_rolling_quotas_agrees(void**) {
  Random random(12);
  unsigned refused = 0;
  for (int n = 0; n < 200; ++n) {
    const std::uint64_t period_us = kSecondUs * (1 + random.below(86'400 * 30));
    const std::uint64_t amount = 1 + random.below(std::min<std::uint64_t>(period_us, 1U << random.below(30)));
    std::uint64_t now = at(kNoon).value;
    QuotaUse slot;
    Wide arrival = 0;  // µs · amount
    for (int k = 0; k < 500; ++k) {
      now += random.below(random.once_in(10) ? 3 * period_us : period_us / 8 + 1);
      const std::uint64_t cost = 1 + random.below(random.once_in(4) ? amount + amount / 9 : amount / 10 + 1);
      const Wide base = std::max(arrival, Wide{now} * amount);
      const Wide next = base + Wide{cost} * period_us;
      const Wide spare = Wide{now + period_us} * amount - next;
      const QuotaOrder order = rolling(period_us, amount, cost);
      if (random.once_in(8)) {
        charge(slot, order, {now});
        arrival = next;
        continue;
      }
      const QuotaResult result = take(slot, order, {now});
      const Wide slack = Wide{2} * amount;
      assert_true(spare < slack || result.status == Status::admitted);
      assert_true(spare > -slack || result.status == Status::refused);
      arrival = result.status == Status::admitted ? next : arrival;
      const Wide owed = std::max(arrival - Wide{now} * amount, Wide{0});
      const auto reset_us = static_cast<std::int64_t>(owed / amount);
      assert_true(std::llabs(static_cast<std::int64_t>(result.reset_ns / 1000) - reset_us) <= 3);
      refused += result.status == Status::refused ? 1 : 0;
    }
  }
  assert_true(refused > 1000 && refused < 80'000);
}

// More tokens than microseconds: a cost is rounded up, never down.
void tokens_that_come_too_fast_are_rounded_up(void**) {
  QuotaUse slot;
  const QuotaOrder order = rolling(60 * kSecondUs, kMaxQuotaAmount, 10'000'000);
  std::uint64_t admitted = 0;
  while (take(slot, order, at(kNoon)).status == Status::admitted) {
    admitted += order.cost;
  }
  assert_true(admitted <= kMaxQuotaAmount && admitted > kMaxQuotaAmount / 1000 * 998);
  assert_true(take(slot, rolling(60 * kSecondUs, UINT64_MAX, UINT64_MAX - 1), at(kNoon + 999)).status != Status::full);
}

void a_rolling_quota_is_given_back_what_has_not_recovered(void**) {
  QuotaUse slot;
  QuotaOrder order = rolling(1000 * kSecondUs, 1000, 100);  // one a second
  order.taken_us = take(slot, order, at(kNoon)).taken_us;
  give_back(slot, order, at(kNoon));
  assert_int_equal(remaining(slot, order, at(kNoon)), 1000);

  order.taken_us = take(slot, order, at(kNoon)).taken_us;
  const QuotaOrder later = rolling(1000 * kSecondUs, 1000, 500);
  assert_true(take(slot, later, at(kNoon)).status == Status::admitted);
  // 40 of the 100 are there again anyhow.
  assert_int_equal(remaining(slot, order, at(kNoon + 40)), 440);
  give_back(slot, order, at(kNoon + 40));
  assert_int_equal(remaining(slot, order, at(kNoon + 40)), 500);
  // Long after, nothing.
  give_back(slot, order, at(kNoon + 100));
  assert_int_equal(remaining(slot, order, at(kNoon + 100)), 560);
}

void a_rolling_quota_is_reset(void**) {
  QuotaUse slot;
  const auto order = [](std::int64_t reset) { return rolling(1000 * kSecondUs, 10, 10, reset); };
  assert_true(take(slot, order(0), at(kNoon)).status == Status::admitted);
  // In the very second of the take; one that has not come does nothing.
  assert_true(take(slot, order(kNoon + 1), at(kNoon)).status == Status::refused);
  assert_true(take(slot, order(kNoon), at(kNoon)).status == Status::admitted);
  assert_true(take(slot, order(kNoon), at(kNoon)).status == Status::refused);
  // Who knows of an older reset, or of none, counts on.
  assert_true(take(slot, order(0), at(kNoon + 1)).status == Status::refused);
  assert_true(take(slot, order(kNoon), at(kNoon + 1)).status == Status::refused);
  // A reset that is heard of late still forgets what was taken before it.
  assert_true(take(slot, order(kNoon + 2), at(kNoon + 300)).status == Status::admitted);
}

void a_rolling_quota_can_be_overdrawn_and_recovers(void**) {
  QuotaUse slot;
  QuotaOrder order = rolling(100 * kSecondUs, 100, 250);
  charge(slot, order, at(kNoon));
  order.cost = 10;
  const QuotaResult refused = take(slot, order, at(kNoon));
  assert_int_equal(refused.retry_after_ns, 160 * kNsPerSecond);
  assert_int_equal(refused.reset_ns, 250 * kNsPerSecond);
  assert_true(take(slot, order, at(kNoon + 160)).status == Status::admitted);
  // A wrong figure locks nobody out for longer than 16 periods from when it is asked for again.
  order.cost = UINT64_MAX;
  charge(slot, order, at(kNoon + 160));
  charge(slot, order, at(kNoon + 160));
  order.cost = 1;
  assert_int_equal(take(slot, order, at(kNoon + 160)).reset_ns, 1600 * kNsPerSecond);
  assert_int_equal(remaining(slot, order, at(kNoon + 160 + 1500)), 0);
  assert_int_equal(remaining(slot, order, at(kNoon + 160 + 1501)), 1);
}

// A grant is there at once, for those who have used up everything, and makes nothing come back faster.
void a_grant_makes_a_rolling_quota_larger(void**) {
  QuotaUse slot;
  QuotaOrder order = rolling(100 * kSecondUs, 100, 100);
  assert_true(take(slot, order, at(kNoon)).status == Status::admitted);
  order.amount += 60;
  order.granted = 60;
  order.cost = 50;
  assert_int_equal(take(slot, order, at(kNoon)).remaining, 10);
  assert_int_equal(take(slot, order, at(kNoon)).retry_after_ns, 40 * kNsPerSecond);
  assert_true(take(slot, order, at(kNoon + 39)).status == Status::refused);
  assert_int_equal(take(slot, order, at(kNoon + 40)).remaining, 0);
  assert_int_equal(remaining(slot, order, at(kNoon + 1000)), 160);
  // When it is over, what was used of it is owed. Settling and refunds need not know of it.
  QuotaOrder old = rolling(100 * kSecondUs, 100, 10);
  assert_int_equal(take(slot, old, at(kNoon + 40)).retry_after_ns, 70 * kNsPerSecond);
  old.taken_us = slot.value;
  give_back(slot, old, at(kNoon + 40));
  assert_int_equal(remaining(slot, order, at(kNoon + 40)), 10);
  charge(slot, old, at(kNoon + 40));
  assert_int_equal(remaining(slot, order, at(kNoon + 40)), 0);
}

void a_rolling_quota_survives_clocks_that_are_set(void**) {
  constexpr std::int64_t year = 366 * 86'400;
  const QuotaOrder order = rolling(1000 * kSecondUs, 10, 4);
  QuotaUse slot;
  // Years ahead by mistake, then corrected: what was used meanwhile stays, to the second, and no more.
  assert_int_equal(take(slot, order, at(kNoon + 5 * year)).remaining, 6);
  assert_int_equal(take(slot, order, at(kNoon)).reset_ns, 801 * kNsPerSecond);
  assert_true(take(slot, order, at(kNoon)).status == Status::refused);
  assert_true(take(slot, order, at(kNoon + 200)).status == Status::refused);
  assert_true(take(slot, order, at(kNoon + 201)).status == Status::admitted);
  // A little behind: nothing is shifted.
  slot = {};
  assert_int_equal(take(slot, order, at(kNoon)).remaining, 6);
  assert_int_equal(take(slot, order, at(kNoon - kClockTolerance)).remaining, 1);  // 1010 s from then, 10 s ago
  // A bucket that has not been whole for long, when the clock is set back: no longer than 16 periods.
  slot = {kRollingKind, {kNoon - year}, (static_cast<std::uint64_t>(kNoon - kRollingEpoch) + 900'000) * kSecondUs};
  assert_int_equal(remaining(slot, order, at(kNoon)), 0);
  const QuotaResult refused = take(slot, order, at(kNoon));
  assert_true(refused.reset_ns == 16'000 * kNsPerSecond);
}

// Where 50 bits end, nobody is let in rather than everybody.
void the_end_of_time_refuses(void**) {
  const QuotaOrder order = rolling(60 * kSecondUs, 10, 10);
  QuotaUse slot;
  constexpr std::int64_t late = kRollingEpoch + (std::int64_t{1} << 50) / 1'000'000;
  assert_true(take(slot, order, at(late)).status == Status::admitted);
  for (std::int64_t after = 1; after < 1'000'000; after += 100'000) {
    assert_true(take(slot, order, at(late + after)).status == Status::refused);
  }
}

void an_amount_of_nothing_admits_nothing(void**) {
  QuotaUse slot;
  for (QuotaOrder order : {rolling(60 * kSecondUs, 0), calendar(CalendarUnit::hour, kNoon, 0)}) {
    const QuotaResult refused = take(slot, order, at(kNoon));
    assert_true(refused.status == Status::refused && refused.retry_after_ns == UINT64_MAX);
    charge(slot, order, at(kNoon));
    give_back(slot, order, at(kNoon));
    order.cost = 0;
    assert_true(take(slot, order, at(kNoon)).status == Status::admitted);
    assert_int_equal(remaining(slot, order, at(kNoon)), 0);
  }
}

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_slot_keeps_what_it_is_given),
      cmocka_unit_test(a_calendar_quota_is_used_up_and_begins_anew),
      cmocka_unit_test(what_is_left_follows_the_amount),
      cmocka_unit_test(a_charge_goes_past_the_end),
      cmocka_unit_test(nothing_is_given_back_to_another_window),
      cmocka_unit_test(what_is_known_late_is_charged_to_the_window_that_runs),
      cmocka_unit_test(a_reset_forgets_what_was_used_before),
      cmocka_unit_test(a_clock_that_is_behind_begins_nothing),
      cmocka_unit_test(a_clock_that_is_set_back_keeps_the_use),
      cmocka_unit_test(another_unit_is_counted_to_its_end),
      cmocka_unit_test(a_slot_is_free_when_every_clock_says_so),
      cmocka_unit_test(a_rolling_quota_holds_exactly_its_amount),
      cmocka_unit_test(a_simple_model_of_rolling_quotas_agrees),
      cmocka_unit_test(tokens_that_come_too_fast_are_rounded_up),
      cmocka_unit_test(a_rolling_quota_is_given_back_what_has_not_recovered),
      cmocka_unit_test(a_rolling_quota_is_reset),
      cmocka_unit_test(a_rolling_quota_can_be_overdrawn_and_recovers),
      cmocka_unit_test(a_grant_makes_a_rolling_quota_larger),
      cmocka_unit_test(a_rolling_quota_survives_clocks_that_are_set),
      cmocka_unit_test(the_end_of_time_refuses),
      cmocka_unit_test(an_amount_of_nothing_admits_nothing),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
