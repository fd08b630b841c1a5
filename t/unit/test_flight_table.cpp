// Tests of flight_table.cpp: entering and leaving, room, what dead processes leave behind at every point at which they
// can die, random operations against a simple model, and eight threads at once. (Processes that are really killed:
// test_flight_processes.cpp.)
#include "apikey/flight_table.hpp"

#include <atomic>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "apikey/flight_set.hpp"
#include "table_fixture.hpp"

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

using Status = FlightResult::Status;

constexpr SipKey kSeed = {0x0123456789abcdef, 0xfedcba9876543210};
constexpr FlightHolder kSelf = {4000, 7};
constexpr FlightHolder kOther = {4001, 7};
constexpr FlightHolder kDead = {4002, 7};

bool all_but_one_live(FlightHolder holder) { return holder.row != kDead.row; }
bool nobody_lives(FlightHolder) { return false; }

struct TestTable {
  explicit TestTable(std::size_t slots) : memory(FlightTable::bytes_for(slots)) {
    assert_true(FlightTable::format(memory.bytes(), kSeed, table).ok());
    slot_count = table.usage().slots;
  }
  // For what only a dying process would write.
  WideWord& slot(std::size_t i) { return *reinterpret_cast<WideWord*>(memory.bytes().data() + 64 + 16 * i); }
  std::uint64_t& lease(std::size_t j) {
    return *reinterpret_cast<std::uint64_t*>(memory.bytes().data() + 64 + 16 * slot_count + 8 * j);
  }
  [[nodiscard]] std::size_t leases_used() {
    std::size_t used = 0;
    for (std::size_t j = 0; j < 4 * slot_count; ++j) {
      used += lease(j) != 0 ? 1 : 0;
    }
    return used;
  }
  AlignedMemory memory;
  FlightTable table;
  std::size_t slot_count = 0;
};

std::uint64_t subject_of(const FlightTable& table, std::uint64_t number) {
  std::array<std::uint8_t, 8> id{};
  std::memcpy(id.data(), &number, id.size());
  return table.subject("concurrency", id);
}

Status enter(const FlightTable& table, std::uint64_t subject, std::uint64_t most, FlightHolder holder,
             FlightLease& lease) {
  return table.enter(subject, most, holder, lease).status;
}

void a_table_is_made_and_attached_to(void**) {
  TestTable test(100);
  assert_true(test.slot_count >= 100);
  const std::uint64_t subject = subject_of(test.table, 1);
  FlightLease lease;
  assert_true(enter(test.table, subject, 2, kSelf, lease) == Status::admitted);

  const std::span<std::byte> memory = test.memory.bytes();
  FlightTable again;
  assert_true(FlightTable::attach(memory, again).ok());
  assert_int_equal(subject_of(again, 1), subject);
  assert_int_equal(again.look(subject, 2).remaining, 1);

  FlightTable other;
  assert_true(FlightTable::attach(memory.first(memory.size() - 8 * 48), other).code == StatusCode::unsupported);
  assert_true(FlightTable::attach(memory.first(10), other).code == StatusCode::unsupported);
  assert_true(FlightTable::attach(memory.subspan(8), other).code == StatusCode::unsupported);
  memory[8] ^= std::byte{1};  // the layout
  assert_true(FlightTable::attach(memory, other).code == StatusCode::unsupported);
  memory[0] ^= std::byte{1};  // the magic
  assert_true(FlightTable::attach(memory, other).code == StatusCode::unsupported);
}

void too_little_or_crooked_memory_is_no_table(void**) {
  AlignedMemory memory(FlightTable::bytes_for(10));
  FlightTable table;
  const std::size_t least = FlightTable::bytes_for(1);
  assert_true(FlightTable::format(memory.bytes().first(least - 1), kSeed, table).code == StatusCode::bad_value);
  assert_true(FlightTable::format(memory.bytes().subspan(16), kSeed, table).code == StatusCode::bad_value);
  assert_true(FlightTable::format(memory.bytes().first(least), kSeed, table).ok());
  assert_int_equal(table.usage().slots, 8);
}

void without_a_table_everything_is_full(void**) {
  const FlightTable none;
  FlightLease lease;
  assert_true(enter(none, 7, 5, kSelf, lease) == Status::full);
  assert_true(none.look(7, 5).status == Status::full);
  none.leave(lease, kSelf);
  assert_int_equal(none.release_dead(kSelf, nobody_lives), 0);
  assert_int_equal(none.usage().slots, 0);
}

