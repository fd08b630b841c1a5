// Every interleaving of three processes that enter, leave, die at any moment and let go of what the dead held, down to
// the single memory access, run through the very steps of claim_set.hpp and flight_set.hpp: there are never more inside
// than may be, and when all is over the table counts those who are still inside, and nobody else. And four ways to get
// it wrong, each of which must be found out, so that the search is known to be able to fail.
#include "apikey/flight_set.hpp"

#include <algorithm>

#include "state_search.hpp"

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

constexpr std::uint64_t kTagX = 11;
constexpr std::uint64_t kTagY = 22;
constexpr std::uint64_t kTagO = 33;
constexpr std::uint16_t kMark = 1;
constexpr std::uint32_t kLongDead = 9;  // died before it all began
// Changes of slots are numbered from here on, those of the second one a little higher; nothing else among the values
// that are read looks like one of these.
constexpr std::uint64_t kFirstNumber = std::uint64_t{1} << 40U;

enum class Flaw : std::uint8_t {
  none,
  split_words,     // the two words of a slot are changed one after the other
  no_second_look,  // a claim is made final without looking for a twin
  stale_recount,   // a count is set though the slot was changed since it was read
  deaf_recount,    // a count is set though somebody who lives is just changing it
  no_takeover,     // what a dead process held is left by everybody who finds it
};

enum class Job : std::uint8_t { none, enter_and_leave, enter_and_stay, sweep };
enum class Stage : std::uint8_t { enters, inside, begins_leave, leaves, sweeps, over };

struct Process {
  Job job = Job::none;
  std::uint64_t tag = 0;
  bool may_die = false;
  bool is_dead = false;
  Stage stage = Stage::enters;
  // What is kept from one attempt to the next; an attempt works on copies.
  FlightDraft draft;
  FlightExit exit;
  FlightSweep sweep;
  Trace trace;
  Place claimed;                // what it has claimed in this attempt,
  std::uint8_t claimed_at = 0;  // and how many reads before: they do not matter any more
};

constexpr std::size_t kProcesses = 3;

struct World {
  std::array<WidePair, 2> slots{};
  std::size_t slot_count = 2;
  std::array<std::uint64_t, 3> leases{};
  std::array<Process, kProcesses> processes{};
  std::uint64_t most = 1;
  std::size_t deaths_left = 1;
};

FlightHolder holder_of(std::size_t k) { return {static_cast<std::uint32_t>(k + 1), kMark}; }

bool is_dead_in(const World& world, FlightHolder holder) {
  return holder.row == kLongDead || holder.row > kProcesses || world.processes[holder.row - 1].is_dead;
}

// The table as one process sees it during one step.
class SteppedTable {
 public:
  SteppedTable(World& world, Process& process, Flaw flaw, std::jmp_buf& pause)
      : world_(world), process_(process), flaw_(flaw), stepper_(process.trace, pause) {}

  [[nodiscard]] std::size_t size() const { return world_.slot_count; }
  [[nodiscard]] std::size_t group_size() const { return world_.slot_count; }
  bool holds(std::size_t i, std::uint64_t tag) {
    if (flaw_ == Flaw::no_second_look && has_claimed_) {
      return false;
    }
    return stepper_.access([&]() -> std::uint64_t { return flight_tag(world_.slots[i]) == tag ? 1 : 0; }) != 0;
  }
  WidePair load(std::size_t i) { return load_slot(i); }
  bool swap(std::size_t i, const WidePair& expected, const WidePair& desired) {
    const bool is_swapped = swap_slot(i, expected, desired);
    if (is_swapped && is_flight_tentative(desired)) {
      has_claimed_ = true;
      process_.claimed = {i, desired};
      process_.claimed_at = static_cast<std::uint8_t>(stepper_.position());
    }
    return is_swapped;
  }
  [[nodiscard]] std::uint64_t tag(const WidePair& word) const { return flight_tag(word); }
  [[nodiscard]] bool is_tentative(const WidePair& word) const { return is_flight_tentative(word); }
  [[nodiscard]] bool is_free(const WidePair& word) const { return flight_count(word) == 0; }
  WidePair claim(std::uint64_t tag, const WidePair& word) { return claim_flight(word, tag); }
  [[nodiscard]] WidePair free(const WidePair& word) const { return next_flight(word, 0, 0); }

