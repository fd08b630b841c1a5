// Every interleaving of three workers at the slots of a table of quotas, down to the single memory access, run through
// the very steps of claim_set.hpp and quota_set.hpp: nobody stands in two slots, nobody is admitted beyond his amount
// in a window, and what is taken, given back and charged adds up. And three ways to get the protocol wrong, each of
// which must be found out, so that the search is known to be able to fail.
//
// A worker that dies at some point is one that is not scheduled any more: all those runs are among these. That the
// others get through all the same, wherever it stopped, is tried by letting each of them run alone.
#include "apikey/quota_set.hpp"

#include <algorithm>
#include <utility>

#include "state_search.hpp"

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

constexpr std::uint64_t kSecondUs = 1'000'000;
constexpr std::int64_t kMinute = 1'760'011'200;  // begins one
constexpr std::int64_t kStart = kMinute + 58;
// What the clock may do, once, at any moment: a window ends, and what was whole shortly before is free for others. No
// worker lags behind by more than the tolerance.
constexpr std::int64_t kLater = kMinute + 64;
static_assert(kLater - kStart <= kClockTolerance);
constexpr std::uint64_t kTagX = 11;
constexpr std::uint64_t kTagY = 22;
constexpr std::uint64_t kTagO = 33;
constexpr std::uint64_t kTagP = 44;

enum class Flaw : std::uint8_t {
  none,
  split_words,     // the two words of a slot are changed one after the other
  no_second_look,  // a claim is made final without looking for a twin
  same_numbers,    // a claim that was withdrawn and is made again is the same to the bit
};

enum class Job : std::uint8_t { take, take_and_give_back, charge };
enum class Stage : std::uint8_t { begins, takes, gives_back, over };

struct Worker {
  std::uint64_t tag = 0;
  Job job = Job::take;
  Stage stage = Stage::begins;
  bool is_served = false;
  std::int64_t now = 0;
  Trace trace;
  Place claimed;                // what it has claimed in this attempt,
  std::uint8_t claimed_at = 0;  // and how many reads before: they do not matter any more
};

constexpr std::size_t kWorkers = 3;

struct World {
  std::array<WidePair, 3> slots{};
  std::size_t slot_count = 2;
  std::int64_t clock = kStart;
  std::int64_t next_clock = kStart;
  std::array<Worker, kWorkers> workers{};
};

// Claims are numbered from here on.
constexpr std::uint64_t kFirstNumber = 100;
constexpr std::uint64_t kEndNumber = 120;

// The number of a claim, when that is what this second word of a slot says.
constexpr std::uint64_t number_in(std::uint64_t high) { return high >= kFirstNumber && high < kEndNumber ? high : 0; }

// Stands for a counter that never gives a number twice: the first one that nobody can still have in mind.
std::uint64_t unused_number(const World& world) {
  const auto is_known = [&](std::uint64_t number) {
    const auto is_it = [&](std::uint64_t value) { return value == number; };
    return std::any_of(world.slots.begin(), world.slots.end(),
                       [&](const WidePair& slot) { return is_it(slot.high); }) ||
           std::any_of(world.workers.begin(), world.workers.end(), [&](const Worker& worker) {
             const auto& reads = worker.trace.reads;
             return (worker.claimed_at != 0 && is_it(worker.claimed.word.high)) ||
                    std::any_of(reads.begin() + worker.claimed_at, reads.begin() + worker.trace.count, is_it);
           });
  };
  std::uint64_t number = kFirstNumber;
  while (is_known(number)) {
    ++number;
  }
  assert_true(number < kEndNumber);
  return number;
}

// The slots as one worker sees them during one step.
class SteppedSlots {
 public:
  SteppedSlots(World& world, Worker& worker, Flaw flaw, std::jmp_buf& pause)
      : world_(world), worker_(worker), flaw_(flaw), stepper_(worker.trace, pause) {}

