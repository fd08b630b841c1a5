// Every interleaving of three workers at one set of buckets, down to the single memory access, run through the very
// steps of bucket_set.hpp: nobody is ever admitted beyond the limit, nobody starts deeper in debt than its limit is
// deep, and nothing that was charged is forgotten. And seven ways to get the protocol wrong, each of which must be
// found out, so that the search is known to be able to fail.
//
// How: a worker is a function of what it has read since its attempt began. So a state of the whole is the memory, the
// clock and each worker's list of values read; one step re-runs a worker's attempt on its list and stops it after one
// access more. A worker that dies at some point is one that is not scheduled any more: all those runs are among these.
// The clock moves through a few times, each move at any moment: so between a worker's look at it and its claim others
// may come, be admitted later than that, and go.
#include "apikey/bucket_set.hpp"

#include <array>
#include <csetjmp>
#include <span>
#include <utility>
#include <vector>

#include "state_search.hpp"

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

constexpr std::uint64_t kStart = 1'000'000'000'000;
constexpr std::uint64_t kHour = 3'600'000'000'000;
constexpr std::uint64_t kTick = 1;                 // what is live at the start may be idle then
constexpr std::uint64_t kLongPause = 200'000'000;  // and a claim left behind may be taken over
constexpr std::uint64_t kTagX = 11;
constexpr std::uint64_t kTagY = 22;
constexpr std::uint64_t kTagO = 33;
constexpr std::uint64_t kTagP = 44;
const RateLimit kOnePerHour = make_rate_limit({1, kHour}, 1);

enum class Flaw : std::uint8_t {
  none,
  split_words,     // the two words of a slot are changed one after the other
  no_second_look,  // a claim is made final without looking for a twin
  fresh_newcomer,  // who makes another make room starts with a full bucket
  no_floor,        // who makes another make room inherits that one's debt, and that is all
  no_cap,          // a newcomer owes what others owed, however deep
  own_now,         // a newcomer's debt is capped by the time at which its request looked at the clock
  overdraft_cap,   // a newcomer's debt is capped, also what was charged beyond the depth
};

enum class Job : std::uint8_t { take, take_and_give_back, charge };

struct Worker {
  std::uint64_t tag = 0;
  Job job = Job::take;
  bool may_overdraw = false;
  std::uint8_t stage = 0;  // 0 not started · 1 takes · 2 gives back · 3 over
  std::uint64_t now = 0;
  std::uint64_t taken_ns = 0;  // the arrival time its take left behind
  std::uint8_t read_count = 0;
  std::array<std::uint64_t, 28> reads{};
  SlotPlace claimed;            // what it has claimed in this attempt,
  std::uint8_t claimed_at = 0;  // and how many reads before: they do not matter any more
};

constexpr std::size_t kWorkers = 3;

// Admissions of one subject, each at the time of its request. Those that were given back are left out.
struct Admissions {
  std::array<std::uint64_t, kWorkers + 1> times{};  // one may be from before
  std::size_t count = 0;

  void add(std::uint64_t time) {
    times[count++] = time;
    std::sort(times.begin(), times.begin() + count);
  }
  // One an hour, and one at once.
  [[nodiscard]] bool are_too_many() const {
    for (std::size_t i = 1; i < count; ++i) {
      if (times[i] - times[i - 1] < kHour) {
        return true;
      }
    }
    return false;
  }
};

struct World {
  std::array<WidePair, 2> slots{};
  std::size_t slot_count = 2;
  std::uint64_t floor = 0;
  std::uint64_t overdraft_floor = 0;
  std::array<std::uint64_t, 3> times{kStart, kStart, kStart};  // what the clock says, one after the other
  std::size_t now_at = 0;
  std::array<Worker, kWorkers> workers{};
  Admissions admitted_x;
  Admissions admitted_y;
  unsigned charged_x = 0;    // without being asked for
  std::uint64_t owed_x = 0;  // arrival time of a bucket that nobody but X has; refunds are left out

