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
#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

constexpr std::uint64_t kNow = 7'000'000'000'000;
constexpr std::uint64_t kMs = 1'000'000;
constexpr SipKey kSeed = {0x0123456789abcdef, 0xfedcba9876543210};

// Deterministic, so that a failure can be repeated.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15) {}
  std::uint64_t operator()() {
    state_ ^= state_ << 13U;
    state_ ^= state_ >> 7U;
    state_ ^= state_ << 17U;
    return state_;
  }

 private:
  std::uint64_t state_;
};

// A table in memory of its own.
struct TestTable {
  explicit TestTable(std::size_t slots) : sets((BucketTable::bytes_for(slots) + 127) / 128) {
    assert_true(BucketTable::format(memory(), kSeed, table).ok());
  }
  std::span<std::byte> memory() { return std::as_writable_bytes(std::span(sets)); }
  // Slot `i` of set `set`, for what only a dying worker would write.
  WideWord& slot(std::size_t set, std::size_t i) {
    return *reinterpret_cast<WideWord*>(memory().data() + 128 * (set + 1) + 16 * (i + 1));
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

LimitUse use_of(const TestTable& test, std::uint64_t number, const RateLimit& limit) {
  return {subject_of(test, number), limit, false};
}

TakeResult take(const TestTable& test, const LimitUse& use, std::uint64_t now, std::uint64_t cost = 1) {
  return test.table.take(std::span(&use, 1), cost, {now});
}

void a_table_is_made_and_attached_to(void**) {
  TestTable test(1000);
  assert_int_equal(test.memory().size(), BucketTable::bytes_for(1000));
  assert_true(test.table.usage({kNow}).slots >= 1000);
  const LimitUse use = use_of(test, 1, per_second(10, 2));
  assert_true(take(test, use, kNow).is_admitted);

  BucketTable again;
  assert_true(BucketTable::attach(test.memory(), again).ok());
  assert_int_equal(again.subject("default", std::array<std::uint8_t, 8>{1}), use.subject);
  assert_int_equal(again.take(std::span(&use, 1), 1, {kNow}).remaining, 0);

  BucketTable other;
  assert_true(BucketTable::attach(test.memory().first(test.memory().size() - 128), other).code ==
              StatusCode::unsupported);
  assert_true(BucketTable::attach(test.memory().first(10), other).code == StatusCode::unsupported);
  assert_true(BucketTable::attach(test.memory().subspan(8), other).code == StatusCode::unsupported);
  test.memory()[8] ^= std::byte{1};  // the layout
  assert_true(BucketTable::attach(test.memory(), other).code == StatusCode::unsupported);
  test.memory()[0] ^= std::byte{1};  // the magic
  assert_true(BucketTable::attach(test.memory(), other).code == StatusCode::unsupported);
}

void too_little_or_crooked_memory_is_no_table(void**) {
  TestTable test(100);
  BucketTable table;
  assert_true(BucketTable::format(test.memory().first(255), kSeed, table).code == StatusCode::bad_value);
  assert_true(BucketTable::format(test.memory().subspan(16), kSeed, table).code == StatusCode::bad_value);
  assert_true(BucketTable::format(test.memory().first(256), kSeed, table).ok());
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
  const LimitUse use = use_of(test, 1, per_second(10, 3));
  assert_true(take(test, use, kNow, 3).is_admitted);
  for (int i = 0; i < 100; ++i) {
    const TakeResult refused = take(test, use, kNow);
    assert_false(refused.is_admitted);
    assert_int_equal(refused.retry_after_ns, use.limit.interval_ns);
    assert_int_equal(refused.decided_by, 0);
  }
  assert_true(take(test, use, kNow + use.limit.interval_ns).is_admitted);
}

void looking_takes_nothing(void**) {
  TestTable test(100);
  const LimitUse use = use_of(test, 1, per_second(10, 3));
  assert_int_equal(test.table.look(std::span(&use, 1), 1, {kNow}).remaining, 2);
  assert_int_equal(test.table.look(std::span(&use, 1), 1, {kNow}).remaining, 2);
  assert_int_equal(test.table.usage({kNow}).used, 0);
  assert_int_equal(take(test, use, kNow, 0).remaining, 3);
  assert_int_equal(take(test, use, kNow, 3).remaining, 0);
  assert_false(test.table.look(std::span(&use, 1), 1, {kNow}).is_admitted);
  assert_true(take(test, use, kNow, 0).is_admitted);
  assert_int_equal(test.table.usage({kNow}).used, 1);
  assert_int_equal(test.table.usage({kNow + kNsPerSecond}).used, 0);
}

void no_limit_admits(void**) {
  TestTable test(100);
  assert_true(test.table.take({}, 1, {kNow}).is_admitted);
  const std::vector<LimitUse> many(BucketTable::kMaxUses + 1, use_of(test, 1, per_second(10, 3)));
  assert_false(test.table.take(many, 1, {kNow}).is_admitted);
}

void several_limits_are_taken_all_or_none(void**) {
  TestTable test(1000);
  const std::array<LimitUse, 3> uses = {use_of(test, 1, per_second(10, 100)), use_of(test, 2, per_second(1, 2)),
                                        use_of(test, 3, per_second(1, 3))};
  assert_true(test.table.take(uses, 1, {kNow}).is_admitted);
  const TakeResult second = test.table.take(uses, 1, {kNow});
  assert_true(second.is_admitted);
  assert_int_equal(second.decided_by, 1);
  assert_int_equal(second.remaining, 0);
  for (int i = 0; i < 10; ++i) {
    const TakeResult refused = test.table.take(uses, 1, {kNow});
    assert_false(refused.is_admitted);
    assert_int_equal(refused.decided_by, 1);
  }
  assert_int_equal(test.table.look(std::span(uses).first(1), 0, {kNow}).remaining, 98);
  assert_int_equal(test.table.look(std::span(uses).last(1), 0, {kNow}).remaining, 1);
  // The refusal that lasts longest is the one that is told.
  assert_true(take(test, uses[2], kNow).is_admitted);
  const TakeResult both = test.table.take(uses, 2, {kNow});
  assert_false(both.is_admitted);
  assert_int_equal(both.retry_after_ns, 2 * uses[1].limit.interval_ns);
}

void a_dry_run_limit_counts_and_refuses_nobody(void**) {
  TestTable test(1000);
  std::array<LimitUse, 2> uses = {use_of(test, 1, per_second(1, 1)), use_of(test, 2, per_second(10, 5))};
  uses[0].is_dry_run = true;
  for (std::uint64_t i = 0; i < 5; ++i) {
    const TakeResult result = test.table.take(uses, 1, {kNow});
    assert_true(result.is_admitted);
    assert_int_equal(result.decided_by, 1);
    assert_int_equal(result.remaining, 4 - i);
  }
  assert_int_equal(test.table.look(std::span(uses).first(1), 0, {kNow}).remaining, 0);
  assert_false(test.table.take(uses, 1, {kNow}).is_admitted);
  assert_true(take(test, uses[0], kNow).is_admitted);  // alone, it decides nothing either
}

void another_rate_rescales_what_is_owed(void**) {
  TestTable test(100);
  assert_true(take(test, use_of(test, 1, per_second(10, 10)), kNow, 10).is_admitted);
  // A hundred times as fast, the same ten tokens are owed of now 20.
  const TakeResult faster = take(test, use_of(test, 1, per_second(1000, 20)), kNow);
  assert_true(faster.is_admitted);
  assert_int_equal(faster.remaining, 9);
  // And back: 11 are owed, of 10 first.
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
  assert_int_equal(test.table.look(std::array{use_of(test, 100, limit)}, 0, {kNow}).remaining, 8);
  assert_int_equal(take(test, use_of(test, 100, limit), kNow).remaining, 7);
  assert_int_equal(test.table.usage({kNow}).forced_evictions, 1);
  // Coming back it gets no fresh bucket: the least indebted now owe 3.
  assert_int_equal(take(test, use_of(test, 0, limit), kNow).remaining, 6);
  assert_int_equal(test.table.usage({kNow}).forced_evictions, 2);
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
  const LimitUse use = use_of(test, 1, limit);
  for (std::size_t i = 0; i < BucketTable::kSlotsPerSet; ++i) {
    WidePair orphan = make_slot(900 + i, claim_mark({kNow}, i), kNow);
    orphan.high |= kTentativeBit;
    assert_true(test.slot(0, i).swap({0, 0}, orphan));
  }
  // Young, it might still be at work: a stranger is told to come again.
  const TakeResult young = take(test, use, kNow + 99 * kMs);
  assert_false(young.is_admitted);
  assert_int_equal(young.retry_after_ns, 100 * kMs);
  // A worker with the clock a little behind does not mistake it for an old one.
  assert_false(take(test, use, kNow - 200 * kMs).is_admitted);
  assert_true(take(test, use, kNow + 120 * kMs).is_admitted);
  assert_int_equal(test.table.usage({kNow}).forced_evictions, 0);
}

void ones_own_unfinished_claim_is_finished_at_once(void**) {
  TestTable test(1);
  const LimitUse use = use_of(test, 1, per_second(10, 5));
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
    RateLimit limit;
  };
  std::map<std::uint64_t, Model> model;
  Random random(20240607);
  std::uint64_t now = kNow;
  std::uint64_t admitted = 0;
  for (int n = 0; n < 200'000; ++n) {
    now += random() % (2 * kMs);
    const std::uint64_t cost = random() % 4;
    std::vector<LimitUse> uses;
    bool passes = true;
    for (std::uint64_t i = 0; i < 1 + random() % 3; ++i) {
      const std::uint64_t number = i * 50 + random() % 50;
      uses.push_back(use_of(test, number, per_second(1 + number % 40, 3 + number % 10)));
      passes = passes && take_tokens(model[uses.back().subject].arrival, uses.back().limit, cost, {now}).is_admitted;
    }
    const TakeResult result = test.table.take(uses, cost, {now});
    assert_int_equal(result.is_admitted, passes);
    admitted += passes ? 1 : 0;
    for (const LimitUse& use : uses) {
      Model& bucket = model[use.subject];
      const BucketResult wanted = take_tokens(bucket.arrival, use.limit, passes ? cost : 0, {now});
      bucket.arrival = wanted.arrival_ns;
      const TakeResult seen = test.table.look(std::span(&use, 1), 0, {now});
      assert_int_equal(seen.remaining, wanted.remaining);
      assert_int_equal(seen.reset_ns, wanted.reset_ns);
    }
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
    const LimitUse use = use_of(test, number, per_second(1 + number, 2 + number % 5));
    admitted[number] += take(test, use, now).is_admitted ? 1 : 0;
    assert_true(admitted[number] <= use.limit.burst + (now - kNow) / use.limit.interval_ns);
  }
  assert_true(test.table.usage({now}).forced_evictions > 100);
}

// Between the look and the take another worker may be faster. Here it has left an unfinished claim with a debt, which a
// look does not see and a take does.
void who_loses_after_looking_gets_back_what_he_took(void**) {
  TestTable test(1);
  const RateLimit limit = per_second(1, 5);
  LimitUse first = use_of(test, 1, limit);
  LimitUse second = use_of(test, 2, limit);
  if (first.subject > second.subject) {
    std::swap(first, second);
  }
  assert_true(take(test, first, kNow).is_admitted);
  WidePair orphan = make_slot(tag_of(second.subject), claim_mark({kNow}, 1), kNow + 3600 * kNsPerSecond);
  orphan.high |= kTentativeBit;
  assert_true(test.slot(0, 3).swap({0, 0}, orphan));

  assert_true(test.table.look(std::array{first, second}, 2, {kNow}).is_admitted);
  const TakeResult lost = test.table.take(std::array{second, first}, 2, {kNow});
  assert_false(lost.is_admitted);
  assert_int_equal(lost.decided_by, 0);
  assert_true(lost.retry_after_ns > 3000 * kNsPerSecond);
  assert_int_equal(test.table.look(std::span(&first, 1), 0, {kNow}).remaining, 4);
}

constexpr std::size_t kThreads = 8;

template <class Function>
void in_threads(Function function) {
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&function, i] { function(i); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

// No time passes: exactly the burst is admitted, to the token, also where two limits are taken at once.
void eight_threads_share_exactly_the_burst(void**) {
  TestTable test(1000);
  const LimitUse narrow = use_of(test, 1, make_rate_limit({1, 3600 * kNsPerSecond}, 5000));
  const LimitUse wide = use_of(test, 2, make_rate_limit({1, 3600 * kNsPerSecond}, 9000));
  std::atomic<std::uint64_t> admitted{0};
  in_threads([&](std::size_t thread) {
    const std::array<LimitUse, 2> uses = {thread % 2 == 0 ? narrow : wide, thread % 2 == 0 ? wide : narrow};
    for (int n = 0; n < 2000; ++n) {
      admitted.fetch_add(test.table.take(uses, 1, {kNow}).is_admitted ? 1 : 0);
    }
  });
  assert_int_equal(admitted.load(), 5000);
  // What the losers of the narrow limit had taken from the wide one is there again.
  assert_int_equal(test.table.look(std::span(&wide, 1), 0, {kNow}).remaining, 4000);
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
    assert_true(each.load() <= limit.burst + (clock.load() - kNow) / limit.interval_ns);
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
      cmocka_unit_test(no_limit_admits),
      cmocka_unit_test(several_limits_are_taken_all_or_none),
      cmocka_unit_test(a_dry_run_limit_counts_and_refuses_nobody),
      cmocka_unit_test(another_rate_rescales_what_is_owed),
      cmocka_unit_test(a_live_bucket_that_makes_room_hands_on_its_debt),
      cmocka_unit_test(an_idle_bucket_makes_room_for_nothing),
      cmocka_unit_test(a_dead_workers_claim_is_taken_over),
      cmocka_unit_test(ones_own_unfinished_claim_is_finished_at_once),
      cmocka_unit_test(a_simple_model_agrees),
      cmocka_unit_test(nobody_gets_more_in_a_crowded_set),
      cmocka_unit_test(eight_threads_share_exactly_the_burst),
      cmocka_unit_test(who_loses_after_looking_gets_back_what_he_took),
      cmocka_unit_test(eight_threads_never_get_more_than_the_rate),
      cmocka_unit_test(eight_threads_bring_in_newcomers),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