void so_many_enter_and_no_more(void**) {
  TestTable test(100);
  const std::uint64_t subject = subject_of(test.table, 1);
  std::array<FlightLease, 4> leases;
  for (std::uint64_t n = 0; n < 3; ++n) {
    assert_int_equal(test.table.look(subject, 3).remaining, 3 - n);
    assert_int_equal(test.table.enter(subject, 3, kSelf, leases[n]).remaining, 2 - n);
  }
  assert_true(enter(test.table, subject, 3, kOther, leases[3]) == Status::refused);
  assert_true(test.table.look(subject, 3).status == Status::refused);
  assert_false(leases[3].is_held());
  assert_int_equal(test.leases_used(), 3);
  // Another subject, and another limit.
  assert_true(enter(test.table, subject_of(test.table, 2), 1, kSelf, leases[3]) == Status::admitted);
  assert_int_equal(test.table.look(subject, 5).remaining, 2);
  for (FlightLease& lease : leases) {
    assert_true(lease.is_held());
    test.table.leave(lease, kSelf);
    assert_false(lease.is_held());
    test.table.leave(lease, kSelf);  // twice does no harm
  }
  assert_int_equal(test.table.usage().in_flight, 0);
  assert_int_equal(test.table.usage().subjects, 0);
  assert_int_equal(test.leases_used(), 0);
  assert_int_equal(test.table.look(subject, 3).remaining, 3);
  assert_true(enter(test.table, subject, 0, kSelf, leases[0]) == Status::refused);
}

void nobody_leaves_for_another(void**) {
  TestTable test(100);
  FlightLease lease;
  assert_true(enter(test.table, subject_of(test.table, 1), 3, kSelf, lease) == Status::admitted);
  FlightLease copy = lease;
  test.table.leave(copy, kOther);
  assert_int_equal(test.table.usage().in_flight, 1);
  copy = lease;
  test.table.leave(copy, {kSelf.row, 8});
  assert_int_equal(test.table.usage().in_flight, 1);
  test.table.leave(lease, kSelf);
  assert_int_equal(test.table.usage().in_flight, 0);
}

void a_full_table_says_so(void**) {
  TestTable test(8);
  std::array<FlightLease, 32> leases;
  for (std::uint64_t n = 0; n < 8; ++n) {
    assert_true(enter(test.table, subject_of(test.table, n), 99, kSelf, leases[n]) == Status::admitted);
  }
  FlightLease none;
  assert_true(enter(test.table, subject_of(test.table, 8), 99, kSelf, none) == Status::full);
  assert_true(test.table.look(subject_of(test.table, 8), 99).status == Status::full);
  // The last lease.
  for (std::size_t n = 8; n < leases.size(); ++n) {
    assert_true(enter(test.table, subject_of(test.table, n % 8), 99, kSelf, leases[n]) == Status::admitted);
  }
  assert_true(enter(test.table, subject_of(test.table, 0), 99, kSelf, none) == Status::full);
  test.table.leave(leases[31], kSelf);
  assert_true(enter(test.table, subject_of(test.table, 0), 99, kSelf, leases[31]) == Status::admitted);
  // Who has left makes room for another subject.
  for (FlightLease& lease : leases) {
    test.table.leave(lease, kSelf);
  }
  for (std::uint64_t n = 100; n < 108; ++n) {
    assert_true(enter(test.table, subject_of(test.table, n), 99, kSelf, leases[n % 8]) == Status::admitted);
  }
}

void dead_claims_cost_no_slot(void**) {
  TestTable test(8);
  const std::uint64_t own = subject_of(test.table, 1);
  for (std::size_t i = 0; i < 8; ++i) {
    const std::uint64_t tag = i < 3 ? own >> (64 - kFlightTagBits) : 900 + i;
    assert_true(test.slot(i).swap({0, 0}, claim_flight({0, 0}, tag)));
  }
  FlightLease lease;
  for (std::uint64_t n = 0; n < 8; ++n) {
    assert_int_equal(test.table.enter(subject_of(test.table, n), 5, kSelf, lease).remaining, 4);
  }
  assert_int_equal(test.table.usage().subjects, 8);
}