  [[nodiscard]] std::uint64_t clock() const { return times[now_at]; }
};

// What X has to pay for as long as this lasts.
void owe(World& world, std::uint64_t now) { world.owed_x = std::max(world.owed_x, now) + kHour; }

// Claims are numbered from here on; nothing else in a word's mark or among the values read looks like one of these.
constexpr std::uint64_t kFirstNumber = 100;
constexpr std::uint64_t kEndNumber = 120;

// Stands for a counter that never gives a number twice: the first one that nobody can still have in mind.
std::uint64_t unused_number(const World& world) {
  std::uint64_t number = kFirstNumber;
  const auto is_used = [&](std::uint64_t value) { return value == number || (mark_of(value) & 0xffU) == number; };
  const auto is_known = [&](const Worker& worker) {
    return std::any_of(worker.reads.begin() + worker.claimed_at, worker.reads.begin() + worker.read_count, is_used) ||
           (worker.claimed_at != 0 && is_used(worker.claimed.slot.low));
  };
  while (std::any_of(world.slots.begin(), world.slots.end(), [&](const WidePair& slot) { return is_used(slot.low); }) ||
         std::any_of(world.workers.begin(), world.workers.end(), is_known)) {
    ++number;
  }
  return number;
}

// The set as one worker sees it during one step: old reads are repeated, one new access is made, the next one pauses.
class SteppedSet {
 public:
  SteppedSet(World& world, Worker& worker, Flaw flaw, std::jmp_buf& pause)
      : world_(world), worker_(worker), flaw_(flaw), pause_(pause) {}

  [[nodiscard]] std::size_t size() const { return world_.slot_count; }
  bool holds(std::size_t i, std::uint64_t tag) {
    if (flaw_ == Flaw::no_second_look && has_claimed_) {
      return false;
    }
    return access([&]() -> std::uint64_t { return tag_of(world_.slots[i].low) == tag ? 1 : 0; }) != 0;
  }
  std::uint64_t identity(std::size_t i) {
    return access([&] { return world_.slots[i].low; });
  }
  std::uint64_t arrival(std::size_t i) {
    return access([&] { return world_.slots[i].high; });
  }
  bool swap(std::size_t i, const WidePair& expected, WidePair desired) {
    const bool is_claim = is_tentative(desired) && !(expected == desired);
    WidePair real = expected;
    if (flaw_ == Flaw::fresh_newcomer) {
      // The claim writes `now` in the place of the victim's debt, and later steps go on from there.
      desired.high = is_claim ? kTentativeBit | worker_.now : desired.high;
      real.high = has_claimed_ && is_tentative(expected) ? kTentativeBit | worker_.now : real.high;
    }
    const bool is_swapped =
        flaw_ == Flaw::split_words ? split_swap(i, expected, desired) : whole_swap(i, real, desired);
    if (is_claim && is_swapped) {
      has_claimed_ = true;
      worker_.claimed = {i, desired};
      worker_.claimed_at = static_cast<std::uint8_t>(position_);
    }
    return is_swapped;
  }
  std::uint64_t floor() {
    if (flaw_ == Flaw::no_floor || flaw_ == Flaw::fresh_newcomer) {
      return 0;
    }
    return access([&] { return world_.floor; });
  }
  void raise_floor(std::uint64_t ns) {
    access([&] { return world_.floor = std::max(world_.floor, ns); });
  }
  std::uint64_t overdraft_floor() {
    const std::uint64_t floor = access([&] { return world_.overdraft_floor; });
    return flaw_ == Flaw::overdraft_cap ? std::min(floor, clock().value + kOnePerHour.depth_ns()) : floor;
  }
  void raise_overdraft_floor(std::uint64_t ns) {
    access([&] { return world_.overdraft_floor = std::max(world_.overdraft_floor, ns); });
  }
  MonoNs clock() {
    switch (flaw_) {
      case Flaw::own_now:
        return {worker_.now};
      case Flaw::no_cap:
        return {kStart + 100 * kHour};
      default:
        return {access([&] { return world_.clock(); })};
    }
  }
  // Not a step: whatever the others do meanwhile, the number is one of its own.
  std::uint64_t next_claim() {
    if (position_ == worker_.read_count) {
      remember(unused_number(world_));
    }
    return worker_.reads[position_++];
  }
  void count_eviction() {}

