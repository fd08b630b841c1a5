// Tests of bucket_table.cpp: layout, subjects, taking from several limits at once, buckets that make room, changed
// rates, and eight threads at once. Every time is given, so nothing here waits.
#include "apikey/bucket_table.hpp"

#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "apikey/bucket_set.hpp"
#include "table_fixture.hpp"

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

constexpr std::uint64_t kNow = 7'000'000'000'000;
constexpr std::uint64_t kMs = 1'000'000;
constexpr SipKey kSeed = {0x0123456789abcdef, 0xfedcba9876543210};

// A table in memory of its own.
struct TestTable {
  explicit TestTable(std::size_t slots) : sets((BucketTable::bytes_for(slots) + 127) / 128) {
    TestClock::reset();
    assert_true(BucketTable::format(memory(), kSeed, TestClock::now, table).ok());
  }
  std::span<std::byte> memory() { return std::as_writable_bytes(std::span(sets)); }
  // Slot `i` of set `set`, for what only a dying worker would write.
  WideWord& slot(std::size_t set, std::size_t i) {
    return *reinterpret_cast<WideWord*>(memory().data() + 256 + 128 * set + 16 * (i + 1));
  }
  struct alignas(128) Line {
    std::array<std::byte, 128> bytes{};
  };
  std::vector<Line> sets;
  BucketTable table;
};

RateLimit per_second(std::uint64_t amount, std::uint64_t burst) {
  return make_rate_limit({amount, kNsPerSecond}, burst);
}

std::uint64_t subject_of(const TestTable& test, std::uint64_t number, std::string_view name = "default") {
  std::array<std::uint8_t, 8> id{};
  std::memcpy(id.data(), &number, id.size());
  return test.table.subject(name, id);
}

BucketUse use_of(const TestTable& test, std::uint64_t number, const RateLimit& limit) {
  return {subject_of(test, number), limit};
}

BucketResult take(const TestTable& test, const BucketUse& use, std::uint64_t now, std::uint64_t cost = 1) {
  return test.table.take(use, cost, TestClock::reach(now));
}

BucketResult look(const TestTable& test, const BucketUse& use, std::uint64_t cost = 0) {
  return test.table.look(use, cost, TestClock::reach(kNow));
}

void a_table_is_made_and_attached_to(void**) {
  TestTable test(1000);
  assert_int_equal(test.memory().size(), BucketTable::bytes_for(1000));
  assert_true(test.table.usage({kNow}).slots >= 1000);
  const BucketUse use = use_of(test, 1, per_second(10, 2));
  assert_true(take(test, use, kNow).is_admitted);

  BucketTable again;
  assert_true(BucketTable::attach(test.memory(), TestClock::now, again).ok());
  assert_int_equal(again.subject("default", std::array<std::uint8_t, 8>{1}), use.subject);
  assert_int_equal(again.take(use, 1, {kNow}).remaining, 0);

  BucketTable other;
  assert_true(BucketTable::attach(test.memory().first(test.memory().size() - 128), TestClock::now, other).code ==
              StatusCode::unsupported);
  assert_true(BucketTable::attach(test.memory().first(10), TestClock::now, other).code == StatusCode::unsupported);
  assert_true(BucketTable::attach(test.memory().subspan(8), TestClock::now, other).code == StatusCode::unsupported);
  test.memory()[8] ^= std::byte{1};  // the layout
  assert_true(BucketTable::attach(test.memory(), TestClock::now, other).code == StatusCode::unsupported);
  test.memory()[0] ^= std::byte{1};  // the magic
  assert_true(BucketTable::attach(test.memory(), TestClock::now, other).code == StatusCode::unsupported);
}

