// What is done with a quota, step by step, over whatever gives access to the slots: the table in shared memory
// (quota_table.cpp), or a scheduler that switches between workers at each access (t/unit/test_claim_interleavings.cpp).
// How a quota gets its slot: claim_set.hpp, whose Memory this is. Waits for nobody: a step that lost a race says
// `again`, and the caller begins anew.
#pragma once

#include "apikey/claim_set.hpp"
#include "apikey/quota_slot.hpp"

namespace apikey {

// The upper bits: what the table's size is multiplied with to find where a quota stands. Never 0.
constexpr std::uint64_t quota_tag_of(std::uint64_t subject) noexcept {
  return std::max<std::uint64_t>(subject >> (64 - kQuotaTagBits), 1);
}

constexpr bool is_quota_claim(const WidePair& slot) noexcept {
  return quota_tag(slot) != 0 && decode_use(slot).kind == kTentativeKind;
}
inline bool is_quota_free(const WidePair& slot, WallUs now) noexcept {
  return quota_tag(slot) == 0 || is_over(decode_use(slot), now);
}

enum class Charge : std::uint8_t { if_left, whatever_is_left };

// A refusal writes what it read: that proves that the two words belonged together.
template <class Memory>
Turn try_take_quota(Memory& slots, const QuotaOrder& order, WallUs now, Charge charge, QuotaResult& result) {
  const std::uint64_t tag = quota_tag_of(order.subject);
  Place place;
  if (const Turn turn = reach_place(slots, tag, place); turn != Turn::done) {
    return turn;
  }
  const QuotaUse use = use_under(decode_use(place.word), order, now);
  const QuotaStep step = charge == Charge::if_left ? take_from(use, order, now) : charge_to(use, order, now);
  if (!slots.swap(place.index, place.word, encode_use(tag, step.use))) {
    return Turn::again;
  }
  result = step.result;
  return Turn::done;
}

// What try_take_quota() would give, changing nothing.
template <class Memory>
Turn try_look_quota(Memory& slots, const QuotaOrder& order, WallUs now, QuotaResult& result) {
  const Place place = find_final_place(slots, quota_tag_of(order.subject));
  const bool is_new = place.index == slots.size();
  if (is_new && order.cost != 0 && find_room(slots).index == slots.size()) {
    return Turn::full;
  }
  result = take_from(use_under(decode_use(place.word), order, now), order, now).result;
  // Only a refusal is final, so only that has to be proven.
  const bool is_refused = result.status == QuotaResult::Status::refused;
  return is_new || !is_refused || slots.swap(place.index, place.word, place.word) ? Turn::done : Turn::again;
}

template <class Memory>
Turn try_give_back_quota(Memory& slots, const QuotaOrder& order, WallUs now) {
  const std::uint64_t tag = quota_tag_of(order.subject);
  const Place place = find_final_place(slots, tag);
  if (place.index == slots.size()) {
    return Turn::done;
  }
  const WidePair next = encode_use(tag, give_back_to(decode_use(place.word), order, now));
  // That nothing is to be given back has to be proven as well.
  return slots.swap(place.index, place.word, next) ? Turn::done : Turn::again;
}

}  // namespace apikey
