// Who stands in which slot, exactly and without a lock: a subject never stands in two, and a slot in use is never taken
// from it. Step by step, over whatever gives access to the slots: a table in shared memory (quota_table.cpp,
// flight_table.cpp), or a scheduler that switches between workers at each access (t/unit/test_claim_interleavings.cpp).
// So the code that is searched is the code that runs. Waits for nobody: who lost a race begins anew.
//
// How a subject comes in: it claims a free slot by writing (its tag, tentative, a number) there, then looks through all
// slots again. If its tag stands in another one too, one of the two is withdrawn and it starts again; of two that claim
// at once the later one sees the other. Else it makes the slot final. Nothing is counted in a tentative slot.
//
// Whoever meets his own tag tentative goes on with that claim, and who finds no free slot puts his claim in the place
// of a stranger's. So a claimer that died or sleeps holds up nobody and costs no slot, without a look at any clock. The
// number makes every claim another one: whoever finishes it knows that it stood there all the while he looked around.
//
// Memory gives:
//   size()            slots a subject may stand in: groups of group_size() that have little to do with each other
//   holds(i, tag)     whether slot i has that tag, tentative or not; never false of one that has it all the while
//   load(i)           the slot's two words: loads of two moments. Every use of them ends in a swap, which fails when
//                     they never stood together.
//   swap(i, expected, desired)
//   tag(word), is_tentative(word), is_free(word): what a slot's words say
//   claim(tag, word)  what a claim writes in the place of `word`: no two claims are ever the same
//   free(word)        what a withdrawn claim leaves behind
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "apikey/wide_word.hpp"

namespace apikey {

enum class Turn : std::uint8_t { done, again, full };

// An index of size() means: nowhere.
struct Place {
  std::size_t index = 0;
  WidePair word;
};

template <class Memory, class IsWanted>
Place find_place(Memory& slots, std::uint64_t tag, IsWanted is_wanted) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (slots.holds(i, tag)) {
      const Place place{i, slots.load(i)};
      if (slots.tag(place.word) == tag && is_wanted(place.word)) {
        return place;
      }
    }
  }
  return {slots.size(), {}};
}

// The subject's slot, or a claim of it.
template <class Memory>
Place find_place(Memory& slots, std::uint64_t tag) {
  return find_place(slots, tag, [](const WidePair&) { return true; });
}

// The subject's slot. A claim with the same tag is passed over: it may be about to be withdrawn.
template <class Memory>
Place find_final_place(Memory& slots, std::uint64_t tag) {
  return find_place(slots, tag, [&](const WidePair& word) { return !slots.is_tentative(word); });
}

// The slot a newcomer would claim: in the first group of which a quarter is free, or else in the one with the most free
// slots, so that the groups fill up evenly. Or else the first claim of somebody else.
template <class Memory>
Place find_room(Memory& slots) {
  Place best{slots.size(), {}};
  Place claim = best;
  std::size_t most = 0;
  for (std::size_t begin = 0; begin < slots.size() && 4 * most < slots.group_size(); begin += slots.group_size()) {
    Place first{slots.size(), {}};
    std::size_t free = 0;
    for (std::size_t i = begin; i < begin + slots.group_size(); ++i) {
      const Place place{i, slots.load(i)};
      if (slots.is_tentative(place.word)) {
        claim = claim.index == slots.size() ? place : claim;
      } else if (slots.is_free(place.word)) {
        first = free == 0 ? place : first;
        ++free;
      }
    }
    best = free > most ? first : best;
    most = std::max(most, free);
  }
  return most != 0 ? best : claim;
}

// Of two slots with one tag the final one stays, of two tentative ones the first: so all who meet them agree.
template <class Memory>
void remove_twin(Memory& slots, const Place& place, std::size_t twin_index) {
  const Place twin{twin_index, slots.load(twin_index)};
  if (slots.tag(twin.word) != slots.tag(place.word)) {
    return;
  }
  const bool stays = slots.is_tentative(twin.word) && place.index < twin_index;
  const Place& loser = stays ? twin : place;
  slots.swap(loser.index, loser.word, slots.free(loser.word));
}

template <class Memory>
bool is_alone(Memory& slots, std::uint64_t tag, const Place& place) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (i != place.index && slots.holds(i, tag)) {
      remove_twin(slots, place, i);
      return false;
    }
  }
  return true;
}

// RETURNS: done with the subject's slot in `place`, to be changed by a swap of its word. When that is tentative, the
// swap is what makes it final, and nothing has been counted there before. full: every slot is in use by others.
template <class Memory>
Turn reach_place(Memory& slots, std::uint64_t tag, Place& place) {
  place = find_place(slots, tag);
  if (place.index == slots.size()) {
    const Place room = find_room(slots);
    if (room.index == slots.size()) {
      return Turn::full;
    }
    place = {room.index, slots.claim(tag, room.word)};
    if (!slots.swap(place.index, room.word, place.word)) {
      return Turn::again;
    }
  }
  return slots.is_tentative(place.word) && !is_alone(slots, tag, place) ? Turn::again : Turn::done;
}

}  // namespace apikey
