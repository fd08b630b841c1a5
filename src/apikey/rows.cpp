// Rows of the tables strings, scopes, plans and owners: encode, decode, check. The byte maps are in rows.hpp.
// Called by keyloader when it publishes, by the snapshot reader per look-up, by the verifier for every row.
// Never reads past the bytes it was given, whatever their lengths say.
#include "apikey/rows.hpp"

#include <algorithm>

#include "apikey/flight_table.hpp"
#include "apikey/fold64.hpp"
#include "apikey/little_endian.hpp"
#include "apikey/quota_table.hpp"
#include "apikey/rate_spec.hpp"

namespace apikey {
namespace {

constexpr std::size_t kNumberAt = 0;
constexpr std::size_t kLengthAt = 4;
constexpr std::size_t kCheckAt = 8;

constexpr std::size_t kLimitNameAt = 0;
constexpr std::size_t kLimitKindAt = 4;
constexpr std::size_t kLimitUnitAt = 5;
constexpr std::size_t kLimitFlagsAt = 6;
constexpr std::size_t kLimitAmountAt = 8;
constexpr std::size_t kLimitPeriodAt = 16;
constexpr std::size_t kLimitBurstAt = 24;
constexpr std::uint16_t kLimitDryRun = 1;

constexpr std::size_t kPlanNameAt = 0;
constexpr std::size_t kPlanCountAt = 4;
constexpr std::size_t kPlanZeroAt = 6;

constexpr std::size_t kOwnerNameAt = 0;
constexpr std::size_t kOwnerMetaAt = 4;
constexpr std::size_t kOwnerFlagsAt = 8;
constexpr std::size_t kOwnerZeroByteAt = 9;
constexpr std::size_t kOwnerCountAt = 10;
constexpr std::size_t kOwnerZeroWordAt = 12;
constexpr std::size_t kOwnerSuspendedUntilAt = 16;
constexpr std::size_t kOwnerIdAt = 24;
constexpr std::size_t kOwnerIdSize = 16;
constexpr std::uint8_t kOwnerSuspended = 1;
static_assert(kOwnerIdAt + kOwnerIdSize == kOwnerHeaderSize);

std::uint64_t check_of(Table table, std::uint32_t number, std::span<const std::byte> payload) noexcept {
  Fold64 fold(8 + payload.size());
  fold.word(static_cast<std::uint64_t>(table) | static_cast<std::uint64_t>(number) << 32);
  fold.bytes(payload);
  return fold.value();
}

constexpr bool is_in(std::uint64_t value, std::uint64_t most) noexcept { return value >= 1 && value <= most; }

// Grants something, or has reset something, or both; a grant has an end, and nothing else has.
bool is_adjustment(const LimitRow& row) noexcept {
  return !row.is_dry_run && (row.amount != 0 || row.burst != 0) && (row.amount != 0) == (row.period_ns != 0) &&
         row.amount <= kMaxQuotaAmount && row.period_ns <= kMaxAdjustmentTime && row.burst <= kMaxAdjustmentTime;
}

bool is_consistent(const LimitRow& limit) noexcept {
  const bool is_calendar = limit.kind == LimitKind::calendar_quota;
  const bool has_unit = limit.unit >= CalendarUnit::minute && limit.unit <= CalendarUnit::year;
  if (limit.name == 0 || is_calendar != has_unit || (!is_calendar && limit.unit != CalendarUnit::none)) {
    return false;
  }
  switch (limit.kind) {
    case LimitKind::rate:
      return limit.period_ns > 0 && is_in(limit.amount, kMaxRateAmount) && is_in(limit.burst, kMaxBurst);
    case LimitKind::calendar_quota:
      return is_in(limit.amount, kMaxQuotaAmount) && limit.period_ns == 0 && limit.burst == 0;
    case LimitKind::rolling_quota:
      return is_in(limit.amount, kMaxQuotaAmount) && is_in(limit.period_ns, kMaxRollingPeriodNs) && limit.burst == 0;
    case LimitKind::concurrency:
      return is_in(limit.amount, kMaxConcurrency) && limit.period_ns == 0 && limit.burst == 0;
    case LimitKind::adjustment:
      return is_adjustment(limit);
  }
  return false;
}

std::size_t count_adjustments(const LimitList& limits) noexcept {
  std::size_t count = 0;
  for (std::size_t i = 0; i < limits.size(); ++i) {
    count += limits[i].kind == LimitKind::adjustment ? 1U : 0U;
  }
  return count;
}

// The list behind the header of a plan or owner: exactly as long as its count says.
bool decode_counted_limits(std::span<const std::byte> payload, std::size_t header_size, std::size_t count,
                           LimitList& limits) noexcept {
  return payload.size() == header_size + count * kLimitSize && decode_limits(payload.subspan(header_size), limits);
}

}  // namespace

bool find_table(std::string_view database, Table& table) noexcept {
  for (std::size_t i = 0; i < kTableCount; ++i) {
    if (kTableNames[i] == database) {
      table = static_cast<Table>(i + 1);
      return true;
    }
  }
  return false;
}

LimitRow LimitList::operator[](std::size_t i) const noexcept {
  const auto at = bytes.subspan(i * kLimitSize, kLimitSize);
  LimitRow limit;
  limit.name = load_le<std::uint32_t>(at, kLimitNameAt);
  limit.kind = static_cast<LimitKind>(load_le<std::uint8_t>(at, kLimitKindAt));
  limit.unit = static_cast<CalendarUnit>(load_le<std::uint8_t>(at, kLimitUnitAt));
  limit.is_dry_run = (load_le<std::uint16_t>(at, kLimitFlagsAt) & kLimitDryRun) != 0;
  limit.amount = load_le<std::uint64_t>(at, kLimitAmountAt);
  limit.period_ns = load_le<std::uint64_t>(at, kLimitPeriodAt);
  limit.burst = load_le<std::uint64_t>(at, kLimitBurstAt);
  return limit;
}

void encode_row_header(Table table, std::uint32_t number, std::span<const std::byte> payload,
                       std::span<std::byte> header) noexcept {
  store_le(header, kNumberAt, number);
  store_le(header, kLengthAt, static_cast<std::uint32_t>(payload.size()));
  store_le(header, kCheckAt, check_of(table, number, payload));
}

bool decode_row(Table table, std::uint32_t number, std::span<const std::byte> bytes,
                std::span<const std::byte>& payload) noexcept {
  if (bytes.size() < kRowHeaderSize || load_le<std::uint32_t>(bytes, kNumberAt) != number) {
    return false;
  }
  const std::size_t length = load_le<std::uint32_t>(bytes, kLengthAt);
  if (length > kMaxRowPayload || length > bytes.size() - kRowHeaderSize) {
    return false;
  }
  const auto found = bytes.subspan(kRowHeaderSize, length);
  if (load_le<std::uint64_t>(bytes, kCheckAt) != check_of(table, number, found)) {
    return false;
  }
  payload = found;
  return true;
}

void encode_limit(const LimitRow& limit, std::span<std::byte> out) noexcept {
  store_le(out, kLimitNameAt, limit.name);
  store_le(out, kLimitKindAt, static_cast<std::uint8_t>(limit.kind));
  store_le(out, kLimitUnitAt, static_cast<std::uint8_t>(limit.unit));
  store_le(out, kLimitFlagsAt, limit.is_dry_run ? kLimitDryRun : std::uint16_t{0});
  store_le(out, kLimitAmountAt, limit.amount);
  store_le(out, kLimitPeriodAt, limit.period_ns);
  store_le(out, kLimitBurstAt, limit.burst);
}

bool decode_limits(std::span<const std::byte> bytes, LimitList& limits) noexcept {
  if (bytes.size() % kLimitSize != 0 || bytes.size() > kMaxLimitRows * kLimitSize) {
    return false;
  }
  const LimitList found{bytes};
  for (std::size_t i = 0; i < found.size(); ++i) {
    if ((load_le<std::uint16_t>(bytes, i * kLimitSize + kLimitFlagsAt) & ~kLimitDryRun) != 0 ||
        !is_consistent(found[i])) {
      return false;
    }
  }
  if (found.size() - count_adjustments(found) > kMaxLimits) {
    return false;
  }
  limits = found;
  return true;
}

void encode_plan_header(std::uint32_t name, std::size_t limit_count, std::span<std::byte> out) noexcept {
  store_le(out, kPlanNameAt, name);
  store_le(out, kPlanCountAt, static_cast<std::uint16_t>(limit_count));
  store_le(out, kPlanZeroAt, std::uint16_t{0});
}

void encode_owner_header(const OwnerRow& owner, std::size_t limit_count, std::span<std::byte> out) noexcept {
  std::fill(out.begin(), out.end(), std::byte{0});
  store_le(out, kOwnerNameAt, owner.name);
  store_le(out, kOwnerMetaAt, owner.meta);
  store_le(out, kOwnerFlagsAt, owner.is_suspended ? kOwnerSuspended : std::uint8_t{0});
  store_le(out, kOwnerCountAt, static_cast<std::uint16_t>(limit_count));
  store_le(out, kOwnerSuspendedUntilAt, owner.suspended_until.value);
  std::copy_n(owner.id.begin(), kOwnerIdSize, out.begin() + kOwnerIdAt);
}

bool decode_plan(std::span<const std::byte> payload, PlanRow& plan) noexcept {
  if (payload.size() < kPlanHeaderSize || load_le<std::uint16_t>(payload, kPlanZeroAt) != 0) {
    return false;
  }
  plan.name = load_le<std::uint32_t>(payload, kPlanNameAt);
  const std::size_t count = load_le<std::uint16_t>(payload, kPlanCountAt);
  return plan.name != 0 && decode_counted_limits(payload, kPlanHeaderSize, count, plan.limits) &&
         count_adjustments(plan.limits) == 0;
}

bool decode_owner_life(std::span<const std::byte> payload, OwnerLife& life) noexcept {
  if (payload.size() < kOwnerHeaderSize) {
    return false;
  }
  life.is_suspended = (load_le<std::uint8_t>(payload, kOwnerFlagsAt) & kOwnerSuspended) != 0;
  life.suspended_until.value = load_le<std::int64_t>(payload, kOwnerSuspendedUntilAt);
  return true;
}

bool decode_owner(std::span<const std::byte> payload, OwnerRow& owner) noexcept {
  if (payload.size() < kOwnerHeaderSize || load_le<std::uint8_t>(payload, kOwnerZeroByteAt) != 0 ||
      load_le<std::uint32_t>(payload, kOwnerZeroWordAt) != 0) {
    return false;
  }
  const auto flags = load_le<std::uint8_t>(payload, kOwnerFlagsAt);
  owner.name = load_le<std::uint32_t>(payload, kOwnerNameAt);
  owner.meta = load_le<std::uint32_t>(payload, kOwnerMetaAt);
  owner.is_suspended = (flags & kOwnerSuspended) != 0;
  owner.suspended_until.value = load_le<std::int64_t>(payload, kOwnerSuspendedUntilAt);
  owner.id = payload.subspan(kOwnerIdAt, kOwnerIdSize);
  if ((flags & ~kOwnerSuspended) != 0 || owner.name == 0 || (owner.suspended_until.value != 0 && !owner.is_suspended)) {
    return false;
  }
  const std::size_t count = load_le<std::uint16_t>(payload, kOwnerCountAt);
  return decode_counted_limits(payload, kOwnerHeaderSize, count, owner.limits);
}

}  // namespace apikey