void too_little_or_crooked_memory_is_no_table(void**) {
  TestTable test(100);
  BucketTable table;
  assert_true(BucketTable::format(test.memory().first(383), kSeed, TestClock::now, table).code ==
              StatusCode::bad_value);
  assert_true(BucketTable::format(test.memory().subspan(16), kSeed, TestClock::now, table).code ==
              StatusCode::bad_value);
  assert_true(BucketTable::format(test.memory().first(384), kSeed, TestClock::now, table).ok());
  assert_int_equal(table.usage({0}).slots, BucketTable::kSlotsPerSet);
}

void a_subject_is_a_name_and_an_id(void**) {
  TestTable test(10);
  const std::array<std::uint8_t, 2> bc = {'b', 'c'};
  const std::array<std::uint8_t, 1> c = {'c'};
  assert_true(test.table.subject("a", bc) != test.table.subject("ab", c));
  assert_true(test.table.subject("a", bc) == test.table.subject("a", bc));
  assert_true(test.table.subject("b", c) != test.table.subject("a", c));
}

void a_refused_request_costs_nothing(void**) {
  TestTable test(100);
  const BucketUse use = use_of(test, 1, per_second(10, 3));
  assert_true(take(test, use, kNow, 3).is_admitted);
  for (int i = 0; i < 100; ++i) {
    const BucketResult refused = take(test, use, kNow);
    assert_false(refused.is_admitted);
    assert_int_equal(refused.retry_after_ns, use.limit.price_ns(1));
  }
  assert_true(take(test, use, kNow + use.limit.price_ns(1)).is_admitted);
}

void looking_takes_nothing(void**) {
  TestTable test(100);
  const BucketUse use = use_of(test, 1, per_second(10, 3));
  assert_int_equal(look(test, use, 1).remaining, 2);
  assert_int_equal(look(test, use, 1).remaining, 2);
  assert_int_equal(test.table.usage({kNow}).used, 0);
  assert_int_equal(take(test, use, kNow, 0).remaining, 3);
  assert_int_equal(take(test, use, kNow, 3).remaining, 0);
  assert_false(look(test, use, 1).is_admitted);
  assert_true(take(test, use, kNow, 0).is_admitted);
  assert_int_equal(test.table.usage({kNow}).used, 1);
  assert_int_equal(test.table.usage({kNow + kNsPerSecond}).used, 0);
}

// A slot remembers how long a token took in 16 bits, rounded down: after a change of rate a little more may be owed
// than was, never less.
void another_rate_rescales_what_is_owed(void**) {
  TestTable test(100);
  assert_true(take(test, use_of(test, 1, per_second(10, 10)), kNow, 10).is_admitted);
  // A hundred times as fast, the same ten tokens are owed of now 20.
  const BucketResult faster = take(test, use_of(test, 1, per_second(1000, 20)), kNow);
  assert_true(faster.is_admitted);
  assert_int_equal(faster.remaining, 8);
  // And back: 11 and a bit are owed, of 10 first.
  assert_false(take(test, use_of(test, 1, per_second(10, 10)), kNow).is_admitted);
  assert_true(take(test, use_of(test, 1, per_second(10, 14)), kNow).is_admitted);
}

void a_live_bucket_that_makes_room_hands_on_its_debt(void**) {
  TestTable test(1);  // one set
  const RateLimit limit = per_second(1, 10);
  for (std::uint64_t n = 0; n < BucketTable::kSlotsPerSet; ++n) {
    assert_true(take(test, use_of(test, n, limit), kNow, n + 2).is_admitted);
  }
  assert_int_equal(test.table.usage({kNow}).forced_evictions, 0);
  assert_int_equal(test.table.usage({kNow}).used, BucketTable::kSlotsPerSet);

  // The least indebted one, subject 0 with 2 tokens, goes; the stranger starts with 2 owed.
  assert_int_equal(look(test, use_of(test, 100, limit)).remaining, 8);
  assert_int_equal(take(test, use_of(test, 100, limit), kNow).remaining, 7);
  assert_int_equal(test.table.usage({kNow}).forced_evictions, 1);
  // Coming back it gets no fresh bucket: the least indebted now owe 3.
  assert_int_equal(take(test, use_of(test, 0, limit), kNow).remaining, 6);
  assert_int_equal(test.table.usage({kNow}).forced_evictions, 2);
}