  [[nodiscard]] std::uint32_t number_of(std::size_t i) const { return static_cast<std::uint32_t>(i); }
  WidePair load_slot(std::size_t number) {
    const std::uint64_t low = stepper_.access([&] { return world_.slots[number].low; });
    return {low, stepper_.access([&] { return world_.slots[number].high; })};
  }
  bool swap_slot(std::size_t number, const WidePair& expected, const WidePair& desired) {
    WidePair& slot = world_.slots[number];
    if (flaw_ == Flaw::split_words) {
      const bool is_swapped = compare_and_swap(slot.low, expected.low, desired.low);
      if (is_swapped) {
        stepper_.access([&] { return slot.high = desired.high; });
      }
      return is_swapped;
    }
    return stepper_.access([&]() -> std::uint64_t {
      const bool is_it = slot == expected || (is_recounting_ && flaw_ == Flaw::stale_recount);
      slot = is_it ? desired : slot;
      return is_it ? 1 : 0;
    }) != 0;
  }
  [[nodiscard]] std::size_t lease_count() const { return world_.leases.size(); }
  std::uint64_t lease(std::size_t j) {
    return stepper_.access([&] { return world_.leases[j]; });
  }
  void put_lease(std::size_t j, std::uint64_t word) {
    stepper_.access([&] { return world_.leases[j] = word; });
  }
  bool swap_lease(std::size_t j, std::uint64_t expected, std::uint64_t desired) {
    const bool is_swapped = compare_and_swap(world_.leases[j], expected, desired);
    const bool is_takeover = decode_lease(expected).state == LeaseState::held;
    return is_swapped || (flaw_ == Flaw::no_takeover && is_takeover);
  }
  // One access: what it finds is only a hint, which swap_lease() proves.
  std::size_t free_lease(std::size_t, const WidePair&) {
    return stepper_.access([&]() -> std::uint64_t {
      std::size_t j = 0;
      while (j < lease_count() && world_.leases[j] != 0) {
        ++j;
      }
      return j;
    });
  }
  // The first one who is asked about in a step of a sweep is the lease's own holder, the others are those of a recount.
  bool is_dead(FlightHolder holder) {
    const bool is_dead = stepper_.access([&]() -> std::uint64_t { return is_dead_in(world_, holder) ? 1 : 0; }) != 0;
    const bool is_deaf = is_recounting_ && flaw_ == Flaw::deaf_recount;
    is_recounting_ = true;
    return is_dead || is_deaf;
  }

 private:
  bool compare_and_swap(std::uint64_t& word, std::uint64_t expected, std::uint64_t desired) {
    return stepper_.access([&]() -> std::uint64_t {
      const bool is_it = word == expected;
      word = is_it ? desired : word;
      return is_it ? 1 : 0;
    }) != 0;
  }

  World& world_;
  Process& process_;
  Flaw flaw_;
  Stepper stepper_;
  bool has_claimed_ = false;
  bool is_recounting_ = false;
};

void finish_enter(Process& process, Turn turn, const FlightResult& result) {
  if (turn == Turn::done && result.status == FlightResult::Status::admitted) {
    process.stage = Stage::inside;
  } else if (turn != Turn::again) {
    process.stage = Stage::over;
  }
}

// One attempt, from one `again` to the next; the same calls as in flight_table.cpp.
void attempt(SteppedTable& table, std::size_t k, std::uint64_t most, Process& process) {
  FlightDraft draft = process.draft;
  FlightExit exit = process.exit;
  FlightSweep sweep = process.sweep;
  FlightResult result;
  switch (process.stage) {
    case Stage::enters: {
      const Turn turn = try_enter(table, {process.tag, most, holder_of(k)}, draft, result);
      process.draft = draft;
      finish_enter(process, turn, result);
      break;
    }
    case Stage::begins_leave: {
      const bool leaves = begin_leave(table, draft.lease, table.lease(draft.lease), holder_of(k), exit);
      process.exit = exit;
      process.stage = leaves ? Stage::leaves : Stage::over;
      break;
    }
    case Stage::leaves: {
      const Turn turn = try_leave(table, exit);
      process.exit = exit;
      process.stage = turn == Turn::done ? Stage::over : Stage::leaves;
      break;
    }
    case Stage::sweeps: {
      const auto is_dead = [&](FlightHolder holder) { return table.is_dead(holder); };
      const Turn turn = try_sweep(table, holder_of(k), is_dead, sweep);
      process.sweep = sweep;
      process.stage = turn == Turn::done ? Stage::over : Stage::sweeps;
      break;
    }
    case Stage::inside:
    case Stage::over:
      break;
  }
  process.trace.count = 0;
  process.claimed_at = 0;
}

