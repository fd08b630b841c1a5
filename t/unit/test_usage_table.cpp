// Tests of usage_table.cpp: layout, counting by key and hour, what finds no room, acknowledging, saving and restoring,
// what a process leaves that died while it claimed a slot, and eight threads at once. Every time is given.
#include "apikey/usage_table.hpp"

#include <array>
#include <atomic>
#include <map>
#include <thread>
#include <tuple>
#include <vector>

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

constexpr std::int64_t kNow = 1'800'000'000;  // an hour begins here
constexpr std::uint64_t kHour = kNow / kUsageHour;
constexpr SipKey kSeed = {0x0123456789abcdef, 0xfedcba9876543210};
constexpr UsageOrigin kOrigin = {{1, 2, 3}, 0xabcdef01, {kNow - 50}};
static_assert(kNow % kUsageHour == 0);

struct TestTable {
  explicit TestTable(std::size_t slots, const UsageOrigin& origin = kOrigin)
      : lines((UsageTable::bytes_for(slots) + 63) / 64) {
    assert_true(UsageTable::format(memory(slots), kSeed, origin, table).ok());
    assert_int_equal(table.size(), slots + UsageTable::kOverflowSlots);
  }
  std::span<std::byte> memory(std::size_t slots) {
    return std::as_writable_bytes(std::span(lines)).first(UsageTable::bytes_for(slots));
  }
  struct alignas(64) Line {
    std::array<std::byte, 64> bytes{};
  };
  std::vector<Line> lines;
  UsageTable table;
};

KeyId key_number(std::uint64_t number) {
  KeyId id;
  for (std::size_t i = 0; i < 8; ++i) {
    id.bytes[i] = static_cast<std::uint8_t>(number >> (8 * i));
  }
  id.bytes[12] = 1;
  return id;
}

UsageEvent event_of(std::uint64_t key, Outcome outcome = Outcome::ok) {
  UsageEvent event;
  event.key = key_number(key);
  event.owner[15] = 7;
  event.outcome = outcome;
  event.cost = outcome == Outcome::ok ? 3 : 0;
  event.bytes = 100;
  event.upstream_us = 2000;
  return event;
}

std::vector<UsageRow> rows_of(const UsageTable& table) {
  std::vector<UsageRow> rows;
  UsageRow row;
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table.save(i, row)) {
      rows.push_back(row);
    }
  }
  return rows;
}

// The sum of one counter over all rows of that hour; of a key, or of all.
std::uint64_t sum_of(const UsageTable& table, std::size_t counter, std::uint64_t hour, const KeyId* key = nullptr) {
  std::uint64_t sum = 0;
  for (const UsageRow& row : rows_of(table)) {
    sum += row.hour == hour && (key == nullptr || row.key == *key) ? row.counters[counter] : 0;
  }
  return sum;
}

constexpr std::size_t counter_of(Outcome outcome) {
  for (std::size_t i = 0; i < kUsageRefusals.size(); ++i) {
    if (kUsageRefusals[i] == outcome) {
      return kUsageNamedCounters + i;
    }
  }
  return kUsageAdmitted;
}

void format_and_attach(void**) {
  TestTable test(100);
  UsageTable again;
  assert_true(UsageTable::attach(test.memory(100), again).ok());
  test.table.count(event_of(1), {kNow});
  assert_int_equal(rows_of(again).size(), 1);
  assert_int_equal(again.head().created, kNow - 50);
  assert_memory_equal(again.head().instance.data(), kOrigin.instance.data(), 16);

  assert_int_equal(UsageTable::attach(test.memory(99), again).code, StatusCode::unsupported);
  assert_int_equal(UsageTable::attach(test.memory(100).first(500), again).code, StatusCode::unsupported);
  assert_int_equal(UsageTable::attach(test.memory(100).subspan(8), again).code, StatusCode::unsupported);
  assert_int_equal(UsageTable::format(test.memory(100).subspan(8), kSeed, kOrigin, again).code, StatusCode::bad_value);
  assert_int_equal(UsageTable::format(test.memory(100).first(500), kSeed, kOrigin, again).code, StatusCode::bad_value);
  test.memory(100)[0] ^= std::byte{1};
  assert_int_equal(UsageTable::attach(test.memory(100), again).code, StatusCode::unsupported);
  test.memory(100)[0] ^= std::byte{1};
  test.memory(100)[8] ^= std::byte{2};
  assert_int_equal(UsageTable::attach(test.memory(100), again).code, StatusCode::unsupported);
}