  [[nodiscard]] std::size_t size() const { return world_.slot_count; }
  [[nodiscard]] std::size_t group_size() const { return world_.slot_count; }
  bool holds(std::size_t i, std::uint64_t tag) {
    if (flaw_ == Flaw::no_second_look && has_claimed_) {
      return false;
    }
    return stepper_.access([&]() -> std::uint64_t { return quota_tag(world_.slots[i]) == tag ? 1 : 0; }) != 0;
  }
  WidePair load(std::size_t i) {
    const std::uint64_t low = stepper_.access([&] { return world_.slots[i].low; });
    return {low, stepper_.access([&] { return world_.slots[i].high; })};
  }
  bool swap(std::size_t i, const WidePair& expected, const WidePair& desired) {
    const bool is_swapped =
        flaw_ == Flaw::split_words ? split_swap(i, expected, desired) : whole_swap(i, expected, desired);
    if (is_swapped && is_quota_claim(desired)) {
      has_claimed_ = true;
      worker_.claimed = {i, desired};
      worker_.claimed_at = static_cast<std::uint8_t>(stepper_.position());
    }
    return is_swapped;
  }
  [[nodiscard]] std::uint64_t tag(const WidePair& word) const { return quota_tag(word); }
  [[nodiscard]] bool is_tentative(const WidePair& word) const { return is_quota_claim(word); }
  [[nodiscard]] bool is_free(const WidePair& word) const { return is_quota_free(word, now()); }
  WidePair claim(std::uint64_t tag, const WidePair&) {
    return encode_claim(tag, flaw_ == Flaw::same_numbers ? 1 : stepper_.choose([&] { return unused_number(world_); }));
  }
  [[nodiscard]] WidePair free(const WidePair&) const { return {}; }
  [[nodiscard]] WallUs now() const { return {static_cast<std::uint64_t>(worker_.now) * kSecondUs}; }

 private:
  bool whole_swap(std::size_t i, const WidePair& expected, const WidePair& desired) {
    return stepper_.access([&]() -> std::uint64_t {
      const bool is_it = world_.slots[i] == expected;
      world_.slots[i] = is_it ? desired : world_.slots[i];
      return is_it ? 1 : 0;
    }) != 0;
  }
  bool split_swap(std::size_t i, const WidePair& expected, const WidePair& desired) {
    const bool is_swapped = stepper_.access([&]() -> std::uint64_t {
      const bool is_it = world_.slots[i].high == expected.high;
      world_.slots[i].high = is_it ? desired.high : world_.slots[i].high;
      return is_it ? 1 : 0;
    }) != 0;
    if (is_swapped) {
      stepper_.access([&] { return world_.slots[i].low = desired.low; });
    }
    return is_swapped;
  }

  World& world_;
  Worker& worker_;
  Flaw flaw_;
  Stepper stepper_;
  bool has_claimed_ = false;
};

QuotaOrder order_of(const Worker& worker) {
  QuotaOrder order;
  order.subject = worker.tag << (64 - kQuotaTagBits);
  order.amount = 1;
  order.window = window_at(CalendarUnit::minute, {worker.now});
  return order;
}

void finish_attempt(Worker& worker, Turn turn, const QuotaResult& result) {
  worker.trace.count = 0;
  worker.claimed_at = 0;
  if (turn == Turn::again) {
    return;
  }
  if (worker.stage == Stage::takes) {
    worker.is_served = turn == Turn::done && result.status == QuotaResult::Status::admitted;
    const bool goes_on = worker.is_served && worker.job == Job::take_and_give_back;
    worker.stage = goes_on ? Stage::gives_back : Stage::over;
  } else {
    worker.stage = Stage::over;
  }
}

// One access of worker `k`, or its start: the moment at which it looks at the clock.
void step(World& world, std::size_t k, Flaw flaw) {
  Worker& worker = world.workers[k];
  if (worker.stage == Stage::begins) {
    worker.stage = Stage::takes;
    worker.now = world.clock;
    return;
  }
  std::jmp_buf pause;
  if (setjmp(pause) != 0) {  // NOLINT(cert-err52-cpp)
    return;
  }
  SteppedSlots slots(world, worker, flaw, pause);
  const QuotaOrder order = order_of(worker);
  const Charge charge = worker.job == Job::charge ? Charge::whatever_is_left : Charge::if_left;
  QuotaResult result;
  const Turn turn = worker.stage == Stage::takes ? try_take_quota(slots, order, slots.now(), charge, result)
                                                 : try_give_back_quota(slots, order, slots.now());
  finish_attempt(worker, turn, result);
}

// Gives the numbers of claims new names, in the order in which they are met: which is which does not matter, only where
// the same one stands.
class Renaming {
 public:
  std::uint64_t operator()(std::uint64_t value) {
    const std::uint64_t number = number_in(value);
    if (number == 0) {
      return value;
    }
    std::uint64_t& name = names_[number - kFirstNumber];
    name = name != 0 ? name : ++count_;
    return name;
  }

 private:
  std::array<std::uint64_t, kEndNumber - kFirstNumber> names_{};
  std::uint64_t count_ = 0;
};

void add_worker(Fingerprint& print, const Worker& worker, Renaming& rename) {
  for (const std::uint64_t value :
       {worker.tag, static_cast<std::uint64_t>(worker.job), static_cast<std::uint64_t>(worker.stage),
        std::uint64_t{worker.is_served}, static_cast<std::uint64_t>(worker.now), std::uint64_t{worker.claimed_at != 0},
        static_cast<std::uint64_t>(worker.trace.count - worker.claimed_at)}) {
    print.add(value);
  }
  if (worker.claimed_at != 0) {
    print.add(worker.claimed.index);
    print.add(worker.claimed.word.low);
    print.add(rename(worker.claimed.word.high));
  }
  for (std::size_t i = worker.claimed_at; i < worker.trace.count; ++i) {
    print.add(rename(worker.trace.reads[i]));
  }
}