RateLimit per_hour(std::uint64_t amount, std::uint64_t burst) {
  return make_rate_limit({amount, 3600 * kNsPerSecond}, burst);
}

// As many strangers as a set has room for, each of them with an hour to go at least.
void fill_with_debts(const TestTable& test, std::uint64_t first_number) {
  for (std::uint64_t n = 0; n < BucketTable::kSlotsPerSet; ++n) {
    assert_true(take(test, use_of(test, first_number + n, per_hour(1, 9)), kNow, 2 + n).is_admitted);
  }
}

void a_newcomer_owes_no_more_than_its_own_bucket_holds(void**) {
  TestTable test(1);
  fill_with_debts(test, 1000);
  const BucketUse use = use_of(test, 1, per_second(100, 200));
  assert_int_equal(look(test, use, 1).retry_after_ns, 10 * kMs);
  const BucketResult first = take(test, use, kNow);
  assert_false(first.is_admitted);
  assert_int_equal(first.retry_after_ns, 10 * kMs);
  assert_true(take(test, use, kNow + 10 * kMs).is_admitted);
  assert_int_equal(take(test, use, kNow + 510 * kMs).remaining, 49);
  // Its own bucket, the least indebted one now, makes room, and the next one starts no deeper either.
  assert_int_equal(take(test, use_of(test, 2, per_second(1, 5)), kNow + 510 * kMs).retry_after_ns, kNsPerSecond);
  assert_int_equal(test.table.usage({kNow}).forced_evictions, 2);
}

// Others may have been admitted since the request looked at the clock.
void a_newcomer_owes_up_to_the_time_at_which_it_comes_in(void**) {
  TestTable test(1);
  fill_with_debts(test, 1000);
  const BucketUse use = use_of(test, 1, per_second(100, 200));
  TestClock::reach(kNow + 700 * kMs);
  assert_int_equal(take(test, use, kNow).retry_after_ns, 710 * kMs);
}

void what_was_overdrawn_is_owed_by_limits_that_may_overdraw(void**) {
  TestTable test(1);
  BucketUse settled = use_of(test, 1, per_second(1, 10));
  settled.may_overdraw = true;
  test.table.charge(settled, 3610, TestClock::reach(kNow));
  assert_false(test.table.look_at_own(settled, 1, {kNow}).is_admitted);
  for (std::uint64_t n = 0; n < BucketTable::kSlotsPerSet; ++n) {
    take(test, use_of(test, 1000 + n, per_hour(1, 9)), kNow, 2 + n);
  }
  assert_true(test.table.look_at_own(settled, 1, {kNow}).is_admitted);  // it has made room
  // 3610 seconds are owed of a bucket of 10, rounded up to 256 ns.
  const std::uint64_t wait = take(test, settled, kNow).retry_after_ns;
  assert_true(wait >= 3601 * kNsPerSecond && wait < 3601 * kNsPerSecond + 256);
  // A limit that is settled now and then cannot know whose that was; one that is not starts at its own depth.
  BucketUse other = use_of(test, 2, per_second(1, 10));
  assert_int_equal(take(test, other, kNow).retry_after_ns, kNsPerSecond);
  other = use_of(test, 3, per_second(1, 10));
  other.may_overdraw = true;
  assert_int_equal(take(test, other, kNow).retry_after_ns, wait);
}