void attached_to_nothing(void**) {
  const UsageTable table;
  table.count(event_of(1), {kNow});
  assert_int_equal(table.size(), 0);
  assert_int_equal(table.usage().slots, 0);
  assert_false(table.acknowledge(1, {kNow}));
  assert_int_equal(table.head().acknowledged, 0);
}

void counts_by_key_owner_and_hour(void**) {
  TestTable test(1000);
  UsageEvent other_owner = event_of(1);
  other_owner.owner[0] = 9;
  for (int i = 0; i < 5; ++i) {
    test.table.count(event_of(1), {kNow + i});
    test.table.count(event_of(2), {kNow + i});
  }
  test.table.count(other_owner, {kNow});
  test.table.count(event_of(1), {kNow + kUsageHour});
  const std::vector<UsageRow> rows = rows_of(test.table);
  assert_int_equal(rows.size(), 4);
  const KeyId one = key_number(1);
  assert_int_equal(sum_of(test.table, kUsageAdmitted, kHour, &one), 6);
  assert_int_equal(sum_of(test.table, kUsageCost, kHour), 33);
  assert_int_equal(sum_of(test.table, kUsageBytes, kHour), 1100);
  assert_int_equal(sum_of(test.table, kUsageUpstreamUs, kHour), 22000);
  assert_int_equal(sum_of(test.table, kUsageAdmitted, kHour + 1), 1);
  for (const UsageRow& row : rows) {
    assert_int_equal(row.row >> 32, kOrigin.incarnation);
    assert_int_equal(row.owner[15], 7);
  }
  assert_int_equal(test.table.usage().used, 4);
  assert_int_equal(test.table.usage().overflows, 0);
}

void every_refusal_has_its_counter(void**) {
  TestTable test(100);
  std::uint64_t times = 0;
  for (const Outcome outcome : kUsageRefusals) {
    ++times;
    for (std::uint64_t i = 0; i < times; ++i) {
      test.table.count(event_of(1, outcome), {kNow});
    }
  }
  times = 0;
  for (const Outcome outcome : kUsageRefusals) {
    assert_false(lets_pass(outcome));
    assert_int_equal(sum_of(test.table, counter_of(outcome), kHour), ++times);
  }
  assert_int_equal(sum_of(test.table, kUsageAdmitted, kHour), 0);
  for (const Outcome outcome : {Outcome::missing, Outcome::malformed, Outcome::unknown, Outcome::skipped}) {
    test.table.count(event_of(2, outcome), {kNow});  // nobody's
  }
  assert_int_equal(rows_of(test.table).size(), 1);
}

