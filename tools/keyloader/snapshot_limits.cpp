// From the registry's limits to rows of a snapshot. Called when one is built.
// Must never write an adjustment of a quota that is not there: a list has room for those that apply, and no more.
#include "snapshot_limits.hpp"

#include <algorithm>

#include "apikey/quota_table.hpp"

namespace keyloader {
namespace {

// Longer than any quota looks back.
constexpr Seconds kLongestWindow = apikey::kMaxRollingPeriodNs / apikey::kNsPerSecond;

bool has_quota(const LimitRows& rows, const std::string& name) {
  return std::any_of(rows.begin(), rows.end(), [&](const apikey::publish::Limit& row) {
    const bool is_quota = row.kind == apikey::LimitKind::calendar_quota || row.kind == apikey::LimitKind::rolling_quota;
    return is_quota && row.name == name;
  });
}

}  // namespace

LimitRows limit_rows(const Limits& limits) {
  LimitRows rows;
  for (const Limit& limit : limits) {
    rows.push_back({.name = limit.name,
                    .kind = limit.kind,
                    .unit = limit.unit,
                    .is_dry_run = limit.is_dry_run,
                    .amount = limit.amount,
                    .period_ns = limit.period_ns,
                    .burst = burst_of(limit)});
  }
  return rows;
}

void add_adjustments(LimitRows& rows, const Adjustments& adjustments, const LimitRows& applying, Seconds now) {
  for (const Adjustment& adjustment : adjustments) {
    const bool is_granted = adjustment.granted != 0 && now < adjustment.granted_until;
    const bool is_reset = adjustment.last_reset != 0 && now - adjustment.last_reset < kLongestWindow;
    if ((!is_granted && !is_reset) || !has_quota(applying, adjustment.quota)) {
      continue;
    }
    rows.push_back({.name = adjustment.quota,
                    .kind = apikey::LimitKind::adjustment,
                    .amount = is_granted ? adjustment.granted : 0,
                    .period_ns = is_granted ? static_cast<std::uint64_t>(adjustment.granted_until) : 0,
                    .burst = is_reset ? static_cast<std::uint64_t>(adjustment.last_reset) : 0});
  }
}

FamilyAdjustments family_adjustments(Registry& registry) {
  FamilyAdjustments families;
  registry.each_adjustment(
      [&](const apikey::KeyId& family, const Adjustment& adjustment) { families[family].push_back(adjustment); });
  return families;
}

}  // namespace keyloader