 private:
  template <class Function>
  std::uint64_t access(Function function) {
    if (position_ < worker_.read_count) {
      return worker_.reads[position_++];
    }
    if (has_stepped_) {
      // Nothing on this stack has a destructor, and an exception costs ten times as much, millions of times.
      std::longjmp(pause_, 1);  // NOLINT(cert-err52-cpp)
    }
    has_stepped_ = true;
    ++position_;
    return remember(function());
  }
  std::uint64_t remember(std::uint64_t value) {
    assert_true(worker_.read_count < worker_.reads.size());
    return worker_.reads[worker_.read_count++] = value;
  }
  bool whole_swap(std::size_t i, const WidePair& expected, const WidePair& desired) {
    return access([&]() -> std::uint64_t {
             if (!(world_.slots[i] == expected)) {
               return 0;
             }
             world_.slots[i] = desired;
             return 1;
           }) != 0;
  }
  bool split_swap(std::size_t i, const WidePair& expected, const WidePair& desired) {
    const bool is_swapped = access([&]() -> std::uint64_t {
                              if (world_.slots[i].high != expected.high) {
                                return 0;
                              }
                              world_.slots[i].high = desired.high;
                              return 1;
                            }) != 0;
    if (is_swapped) {
      access([&] { return world_.slots[i].low = desired.low; });
    }
    return is_swapped;
  }

  World& world_;
  Worker& worker_;
  Flaw flaw_;
  std::jmp_buf& pause_;
  std::size_t position_ = 0;
  bool has_stepped_ = false;
  bool has_claimed_ = false;
};

void begin_attempt(Worker& worker) {
  worker.read_count = 0;
  worker.claimed_at = 0;
}

void finish_take(World& world, Worker& worker, const BucketResult& result) {
  const bool is_admitted = result.is_admitted;
  if (worker.job == Job::charge) {
    world.charged_x += 1;
    owe(world, worker.now);
    worker.stage = 3;
    return;
  }
  worker.taken_ns = result.arrival_ns;
  if (worker.job == Job::take_and_give_back) {
    worker.stage = is_admitted ? 2 : 3;
    return;
  }
  worker.stage = 3;
  if (is_admitted && worker.tag == kTagX) {
    world.admitted_x.add(worker.now);
    owe(world, worker.now);
  } else if (is_admitted) {
    world.admitted_y.add(worker.now);
  }
}

// One access of worker `k`, or its start: the moment at which it looks at the clock.
void step(World& world, std::size_t k, Flaw flaw) {
  Worker& worker = world.workers[k];
  if (worker.stage == 0) {
    worker.stage = 1;
    worker.now = world.clock();
    return;
  }
  std::jmp_buf pause;
  if (setjmp(pause) != 0) {  // NOLINT(cert-err52-cpp)
    return;
  }
  SteppedSet set(world, worker, flaw, pause);
  const SlotOrder order{worker.tag,          kOnePerHour,    1, {worker.now}, worker.job == Job::charge,
                        worker.may_overdraw, worker.taken_ns};
  BucketResult result;
  const Step end = worker.stage == 1 ? try_take(set, order, result) : try_give_back(set, order);
  if (end == Step::done && worker.stage == 1) {
    finish_take(world, worker, result);
  } else if (end == Step::done) {
    worker.stage = 3;
  }
  begin_attempt(worker);
}

// Gives the numbers of claims new names, in the order in which they are met: which is which does not matter, only
// where the same one stands.
class Renaming {
 public:
  std::uint64_t operator()(std::uint64_t value) {
    if (value >= kFirstNumber && value < kEndNumber) {
      return name_of(value);
    }
    const std::uint64_t number = mark_of(value) & 0xffU;
    if (number < kFirstNumber || number >= kEndNumber) {
      return value;
    }
    return value - (number << kTagBits) + (name_of(number) << kTagBits);
  }

