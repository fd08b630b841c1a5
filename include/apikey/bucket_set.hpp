// The protocol of the slots of one set, step by step, over whatever gives access to the set's memory: the shared zone
// (bucket_table.cpp), or a scheduler that switches between workers at each access
// (t/unit/test_bucket_interleavings.cpp). So the code that is searched for over-admission is the code that runs. Waits
// for nobody: a step that lost a race says `again`, and the caller begins anew.
//
// How a subject comes in: it claims the slot with the smallest arrival time by writing (its tag, tentative) there, then
// looks through the set again. If its tag stands in another slot too, one of the two is withdrawn and it starts again;
// of two that claim at once the later one sees the other. Else it makes the slot final, with the first tokens taken.
// Nobody is admitted on a tentative slot. Whoever meets his own tag tentative finishes the claim in the claimer's
// place, so a claimer that died or sleeps holds up nobody; strangers leave a tentative slot alone until it is 100 ms
// old.
//
// Why nobody gets more by being thrown out. A take that is admitted needs arrival <= now + depth, and a private bucket
// whose arrival time only grows, by the price of each take, therefore admits rate * t + burst at most. So it is enough
// that the arrival time R of a subject X never falls while X has no slot:
//   - Before a live bucket makes room, the floor of the set is raised to its R, and a newcomer reads the floor after it
//     has looked through the set. So a bucket either is seen, or its R is in the floor. (Inheriting the debt of the one
//     that makes room, without a floor, is not enough: while one slot is tentative another one with more debt may have
//     to go.)
//   - R <= t1 + depth, where t1 is the time of the request that was admitted last, or the time t of the line below when
//     X came in last. Whoever took for X did so before the newcomer looked through the set, because everybody who
//     claims a slot for X later meets this claim. So a clock that is read after that says t >= t1, and R <= t + depth.
//   - A newcomer starts at min(max(arrival, floor), t + depth), which is R at least by these two. And it never starts
//     deeper in debt than its own limit is deep, however deep others are. The `now` of its own request would not do for
//     t: the request may have waited since it looked at the clock, and R may be of a later one.
// Only a cost that is charged after the fact (is_forced) takes R beyond t1 + depth. Such a slot is marked as overdrawn,
// and when it makes room a second floor of the set is raised to its R too. Newcomers of limits that are charged after
// the fact (may_overdraw) start at this floor at least, without a cap; all others never read it. A mark goes when the
// arrival time is within now + depth again.
// All this is about a limit that stays as it is. Who comes back to a limit that was just made less deep starts with an
// empty bucket of the new depth.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "apikey/bucket.hpp"
#include "apikey/units.hpp"
#include "apikey/wide_word.hpp"

