// What one slot of the table of quotas says, and the arithmetic of quotas: pure functions of (slot, order, now).
// No memory, no clock. Used by quota_set.hpp.
//
// A slot is 16 bytes, changed by one compare-and-swap, so identity, window and use are never of two moments:
//   word 0  bits 32-63 low 32 bits of the tag · bits 0-31 begin, seconds since 1970
//   word 1  bits 61-63 kind: 0 tentative, 1-6 the unit of a calendar quota, 7 rolling · bits 50-60 high 11 bits of the
//           tag · bits 0-49 value
// Both words zero: free. Of a tentative slot, begin and value are the number of the claim.
// Calendar: value is what was used since `begin`; the window ends where that of the unit does.
// Rolling: value is the theoretical arrival time (bucket.hpp) in microseconds since kRollingEpoch, `begin` a second
// since which all that is owed was taken. It is counted in grains: a whole number of them is a token, the largest power
// of two of which each takes 1 µs at least. So n tokens are n tokens however they are split, times are exact to 2 µs,
// and only where more than one token comes in 1 µs is a cost rounded up.
#pragma once

#include <algorithm>
#include <cstdint>

#include "apikey/quota_table.hpp"
#include "apikey/wide_word.hpp"

namespace apikey {

inline constexpr unsigned kQuotaTagBits = 43;
inline constexpr unsigned kQuotaValueBits = 50;
inline constexpr std::uint64_t kMaxQuotaValue = (std::uint64_t{1} << kQuotaValueBits) - 1;
inline constexpr std::uint8_t kTentativeKind = 0;
inline constexpr std::uint8_t kRollingKind = 7;

struct QuotaUse {
  std::uint8_t kind = kTentativeKind;
  UnixSec begin;
  std::uint64_t value = 0;
};

constexpr std::uint64_t quota_tag(const WidePair& slot) noexcept {
  return slot.low >> 32U | (slot.high >> kQuotaValueBits & 0x7ffU) << 32U;
}
constexpr QuotaUse decode_use(const WidePair& slot) noexcept {
  return {static_cast<std::uint8_t>(slot.high >> 61U),
          {static_cast<std::int64_t>(slot.low & 0xffff'ffffU)},
          slot.high & kMaxQuotaValue};
}
constexpr WidePair encode_use(std::uint64_t tag, const QuotaUse& use) noexcept {
  const std::int64_t begin = std::clamp<std::int64_t>(use.begin.value, 0, UINT32_MAX);
  return {tag << 32U | static_cast<std::uint64_t>(begin),
          std::uint64_t{use.kind} << 61U | (tag >> 32U) << kQuotaValueBits | std::min(use.value, kMaxQuotaValue)};
}
constexpr WidePair encode_claim(std::uint64_t tag, std::uint64_t number) noexcept {
  return encode_use(tag,
                    {kTentativeKind, {static_cast<std::int64_t>(number >> kQuotaValueBits)}, number & kMaxQuotaValue});
}

// The order of a charge: when its window is not that of `now` any more, what was used counts in the one that is.
[[nodiscard]] QuotaOrder order_at(const QuotaOrder& order, WallUs now) noexcept;

// What a slot (a tentative one: of a newcomer) says at `now`, in the window that the order counts in.
[[nodiscard]] QuotaUse use_under(const QuotaUse& slot, const QuotaOrder& order, WallUs now) noexcept;

// From here on `use` is as use_under() gives it.
struct QuotaStep {
  QuotaUse use;  // afterwards; the same when refused
  QuotaResult result;
};
[[nodiscard]] QuotaStep take_from(const QuotaUse& use, const QuotaOrder& order, WallUs now) noexcept;
// The same whatever is left.
[[nodiscard]] QuotaStep charge_to(const QuotaUse& use, const QuotaOrder& order, WallUs now) noexcept;
// Of what the slot says: without use_under(), so that nothing that was taken elsewhen is given back.
[[nodiscard]] QuotaUse give_back_to(const QuotaUse& slot, const QuotaOrder& order, WallUs now) noexcept;

// When the slot has nothing to say any more, seconds since 1970.
[[nodiscard]] UnixSec end_of(const QuotaUse& slot) noexcept;
// So long ago that no worker's clock is still before it.
[[nodiscard]] bool is_over(const QuotaUse& slot, WallUs now) noexcept;

}  // namespace apikey