bool is_at_rest(const Process& process) {
  return process.is_dead || process.stage == Stage::over ||
         (process.stage == Stage::inside && process.job == Job::enter_and_stay);
}

// One access of process `k`, or the moment at which its request ends.
void step(World& world, std::size_t k, Flaw flaw) {
  Process& process = world.processes[k];
  if (process.stage == Stage::inside) {
    process.stage = Stage::begins_leave;
    return;
  }
  std::jmp_buf pause;
  if (setjmp(pause) != 0) {  // NOLINT(cert-err52-cpp)
    return;
  }
  SteppedTable table(world, process, flaw, pause);
  attempt(table, k, world.most, process);
}

// Gives the numbers of changes new names, in the order in which they are met: all that matters is where the same one
// stands, since the next one is always new.
class Renaming {
 public:
  std::uint64_t operator()(std::uint64_t value) {
    const std::uint64_t number = value & ~kFlightTentativeBit;
    if (number < kFirstNumber || number >= 2 * kFirstNumber) {
      return value;
    }
    std::size_t name = 0;
    while (name < count_ && names_[name] != number) {
      ++name;
    }
    if (name == count_) {
      assert_true(count_ < names_.size());
      names_[count_++] = number;
    }
    return (value & kFlightTentativeBit) + kFirstNumber + name;
  }

 private:
  std::array<std::uint64_t, 64> names_;
  std::size_t count_ = 0;
};

void add_process(Fingerprint& print, const Process& process, Renaming& rename) {
  // Of the dead nothing matters any more but that they are.
  print.add(process.is_dead ? 1 : 0);
  if (process.is_dead) {
    return;
  }
  for (const std::uint64_t value :
       {static_cast<std::uint64_t>(process.stage), std::uint64_t{process.draft.lease},
        std::uint64_t{process.exit.lease}, std::uint64_t{process.exit.is_counted_down},
        std::uint64_t{process.sweep.next}, std::uint64_t{process.sweep.exit.lease},
        std::uint64_t{process.sweep.exit.slot}, std::uint64_t{process.sweep.exit.is_counted_down},
        std::uint64_t{process.claimed_at != 0}, static_cast<std::uint64_t>(process.trace.count - process.claimed_at)}) {
    print.add(value);
  }
  if (process.claimed_at != 0) {
    print.add(process.claimed.index);
    print.add(process.claimed.word.low);
    print.add(rename(process.claimed.word.high));
  }
  for (std::size_t i = process.claimed_at; i < process.trace.count; ++i) {
    print.add(rename(process.trace.reads[i]));
  }
}

std::uint64_t fingerprint(const World& world) {
  Fingerprint print;
  Renaming rename;
  for (const WidePair& slot : world.slots) {
    print.add(slot.low);
    print.add(rename(slot.high));
  }
  for (const std::uint64_t lease : world.leases) {
    print.add(lease);
  }
  print.add(world.deaths_left);
  for (const Process& process : world.processes) {
    add_process(print, process, rename);
  }
  return print.value();
}

std::uint64_t inside(const World& world, std::uint64_t tag) {
  return static_cast<std::uint64_t>(
      std::count_if(world.processes.begin(), world.processes.end(), [&](const Process& process) {
        return process.tag == tag && !process.is_dead && process.stage == Stage::inside;
      }));
}

bool is_right(const World& world) {
  for (const std::uint64_t tag : {kTagX, kTagY}) {
    const auto stands = std::count_if(world.slots.begin(), world.slots.end(), [&](const WidePair& slot) {
      return flight_tag(slot) == tag && !is_flight_tentative(slot);
    });
    if (stands > 1 || inside(world, tag) > world.most) {
      return false;
    }
  }
  return true;
}