void without_room_the_key_is_lost_and_no_count(void**) {
  TestTable test(10);
  for (std::uint64_t key = 0; key < 100; ++key) {
    test.table.count(event_of(key), {kNow});
    test.table.count(event_of(key, Outcome::scope), {kNow + 5});
  }
  assert_int_equal(sum_of(test.table, kUsageAdmitted, kHour), 100);
  assert_int_equal(sum_of(test.table, counter_of(Outcome::scope), kHour), 100);
  assert_int_equal(sum_of(test.table, kUsageBytes, kHour), 20'000);
  const KeyId nobody;
  assert_int_equal(sum_of(test.table, kUsageAdmitted, kHour, &nobody), 90);
  assert_int_equal(test.table.usage().overflows, 180);
  assert_int_equal(test.table.usage().used, 10);
  // Each hour has a row of its own, as long as there are any.
  for (std::int64_t hour = 1; hour < 70; ++hour) {
    test.table.count(event_of(50), {kNow + hour * kUsageHour});
  }
  assert_int_equal(sum_of(test.table, kUsageAdmitted, kHour + 5, &nobody), 1);
  assert_int_equal(test.table.head().unplaced, 6);
  assert_int_equal(test.table.head().overflows, 180 + 69);
}

void an_hour_is_acknowledged_ten_minutes_after_its_end(void**) {
  TestTable test(100);
  test.table.count(event_of(1), {kNow});
  test.table.count(event_of(1), {kNow + kUsageHour});
  assert_false(test.table.acknowledge(kHour, {kNow}));
  assert_false(test.table.acknowledge(kHour, {kNow + kUsageHour + 599}));
  assert_false(test.table.acknowledge(kHour, {0}));
  assert_false(test.table.acknowledge(UINT64_MAX, {kNow}));
  assert_int_equal(rows_of(test.table).size(), 2);
  assert_true(test.table.acknowledge(kHour, {kNow + kUsageHour + 600}));
  assert_true(test.table.acknowledge(kHour, {kNow + kUsageHour + 600}));
  assert_int_equal(rows_of(test.table).size(), 1);
  assert_int_equal(test.table.usage().used, 1);
  assert_int_equal(test.table.head().acknowledged, kHour);
  // An earlier hour takes nothing back.
  assert_true(test.table.acknowledge(kHour - 5, {kNow + kUsageHour + 600}));
  assert_int_equal(test.table.head().acknowledged, kHour);
}

void nothing_is_counted_in_an_acknowledged_hour(void**) {
  TestTable test(100);
  assert_true(test.table.acknowledge(kHour, {kNow + 2 * kUsageHour}));
  test.table.count(event_of(1), {kNow + 5});
  test.table.count(event_of(1), {-5});
  assert_int_equal(sum_of(test.table, kUsageAdmitted, kHour), 0);
  assert_int_equal(sum_of(test.table, kUsageAdmitted, kHour + 1), 2);
}

void slots_are_used_again(void**) {
  TestTable test(8);
  for (std::uint64_t hour = 0; hour < 200; ++hour) {
    const UnixSec now{kNow + static_cast<std::int64_t>(hour) * kUsageHour + 700};
    for (std::uint64_t key = 0; key < 8; ++key) {
      test.table.count(event_of(hour * 8 + key), now);
    }
    assert_int_equal(sum_of(test.table, kUsageAdmitted, kHour + hour), 8);
    assert_true(test.table.acknowledge(kHour + hour - 1, now));
    if (hour > 0) {
      assert_int_equal(sum_of(test.table, kUsageAdmitted, kHour + hour - 1), 0);
    }
    // Room for the next hour's keys before this one is acknowledged would need 16 slots.
    assert_true(test.table.acknowledge(kHour + hour, {now.value + kUsageHour}));
  }
  assert_int_equal(test.table.usage().overflows, 0);
}

void a_slot_whose_claimer_died_is_free_with_its_hour(void**) {
  TestTable test(1);
  auto* tag = reinterpret_cast<std::atomic<std::uint64_t>*>(test.memory(1).data() + UsageTable::bytes_for(1) -
                                                            8 * (1 + UsageTable::kOverflowSlots));
  assert_int_equal(tag->load(), 0);
  test.table.count(event_of(1), {kNow});
  const std::uint64_t live = tag->load();
  assert_int_equal(live & 0xffffff, kHour);
  tag->store((live & ~(std::uint64_t{3} << 24U)) | std::uint64_t{1} << 24U);
  assert_int_equal(rows_of(test.table).size(), 0);
  test.table.count(event_of(1), {kNow});  // nobody touches it
  assert_int_equal(test.table.usage().overflows, 1);
  assert_true(test.table.acknowledge(kHour, {kNow + 2 * kUsageHour}));
  test.table.count(event_of(1), {kNow + kUsageHour});
  const KeyId one = key_number(1);
  assert_int_equal(sum_of(test.table, kUsageAdmitted, kHour + 1, &one), 1);
}

void a_restored_table_counts_in_new_slots(void**) {
  TestTable old(100);
  for (std::uint64_t key = 0; key < 20; ++key) {
    old.table.count(event_of(key), {kNow});
  }
  const std::vector<UsageRow> saved = rows_of(old.table);
  UsageOrigin origin = kOrigin;
  origin.incarnation = 0x1234;
  origin.instance = {9, 9};
  TestTable fresh(50, origin);
  fresh.table.restore(old.table.head(), {kNow, kNow + 60});
  for (const UsageRow& row : saved) {
    assert_true(fresh.table.restore(row));
  }
  fresh.table.count(event_of(5), {kNow + 70});
  const UsageHead head = fresh.table.head();
  assert_memory_equal(head.instance.data(), kOrigin.instance.data(), 16);
  assert_int_equal(head.created, kOrigin.created.value);
  assert_int_equal(head.gap_count, 1);
  assert_int_equal(head.gaps[0].to, kNow + 60);
  const KeyId five = key_number(5);
  assert_int_equal(sum_of(fresh.table, kUsageAdmitted, kHour, &five), 2);
  std::map<std::uint64_t, std::uint64_t> by_row;
  for (const UsageRow& row : rows_of(fresh.table)) {
    assert_true(by_row.emplace(row.row, row.counters[kUsageAdmitted]).second);
  }
  assert_int_equal(by_row.size(), 21);
  for (const UsageRow& row : saved) {
    assert_int_equal(by_row.at(row.row), 1);
  }
  // What nobody lost leaves no gap.
  TestTable bigger(500, origin);
  bigger.table.restore(fresh.table.head(), {kNow, kNow});
  assert_int_equal(bigger.table.head().gap_count, 1);
}

void what_is_acknowledged_is_not_restored(void**) {
  TestTable old(10);
  old.table.count(event_of(1), {kNow});
  const std::vector<UsageRow> saved = rows_of(old.table);
  assert_true(old.table.acknowledge(kHour, {kNow + 2 * kUsageHour}));
  TestTable fresh(10);
  fresh.table.restore(old.table.head(), {});
  assert_true(fresh.table.restore(saved.front()));
  assert_int_equal(rows_of(fresh.table).size(), 0);
  UsageRow damaged = saved.front();
  damaged.hour = UINT64_MAX;
  assert_true(fresh.table.restore(damaged));
  assert_int_equal(rows_of(fresh.table).size(), 0);
}

void a_row_without_room_leaves_a_gap(void**) {
  TestTable old(30);
  for (std::uint64_t key = 0; key < 30; ++key) {
    old.table.count(event_of(key), {kNow});
  }
  TestTable fresh(10);
  fresh.table.restore(old.table.head(), {});
  int failed = 0;
  for (const UsageRow& row : rows_of(old.table)) {
    failed += fresh.table.restore(row) ? 0 : 1;
  }
  assert_int_equal(failed, 20);
  const UsageHead head = fresh.table.head();
  assert_int_equal(head.gap_count, kMaxUsageGaps);
  for (std::size_t i = 0; i < head.gap_count; ++i) {
    assert_int_equal(head.gaps[i].from, kNow);
    assert_int_equal(head.gaps[i].to, kNow + kUsageHour);
  }
}

void the_oldest_gaps_become_one(void**) {
  TestTable test(1);
  UsageHead head = test.table.head();
  for (std::int64_t i = 0; i < 20; ++i) {
    test.table.restore(head, {100 * i, 100 * i + 10});
    head = test.table.head();
  }
  assert_int_equal(head.gap_count, kMaxUsageGaps);
  assert_int_equal(head.gaps[0].from, 0);
  assert_int_equal(head.gaps[0].to, 410);
  assert_int_equal(head.gaps[1].from, 500);
  assert_int_equal(head.gaps[15].to, 1910);
}

constexpr std::size_t kThreads = 8;
constexpr std::uint64_t kPerThread = 20'000;
constexpr std::uint64_t kHours = 60;

template <typename Function>
void in_threads(Function function) {
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&function, i] { function(i); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

void eight_threads_lose_no_count(void**) {
  TestTable test(300);
  in_threads([&](std::size_t thread) {
    for (std::uint64_t i = 0; i < kPerThread; ++i) {
      test.table.count(event_of(i % 40, i % 2 == 0 ? Outcome::ok : Outcome::rate_limited),
                       {kNow + static_cast<std::int64_t>(thread % 2) * kUsageHour});
    }
  });
  for (const std::uint64_t hour : {kHour, kHour + 1}) {
    for (std::uint64_t key = 0; key < 40; ++key) {
      const KeyId id = key_number(key);
      const std::uint64_t wanted = kThreads / 2 * kPerThread / 40;
      assert_int_equal(sum_of(test.table, kUsageAdmitted, hour, &id), key % 2 == 0 ? wanted : 0);
      assert_int_equal(sum_of(test.table, counter_of(Outcome::rate_limited), hour, &id), key % 2 == 0 ? 0 : wanted);
      assert_int_equal(sum_of(test.table, kUsageBytes, hour, &id), wanted * 100);
    }
  }
}

// Hours go by for all threads together; two of them collect, each by itself, and what each has kept (the most it has
// seen of each row) adds up to everything that was counted.
void collecting_while_others_count(void**) {
  TestTable test(120);
  std::atomic<std::uint64_t> hour{0};
  std::array<std::atomic<std::uint64_t>, kThreads> counted{};
  std::atomic<std::size_t> counting{kThreads - 2};
  using Kept = std::map<std::tuple<std::uint64_t, std::uint64_t>, std::uint64_t>;
  Kept kept;
  std::atomic<bool> is_kept_by_one{false};
  const auto collect = [&](std::uint64_t closed, UnixSec now) {
    if (is_kept_by_one.exchange(true)) {
      // The other one is at it: read beside him, keep nothing.
      static_cast<void>(rows_of(test.table));
      return;
    }
    for (const UsageRow& row : rows_of(test.table)) {
      std::uint64_t& most = kept[{row.row, row.hour}];
      most = std::max(most, row.counters[kUsageAdmitted]);
    }
    if (closed > 0) {
      assert_true(test.table.acknowledge(closed, now));
    }
    is_kept_by_one.store(false);
  };
  in_threads([&](std::size_t thread) {
    if (thread >= kThreads - 2) {
      while (counting.load() != 0) {
        // Nobody counts in an hour any more when all have begun the next: what ten minutes are for.
        const std::uint64_t now = hour.load();
        std::uint64_t slowest = now;
        for (std::size_t i = 0; i < kThreads - 2; ++i) {
          slowest = std::min(slowest, counted[i].load());
        }
        const std::uint64_t closed = slowest == 0 ? 0 : kHour + slowest - 1;
        collect(closed, {static_cast<std::int64_t>(closed + 2) * kUsageHour});
      }
      return;
    }
    for (std::uint64_t i = 0; i < kHours; ++i) {
      counted[thread].store(i);
      if (thread == 0) {
        hour.store(i);
      }
      for (std::uint64_t n = 0; n < 300; ++n) {
        test.table.count(event_of(n % 10), {kNow + static_cast<std::int64_t>(i) * kUsageHour});
      }
    }
    counting.fetch_sub(1);
  });
  collect(0, {});
  std::uint64_t sum = 0;
  for (const auto& [row, most] : kept) {
    sum += most;
  }
  assert_int_equal(sum + test.table.head().unplaced, (kThreads - 2) * kHours * 300);
}

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(format_and_attach),
      cmocka_unit_test(attached_to_nothing),
      cmocka_unit_test(counts_by_key_owner_and_hour),
      cmocka_unit_test(every_refusal_has_its_counter),
      cmocka_unit_test(without_room_the_key_is_lost_and_no_count),
      cmocka_unit_test(an_hour_is_acknowledged_ten_minutes_after_its_end),
      cmocka_unit_test(nothing_is_counted_in_an_acknowledged_hour),
      cmocka_unit_test(slots_are_used_again),
      cmocka_unit_test(a_slot_whose_claimer_died_is_free_with_its_hour),
      cmocka_unit_test(a_restored_table_counts_in_new_slots),
      cmocka_unit_test(what_is_acknowledged_is_not_restored),
      cmocka_unit_test(a_row_without_room_leaves_a_gap),
      cmocka_unit_test(the_oldest_gaps_become_one),
      cmocka_unit_test(eight_threads_lose_no_count),
      cmocka_unit_test(collecting_while_others_count),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
