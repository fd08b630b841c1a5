// Tests of quota_table.cpp: layout, room, claims of dead workers, tables that are saved and restored, random operations
// against a simple model, and eight threads at once. Every time is given, so nothing here waits.
#include "apikey/quota_table.hpp"

#include <atomic>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "apikey/quota_slot.hpp"
#include "table_fixture.hpp"

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

using Status = QuotaResult::Status;

constexpr std::uint64_t kSecondUs = 1'000'000;
constexpr std::int64_t kNoon = 1'760'011'200;  // 2025-10-09 12:00:00
constexpr SipKey kSeed = {0x0123456789abcdef, 0xfedcba9876543210};

constexpr WallUs at(std::int64_t second) { return {static_cast<std::uint64_t>(second) * kSecondUs}; }
constexpr UnixSec seconds_of(WallUs now) { return {static_cast<std::int64_t>(now.value / kSecondUs)}; }

struct TestTable {
  explicit TestTable(std::size_t slots) : memory(QuotaTable::bytes_for(slots)) {
    assert_true(QuotaTable::format(memory.bytes(), kSeed, table).ok());
  }
  // Slot `i`, for what only a dying worker would write.
  WideWord& slot(std::size_t i) { return *reinterpret_cast<WideWord*>(memory.bytes().data() + 128 + 16 * i); }
  AlignedMemory memory;
  QuotaTable table;
};

std::uint64_t subject_of(const QuotaTable& table, std::uint64_t number, std::string_view name = "day") {
  std::array<std::uint8_t, 8> id{};
  std::memcpy(id.data(), &number, id.size());
  return table.subject(name, id);
}

QuotaOrder calendar(std::uint64_t subject, CalendarUnit unit, WallUs now, std::uint64_t amount,
                    std::uint64_t cost = 1) {
  return {subject, amount, 0, window_at(unit, seconds_of(now)), cost};
}

QuotaOrder rolling(std::uint64_t subject, std::uint64_t seconds, std::uint64_t amount, std::uint64_t cost = 1) {
  return {subject, amount, seconds * kNsPerSecond, {}, cost};
}

