// Rows of the tables `strings`, `scopes`, `plans`, `owners`: what key records refer to by number.
// In LMDB the key of a row is its number as 4 bytes big-endian (so that LMDB's order is the numbers' order);
// numbers run from 1 without a gap (in `scopes` from 0, see scope_set.hpp). The value, little-endian:
//
//   offset size meaning
//        0    4 number of the row
//        4    4 length of the payload in bytes
//        8    8 check: fold64 over 1 byte table (1 strings, 2 scopes, 3 plans, 4 owners), 3 zero bytes,
//               4 bytes number, then the payload
//       16    n payload
//
// Payloads
//   strings  the bytes themselves (UTF-8, or a list another field points to). Each string stands once.
//   scopes   a scope set (scope_set.hpp)
//   plans    0 4 name: row in `strings` · 4 2 count n · 6 2 zero · 8 32n limits, no adjustments
//   owners   0 4 name: row in `strings` · 4 4 meta: row in `strings`, 0 = none · 8 1 flags: 1 suspended ·
//            9 1 zero · 10 2 count n · 12 4 zero · 16 8 suspended until: seconds since 1970, 0 = until resumed ·
//            24 16 owner id (random, stable for ever) · 40 32n limits
//   A key's own limits are a string whose bytes are 32n limits.
//
// A limit, 32 bytes. `name` identifies it over all publishes (the bytes of the string, not the number):
//   0  4 name: row in `strings`
//   4  1 kind: 1 rate, 2 calendar quota, 3 rolling quota, 4 concurrency, 5 adjustment
//   5  1 unit of a calendar quota: 1 minute, 2 hour, 3 day, 4 week, 5 month, 6 year; else 0
//   6  2 flags: 1 dry run; the others are zero
//   8  8 amount: tokens per period (rate, rolling quota), per window (calendar), or requests (concurrency)
//  16  8 period in nanoseconds (rate, rolling quota), else 0
//  24  8 burst in tokens (rate), else 0
// An adjustment is no limit of its own: it says what has been done to the quota of its name that applies beside it (a
// key's own list: to that of the key or its plan; an owner's list: to the owner's). It has no unit and no flags:
//   8  8 granted: tokens on top of the amount, 0 = none
//  16  8 the grant counts while now < this, seconds since 1970; 0 = no grant
//  24  8 last reset: what was used before this second is forgotten; 0 = never
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/units.hpp"

namespace apikey {

enum class Table : std::uint8_t { strings = 1, scopes = 2, plans = 3, owners = 4 };
inline constexpr std::size_t kTableCount = 4;

// The databases they stand in, by Table - 1.
inline constexpr std::array<std::string_view, kTableCount> kTableNames = {"strings", "scopes", "plans", "owners"};
// RETURNS: false for a database that is no table.
[[nodiscard]] bool find_table(std::string_view database, Table& table) noexcept;

inline constexpr std::size_t kRowHeaderSize = 16;
inline constexpr std::size_t kPlanHeaderSize = 8;
inline constexpr std::size_t kOwnerHeaderSize = 40;
inline constexpr std::size_t kLimitSize = 32;
inline constexpr std::size_t kMaxLimits = 16;                    // in one list, adjustments not counted
inline constexpr std::size_t kMaxLimitRows = 32;                 // in one list, adjustments among them
inline constexpr std::uint64_t kMaxAdjustmentTime = UINT32_MAX;  // seconds since 1970, as in quota_table.hpp
inline constexpr std::size_t kMaxRowPayload = 1U << 20;          // bytes

enum class LimitKind : std::uint8_t {
  rate = 1,
  calendar_quota = 2,
  rolling_quota = 3,
  concurrency = 4,
  adjustment = 5
};
enum class CalendarUnit : std::uint8_t { none = 0, minute = 1, hour, day, week, month, year };

struct LimitRow {
  std::uint32_t name = 0;
  LimitKind kind = LimitKind::rate;
  CalendarUnit unit = CalendarUnit::none;
  bool is_dry_run = false;
  std::uint64_t amount = 0;     // of an adjustment: granted
  std::uint64_t period_ns = 0;  // of an adjustment: granted until, in seconds since 1970
  std::uint64_t burst = 0;      // of an adjustment: last reset, in seconds since 1970
};

// Views into a snapshot: valid as long as it is pinned.
struct LimitList {
  std::span<const std::byte> bytes;
  [[nodiscard]] std::size_t size() const noexcept { return bytes.size() / kLimitSize; }
  [[nodiscard]] LimitRow operator[](std::size_t i) const noexcept;
};
struct PlanRow {
  std::uint32_t name = 0;
  LimitList limits;
};
struct OwnerRow {
  std::uint32_t name = 0;
  std::uint32_t meta = 0;
  bool is_suspended = false;
  UnixSec suspended_until;
  std::span<const std::byte> id;  // 16 bytes
  LimitList limits;
};

// Fills the 16 bytes before the payload. REQUIRES: header.size() == kRowHeaderSize.
void encode_row_header(Table table, std::uint32_t number, std::span<const std::byte> payload,
                       std::span<std::byte> header) noexcept;
// `bytes` may be longer than the row. RETURNS: false when number, length or check are wrong.
[[nodiscard]] bool decode_row(Table table, std::uint32_t number, std::span<const std::byte> bytes,
                              std::span<const std::byte>& payload) noexcept;

void encode_limit(const LimitRow& limit, std::span<std::byte> out) noexcept;  // REQUIRES: out.size() == kLimitSize
[[nodiscard]] bool decode_limits(std::span<const std::byte> bytes, LimitList& limits) noexcept;
// REQUIRES: out.size() == kPlanHeaderSize / kOwnerHeaderSize; the limits follow behind it.
void encode_plan_header(std::uint32_t name, std::size_t limit_count, std::span<std::byte> out) noexcept;
void encode_owner_header(const OwnerRow& owner, std::size_t limit_count, std::span<std::byte> out) noexcept;
[[nodiscard]] bool decode_plan(std::span<const std::byte> payload, PlanRow& plan) noexcept;
// Only whether the owner is suspended, which means the same in every version.
struct OwnerLife {
  bool is_suspended = false;
  UnixSec suspended_until;
};
[[nodiscard]] bool decode_owner_life(std::span<const std::byte> payload, OwnerLife& life) noexcept;
[[nodiscard]] bool decode_owner(std::span<const std::byte> payload, OwnerRow& owner) noexcept;

}  // namespace apikey