std::uint64_t fingerprint(const World& world) {
  Fingerprint print;
  Renaming rename;
  for (const WidePair& slot : world.slots) {
    print.add(slot.low);
    print.add(rename(slot.high));
  }
  print.add(static_cast<std::uint64_t>(world.clock));
  // Workers are told apart by what they do only.
  std::array<std::pair<std::uint64_t, const Worker*>, kWorkers> sorted;
  for (std::size_t k = 0; k < kWorkers; ++k) {
    Fingerprint own;
    Renaming own_rename = rename;
    add_worker(own, world.workers[k], own_rename);
    sorted[k] = {own.value(), &world.workers[k]};
  }
  std::sort(sorted.begin(), sorted.end());
  for (const auto& [own, worker] : sorted) {
    add_worker(print, *worker, rename);
  }
  return print.value();
}

// Nobody stands in two slots, and in each window nobody who asked in it was admitted beyond one.
bool is_right(const World& world) {
  for (const std::uint64_t tag : {kTagX, kTagY}) {
    const auto stands = std::count_if(world.slots.begin(), world.slots.end(), [&](const WidePair& slot) {
      return quota_tag(slot) == tag && !is_quota_claim(slot);
    });
    std::size_t before = 0;
    std::size_t after = 0;
    for (const Worker& worker : world.workers) {
      const bool counts = worker.tag == tag && worker.is_served && worker.job == Job::take;
      (worker.now < kLater ? before : after) += counts ? 1 : 0;
    }
    // Who asked before may have been counted in the next window, which others had begun.
    if (stands > 1 || after > 1 || before + after > (world.clock < kLater ? 1U : 2U)) {
      return false;
    }
  }
  return true;
}

bool is_over(const World& world) {
  return std::all_of(world.workers.begin(), world.workers.end(),
                     [](const Worker& w) { return w.stage == Stage::over; });
}

// Where no window ended: the slot says what was taken or charged, and not given back.
void assert_adds_up(const World& world) {
  for (const std::uint64_t tag : {kTagX, kTagY}) {
    std::uint64_t used = 0;
    for (const Worker& worker : world.workers) {
      used += worker.tag == tag && worker.is_served && worker.job != Job::take_and_give_back ? 1 : 0;
    }
    std::uint64_t counted = 0;
    for (const WidePair& slot : world.slots) {
      const QuotaUse use = decode_use(slot);
      counted += quota_tag(slot) == tag && use.begin.value == kMinute ? use.value : 0;
    }
    assert_int_equal(counted, used);
  }
}

// Whoever runs alone gets through, wherever the others stopped for ever.
void assert_nobody_is_held_up(const World& world, Flaw flaw) {
  for (std::size_t k = 0; k < kWorkers; ++k) {
    World alone = world;
    for (int n = 0; n < 200 && alone.workers[k].stage != Stage::over; ++n) {
      step(alone, k, flaw);
    }
    assert_true(alone.workers[k].stage == Stage::over);
  }
}

struct Outcome {
  std::size_t states = 0;
  std::size_t ends = 0;
  bool is_right = true;
};

Outcome search(const World& start, Flaw flaw) {
  Outcome outcome;
  std::size_t visited = 0;
  outcome.states = search_states(start, fingerprint, [&](const World& world, auto visit) {
    outcome.is_right = is_right(world);
    if (!outcome.is_right) {
      return false;
    }
    if (flaw == Flaw::none && ++visited % 16 == 0) {
      assert_nobody_is_held_up(world, flaw);
    }
    if (is_over(world)) {
      ++outcome.ends;
      if (flaw == Flaw::none && world.clock == kStart) {
        assert_adds_up(world);
      }
    }
    if (world.clock != world.next_clock) {
      World next = world;
      next.clock = world.next_clock;
      visit(next);
    }
    for (std::size_t k = 0; k < kWorkers; ++k) {
      if (world.workers[k].stage != Stage::over) {
        World next = world;
        step(next, k, flaw);
        visit(next);
      }
    }
    return true;
  });
  return outcome;
}

WidePair used(std::uint64_t tag) { return encode_use(tag, {1, {kMinute}, 1}); }
WidePair old(std::uint64_t tag) { return encode_use(tag, {1, {kMinute - 600}, 1}); }
// A rolling quota that becomes whole in between: free for others when the clock has moved.
WidePair soon_free(std::uint64_t tag) {
  return encode_use(tag, {kRollingKind, {0}, static_cast<std::uint64_t>(kMinute + 53 - kRollingEpoch) * kSecondUs});
}
// Left behind by a worker that died in the middle of its claim.
WidePair orphan(std::uint64_t tag, std::uint64_t number = 50) { return encode_claim(tag, number); }