// Everybody is at rest. Somebody looks after the dead, alone: then the table counts who is inside, and nobody else.
bool counts_right_in_the_end(World world) {
  Process& last = world.processes[0];
  const Process first = last;
  last = {};
  last.job = Job::sweep;
  last.stage = Stage::sweeps;
  // Under a pid of its own; `first` may still be inside, or dead.
  const std::size_t k = kLongDead;
  std::jmp_buf pause;
  while (last.stage != Stage::over) {
    if (setjmp(pause) == 0) {  // NOLINT(cert-err52-cpp)
      World seen = world;
      seen.processes[0] = first;
      SteppedTable table(world, last, Flaw::none, pause);
      FlightSweep sweep = last.sweep;
      const Turn turn = try_sweep(
          table, holder_of(k), [&](FlightHolder holder) { return is_dead_in(seen, holder); }, sweep);
      last.sweep = sweep;
      last.stage = turn == Turn::done ? Stage::over : Stage::sweeps;
      last.trace.count = 0;
      last.claimed_at = 0;
    }
  }
  last = first;
  std::uint64_t alive = 0;
  for (const std::uint64_t tag : {kTagX, kTagY}) {
    std::uint64_t counted = 0;
    for (const WidePair& slot : world.slots) {
      counted += flight_tag(slot) == tag ? flight_count(slot) : 0;
    }
    if (counted != inside(world, tag)) {
      return false;
    }
    alive += counted;
  }
  const auto leases = std::count_if(world.leases.begin(), world.leases.end(), [](std::uint64_t l) { return l != 0; });
  return static_cast<std::uint64_t>(leases) == alive;
}

struct Outcome {
  std::size_t states = 0;
  std::size_t ends = 0;
  bool is_right = true;
};

Outcome search(const World& start, Flaw flaw) {
  Outcome outcome;
  outcome.states = search_states(start, fingerprint, [&](const World& world, auto visit) {
    const bool is_end = std::all_of(world.processes.begin(), world.processes.end(), is_at_rest);
    outcome.ends += is_end ? 1 : 0;
    outcome.is_right = is_right(world) && (!is_end || counts_right_in_the_end(world));
    if (!outcome.is_right) {
      return false;
    }
    for (std::size_t k = 0; k < kProcesses; ++k) {
      const Process& process = world.processes[k];
      if (process.may_die && !process.is_dead && world.deaths_left != 0 && process.stage != Stage::over) {
        World next = world;
        next.processes[k].is_dead = true;
        --next.deaths_left;
        visit(next);
      }
      if (!is_at_rest(process)) {
        World next = world;
        step(next, k, flaw);
        visit(next);
      }
    }
    return true;
  });
  return outcome;
}

Process does(Job job, std::uint64_t tag = 0) {
  Process process;
  process.job = job;
  process.tag = tag;
  process.stage = job == Job::sweep ? Stage::sweeps : job == Job::none ? Stage::over : Stage::enters;
  return process;
}

Process dies(Process process) {
  process.may_die = true;
  return process;
}

WidePair flights(std::uint64_t tag, std::uint64_t count) { return {count << kFlightTagBits | tag, 0}; }
std::uint64_t dead_lease(LeaseState state, std::uint32_t slot = 0) {
  return encode_lease({{kLongDead, kMark}, state, slot});
}

struct Scene {
  const char* name;
  std::size_t slot_count;
  std::array<WidePair, 2> slots;
  std::array<std::uint64_t, 3> leases;
  std::uint64_t most;
  std::array<Process, kProcesses> processes;
};