// Paid back to within the bucket's depth, it is a debt as any other.
void who_has_paid_back_is_not_overdrawn_any_more(void**) {
  TestTable test(1);
  BucketUse settled = use_of(test, 1, per_second(1, 10));
  settled.may_overdraw = true;
  test.table.charge(settled, 100, TestClock::reach(kNow));
  const std::uint64_t later = kNow + 95 * kNsPerSecond;
  assert_int_equal(take(test, settled, later).remaining, 4);
  for (std::uint64_t n = 0; n <= BucketTable::kSlotsPerSet; ++n) {
    take(test, use_of(test, 1000 + n, per_hour(1, 9)), later, 9);
  }
  BucketUse other = use_of(test, 2, per_second(1000, 1));
  other.may_overdraw = true;
  assert_int_equal(take(test, other, later).retry_after_ns, kMs);
}

void who_has_no_bucket_of_its_own_is_not_blocked(void**) {
  TestTable test(1);
  const BucketUse use = use_of(test, 1, per_hour(1, 1));
  assert_true(take(test, use, kNow).is_admitted);
  assert_int_equal(test.table.look_at_own(use, 1, {kNow}).retry_after_ns, 3600 * kNsPerSecond);
  fill_with_debts(test, 1000);
  assert_true(look(test, use, 1).retry_after_ns > 0);
  const BucketResult own = test.table.look_at_own(use_of(test, 2, per_hour(1, 1)), 1, {kNow});
  assert_true(own.is_admitted);
  assert_int_equal(own.retry_after_ns, 0);
}

// Once one hour is owed for good, those who owe an hour make room for each other, not those who owe a second.
void who_owes_much_makes_no_room_at_the_cost_of_who_owes_little(void**) {
  TestTable test(1);
  const BucketUse use = use_of(test, 1, per_second(100, 200));
  for (std::uint64_t n = 0; n < 20; ++n) {
    take(test, use_of(test, 1000 + n, per_hour(1, 1)), kNow);
  }
  assert_false(take(test, use, kNow).is_admitted);
  for (std::uint64_t n = 0; n < 100; ++n) {
    take(test, use_of(test, 2000 + n, per_hour(1, 1)), kNow + n * 10 * kMs);
    assert_true(take(test, use, kNow + (n + 1) * 10 * kMs).is_admitted);
  }
}

void an_idle_bucket_makes_room_for_nothing(void**) {
  TestTable test(1);
  const RateLimit limit = per_second(1000, 10);
  for (std::uint64_t n = 0; n < 100; ++n) {
    assert_int_equal(take(test, use_of(test, n, limit), kNow + n * 100 * kMs).remaining, 9);
  }
  assert_int_equal(test.table.usage({kNow}).forced_evictions, 0);
}

// A set in which every slot was left tentative by a worker that died.
void a_dead_workers_claim_is_taken_over(void**) {
  TestTable test(1);
  const RateLimit limit = per_second(10, 5);
  const BucketUse use = use_of(test, 1, limit);
  for (std::size_t i = 0; i < BucketTable::kSlotsPerSet; ++i) {
    WidePair orphan = make_slot(900 + i, claim_mark({kNow}, i), kNow);
    orphan.high |= kTentativeBit;
    assert_true(test.slot(0, i).swap({0, 0}, orphan));
  }
  // Young, it might still be at work: a stranger is told to come again.
  const BucketResult young = take(test, use, kNow + 99 * kMs);
  assert_false(young.is_admitted);
  assert_int_equal(young.retry_after_ns, 100 * kMs);
  // A worker with the clock a little behind does not mistake it for an old one.
  assert_false(take(test, use, kNow - 200 * kMs).is_admitted);
  assert_true(take(test, use, kNow + 120 * kMs).is_admitted);
  assert_int_equal(test.table.usage({kNow}).forced_evictions, 0);
}

void ones_own_unfinished_claim_is_finished_at_once(void**) {
  TestTable test(1);
  const BucketUse use = use_of(test, 1, per_second(10, 5));
  WidePair orphan = make_slot(tag_of(use.subject), claim_mark({kNow}, 1), kNow);
  orphan.high |= kTentativeBit;
  assert_true(test.slot(0, 3).swap({0, 0}, orphan));
  assert_int_equal(take(test, use, kNow).remaining, 4);
  assert_int_equal(take(test, use, kNow).remaining, 3);
}