struct Scene {
  const char* name;
  std::size_t slot_count;
  std::array<WidePair, 3> slots;
  bool has_tick;  // the clock moves, at any moment
};

const std::vector<Scene>& scenes() {
  static const std::vector<Scene> all = {
      {"two free slots", 2, {}, false},
      {"two old strangers, a tick", 2, {old(kTagO), old(kTagP)}, true},
      {"a stranger soon free and one in use, a tick", 2, {soon_free(kTagO), used(kTagP)}, true},
      {"a stranger soon free and a free slot, a tick", 2, {soon_free(kTagO), {}}, true},
      {"X of long ago and a free slot, a tick", 2, {old(kTagX), {}}, true},
      {"a stranger in use and X of long ago, a tick", 2, {used(kTagO), old(kTagX)}, true},
      {"X soon free and Y of long ago, a tick", 2, {soon_free(kTagX), old(kTagY)}, true},
      {"X left tentative, a free slot", 2, {orphan(kTagX), {}}, false},
      {"X left tentative twice", 2, {orphan(kTagX, 50), orphan(kTagX, 51)}, false},
      {"a stranger left tentative, another in use, a tick", 2, {orphan(kTagP), used(kTagO)}, true},
      {"X and Y left tentative", 2, {orphan(kTagY), orphan(kTagX)}, false},
      {"two strangers left tentative", 2, {orphan(kTagO), orphan(kTagP)}, false},
      {"one free slot, a tick", 1, {}, true},
      {"one slot left tentative, a tick", 1, {orphan(kTagP)}, true},
      {"one slot in use", 1, {used(kTagO)}, false},
      {"three slots: in use, tentative, free", 3, {used(kTagO), orphan(kTagX), {}}, false},
  };
  return all;
}

World make_world(const Scene& scene, const std::array<Worker, kWorkers>& workers) {
  World world;
  world.slots = scene.slots;
  world.slot_count = scene.slot_count;
  world.next_clock = scene.has_tick ? kLater : kStart;
  world.workers = workers;
  return world;
}

Worker worker(std::uint64_t tag, Job job = Job::take) {
  Worker worker;
  worker.tag = tag;
  worker.job = job;
  return worker;
}

void search_all_scenes(const char* what, const std::array<Worker, kWorkers>& workers) {
  std::size_t states = 0;
  for (const Scene& scene : scenes()) {
    const Outcome outcome = search(make_world(scene, workers), Flaw::none);
    print_message("%s, %s: %zu states\n", what, scene.name, outcome.states);
    assert_true(outcome.is_right && outcome.states > 20 && outcome.ends > 0);
    states += outcome.states;
  }
  print_message("%s: %zu states\n", what, states);
}

void no_interleaving_admits_too_much(void**) {
  search_all_scenes("takes", {worker(kTagX), worker(kTagX), worker(kTagY)});
}

void no_claim_of_three_becomes_two(void**) {
  search_all_scenes("three of one", {worker(kTagX), worker(kTagX), worker(kTagX)});
}

void what_is_given_back_is_there_again(void**) {
  search_all_scenes("a refund", {worker(kTagX, Job::take_and_give_back), worker(kTagX), worker(kTagY)});
}

void no_charge_is_lost(void**) {
  search_all_scenes("a charge", {worker(kTagX, Job::charge), worker(kTagX), worker(kTagY, Job::charge)});
}

void a_flaw_is_found(Flaw flaw) {
  std::size_t found = 0;
  for (const Scene& scene : scenes()) {
    for (const std::uint64_t third : {kTagX, kTagY}) {
      found += search(make_world(scene, {worker(kTagX), worker(kTagX), worker(third)}), flaw).is_right ? 0 : 1;
    }
  }
  print_message("found in %zu of %zu searches\n", found, 2 * scenes().size());
  assert_true(found > 0);
}

void words_changed_one_after_the_other_are_found(void**) { a_flaw_is_found(Flaw::split_words); }
void a_claim_without_a_second_look_is_found(void**) { a_flaw_is_found(Flaw::no_second_look); }
void claims_without_a_number_are_found(void**) { a_flaw_is_found(Flaw::same_numbers); }

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(no_interleaving_admits_too_much),
      cmocka_unit_test(no_claim_of_three_becomes_two),
      cmocka_unit_test(what_is_given_back_is_there_again),
      cmocka_unit_test(no_charge_is_lost),
      cmocka_unit_test(words_changed_one_after_the_other_are_found),
      cmocka_unit_test(a_claim_without_a_second_look_is_found),
      cmocka_unit_test(claims_without_a_number_are_found),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
