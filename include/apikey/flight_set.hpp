// Entering, leaving, and letting go of what dead processes held, step by step, over whatever gives access to slots and
// leases: the table in shared memory (flight_table.cpp), or a scheduler that switches between workers at each access
// (t/unit/test_flight_interleavings.cpp). How a subject gets its slot: claim_set.hpp. Waits for nobody: a step that
// lost a race says `again`, and the caller goes on from there.
//
// A slot is 16 bytes, one compare-and-swap, one subject:
//   word 0  bits 0-47 tag of (limit, subject) · bits 48-63 requests in flight; 0 of them: the slot is free
//   word 1  bit 63 tentative · bits 0-62 number of the change: a slot never says the same twice
// A lease is 8 bytes, one request in flight:
//   bits 0-21 process id, 0 = free · bits 22-23 state: 1 entering, 2 held, 3 leaving · bits 24-47 slot · bits 48-63
//   mark of the process, so that a new one with the same id is not taken for the old one
// enter: lease `entering`, count + 1, lease `held`. leave: lease `leaving`, count - 1, lease free. Of a process that
// died, what it held is taken over and left in its place. Of the one lease it was just changing nobody knows whether
// the slot counts it: then the leases that are held are counted instead, and the slot is set to that, unless it was
// changed meanwhile, or a lease of it is just being changed by somebody who lives.
#pragma once

#include <cstddef>
#include <cstdint>

#include "apikey/claim_set.hpp"
#include "apikey/flight_table.hpp"