const std::vector<Scene>& scenes() {
  static const Process come_and_go = does(Job::enter_and_leave, kTagX);
  static const Process come = does(Job::enter_and_stay, kTagX);
  static const Process other = does(Job::enter_and_leave, kTagY);
  static const Process sweep = does(Job::sweep);
  static const std::vector<Scene> all = {
      {"two enter and leave", 2, {}, {}, 1, {come_and_go, come_and_go, does(Job::none)}},
      {"two of one, one stays", 2, {}, {}, 2, {come_and_go, come, does(Job::none)}},
      {"two live and one sweeps, two died",
       2,
       {flights(kTagX, 1)},
       {dead_lease(LeaseState::entering)},
       1,
       {come_and_go, dies(come), sweep}},
      {"one dies, having moved to another slot",
       2,
       {WidePair{}, flights(kTagO, 1)},
       {dead_lease(LeaseState::held, 1)},
       1,
       {dies(come), other, sweep}},
      {"one slot for two", 1, {}, {}, 1, {come_and_go, other, come}},
      {"one dies, one stays", 2, {}, {}, 2, {dies(come_and_go), come, sweep}},
      {"one dies, one comes and goes", 2, {flights(kTagX, 0)}, {}, 1, {dies(come_and_go), come_and_go, sweep}},
      {"one dies, another one's slot", 1, {}, {}, 1, {dies(come_and_go), other, sweep}},
      {"who sweeps dies", 1, {flights(kTagX, 1)}, {dead_lease(LeaseState::held)}, 2, {come, dies(sweep), sweep}},
      {"died entering, counted", 1, {flights(kTagX, 1)}, {dead_lease(LeaseState::entering)}, 2, {come, sweep, sweep}},
      {"died entering, not counted", 2, {}, {dead_lease(LeaseState::entering)}, 1, {come_and_go, dies(sweep), sweep}},
      {"died leaving, counted",
       1,
       {flights(kTagX, 1)},
       {dead_lease(LeaseState::leaving)},
       1,
       {come_and_go, sweep, sweep}},
      {"died leaving, not counted", 1, {flights(kTagX, 0)}, {dead_lease(LeaseState::leaving)}, 1, {come, other, sweep}},
      {"two died",
       1,
       {flights(kTagX, 2)},
       {dead_lease(LeaseState::held), dead_lease(LeaseState::leaving)},
       3,
       {come_and_go, dies(sweep), sweep}},
  };
  return all;
}

World make_world(const Scene& scene) {
  World world;
  world.slots = scene.slots;
  for (std::size_t i = 0; i < world.slots.size(); ++i) {
    world.slots[i].high = kFirstNumber + (i << 20U);
  }
  world.slot_count = scene.slot_count;
  world.leases = scene.leases;
  world.most = scene.most;
  world.processes = scene.processes;
  return world;
}

void no_interleaving_counts_wrong(void**) {
  std::size_t states = 0;
  for (const Scene& scene : scenes()) {
    const Outcome outcome = search(make_world(scene), Flaw::none);
    print_message("%s: %zu states, %zu ends\n", scene.name, outcome.states, outcome.ends);
    assert_true(outcome.is_right);
    assert_true(outcome.states > 100 && outcome.ends > 0);
    states += outcome.states;
  }
  print_message("%zu states\n", states);
}

void a_flaw_is_found(Flaw flaw) {
  std::size_t found = 0;
  for (const Scene& scene : scenes()) {
    found += search(make_world(scene), flaw).is_right ? 0 : 1;
  }
  print_message("found in %zu of %zu searches\n", found, scenes().size());
  assert_true(found > 0);
}

void a_claim_without_a_second_look_is_found(void**) { a_flaw_is_found(Flaw::no_second_look); }
void words_changed_one_after_the_other_are_found(void**) { a_flaw_is_found(Flaw::split_words); }
void a_recount_of_a_changed_slot_is_found(void**) { a_flaw_is_found(Flaw::stale_recount); }
void a_recount_in_the_middle_of_a_change_is_found(void**) { a_flaw_is_found(Flaw::deaf_recount); }
void leaving_twice_for_the_dead_is_found(void**) { a_flaw_is_found(Flaw::no_takeover); }

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(no_interleaving_counts_wrong),
      cmocka_unit_test(a_claim_without_a_second_look_is_found),
      cmocka_unit_test(words_changed_one_after_the_other_are_found),
      cmocka_unit_test(a_recount_of_a_changed_slot_is_found),
      cmocka_unit_test(a_recount_in_the_middle_of_a_change_is_found),
      cmocka_unit_test(leaving_twice_for_the_dead_is_found),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