// Thousands of operations on subjects that all have room, against arithmetic that keeps every bucket by itself.
void a_simple_model_agrees(void**) {
  TestTable test(200'000);  // so that no two of the subjects ever compete for a slot
  struct Model {
    std::uint64_t arrival = 0;
  };
  std::map<std::uint64_t, Model> model;
  Random random(20240607);
  std::uint64_t now = kNow;
  std::uint64_t admitted = 0;
  for (int n = 0; n < 200'000; ++n) {
    now += random() % (2 * kMs);
    const std::uint64_t cost = random() % 4;
    const std::uint64_t number = random() % 150;
    const BucketUse use = use_of(test, number, per_second(1 + number % 40, 3 + number % 10));
    Model& bucket = model[use.subject];
    if (random() % 16 == 0) {
      test.table.charge(use, cost, TestClock::reach(now));
      bucket.arrival = charge_tokens(bucket.arrival, use.limit, cost, {now}).arrival_ns;
      continue;
    }
    const BucketResult wanted = take_tokens(bucket.arrival, use.limit, cost, {now});
    const BucketResult result = take(test, use, now, cost);
    bucket.arrival = wanted.arrival_ns;
    admitted += wanted.is_admitted ? 1 : 0;
    assert_int_equal(result.is_admitted, wanted.is_admitted);
    assert_int_equal(result.remaining, wanted.remaining);
    assert_int_equal(result.reset_ns, wanted.reset_ns);
    assert_int_equal(result.retry_after_ns, wanted.retry_after_ns);
  }
  assert_true(admitted > 20'000 && admitted < 180'000);
  assert_int_equal(test.table.usage({now}).forced_evictions, 0);
}

// The same in a set that is far too small: nobody ever gets more than his own bucket would have given him.
void nobody_gets_more_in_a_crowded_set(void**) {
  TestTable test(1);
  Random random(7);
  std::array<std::uint64_t, 30> admitted{};
  std::uint64_t now = kNow;
  for (int n = 0; n < 100'000; ++n) {
    now += random() % (5 * kMs);
    const std::uint64_t number = random() % admitted.size();
    const BucketUse use = use_of(test, number, per_second(1 + number, 2 + number % 5));
    admitted[number] += take(test, use, now).is_admitted ? 1 : 0;
    assert_true(admitted[number] <= use.limit.burst + (now - kNow) / use.limit.price_ns(1));
  }
  assert_true(test.table.usage({now}).forced_evictions > 100);
}

// Limits from one a second to one an hour in a set that is far too small, some of them charged after the fact and some
// given back, against buckets that each subject has for itself: nobody is admitted who would not be there, and who is
// never charged without asking is never told to wait for more than its own next token.
void many_limits_in_a_crowded_set_are_exact_and_keep_to_their_depth(void**) {
  TestTable test(1);
  Random random(11);
  std::array<std::uint64_t, 24> arrivals{};  // of buckets that each has for itself
  std::uint64_t admitted = 0;
  std::uint64_t now = kNow;
  for (int n = 0; n < 200'000; ++n) {
    now += random.below(20 * kMs);
    const std::uint64_t number = random.below(arrivals.size());
    const RateLimit limit =
        number % 3 == 0 ? per_hour(1 + number, 1 + number % 4) : per_second(1 + number, 2 + number % 5);
    BucketUse use = use_of(test, number, limit);
    use.may_overdraw = number % 4 == 1;
    std::uint64_t& own = arrivals[number];
    if (use.may_overdraw && random.once_in(200)) {
      const std::uint64_t cost = random.below(3 * limit.burst);
      test.table.charge(use, cost, TestClock::reach(now));
      own = charge_tokens(own, limit, cost, {now}).arrival_ns;
      continue;
    }
    const BucketResult result = take(test, use, now);
    const BucketResult alone = take_tokens(own, limit, 1, {now});
    assert_true(alone.is_admitted || !result.is_admitted);
    assert_true(use.may_overdraw || result.retry_after_ns <= limit.price_ns(1));
    if (result.is_admitted && random.once_in(5)) {
      test.table.give_back(use, 1, result.arrival_ns, {now});
    } else if (result.is_admitted) {
      own = alone.arrival_ns;
      ++admitted;
    }
  }
  assert_true(test.table.usage({now}).forced_evictions > 10'000);
  assert_true(admitted > 1000);
}

void what_was_taken_can_be_given_back(void**) {
  TestTable test(100);
  const BucketUse use = use_of(test, 1, per_second(10, 5));
  assert_true(take(test, use, kNow, 2).is_admitted);
  const BucketResult taken = take(test, use, kNow, 3);
  assert_int_equal(taken.remaining, 0);
  test.table.give_back(use, 3, taken.arrival_ns, {kNow});
  assert_int_equal(look(test, use).remaining, 3);
  // 100 ms later one token has come back; of the five that were taken four are still owed.
  const BucketResult all = take(test, use, kNow, 3);
  test.table.give_back(use, 3, all.arrival_ns, {kNow + 300 * kMs});
  assert_int_equal(test.table.look(use, 0, {kNow + 300 * kMs}).remaining, 5);
}

// The bucket was full again before somebody else emptied it: what comes back too late would be a token too many.
void a_late_refund_gives_nobody_more_than_the_bucket(void**) {
  TestTable test(100);
  const BucketUse use = use_of(test, 1, per_second(10, 5));
  const BucketResult early = take(test, use, kNow, 5);
  assert_true(early.is_admitted);
  assert_true(take(test, use, kNow + kNsPerSecond, 5).is_admitted);
  test.table.give_back(use, 5, early.arrival_ns, {kNow + kNsPerSecond});
  assert_false(take(test, use, kNow + kNsPerSecond).is_admitted);
}

void nothing_is_given_back_to_who_has_lost_his_slot(void**) {
  TestTable test(1);
  const RateLimit limit = per_second(1, 10);
  const BucketUse first = use_of(test, 0, limit);
  const BucketResult taken = take(test, first, kNow, 1);
  for (std::uint64_t n = 1; n <= BucketTable::kSlotsPerSet; ++n) {
    assert_true(take(test, use_of(test, n, limit), kNow, n + 1).is_admitted);
  }
  const std::uint64_t before = look(test, first).remaining;
  test.table.give_back(first, 1, taken.arrival_ns, {kNow});
  assert_int_equal(look(test, first).remaining, before);
}

void a_refund_at_another_rate_gives_back_the_tokens(void**) {
  TestTable test(100);
  const BucketUse slow = use_of(test, 1, per_second(10, 10));
  const BucketResult taken = take(test, slow, kNow, 10);
  const BucketUse fast = use_of(test, 1, per_second(1000, 20));
  assert_int_equal(take(test, fast, kNow, 9).remaining, 0);
  test.table.give_back(slow, 10, taken.arrival_ns, {kNow});
  assert_int_equal(look(test, fast).remaining, 10);
}

// No time passes: exactly the burst is admitted, to the token, though some give theirs back.
void eight_threads_share_exactly_the_burst(void**) {
  TestTable test(1000);
  const BucketUse use = use_of(test, 1, make_rate_limit({1, 3600 * kNsPerSecond}, 5000));
  std::atomic<std::uint64_t> admitted{0};
  in_threads([&](std::size_t thread) {
    for (int n = 0; n < 3000; ++n) {
      const BucketResult taken = take(test, use, kNow);
      if (taken.is_admitted && thread % 2 == 0 && n % 2 == 0) {
        test.table.give_back(use, 1, taken.arrival_ns, {kNow});
      } else {
        admitted.fetch_add(taken.is_admitted ? 1 : 0);
      }
    }
  });
  assert_int_equal(admitted.load(), 5000);
}

// Time passes, in steps that all threads share, in a set with too few slots.
void eight_threads_never_get_more_than_the_rate(void**) {
  TestTable test(1);
  constexpr std::size_t subjects = 12;
  std::array<std::atomic<std::uint64_t>, subjects> admitted{};
  std::atomic<std::uint64_t> clock{kNow};
  in_threads([&](std::size_t thread) {
    Random random(thread + 1);
    for (int n = 0; n < 20'000; ++n) {
      const std::uint64_t now = clock.fetch_add(random() % 200'000);
      const std::uint64_t number = random() % subjects;
      admitted[number].fetch_add(take(test, use_of(test, number, per_second(50, 10)), now).is_admitted ? 1 : 0);
    }
  });
  const RateLimit limit = per_second(50, 10);
  std::uint64_t total = 0;
  for (const auto& each : admitted) {
    assert_true(each.load() <= limit.burst + (clock.load() - kNow) / limit.price_ns(1));
    total += each.load();
  }
  assert_true(total > 100);
}

// Newcomers all the time: every one of them is let in exactly as often as its burst says, by whichever thread.
void eight_threads_bring_in_newcomers(void**) {
  TestTable test(100'000);
  constexpr std::uint64_t subjects = 3000;
  std::vector<std::atomic<std::uint64_t>> admitted(subjects);
  const RateLimit limit = make_rate_limit({1, 3600 * kNsPerSecond}, 3);
  in_threads([&](std::size_t) {
    for (std::uint64_t number = 0; number < subjects; ++number) {
      admitted[number].fetch_add(take(test, use_of(test, number, limit), kNow).is_admitted ? 1 : 0);
    }
  });
  for (const auto& each : admitted) {
    assert_int_equal(each.load(), 3);
  }
}

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_table_is_made_and_attached_to),
      cmocka_unit_test(too_little_or_crooked_memory_is_no_table),
      cmocka_unit_test(a_subject_is_a_name_and_an_id),
      cmocka_unit_test(a_refused_request_costs_nothing),
      cmocka_unit_test(looking_takes_nothing),
      cmocka_unit_test(another_rate_rescales_what_is_owed),
      cmocka_unit_test(a_live_bucket_that_makes_room_hands_on_its_debt),
      cmocka_unit_test(a_newcomer_owes_no_more_than_its_own_bucket_holds),
      cmocka_unit_test(a_newcomer_owes_up_to_the_time_at_which_it_comes_in),
      cmocka_unit_test(what_was_overdrawn_is_owed_by_limits_that_may_overdraw),
      cmocka_unit_test(who_has_paid_back_is_not_overdrawn_any_more),
      cmocka_unit_test(who_has_no_bucket_of_its_own_is_not_blocked),
      cmocka_unit_test(who_owes_much_makes_no_room_at_the_cost_of_who_owes_little),
      cmocka_unit_test(an_idle_bucket_makes_room_for_nothing),
      cmocka_unit_test(a_dead_workers_claim_is_taken_over),
      cmocka_unit_test(ones_own_unfinished_claim_is_finished_at_once),
      cmocka_unit_test(a_simple_model_agrees),
      cmocka_unit_test(nobody_gets_more_in_a_crowded_set),
      cmocka_unit_test(many_limits_in_a_crowded_set_are_exact_and_keep_to_their_depth),
      cmocka_unit_test(what_was_taken_can_be_given_back),
      cmocka_unit_test(a_late_refund_gives_nobody_more_than_the_bucket),
      cmocka_unit_test(nothing_is_given_back_to_who_has_lost_his_slot),
      cmocka_unit_test(a_refund_at_another_rate_gives_back_the_tokens),
      cmocka_unit_test(eight_threads_share_exactly_the_burst),
      cmocka_unit_test(eight_threads_never_get_more_than_the_rate),
      cmocka_unit_test(eight_threads_bring_in_newcomers),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