namespace apikey {

// A slot's two words, put together and taken apart.
inline constexpr unsigned kTagBits = 48;
inline constexpr std::uint64_t kTagMask = (std::uint64_t{1} << kTagBits) - 1;
inline constexpr std::uint64_t kTentativeBit = std::uint64_t{1} << 63U;
inline constexpr std::uint64_t kOverdrawnBit = std::uint64_t{1} << 62U;
inline constexpr std::uint64_t kArrivalMask = kOverdrawnBit - 1;

constexpr std::uint64_t tag_of(std::uint64_t identity) noexcept { return identity & kTagMask; }
constexpr std::uint16_t mark_of(std::uint64_t identity) noexcept {
  return static_cast<std::uint16_t>(identity >> kTagBits);
}
constexpr bool is_tentative(const WidePair& slot) noexcept { return (slot.high & kTentativeBit) != 0; }
constexpr bool is_overdrawn(const WidePair& slot) noexcept { return (slot.high & kOverdrawnBit) != 0; }
constexpr std::uint64_t arrival_of(const WidePair& slot) noexcept { return slot.high & kArrivalMask; }
constexpr WidePair make_slot(std::uint64_t tag, std::uint16_t mark, std::uint64_t arrival_ns) noexcept {
  return {std::uint64_t{mark} << kTagBits | tag, std::min(arrival_ns, kArrivalMask)};
}

// The mark of a tentative slot: when it was claimed, in units of 2^24 ns (17 ms) modulo 4 s, and a number that tells
// one claim from the next. Without the number a claim could be withdrawn and made again, to the bit, while somebody is
// about to finish the first one.
constexpr std::uint16_t claim_mark(MonoNs now, std::uint64_t number) noexcept {
  return static_cast<std::uint16_t>((now.value >> 24U & 0xffU) << 8U | (number & 0xffU));
}
// 7 units are 100 ms at least. A claim up to 270 ms ahead is one of a worker whose clock is ahead: a young one.
constexpr bool is_abandoned(std::uint16_t mark, MonoNs now) noexcept {
  const auto age = static_cast<std::uint8_t>((now.value >> 24U) - (mark >> 8U));
  return age >= 7 && age < 240;
}

inline constexpr std::size_t kMostSlots = 7;  // of a set

enum class Step : std::uint8_t { done, again };

// One limit of one subject, to be taken from. REQUIRES: tag != 0.
struct SlotOrder {
  std::uint64_t tag = 0;
  RateLimit limit;
  std::uint64_t cost = 1;
  MonoNs now;
  bool is_forced = false;      // the cost is a fact: it is charged whatever is left
  bool may_overdraw = false;   // others of this limit's costs are charged that way
  std::uint64_t taken_ns = 0;  // try_give_back(): the arrival time that the take left behind
};

// Memory gives: size(), at most kMostSlots · holds(i, tag): is that the tag in slot i · identity(i), arrival(i): the
// words of slot i · swap(i, expected, desired) · of the set: floor(), raise_floor(ns), overdraft_floor(),
// raise_overdraft_floor(ns), next_claim(), count_eviction() · clock(): the time now, on the clock that SlotOrder::now
// was read from. An index of size() means: nowhere.
struct SlotPlace {
  std::size_t index = 0;
  WidePair slot;
};

// The two words are loads of two moments; every use of them ends in a swap, which fails when they never stood together.
template <class Memory>
SlotPlace find_slot(Memory& set, std::uint64_t tag) {
  for (std::size_t i = 0; i < set.size(); ++i) {
    if (set.holds(i, tag)) {
      const std::uint64_t identity = set.identity(i);
      return {tag_of(identity) == tag ? i : set.size(), {identity, set.arrival(i)}};
    }
  }
  return {set.size(), {}};
}

// The bucket itself: a tentative slot with the same tag is passed over.
template <class Memory>
SlotPlace find_bucket(Memory& set, std::uint64_t tag) {
  for (std::size_t i = 0; i < set.size(); ++i) {
    if (set.holds(i, tag)) {
      const std::uint64_t identity = set.identity(i);
      const SlotPlace place{i, {identity, set.arrival(i)}};
      if (tag_of(identity) == tag && !is_tentative(place.slot)) {
        return place;
      }
    }
  }
  return {set.size(), {}};
}

// The slot that makes room, of those that nobody is just claiming: the least indebted one when it is idle, or when no
// debt is covered by the floor already. Else the most indebted one that is: it raises no floor, so nobody pays for it,
// and who came for a limit of an hour makes no room for itself at the cost of limits of a second.
template <class Memory>
SlotPlace choose_victim(Memory& set, MonoNs now) {
  SlotPlace victim{set.size(), {}};
  std::array<std::uint64_t, kMostSlots> arrivals;  // as they were seen; UINT64_MAX: not to be taken
  for (std::size_t i = 0; i < set.size(); ++i) {
    const WidePair slot{0, set.arrival(i)};
    arrivals[i] = UINT64_MAX;
    if (is_tentative(slot) && !is_abandoned(mark_of(set.identity(i)), now)) {
      continue;
    }
    arrivals[i] = slot.high;
    if (victim.index == set.size() || arrival_of(slot) < arrival_of(victim.slot)) {
      victim = {i, slot};
    }
  }
  if (victim.index == set.size()) {
    return victim;
  }
  if (arrival_of(victim.slot) > now.value) {
    const std::uint64_t floor = set.floor();
    for (std::size_t i = 0; i < set.size(); ++i) {
      const WidePair slot{0, arrivals[i]};
      if (arrival_of(slot) <= floor && !is_overdrawn(slot) && arrival_of(slot) > arrival_of(victim.slot)) {
        victim = {i, slot};
      }
    }
  }
  victim.slot.low = set.identity(victim.index);
  return victim;
}

// RETURNS: false when another worker was faster, or every slot is being claimed. Else `place` is ours, tentatively.
template <class Memory>
bool claim_slot(Memory& set, const SlotOrder& order, SlotPlace& place) {
  const SlotPlace victim = choose_victim(set, order.now);
  if (victim.index == set.size() || tag_of(victim.slot.low) == order.tag) {
    return false;
  }
  const std::uint64_t arrival = arrival_of(victim.slot);
  const bool is_live = arrival > order.now.value;
  if (is_live) {
    set.raise_floor(arrival);
  }
  if (is_live && is_overdrawn(victim.slot)) {
    set.raise_overdraft_floor(arrival);
  }
  place = {victim.index,
           make_slot(order.tag, claim_mark(order.now, set.next_claim()), std::max(arrival, order.now.value))};
  place.slot.high |= kTentativeBit;
  if (!set.swap(place.index, victim.slot, place.slot)) {
    return false;
  }
  if (is_live && tag_of(victim.slot.low) != 0 && !is_tentative(victim.slot)) {
    set.count_eviction();
  }
  return true;
}

// What a subject owes before this order.
struct SlotDebt {
  std::uint64_t arrival_ns = 0;
  bool is_overdrawn = false;
};

// Of a final slot: at the limit's own rate.
inline SlotDebt debt_of(const WidePair& slot, const SlotOrder& order) noexcept {
  const std::uint16_t code = mark_of(slot.low);
  const std::uint64_t arrival = arrival_of(slot);
  const bool is_same_rate = code == order.limit.interval_code();
  return {is_same_rate ? arrival : rescale_arrival(arrival, code, order.limit, order.now), is_overdrawn(slot)};
}

// Of a newcomer. REQUIRES: the set was looked through before. The clock is read last, and only where it could matter:
// it never says less than order.now.
template <class Memory>
SlotDebt newcomer_debt(Memory& set, const SlotOrder& order, std::uint64_t inherited_ns) {
  std::uint64_t start = std::max(inherited_ns, set.floor());
  const std::uint64_t overdraft = order.is_forced || order.may_overdraw ? set.overdraft_floor() : 0;
  if (start > order.now.value) {
    const std::uint64_t depth = order.limit.depth_ns();
    if (start > order.now.value + depth) {
      start = std::min(start, set.clock().value + depth);
    }
  }
  return {std::max(start, overdraft), overdraft > start};
}

inline bool goes_beyond_depth(const SlotOrder& order, std::uint64_t arrival_ns) noexcept {
  return arrival_ns > order.now.value + order.limit.depth_ns();
}

inline BucketResult price_order(const SlotOrder& order, std::uint64_t arrival_ns) noexcept {
  return order.is_forced ? charge_tokens(arrival_ns, order.limit, order.cost, order.now)
                         : take_tokens(arrival_ns, order.limit, order.cost, order.now);
}

// The one place that changes what is owed. A refusal writes what it read: that proves that the two words belonged
// together.
template <class Memory>
Step charge_slot(Memory& set, const SlotOrder& order, const SlotPlace& place, const SlotDebt& debt,
                 BucketResult& result) {
  result = price_order(order, debt.arrival_ns);
  WidePair next = make_slot(order.tag, order.limit.interval_code(), result.arrival_ns);
  if ((order.is_forced || debt.is_overdrawn) && goes_beyond_depth(order, result.arrival_ns)) {
    next.high |= kOverdrawnBit;
  }
  return set.swap(place.index, place.slot, next) ? Step::done : Step::again;
}

// Of two slots with one tag the final one stays, of two tentative ones the first: so all who meet them agree.
template <class Memory>
void remove_twin(Memory& set, const SlotPlace& place, std::size_t twin_index) {
  const std::uint64_t identity = set.identity(twin_index);
  const SlotPlace twin{twin_index, {identity, set.arrival(twin_index)}};
  const bool stays = is_tentative(twin.slot) && place.index < twin_index;
  const SlotPlace& loser = stays ? twin : place;
  if (tag_of(identity) == tag_of(place.slot.low)) {
    set.swap(loser.index, loser.slot, make_slot(0, 0, arrival_of(loser.slot)));
  }
}

// Ends a claim, our own or one we met.
template <class Memory>
Step settle_slot(Memory& set, const SlotOrder& order, const SlotPlace& place, BucketResult& result) {
  for (std::size_t i = 0; i < set.size(); ++i) {
    if (i != place.index && set.holds(i, order.tag)) {
      remove_twin(set, place, i);
      return Step::again;
    }
  }
  return charge_slot(set, order, place, newcomer_debt(set, order, arrival_of(place.slot)), result);
}

template <class Memory>
Step try_take(Memory& set, const SlotOrder& order, BucketResult& result) {
  SlotPlace place = find_slot(set, order.tag);
  if (place.index == set.size() && !claim_slot(set, order, place)) {
    return Step::again;
  }
  if (is_tentative(place.slot)) {
    return settle_slot(set, order, place, result);
  }
  return charge_slot(set, order, place, debt_of(place.slot, order), result);
}

// What a take from the bucket at `place` would give. Only a refusal is final, so only that has to be proven.
template <class Memory>
Step look_at_slot(Memory& set, const SlotOrder& order, const SlotPlace& place, BucketResult& result) {
  result = take_tokens(debt_of(place.slot, order).arrival_ns, order.limit, order.cost, order.now);
  return result.is_admitted || set.swap(place.index, place.slot, place.slot) ? Step::done : Step::again;
}

// What try_take() would give, changing nothing.
template <class Memory>
Step try_look(Memory& set, const SlotOrder& order, BucketResult& result) {
  const SlotPlace place = find_bucket(set, order.tag);
  if (place.index != set.size()) {
    return look_at_slot(set, order, place, result);
  }
  const SlotPlace victim = choose_victim(set, order.now);
  const SlotDebt debt = newcomer_debt(set, order, arrival_of(victim.slot));
  result = take_tokens(debt.arrival_ns, order.limit, order.cost, order.now);
  return Step::done;
}

// The same of a subject that owes nothing unless it has a bucket here.
template <class Memory>
Step try_look_at_own(Memory& set, const SlotOrder& order, BucketResult& result) {
  const SlotPlace place = find_bucket(set, order.tag);
  if (place.index != set.size()) {
    return look_at_slot(set, order, place, result);
  }
  result = take_tokens(0, order.limit, order.cost, order.now);
  return Step::done;
}

// Gives back what a take has taken, or a part of it. When the subject has lost its slot since, nothing is given back:
// the debt went to others, and coming back it started with it. What the bucket has recovered meanwhile is not given
// back either: it would have been full sooner without the take, not fuller. A take that left the arrival time T adds at
// least min(price, T - now) to what is owed at `now`, whatever came between: so much may go, and no more.
template <class Memory>
Step try_give_back(Memory& set, const SlotOrder& order) {
  const SlotPlace place = find_bucket(set, order.tag);
  if (place.index == set.size() || order.taken_ns <= order.now.value) {
    return Step::done;
  }
  const std::uint16_t mark = mark_of(place.slot.low);
  const std::uint64_t arrival = arrival_of(place.slot);
  std::uint64_t price = std::min(order.limit.price_ns(order.cost), order.taken_ns - order.now.value);
  if (mark != order.limit.interval_code()) {
    // Under another rate than it was taken at: as many tokens, or a few less.
    const std::uint64_t tokens = order.limit.tokens_in(price);
    const std::uint64_t interval = decode_interval(mark);
    price = interval != 0 && tokens > arrival / interval ? arrival : tokens * interval;
  }
  WidePair next = make_slot(order.tag, mark, arrival - std::min(arrival, price));
  if (is_overdrawn(place.slot) && goes_beyond_depth(order, arrival_of(next))) {
    next.high |= kOverdrawnBit;
  }
  return set.swap(place.index, place.slot, next) ? Step::done : Step::again;
}

}  // namespace apikey