void more_than_a_slot_counts_is_refused(void**) {
  TestTable test(20'000);
  const std::uint64_t subject = subject_of(test.table, 1);
  FlightLease lease;
  for (std::uint64_t n = 0; n < kMaxConcurrency; ++n) {
    assert_true(enter(test.table, subject, UINT64_MAX, kSelf, lease) == Status::admitted);
  }
  assert_true(enter(test.table, subject, UINT64_MAX, kSelf, lease) == Status::refused);
  assert_int_equal(test.table.usage().in_flight, kMaxConcurrency);
  // All of one process, which dies.
  assert_int_equal(test.table.release_dead(kOther, nobody_lives), kMaxConcurrency);
  assert_int_equal(test.table.usage().in_flight, 0);
}

// Leases of slots that are not there, as somebody else's memory may have them; sanitizers see a step beyond the table.
void rubbish_in_the_leases_is_let_go_of(void**) {
  TestTable test(100);
  std::mt19937_64 random(7);
  for (std::size_t j = 0; j < 4 * test.slot_count; ++j) {
    const std::uint64_t state = 1 + j % 3;
    test.lease(j) = (random() & ~(std::uint64_t{3} << 22U)) | state << 22U | std::uint64_t{0xffff} << 24U;
  }
  test.table.release_dead(kSelf, nobody_lives);
  test.table.release_dead(kSelf, nobody_lives);
  assert_int_equal(test.leases_used(), 0);
}

void the_dead_are_let_go_of(void**) {
  TestTable test(100);
  const std::uint64_t subject = subject_of(test.table, 1);
  FlightLease mine;
  FlightLease others;
  FlightLease dead;
  assert_true(enter(test.table, subject, 5, kSelf, mine) == Status::admitted);
  assert_true(enter(test.table, subject, 5, kOther, others) == Status::admitted);
  assert_true(enter(test.table, subject, 5, kDead, dead) == Status::admitted);
  assert_true(enter(test.table, subject, 5, {kSelf.row, 6}, dead) == Status::admitted);  // our row, before us
  assert_int_equal(test.table.release_dead(kSelf, all_but_one_live), 2);
  assert_int_equal(test.table.usage().in_flight, 2);
  assert_int_equal(test.table.release_dead(kSelf, all_but_one_live), 0);
  test.table.leave(mine, kSelf);
  test.table.leave(others, kOther);
  assert_int_equal(test.table.usage().in_flight, 0);
  assert_int_equal(test.leases_used(), 0);
}

// At every point between entering and having left: the slot counts the dead one's request, or not.
void wherever_one_dies_the_count_is_right(void**) {
  for (const LeaseState state : {LeaseState::entering, LeaseState::held, LeaseState::leaving}) {
    for (const bool is_counted : {false, true}) {
      if (state == LeaseState::held && !is_counted) {
        continue;
      }
      TestTable test(100);
      const std::uint64_t subject = subject_of(test.table, 1);
      FlightLease mine;
      FlightLease dead;
      FlightLease elsewhere;
      assert_true(enter(test.table, subject, 5, kSelf, mine) == Status::admitted);
      assert_true(enter(test.table, subject, 5, kDead, dead) == Status::admitted);
      assert_true(enter(test.table, subject_of(test.table, 2), 5, kSelf, elsewhere) == Status::admitted);
      Lease lease = decode_lease(test.lease(dead.index));
      lease.state = state;
      test.lease(dead.index) = encode_lease(lease);
      const WidePair word = test.slot(lease.slot).peek();
      assert_int_equal(flight_count(word), 2);
      assert_true(is_counted || test.slot(lease.slot).swap(word, next_flight(word, flight_tag(word), 1)));
      assert_int_equal(test.table.release_dead(kSelf, all_but_one_live), 1);
      assert_int_equal(test.table.usage().in_flight, 2);
      assert_int_equal(test.leases_used(), 2);
      assert_int_equal(test.table.look(subject, 5).remaining, 4);
      test.table.leave(mine, kSelf);
      test.table.leave(elsewhere, kSelf);
      assert_int_equal(test.table.usage().in_flight, 0);
    }
  }
}

void nothing_is_counted_anew_while_the_living_change_it(void**) {
  TestTable test(100);
  const std::uint64_t subject = subject_of(test.table, 1);
  FlightLease others;
  FlightLease dead;
  assert_true(enter(test.table, subject, 5, kOther, others) == Status::admitted);
  assert_true(enter(test.table, subject, 5, kDead, dead) == Status::admitted);
  for (const std::uint32_t index : {others.index, dead.index}) {
    Lease lease = decode_lease(test.lease(index));
    lease.state = LeaseState::leaving;
    test.lease(index) = encode_lease(lease);
  }
  assert_int_equal(test.table.release_dead(kSelf, all_but_one_live), 0);
  assert_int_equal(test.table.usage().in_flight, 2);
  // Then it dies as well.
  assert_int_equal(test.table.release_dead(kSelf, nobody_lives), 2);
  assert_int_equal(test.table.usage().in_flight, 0);
}

// While the leases are walked through, another process gets the id of one that is dead.
void who_gets_a_dead_ones_id_is_asked_about(void**) {
  TestTable test(100);
  std::array<FlightLease, 20> leases;
  for (std::size_t n = 0; n < leases.size(); ++n) {
    const FlightHolder holder = {kDead.row, static_cast<std::uint16_t>(n % 2)};
    assert_true(enter(test.table, subject_of(test.table, n), 1, holder, leases[n]) == Status::admitted);
  }
  static bool has_come;
  has_come = false;
  const std::uint64_t released =
      test.table.release_dead(kSelf, [](FlightHolder) { return std::exchange(has_come, true); });
  // Those before the first one of the other process.
  assert_true(released >= 1 && released < leases.size() / 2 + 1);
  assert_int_equal(test.table.usage().in_flight, leases.size() - released);
}

// Processes enter, leave and die; the model is a list of who is in.
void a_simple_model_agrees(void**) {
  struct InFlight {
    std::uint64_t number;
    FlightHolder holder;
    FlightLease lease;
  };
  constexpr std::uint64_t subjects = 50;
  TestTable test(200);
  Random random(4711);
  std::vector<InFlight> model;
  std::array<std::uint16_t, 6> marks{};
  std::uint64_t refused = 0;
  const auto count = [&](std::uint64_t number) {
    std::uint64_t found = 0;
    for (const InFlight& each : model) {
      found += each.number == number ? 1 : 0;
    }
    return found;
  };
  for (int n = 0; n < 200'000; ++n) {
    const std::uint64_t process = random.below(marks.size());
    const FlightHolder holder = {static_cast<std::uint32_t>(100 + process), marks[process]};
    const std::uint64_t number = random.below(subjects);
    const std::uint64_t most = random.below(7);
    if (random.once_in(500)) {
      // The process dies; another one gets its pid and cleans up.
      ++marks[process];
      const std::size_t before = model.size();
      std::erase_if(model, [&](const InFlight& each) { return each.holder.row == holder.row; });
      const FlightHolder next = {holder.row, marks[process]};
      const auto others_live = [](FlightHolder) { return true; };
      assert_int_equal(test.table.release_dead(next, others_live), before - model.size());
    } else if (random.once_in(2) && !model.empty()) {
      const std::size_t which = random.below(model.size());
      test.table.leave(model[which].lease, model[which].holder);
      model.erase(model.begin() + static_cast<std::ptrdiff_t>(which));
    } else {
      const std::uint64_t in = count(number);
      const FlightResult seen = test.table.look(subject_of(test.table, number), most);
      FlightLease lease;
      const FlightResult result = test.table.enter(subject_of(test.table, number), most, holder, lease);
      assert_int_equal(seen.status == Status::admitted, in < most);
      assert_int_equal(result.status == Status::admitted, in < most);
      assert_int_equal(result.remaining, in < most ? most - in - 1 : 0);
      refused += in < most ? 0 : 1;
      if (lease.is_held()) {
        model.push_back({number, holder, lease});
      }
    }
    if (n % 1000 == 0) {
      assert_int_equal(test.table.usage().in_flight, model.size());
      assert_int_equal(test.leases_used(), model.size());
    }
  }
  assert_true(refused > 5000);
}

// Never more than so many at once, whoever enters and leaves, also where subjects compete for slots.
void eight_threads_are_never_too_many(void**) {
  constexpr std::uint64_t subjects = 20;
  constexpr std::uint64_t most = 3;
  TestTable test(16);
  std::array<std::atomic<std::uint64_t>, subjects> inside{};
  std::atomic<std::uint64_t> too_many{0};
  std::atomic<std::uint64_t> entered{0};
  in_threads([&](std::size_t thread) {
    Random random(thread + 1);
    const FlightHolder self = {static_cast<std::uint32_t>(thread + 1), 1};
    for (int n = 0; n < 15'000; ++n) {
      const std::uint64_t number = random.below(subjects);
      std::array<FlightLease, 2> leases;
      for (FlightLease& lease : leases) {
        if (enter(test.table, subject_of(test.table, number), most, self, lease) == Status::admitted) {
          too_many.fetch_add(inside[number].fetch_add(1) >= most ? 1 : 0);
          entered.fetch_add(1);
        }
      }
      for (FlightLease& lease : leases) {
        if (lease.is_held()) {
          inside[number].fetch_sub(1);
          test.table.leave(lease, self);
        }
      }
    }
  });
  assert_int_equal(too_many.load(), 0);
  assert_true(entered.load() > 1000);
  assert_int_equal(test.table.usage().in_flight, 0);
  assert_int_equal(test.leases_used(), 0);
}

// Who is refused after all, having lost a race, keeps no lease.
void eight_threads_at_one_place_lose_no_lease(void**) {
  TestTable test(16);
  const std::uint64_t subject = subject_of(test.table, 1);
  std::atomic<std::uint64_t> refused{0};
  in_threads([&](std::size_t thread) {
    const FlightHolder self = {static_cast<std::uint32_t>(thread + 1), 1};
    for (int n = 0; n < 60'000; ++n) {
      FlightLease lease;
      refused.fetch_add(enter(test.table, subject, 1, self, lease) == Status::refused ? 1 : 0);
      if (n % 100 == 0) {
        std::this_thread::yield();
      }
      test.table.leave(lease, self);
    }
  });
  assert_true(refused.load() > 0);
  assert_int_equal(test.table.usage().in_flight, 0);
  assert_int_equal(test.leases_used(), 0);
}

// Some threads stop being, with what they hold, and come back under another mark; others clean up after them.
void eight_threads_die_and_are_let_go_of(void**) {
  TestTable test(16);
  constexpr std::uint64_t subjects = 4;
  // Who lives: the mark each pid has at present.
  static std::array<std::atomic<bool>, kThreads + 1> lives;
  const auto is_alive = [](FlightHolder holder) { return lives[holder.row].load(); };
  for (auto& each : lives) {
    each.store(true);
  }
  std::atomic<std::uint64_t> released{0};
  std::atomic<std::uint64_t> left_behind{0};
  in_threads([&](std::size_t thread) {
    Random random(thread + 1);
    FlightHolder self = {static_cast<std::uint32_t>(thread + 1), 1};
    for (int n = 0; n < 3'000; ++n) {
      FlightLease lease;
      const std::uint64_t subject = subject_of(test.table, random.below(subjects));
      if (enter(test.table, subject, 1000, self, lease) != Status::admitted) {
        continue;
      }
      if (thread % 2 == 0 && random.once_in(20)) {
        left_behind.fetch_add(1);
        lives[self.row].store(false);
        std::this_thread::yield();
        lives[self.row].store(true);
        ++self.mark;
        released.fetch_add(test.table.release_dead(self, is_alive));
      } else {
        test.table.leave(lease, self);
      }
      if (random.once_in(50)) {
        released.fetch_add(test.table.release_dead(self, is_alive));
      }
    }
  });
  released.fetch_add(test.table.release_dead({99, 1}, nobody_lives));
  assert_int_equal(released.load(), left_behind.load());
  assert_true(left_behind.load() > 100);
  assert_int_equal(test.table.usage().in_flight, 0);
  assert_int_equal(test.leases_used(), 0);
}

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_table_is_made_and_attached_to),
      cmocka_unit_test(too_little_or_crooked_memory_is_no_table),
      cmocka_unit_test(without_a_table_everything_is_full),
      cmocka_unit_test(so_many_enter_and_no_more),
      cmocka_unit_test(nobody_leaves_for_another),
      cmocka_unit_test(a_full_table_says_so),
      cmocka_unit_test(dead_claims_cost_no_slot),
      cmocka_unit_test(more_than_a_slot_counts_is_refused),
      cmocka_unit_test(rubbish_in_the_leases_is_let_go_of),
      cmocka_unit_test(the_dead_are_let_go_of),
      cmocka_unit_test(wherever_one_dies_the_count_is_right),
      cmocka_unit_test(nothing_is_counted_anew_while_the_living_change_it),
      cmocka_unit_test(who_gets_a_dead_ones_id_is_asked_about),
      cmocka_unit_test(a_simple_model_agrees),
      cmocka_unit_test(eight_threads_are_never_too_many),
      cmocka_unit_test(eight_threads_at_one_place_lose_no_lease),
      cmocka_unit_test(eight_threads_die_and_are_let_go_of),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