 private:
  std::uint64_t name_of(std::uint64_t number) {
    std::uint64_t& name = names_[number - kFirstNumber];
    name = name != 0 ? name : ++count_;
    return name;
  }
  std::array<std::uint64_t, kEndNumber - kFirstNumber> names_{};
  std::uint64_t count_ = 0;
};

template <class Rename>
void add_worker(Fingerprint& print, const Worker& worker, Rename& rename) {
  for (const std::uint64_t value :
       {worker.tag, static_cast<std::uint64_t>(worker.job), std::uint64_t{worker.may_overdraw},
        std::uint64_t{worker.stage}, worker.now, worker.taken_ns, std::uint64_t{worker.claimed_at != 0},
        static_cast<std::uint64_t>(worker.read_count - worker.claimed_at)}) {
    print.add(value);
  }
  if (worker.claimed_at != 0) {
    print.add(worker.claimed.index);
    print.add(rename(worker.claimed.slot.low));
    print.add(worker.claimed.slot.high);
  }
  for (std::size_t i = worker.claimed_at; i < worker.read_count; ++i) {
    print.add(rename(worker.reads[i]));
  }
}

std::uint64_t fingerprint(const World& world) {
  Fingerprint print;
  Renaming rename;
  for (const WidePair& slot : world.slots) {
    print.add(rename(slot.low));
    print.add(slot.high);
  }
  for (const std::uint64_t value : {world.floor, world.overdraft_floor, std::uint64_t{world.now_at},
                                    std::uint64_t{world.charged_x}, world.owed_x}) {
    print.add(value);
  }
  for (const Admissions* admitted : {&world.admitted_x, &world.admitted_y}) {
    print.add(admitted->count);
    for (const std::uint64_t time : std::span(admitted->times).first(admitted->count)) {
      print.add(time);
    }
  }
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

struct Outcome {
  std::size_t states = 0;
  bool is_wrong = false;
};

bool is_over(const World& world) {
  return std::all_of(world.workers.begin(), world.workers.end(), [](const Worker& w) { return w.stage == 3; });
}

bool over_admits(const World& world) { return world.admitted_x.are_too_many() || world.admitted_y.are_too_many(); }

// Y is charged what it asked for, and never pays for the others more than its own bucket holds.
bool is_too_deep(const World& world) {
  return std::any_of(world.slots.begin(), world.slots.end(), [&](const WidePair& slot) {
    return tag_of(slot.low) == kTagY && !is_tentative(slot) &&
           arrival_of(slot) > world.clock() + kOnePerHour.depth_ns();
  });
}

// Whether X, the next time it comes, would not find what it owes, wherever that is kept.
bool forgets_a_debt(const World& world) {
  std::uint64_t found = std::max(std::min(world.floor, world.clock() + kOnePerHour.depth_ns()), world.overdraft_floor);
  for (const WidePair& slot : world.slots) {
    found = tag_of(slot.low) == kTagX && !is_tentative(slot) ? std::max(found, arrival_of(slot)) : found;
  }
  return world.owed_x > world.clock() && found < world.owed_x;
}

// All states reachable from `start`. `at_end` is called for each in which all workers are through.
template <class AtEnd>
Outcome search(const World& start, Flaw flaw, AtEnd at_end) {
  Seen seen;
  std::vector<World> open{start};
  seen.insert(fingerprint(start));
  Outcome outcome;
  const auto visit = [&](const World& next) {
    if (seen.insert(fingerprint(next))) {
      open.push_back(next);
    }
  };
  while (!open.empty()) {
    const World world = open.back();
    open.pop_back();
    if (over_admits(world) || is_too_deep(world) || (is_over(world) && forgets_a_debt(world))) {
      outcome.is_wrong = true;
      break;
    }
    if (is_over(world)) {
      at_end(world);
    }
    if (world.now_at + 1 < world.times.size() && world.times[world.now_at + 1] > world.clock()) {
      World next = world;
      ++next.now_at;
      visit(next);
    }
    for (std::size_t k = 0; k < kWorkers; ++k) {
      if (world.workers[k].stage != 3) {
        World next = world;
        step(next, k, flaw);
        visit(next);
      }
    }
  }
  outcome.states = seen.size();
  return outcome;
}

WidePair idle(std::uint64_t tag) { return make_slot(tag, kOnePerHour.interval_code(), kStart - 5); }
WidePair live(std::uint64_t tag, std::uint64_t until) { return make_slot(tag, kOnePerHour.interval_code(), until); }
WidePair overdrawn(std::uint64_t tag, std::uint64_t until) {
  WidePair slot = live(tag, until);
  slot.high |= kOverdrawnBit;
  return slot;
}
// Left behind by a worker that died in the middle of its claim.
WidePair orphan(std::uint64_t tag, std::uint64_t arrival) {
  WidePair slot = make_slot(tag, claim_mark({kStart}, 200), arrival);
  slot.high |= kTentativeBit;
  return slot;
}

struct Scene {
  const char* name;
  std::size_t slot_count;
  WidePair first;
  WidePair second;
  std::uint64_t pause;  // by which the clock moves, at any moment
};

const std::vector<Scene>& scenes() {
  static const std::vector<Scene> all = {
      {"two free slots", 2, {}, {}, kTick},
      {"two idle strangers", 2, idle(kTagO), idle(kTagP), kLongPause},
      {"one live stranger", 2, live(kTagO, kStart + kTick), idle(kTagP), kTick},
      {"two live strangers", 2, live(kTagO, kStart + kTick), live(kTagP, kStart + kTick), kTick},
      {"two live strangers", 2, live(kTagO, kStart + kTick), live(kTagP, kStart + kTick), kLongPause},
      {"an idle stranger and X itself", 2, idle(kTagO), idle(kTagX), kTick},
      {"X left tentative", 2, orphan(kTagX, kStart), idle(kTagO), kLongPause},
      {"X left tentative twice", 2, orphan(kTagX, kStart), orphan(kTagX, kStart), kLongPause},
      {"Y left tentative, a live stranger", 2, orphan(kTagY, kStart), live(kTagO, kStart + kTick), kLongPause},
      {"one idle slot", 1, idle(kTagO), {}, kTick},
      {"one idle slot", 1, idle(kTagO), {}, kLongPause},
      {"one live slot", 1, live(kTagO, kStart + kTick), {}, kTick},
      {"one live slot", 1, live(kTagO, kStart + kTick), {}, kLongPause},
      {"one slot, X left tentative", 1, orphan(kTagX, kStart), {}, kLongPause},
      {"one deep stranger", 1, live(kTagO, kStart + 9 * kHour), {}, kTick},
      {"two deep strangers", 2, live(kTagO, kStart + 9 * kHour), live(kTagP, kStart + 7 * kHour), kTick},
  };
  return all;
}

World make_world(const Scene& scene, const std::array<Worker, kWorkers>& workers) {
  World world;
  world.times = {kStart, kStart + scene.pause, kStart + scene.pause};
  world.slots = {scene.first, scene.second};
  world.slot_count = scene.slot_count;
  world.workers = workers;
  return world;
}

Worker takes(std::uint64_t tag) {
  Worker worker;
  worker.tag = tag;
  return worker;
}

// It has looked at the clock at the very beginning.
Worker takes_early(std::uint64_t tag) {
  Worker worker = takes(tag);
  worker.stage = 1;
  worker.now = kStart;
  return worker;
}

Worker takes_and_gives_back(std::uint64_t tag) {
  Worker worker = takes(tag);
  worker.job = Job::take_and_give_back;
  return worker;
}

void ignore(const World&) {}

void no_interleaving_admits_too_much(void**) {
  for (const Scene& scene : scenes()) {
    const World world = make_world(scene, {takes(kTagX), takes(kTagX), takes(kTagY)});
    const Outcome outcome = search(world, Flaw::none, ignore);
    print_message("%s: %zu states\n", scene.name, outcome.states);
    assert_true(outcome.states > 100);
    assert_false(outcome.is_wrong);
  }
}

// X was admitted a tick after `takes_early` had looked at the clock, and makes room to Y or to that worker. An hour
// after the look X comes again: a tick too soon.
std::vector<World> late_claims() {
  std::vector<World> worlds;
  for (const WidePair& other : {idle(kTagO), live(kTagO, kStart + 9 * kHour)}) {
    for (const std::size_t slot_count : {1U, 2U}) {
      World world;
      world.times = {kStart + kTick, kStart + kHour, kStart + kHour};
      world.slots = {live(kTagX, kStart + kTick + kHour), other};
      world.slot_count = slot_count;
      world.workers = {takes_early(kTagX), takes(kTagX), takes(kTagY)};
      world.admitted_x.add(kStart + kTick);
      world.owed_x = kStart + kTick + kHour;
      worlds.push_back(world);
    }
  }
  return worlds;
}

void no_late_claim_admits_too_much(void**) {
  for (const World& world : late_claims()) {
    const Outcome outcome = search(world, Flaw::none, ignore);
    print_message("%zu slots, a late claim: %zu states\n", world.slot_count, outcome.states);
    assert_false(outcome.is_wrong);
  }
}

// The same with a reservation that is given back, as when another limit of the request refuses. (Three times as many
// states; what a long pause adds is searched above.)
void no_refund_admits_too_much(void**) {
  for (const Scene& scene : scenes()) {
    if (scene.slot_count != 1 && scene.pause != kTick) {
      continue;
    }
    const World world = make_world(scene, {takes_and_gives_back(kTagX), takes(kTagX), takes(kTagY)});
    const Outcome outcome = search(world, Flaw::none, ignore);
    print_message("%s, a refund: %zu states\n", scene.name, outcome.states);
    assert_false(outcome.is_wrong);
  }
}

// Where nobody has to make room, what was given back is there again, whatever came between.
void a_refund_gives_back_exactly_what_was_taken(void**) {
  const World world = make_world(scenes()[0], {takes_and_gives_back(kTagX), takes(kTagX), takes_and_gives_back(kTagX)});
  std::size_t ends = 0;
  search(world, Flaw::none, [&](const World& end) {
    ++ends;
    for (const WidePair& slot : end.slots) {
      if (tag_of(slot.low) == kTagX) {
        assert_true(arrival_of(slot) >= kStart + end.admitted_x.count * kHour);
        assert_true(arrival_of(slot) <= (kStart + kTick) + end.admitted_x.count * kHour);
      }
    }
  });
  assert_true(ends > 10);
}

Worker takes_what_is_settled(std::uint64_t tag) {
  Worker worker = takes(tag);
  worker.may_overdraw = true;
  return worker;
}

Worker charges(std::uint64_t tag) {
  Worker worker = takes_what_is_settled(tag);
  worker.job = Job::charge;
  return worker;
}

// What is charged after the fact is owed, by whomever, and wherever the debt is kept: in X's own slot, or in the
// floors.
void no_charge_is_lost(void**) {
  for (const Scene& scene : scenes()) {
    const bool is_deep = arrival_of(scene.first) > kStart + kHour;  // see debt_scenes()
    if (scene.slot_count != 1 && (scene.pause != kTick || is_deep)) {
      continue;
    }
    const World world = make_world(scene, {charges(kTagX), takes_what_is_settled(kTagX), takes(kTagY)});
    const Outcome outcome = search(world, Flaw::none, ignore);
    print_message("%s, a charge: %zu states\n", scene.name, outcome.states);
    assert_false(outcome.is_wrong);
  }
}

struct DebtScene {
  const char* name;
  std::size_t slot_count;
  WidePair of_x;
  WidePair other;
};

// X owes as much as its bucket holds already, or more, when it is charged.
const std::vector<DebtScene>& debt_scenes() {
  static const std::vector<DebtScene> all = {
      {"X owes its depth", 1, live(kTagX, kStart + kHour), {}},
      {"X has overdrawn", 1, overdrawn(kTagX, kStart + 2 * kHour), {}},
      {"X owes its depth, an idle stranger", 2, live(kTagX, kStart + kHour), idle(kTagO)},
      {"X owes its depth, a deep stranger", 2, live(kTagX, kStart + kHour), live(kTagO, kStart + 9 * kHour)},
      {"X has overdrawn, a deep stranger", 2, overdrawn(kTagX, kStart + 2 * kHour), live(kTagO, kStart + 9 * kHour)},
  };
  return all;
}

World make_debt_world(const DebtScene& scene) {
  World world;
  world.times = {kStart, kStart + kHour, kStart + kHour};
  world.slots = {scene.of_x, scene.other};
  world.slot_count = scene.slot_count;
  world.workers = {charges(kTagX), takes_what_is_settled(kTagX), takes(kTagY)};
  world.owed_x = arrival_of(scene.of_x);
  return world;
}

void no_overdraft_is_forgotten(void**) {
  for (const DebtScene& scene : debt_scenes()) {
    const Outcome outcome = search(make_debt_world(scene), Flaw::none, ignore);
    print_message("%s, a charge: %zu states\n", scene.name, outcome.states);
    assert_false(outcome.is_wrong);
  }
}

void a_flaw_is_found(Flaw flaw) {
  bool is_found = false;
  for (const Scene& scene : scenes()) {
    const World world = make_world(scene, {takes(kTagX), takes(kTagX), takes(kTagY)});
    is_found = is_found || search(world, flaw, ignore).is_wrong;
  }
  assert_true(is_found);
}

void words_changed_one_after_the_other_admit_too_much(void**) { a_flaw_is_found(Flaw::split_words); }
void a_claim_without_a_second_look_admits_too_much(void**) { a_flaw_is_found(Flaw::no_second_look); }
void a_fresh_newcomer_admits_too_much(void**) { a_flaw_is_found(Flaw::fresh_newcomer); }
void inheriting_without_a_floor_admits_too_much(void**) { a_flaw_is_found(Flaw::no_floor); }
void a_debt_without_a_cap_is_too_deep(void**) { a_flaw_is_found(Flaw::no_cap); }

void a_cap_by_the_requests_own_time_admits_too_much(void**) {
  bool is_found = false;
  for (const World& world : late_claims()) {
    is_found = is_found || search(world, Flaw::own_now, ignore).is_wrong;
  }
  assert_true(is_found);
}

void a_cap_on_overdrafts_forgets_what_was_charged(void**) {
  bool is_found = false;
  for (const DebtScene& scene : debt_scenes()) {
    is_found = is_found || search(make_debt_world(scene), Flaw::overdraft_cap, ignore).is_wrong;
  }
  assert_true(is_found);
}

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(no_interleaving_admits_too_much),
      cmocka_unit_test(no_late_claim_admits_too_much),
      cmocka_unit_test(no_refund_admits_too_much),
      cmocka_unit_test(a_refund_gives_back_exactly_what_was_taken),
      cmocka_unit_test(no_charge_is_lost),
      cmocka_unit_test(no_overdraft_is_forgotten),
      cmocka_unit_test(words_changed_one_after_the_other_admit_too_much),
      cmocka_unit_test(a_claim_without_a_second_look_admits_too_much),
      cmocka_unit_test(a_fresh_newcomer_admits_too_much),
      cmocka_unit_test(inheriting_without_a_floor_admits_too_much),
      cmocka_unit_test(a_debt_without_a_cap_is_too_deep),
      cmocka_unit_test(a_cap_by_the_requests_own_time_admits_too_much),
      cmocka_unit_test(a_cap_on_overdrafts_forgets_what_was_charged),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