void a_table_is_made_and_attached_to(void**) {
  TestTable test(1000);
  assert_true(test.table.size() >= 1000 && test.table.size() < 1016);
  const std::uint64_t subject = subject_of(test.table, 1);
  const QuotaOrder order = calendar(subject, CalendarUnit::day, at(kNoon), 10);
  assert_int_equal(test.table.take(order, at(kNoon)).remaining, 9);

  const std::span<std::byte> memory = test.memory.bytes();
  QuotaTable again;
  assert_true(QuotaTable::attach(memory, again).ok());
  assert_int_equal(subject_of(again, 1), subject);
  assert_true(again.seed() == kSeed);
  assert_int_equal(again.take(order, at(kNoon)).remaining, 8);
  assert_int_equal(again.usage(at(kNoon)).used, 1);
  assert_int_equal(again.usage(at(kNoon + 86'400)).used, 0);

  QuotaTable other;
  assert_true(QuotaTable::attach(memory.first(memory.size() - 256), other).code == StatusCode::unsupported);
  assert_true(QuotaTable::attach(memory.first(10), other).code == StatusCode::unsupported);
  assert_true(QuotaTable::attach(memory.subspan(8), other).code == StatusCode::unsupported);
  memory[8] ^= std::byte{1};  // the layout
  assert_true(QuotaTable::attach(memory, other).code == StatusCode::unsupported);
  memory[0] ^= std::byte{1};  // the magic
  assert_true(QuotaTable::attach(memory, other).code == StatusCode::unsupported);
}

void too_little_or_crooked_memory_is_no_table(void**) {
  AlignedMemory memory(QuotaTable::bytes_for(10));
  QuotaTable table;
  assert_true(QuotaTable::format(memory.bytes().first(383), kSeed, table).code == StatusCode::bad_value);
  assert_true(QuotaTable::format(memory.bytes().subspan(16), kSeed, table).code == StatusCode::bad_value);
  assert_true(QuotaTable::format(memory.bytes().first(384), kSeed, table).ok());
  assert_int_equal(table.size(), 16);
}

void without_a_table_everything_is_full(void**) {
  const QuotaTable none;
  const QuotaOrder order = calendar(7, CalendarUnit::day, at(kNoon), 10);
  assert_true(none.take(order, at(kNoon)).status == Status::full);
  assert_true(none.look(order, at(kNoon)).status == Status::full);
  assert_false(none.charge(order, at(kNoon)));
  none.give_back(order, at(kNoon));
  assert_false(none.restore({}));
  assert_int_equal(none.size(), 0);
  assert_int_equal(none.usage(at(kNoon)).slots, 0);
}

void a_subject_is_a_name_and_an_id(void**) {
  TestTable test(10);
  const std::array<std::uint8_t, 2> bc = {'b', 'c'};
  const std::array<std::uint8_t, 1> c = {'c'};
  assert_true(test.table.subject("a", bc) != test.table.subject("ab", c));
  assert_true(test.table.subject("a", bc) == test.table.subject("a", bc));
  assert_true(test.table.subject("b", c) != test.table.subject("a", c));
}

void looking_takes_nothing(void**) {
  TestTable test(100);
  const QuotaOrder order = calendar(subject_of(test.table, 1), CalendarUnit::day, at(kNoon), 3, 2);
  QuotaOrder free = order;
  free.cost = 0;
  assert_int_equal(test.table.look(order, at(kNoon)).remaining, 1);
  assert_int_equal(test.table.look(order, at(kNoon)).remaining, 1);
  assert_int_equal(test.table.take(free, at(kNoon)).remaining, 3);
  assert_int_equal(test.table.usage(at(kNoon)).used, 0);
  assert_true(test.table.take(order, at(kNoon)).status == Status::admitted);
  assert_true(test.table.look(order, at(kNoon)).status == Status::refused);
  assert_int_equal(test.table.look(free, at(kNoon)).remaining, 1);
}

// Who has a slot keeps it; who comes too late is told so, until somebody's window is over.
void a_full_table_says_so_and_evicts_nobody(void**) {
  constexpr std::uint64_t slots = 16;
  TestTable test(slots);
  const auto order = [&](std::uint64_t number, std::int64_t now) {
    return calendar(subject_of(test.table, number), CalendarUnit::minute, at(now), 2);
  };
  for (std::uint64_t number = 0; number < slots; ++number) {
    assert_int_equal(test.table.take(order(number, kNoon), at(kNoon)).remaining, 1);
  }
  for (std::uint64_t number = slots; number < 5 * slots; ++number) {
    QuotaOrder late = order(number, kNoon + 59);
    assert_true(test.table.take(late, at(kNoon + 59)).status == Status::full);
    assert_true(test.table.look(late, at(kNoon + 59)).status == Status::full);
    assert_false(test.table.charge(late, at(kNoon + 59)));
    test.table.give_back(late, at(kNoon + 59));
    late.cost = 0;
    assert_int_equal(test.table.take(late, at(kNoon + 59)).remaining, 2);  // for nothing there is always room
  }
  for (std::uint64_t number = 0; number < slots; ++number) {
    assert_int_equal(test.table.take(order(number, kNoon + 59), at(kNoon + 59)).remaining, 0);
  }
  constexpr std::int64_t later = kNoon + 60 + kClockTolerance;
  assert_true(test.table.take(order(99, later - 1), at(later - 1)).status == Status::full);
  for (std::uint64_t number = slots; number < 2 * slots; ++number) {
    assert_int_equal(test.table.take(order(number, later), at(later)).remaining, 1);
  }
  assert_true(test.table.take(order(0, later), at(later)).status == Status::full);
}

// At nine tenths there is still room for everybody.
void a_table_is_not_full_before_it_is_full(void**) {
  constexpr std::uint64_t slots = 50'000;
  TestTable test(slots);
  std::uint64_t number = 0;
  const auto take = [&] {
    return test.table.take(calendar(subject_of(test.table, number), CalendarUnit::year, at(kNoon), 1), at(kNoon))
        .status;
  };
  while (take() == Status::admitted) {
    ++number;
  }
  print_message("the first of %ju slots that is not found is no. %ju\n", std::uintmax_t{slots}, std::uintmax_t{number});
  assert_true(number > slots * 9 / 10);
}

// Every slot was left tentative by a worker that died.
void dead_workers_claims_cost_no_slot(void**) {
  constexpr std::uint64_t slots = 16;
  TestTable test(slots);
  for (std::size_t i = 0; i < slots; ++i) {
    assert_true(test.slot(i).swap({0, 0}, encode_claim(900 + i, i)));
  }
  assert_int_equal(test.table.usage(at(kNoon)).used, 0);
  for (std::uint64_t number = 0; number < slots; ++number) {
    const QuotaOrder order = calendar(subject_of(test.table, number), CalendarUnit::day, at(kNoon), 5);
    assert_int_equal(test.table.look(order, at(kNoon)).remaining, 4);
    assert_int_equal(test.table.take(order, at(kNoon)).remaining, 4);
    assert_int_equal(test.table.take(order, at(kNoon)).remaining, 3);
  }
  assert_int_equal(test.table.usage(at(kNoon)).used, slots);
}

void ones_own_unfinished_claims_become_one(void**) {
  TestTable test(16);
  const QuotaOrder order = calendar(subject_of(test.table, 1), CalendarUnit::day, at(kNoon), 5);
  const std::uint64_t tag = order.subject >> (64 - kQuotaTagBits);
  for (const std::size_t i : {2U, 5U, 6U}) {
    assert_true(test.slot(i).swap({0, 0}, encode_claim(tag, i)));
  }
  test.table.give_back(order, at(kNoon));
  assert_int_equal(test.table.take(order, at(kNoon)).remaining, 4);
  assert_int_equal(test.table.take(order, at(kNoon)).remaining, 3);
  std::size_t slots = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    slots += quota_tag(test.slot(i).peek()) == tag ? 1 : 0;
  }
  assert_int_equal(slots, 1);
}

// What the claims are numbered with, see claim_set.hpp: every newcomer takes another number.
void claims_are_numbered(void**) {
  TestTable test(100);
  const auto& claims = *reinterpret_cast<const std::uint64_t*>(test.memory.bytes().data() + 64);
  for (std::uint64_t number = 0; number < 50; ++number) {
    assert_int_equal(claims, number);
    const QuotaOrder order = calendar(subject_of(test.table, number), CalendarUnit::day, at(kNoon), 5);
    assert_true(test.table.take(order, at(kNoon)).status == Status::admitted);
  }
}

// The same quotas in a table of another size: all of them, as long as there is room.
void a_table_is_saved_and_restored_into_another_size(void**) {
  constexpr std::uint64_t subjects = 1200;
  TestTable small(3000);
  const auto monthly = [&](std::uint64_t number, std::uint64_t cost) {
    return calendar(subject_of(small.table, number), CalendarUnit::month, at(kNoon), 10'000, cost);
  };
  const auto daily = [&](std::uint64_t number, std::uint64_t cost) {
    return rolling(subject_of(small.table, number, "rolling"), 86'400, 1000, cost);
  };
  for (std::uint64_t number = 0; number < subjects; ++number) {
    assert_true(small.table.charge(monthly(number, number + 1), at(kNoon)));
    assert_true(small.table.charge(daily(number, number + 1), at(kNoon)));
  }
  for (const std::size_t size : {2800U, 100'000U, 2000U}) {
    TestTable other(size);
    std::uint64_t kept = 0;
    std::uint64_t lost = 0;
    for (std::size_t i = 0; i < small.table.size(); ++i) {
      QuotaTable::Saved saved;
      if (small.table.save(i, saved)) {
        assert_true(saved.expires > static_cast<std::uint64_t>(kNoon));
        ++(other.table.restore(saved) ? kept : lost);
      }
    }
    assert_int_equal(kept + lost, 2 * subjects);
    assert_true(size < 2 * subjects ? lost != 0 : lost == 0);
    assert_int_equal(other.table.usage(at(kNoon)).used, kept);
    std::uint64_t found = 0;
    for (std::uint64_t number = 0; number < subjects; ++number) {
      const std::uint64_t used = 10'000 - other.table.look(monthly(number, 0), at(kNoon)).remaining;
      const std::uint64_t owed_ns = other.table.look(daily(number, 0), at(kNoon)).reset_ns;
      assert_true(used == number + 1 || (used == 0 && lost != 0));
      assert_true(owed_ns == small.table.look(daily(number, 0), at(kNoon)).reset_ns || (owed_ns == 0 && lost != 0));
      found += (used != 0 ? 1 : 0) + (owed_ns != 0 ? 1 : 0);
    }
    assert_int_equal(found, kept);
  }
}

void a_claim_is_not_saved(void**) {
  TestTable test(16);
  assert_true(test.slot(3).swap({0, 0}, encode_claim(77, 1)));
  QuotaTable::Saved saved;
  for (std::size_t i = 0; i < test.table.size(); ++i) {
    assert_false(test.table.save(i, saved));
  }
}

void what_is_there_is_not_restored_over(void**) {
  TestTable test(10);
  const QuotaOrder order = calendar(subject_of(test.table, 1), CalendarUnit::day, at(kNoon), 10);
  QuotaTable::Saved saved;
  assert_true(test.table.charge(order, at(kNoon)));
  std::size_t i = 0;
  while (!test.table.save(i, saved)) {
    ++i;
  }
  assert_true(test.table.charge(order, at(kNoon)));
  assert_true(test.table.restore(saved));
  assert_int_equal(test.table.look(order, at(kNoon)).remaining, 7);
  assert_false(test.table.restore({}));
  assert_false(test.table.restore({saved.low, saved.high & ~(std::uint64_t{7} << 61U), 0}));
}

// Random operations on calendar quotas against a model that keeps each by itself, with clocks that jump, amounts that
// change, and resets. (Rolling quotas have theirs in test_quota_slot.cpp.)
struct ModelQuota {
  std::int64_t begin = -1;
  std::uint64_t used = 0;
};

ModelQuota model_under(ModelQuota quota, const QuotaOrder& order, WallUs now) {
  if (order.window.begin.value > quota.begin) {
    return {order.window.begin.value, 0};
  }
  if (quota.begin > seconds_of(now).value + kClockTolerance) {
    quota.begin = std::min(quota.begin, order.window.begin.value);
  }
  return quota;
}

void a_simple_model_agrees(void**) {
  constexpr std::uint64_t subjects = 60;
  TestTable test(10'000);
  Random random(20251009);
  std::array<ModelQuota, subjects> model;
  std::array<std::int64_t, subjects> resets{};
  std::int64_t now = kNoon;
  std::array<std::uint64_t, 2> answers{};
  for (int n = 0; n < 300'000; ++n) {
    now += static_cast<std::int64_t>(random.below(random.once_in(300) ? 100'000 : 4));
    now -= static_cast<std::int64_t>(random.once_in(500) ? random.below(5000) : 0);
    const std::uint64_t number = random.below(subjects);
    const auto unit = static_cast<CalendarUnit>(1 + number % 6);
    QuotaOrder order = calendar(subject_of(test.table, number), unit, at(now), 20 + random.below(20), random.below(7));
    resets[number] = random.once_in(200) ? now : resets[number];
    order.window = begun_anew(order.window, {resets[number]}, {now});
    const ModelQuota current = model_under(model[number], order, at(now));
    const std::uint64_t left = order.amount - std::min(order.amount, current.used);
    const std::uint64_t operation = random.below(8);
    if (operation == 0) {
      assert_true(test.table.charge(order, at(now)));
      model[number] = order.cost == 0 ? model[number] : ModelQuota{current.begin, current.used + order.cost};
    } else if (operation == 1) {
      test.table.give_back(order, at(now));
      const bool is_same = model[number].begin == order.window.begin.value;
      model[number].used -= is_same ? std::min(model[number].used, order.cost) : 0;
    } else {
      const bool looks = operation == 2 || order.cost == 0;
      const QuotaResult result = looks ? test.table.look(order, at(now)) : test.table.take(order, at(now));
      const bool passes = order.cost <= left;
      assert_int_equal(result.status == Status::admitted, passes);
      assert_int_equal(result.remaining, passes ? left - order.cost : left);
      if (current.begin == order.window.begin.value) {
        const std::uint64_t reset_ns = static_cast<std::uint64_t>(order.window.end.value - now) * kNsPerSecond;
        assert_int_equal(result.reset_ns, reset_ns);
        assert_int_equal(result.retry_after_ns, passes ? 0 : order.cost > order.amount ? UINT64_MAX : reset_ns);
      }
      model[number] = looks ? model[number] : ModelQuota{current.begin, current.used + (passes ? order.cost : 0)};
      ++answers[passes ? 1 : 0];
    }
  }
  assert_true(answers[0] > 20'000 && answers[1] > 20'000);
}

// Every other subject has a calendar quota.
QuotaOrder some_order(const QuotaTable& table, std::uint64_t number, std::uint64_t amount) {
  const std::uint64_t subject = subject_of(table, number);
  return number % 2 == 0 ? calendar(subject, CalendarUnit::day, at(kNoon), amount, 1 + number % 3)
                         : rolling(subject, 86'400, amount, 1 + number % 3);
}

// No time passes: exactly the amount is admitted, to the token, of newcomers and of old ones.
void eight_threads_share_exactly_the_amount(void**) {
  constexpr std::uint64_t subjects = 2000;
  TestTable test(3000);
  std::vector<std::atomic<std::uint64_t>> admitted(subjects);
  in_threads([&](std::size_t) {
    for (std::uint64_t number = 0; number < subjects; ++number) {
      const QuotaOrder order = some_order(test.table, number, 12);
      for (int n = 0; n < 3; ++n) {
        const bool passes = test.table.take(order, at(kNoon)).status == Status::admitted;
        admitted[number].fetch_add(passes ? order.cost : 0);
      }
    }
  });
  for (const auto& each : admitted) {
    assert_int_equal(each.load(), 12);
  }
}

// What is taken, charged and given back adds up.
void eight_threads_give_back_what_they_took(void**) {
  constexpr std::uint64_t subjects = 50;
  TestTable test(100);
  std::array<std::atomic<std::uint64_t>, subjects> used{};
  in_threads([&](std::size_t thread) {
    Random random(thread + 1);
    for (int n = 0; n < 20'000; ++n) {
      const std::uint64_t number = random.below(subjects);
      QuotaOrder order = some_order(test.table, number, 86'400'000);  // one in 1000 µs
      const QuotaResult taken = test.table.take(order, at(kNoon));
      assert_true(taken.status == Status::admitted);
      if (random.once_in(3)) {
        order.taken_us = taken.taken_us;
        test.table.give_back(order, at(kNoon));
      } else if (random.once_in(3)) {
        order.cost *= 2;
        assert_true(test.table.charge(order, at(kNoon)));
        used[number].fetch_add(order.cost / 2 * 3);
      } else {
        used[number].fetch_add(order.cost);
      }
    }
  });
  for (std::uint64_t number = 0; number < subjects; ++number) {
    QuotaOrder order = some_order(test.table, number, 86'400'000);
    order.cost = 0;
    assert_int_equal(test.table.look(order, at(kNoon)).remaining, order.amount - used[number].load());
  }
}

// A clock that goes on while eight threads work, but never so far that one of them lags behind by the tolerance.
class SharedClock {
 public:
  SharedClock() {
    for (auto& each : at_work_) {
      each.store(INT64_MAX);
    }
  }
  std::int64_t begin(std::size_t thread) {
    std::int64_t now = 0;
    do {
      now = now_.load();
      at_work_[thread].store(now);
    } while (now != now_.load());
    return now;
  }
  void end(std::size_t thread) { at_work_[thread].store(INT64_MAX); }
  void tick() {
    std::int64_t now = now_.load();
    for (const auto& each : at_work_) {
      if (now - each.load() >= kClockTolerance - 1) {
        return;
      }
    }
    now_.compare_exchange_strong(now, now + 1);
  }
  [[nodiscard]] std::int64_t now() const { return now_.load(); }

 private:
  std::atomic<std::int64_t> now_{kNoon};
  std::array<std::atomic<std::int64_t>, kThreads> at_work_{};
};

// Time passes, and there are fewer slots than subjects: in no window anybody is admitted more than his amount.
void eight_threads_never_get_more_than_the_amount(void**) {
  constexpr std::uint64_t subjects = 60;
  constexpr std::uint64_t amount = 5;
  TestTable test(32);
  std::array<std::atomic<std::uint64_t>, subjects> admitted{};
  SharedClock clock;
  std::atomic<std::uint64_t> full{0};
  in_threads([&](std::size_t thread) {
    Random random(thread + 1);
    for (int n = 0; n < 5'000 || clock.now() < kNoon + 600; ++n) {
      const std::int64_t now = clock.begin(thread);
      const std::uint64_t number = random.below(subjects);
      const QuotaOrder order = calendar(subject_of(test.table, number), CalendarUnit::minute, at(now), amount);
      const Status status = test.table.take(order, at(now)).status;
      clock.end(thread);
      admitted[number].fetch_add(status == Status::admitted ? 1 : 0);
      full.fetch_add(status == Status::full ? 1 : 0);
      if (random.once_in(10)) {
        clock.tick();
      }
    }
  });
  const auto windows = static_cast<std::uint64_t>(clock.now() / 60 - kNoon / 60 + 1);
  std::uint64_t total = 0;
  for (const auto& each : admitted) {
    assert_true(each.load() <= amount * windows);
    total += each.load();
  }
  print_message("%ju windows, %ju admitted, %ju times full\n", std::uintmax_t{windows}, std::uintmax_t{total},
                std::uintmax_t{full.load()});
  assert_true(windows > 10 && total > 32 * amount && full.load() > 100);
}

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_table_is_made_and_attached_to),
      cmocka_unit_test(too_little_or_crooked_memory_is_no_table),
      cmocka_unit_test(without_a_table_everything_is_full),
      cmocka_unit_test(a_subject_is_a_name_and_an_id),
      cmocka_unit_test(looking_takes_nothing),
      cmocka_unit_test(a_full_table_says_so_and_evicts_nobody),
      cmocka_unit_test(a_table_is_not_full_before_it_is_full),
      cmocka_unit_test(dead_workers_claims_cost_no_slot),
      cmocka_unit_test(ones_own_unfinished_claims_become_one),
      cmocka_unit_test(claims_are_numbered),
      cmocka_unit_test(a_table_is_saved_and_restored_into_another_size),
      cmocka_unit_test(a_claim_is_not_saved),
      cmocka_unit_test(what_is_there_is_not_restored_over),
      cmocka_unit_test(a_simple_model_agrees),
      cmocka_unit_test(eight_threads_share_exactly_the_amount),
      cmocka_unit_test(eight_threads_give_back_what_they_took),
      cmocka_unit_test(eight_threads_never_get_more_than_the_amount),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