namespace apikey {

inline constexpr unsigned kFlightTagBits = 48;
inline constexpr std::uint64_t kFlightTagMask = (std::uint64_t{1} << kFlightTagBits) - 1;
inline constexpr std::uint64_t kFlightTentativeBit = std::uint64_t{1} << 63U;
inline constexpr std::size_t kMaxFlightSlots = std::size_t{1} << 24U;

constexpr std::uint64_t flight_tag(const WidePair& slot) noexcept { return slot.low & kFlightTagMask; }
constexpr std::uint64_t flight_count(const WidePair& slot) noexcept { return slot.low >> kFlightTagBits; }
constexpr bool is_flight_tentative(const WidePair& slot) noexcept { return (slot.high & kFlightTentativeBit) != 0; }
// What follows on `slot`.
constexpr WidePair next_flight(const WidePair& slot, std::uint64_t tag, std::uint64_t count) noexcept {
  return {count << kFlightTagBits | tag, (slot.high + 1) & ~kFlightTentativeBit};
}
constexpr WidePair claim_flight(const WidePair& slot, std::uint64_t tag) noexcept {
  const WidePair next = next_flight(slot, tag, 0);
  return {next.low, next.high | kFlightTentativeBit};
}

enum class LeaseState : std::uint8_t { free = 0, entering = 1, held = 2, leaving = 3 };

struct Lease {
  FlightHolder holder;
  LeaseState state = LeaseState::free;
  std::uint32_t slot = 0;
};

constexpr Lease decode_lease(std::uint64_t word) noexcept {
  return {{static_cast<std::uint32_t>(word & 0x3f'ffffU), static_cast<std::uint16_t>(word >> 48U)},
          static_cast<LeaseState>(word >> 22U & 3U),
          static_cast<std::uint32_t>(word >> 24U & 0xff'ffffU)};
}
constexpr std::uint64_t encode_lease(const Lease& lease) noexcept {
  return (lease.holder.row & 0x3f'ffffU) | static_cast<std::uint64_t>(lease.state) << 22U |
         std::uint64_t{lease.slot} << 24U | std::uint64_t{lease.holder.mark} << 48U;
}

// Memory of claim_set.hpp, and besides:
//   number_of(i)                         of slot i among all slots of the table
//   load_slot(number), swap_slot(number, expected, desired)
//   lease_count(), lease(j), put_lease(j, word), swap_lease(j, expected, desired)
//   free_lease(number, slot): the number of a lease that was free just now; lease_count() when none was found. Slot
//   `number` says `slot`, so that is another one each time.

struct FlightOrder {
  std::uint64_t tag = 0;
  std::uint64_t most = 0;
  FlightHolder holder;
};

// What an entering process has in hand from one attempt to the next.
struct FlightDraft {
  std::uint32_t lease = UINT32_MAX;
};

template <class Memory>
void drop_lease(Memory& table, FlightDraft& draft) {
  if (draft.lease != UINT32_MAX) {
    table.put_lease(draft.lease, 0);
    draft.lease = UINT32_MAX;
  }
}

// RETURNS: done with a lease `entering` that names the slot.
template <class Memory>
Turn write_lease(Memory& table, const FlightOrder& order, const Place& place, FlightDraft& draft) {
  const std::uint32_t slot = table.number_of(place.index);
  const std::uint64_t word = encode_lease({order.holder, LeaseState::entering, slot});
  if (draft.lease != UINT32_MAX) {
    table.put_lease(draft.lease, word);
    return Turn::done;
  }
  const std::size_t found = table.free_lease(slot, place.word);
  if (found == table.lease_count()) {
    return Turn::full;
  }
  if (!table.swap_lease(found, 0, word)) {
    return Turn::again;
  }
  draft.lease = static_cast<std::uint32_t>(found);
  return Turn::done;
}

template <class Memory>
Turn try_count_up(Memory& table, const FlightOrder& order, FlightDraft& draft, FlightResult& result) {
  result = {FlightResult::Status::refused, 0};
  if (order.most == 0) {
    return Turn::done;
  }
  Place place;
  if (const Turn turn = reach_place(table, order.tag, place); turn != Turn::done) {
    return turn;
  }
  // Tag and count are one word, and one load: no more is needed to refuse.
  const std::uint64_t count = flight_count(place.word);
  if (count >= order.most) {
    return Turn::done;
  }
  if (const Turn turn = write_lease(table, order, place, draft); turn != Turn::done) {
    return turn;
  }
  if (!table.swap(place.index, place.word, next_flight(place.word, order.tag, count + 1))) {
    return Turn::again;
  }
  table.put_lease(draft.lease, encode_lease({order.holder, LeaseState::held, table.number_of(place.index)}));
  result = {FlightResult::Status::admitted, order.most - count - 1};
  return Turn::done;
}

// RETURNS: done and, when admitted, a lease that is held in `draft`. With `again` the draft is kept for the next
// attempt.
template <class Memory>
Turn try_enter(Memory& table, const FlightOrder& order, FlightDraft& draft, FlightResult& result) {
  const Turn turn = try_count_up(table, order, draft, result);
  if (turn != Turn::again && result.status != FlightResult::Status::admitted) {
    drop_lease(table, draft);
  }
  return turn;
}

template <class Memory>
Turn try_look_flight(Memory& table, std::uint64_t tag, std::uint64_t most, FlightResult& result) {
  const Place place = find_final_place(table, tag);
  if (place.index == table.size() && find_room(table).index == table.size()) {
    return Turn::full;
  }
  const std::uint64_t count = place.index == table.size() ? 0 : flight_count(place.word);
  result = count < most ? FlightResult{FlightResult::Status::admitted, most - count}
                        : FlightResult{FlightResult::Status::refused, 0};
  return Turn::done;
}

// Takes one off the slot of a lease that is leaving.
template <class Memory>
Turn try_count_down(Memory& table, std::uint32_t slot) {
  const WidePair word = table.load_slot(slot);
  const std::uint64_t count = flight_count(word);
  return count == 0 || table.swap_slot(slot, word, next_flight(word, flight_tag(word), count - 1)) ? Turn::done
                                                                                                   : Turn::again;
}

// Counts the requests of a slot anew. is_dead(holder): whether that process is no more.
// Why that is exact: a lease is written before the slot is changed, and a lease seen as held was counted before. So
// between the two moments at which the slot was read and written, it counted those that are held, and perhaps those
// that were just being changed: none that live, as seen here, and the others are what is to be left out.
template <class Memory, class IsDead>
Turn try_recount(Memory& table, std::uint32_t slot, IsDead is_dead) {
  const WidePair word = table.load_slot(slot);
  std::uint64_t held = 0;
  for (std::size_t j = 0; j < table.lease_count(); ++j) {
    const Lease lease = decode_lease(table.lease(j));
    if (lease.state == LeaseState::free || lease.slot != slot) {
      continue;
    }
    if (lease.state == LeaseState::held) {
      ++held;
    } else if (!is_dead(lease.holder)) {
      return Turn::again;
    }
  }
  // Nothing is counted in a claim, and nobody who is dead will finish it.
  return is_flight_tentative(word) || table.swap_slot(slot, word, next_flight(word, flight_tag(word), held))
             ? Turn::done
             : Turn::again;
}

// A request that ends, from one step to the next.
struct FlightExit {
  std::uint32_t lease = UINT32_MAX;
  std::uint32_t slot = 0;
  bool is_counted_down = false;
};

// Takes a held lease over, from oneself or from a dead process: from here on it is self's alone, and `leaving`. Should
// self die as well, that is the lease it was just changing. RETURNS: false when somebody else was faster.
template <class Memory>
bool begin_leave(Memory& table, std::uint32_t number, std::uint64_t word, FlightHolder self, FlightExit& exit) {
  const Lease lease = decode_lease(word);
  if (lease.state != LeaseState::held ||
      !table.swap_lease(number, word, encode_lease({self, LeaseState::leaving, lease.slot}))) {
    return false;
  }
  exit = {number, lease.slot, false};
  return true;
}

// One step on after begin_leave().
template <class Memory>
Turn try_leave(Memory& table, FlightExit& exit) {
  if (!exit.is_counted_down) {
    exit.is_counted_down = try_count_down(table, exit.slot) == Turn::done;
    return Turn::again;
  }
  table.put_lease(exit.lease, 0);
  exit = {};
  return Turn::done;
}

// A walk over all leases that lets go of what dead processes held, from one step to the next.
struct FlightSweep {
  std::uint32_t next = 0;
  std::uint32_t recounts = 0;  // of the next lease's slot
  FlightExit exit;
  std::uint64_t released = 0;
};
inline constexpr std::uint32_t kMaxRecounts = 256;  // each reads all leases; what it fails at is left to the next walk

template <class Memory, class IsDead>
Turn try_sweep(Memory& table, FlightHolder self, IsDead is_dead, FlightSweep& sweep) {
  if (sweep.exit.lease != UINT32_MAX) {
    sweep.released += try_leave(table, sweep.exit) == Turn::done ? 1 : 0;
    return Turn::again;
  }
  if (sweep.next == table.lease_count()) {
    return Turn::done;
  }
  const std::uint32_t number = sweep.next;
  const std::uint64_t word = table.lease(number);
  const Lease lease = decode_lease(word);
  const bool is_left = lease.state != LeaseState::free && is_dead(lease.holder);
  if (is_left && lease.state == LeaseState::held) {
    begin_leave(table, number, word, self, sweep.exit);
  } else if (is_left) {
    if (try_recount(table, lease.slot, is_dead) == Turn::again && ++sweep.recounts < kMaxRecounts) {
      return Turn::again;
    }
    sweep.released += sweep.recounts < kMaxRecounts && table.swap_lease(number, word, 0) ? 1 : 0;
  }
  sweep.recounts = 0;
  ++sweep.next;
  return Turn::again;
}

}  // namespace apikey
