// How limits read, and what they are called where nobody names them. Called by every command that sets or shows limits.
// The default names are promised: a limit's name is its identity in nginx over all publishes.
#include "limit_text.hpp"

#include <fmt/format.h>

#include <array>

#include "apikey/units.hpp"

namespace keyloader {
namespace {

using apikey::CalendarUnit;
using apikey::LimitKind;

// What a duration is written in, besides seconds.
constexpr std::array<std::pair<std::uint64_t, char>, 3> kLargerUnits{{{86'400, 'd'}, {3600, 'h'}, {60, 'm'}}};
// Rolling times that are called by a unit.
constexpr std::array<std::pair<std::uint64_t, CalendarUnit>, 7> kUnitLengths{{{60, CalendarUnit::minute},
                                                                              {3600, CalendarUnit::hour},
                                                                              {86'400, CalendarUnit::day},
                                                                              {7 * 86'400, CalendarUnit::week},
                                                                              {30 * 86'400, CalendarUnit::month},
                                                                              {365 * 86'400, CalendarUnit::year},
                                                                              {366 * 86'400, CalendarUnit::year}}};

std::uint64_t period_seconds(const Limit& limit) { return limit.period_ns / apikey::kNsPerSecond; }

// "30d", "90m": in the largest unit it is a whole number of.
std::string duration_text(std::uint64_t seconds) {
  for (const auto& [length, unit] : kLargerUnits) {
    if (seconds % length == 0) {
      return fmt::format("{}{}", seconds / length, unit);
    }
  }
  return fmt::format("{}s", seconds);
}

// The unit that a rolling period is called by; none for a period without a name.
CalendarUnit unit_like(std::uint64_t seconds) {
  for (const auto& [length, unit] : kUnitLengths) {
    if (length == seconds) {
      return unit;
    }
  }
  return CalendarUnit::none;
}

std::string quota_name(const Limit& quota, LimitHolder holder) {
  const bool is_rolling = quota.kind == LimitKind::rolling_quota;
  const CalendarUnit unit = is_rolling ? unit_like(period_seconds(quota)) : quota.unit;
  const bool is_owner = holder == LimitHolder::owner;
  if (unit == CalendarUnit::none) {
    return fmt::format("{}.{}", is_owner ? "owner" : "requests", duration_text(period_seconds(quota)));
  }
  return fmt::format("{}{}", is_owner ? "owner." : "", unit_text(unit));
}

}  // namespace

bool is_quota(const Limit& limit) {
  return limit.kind == LimitKind::calendar_quota || limit.kind == LimitKind::rolling_quota;
}

std::string default_limit_name(const Limit& limit, LimitHolder holder) {
  if (is_quota(limit)) {
    return quota_name(limit, holder);
  }
  const bool is_owner = holder == LimitHolder::owner;
  if (limit.kind == LimitKind::concurrency) {
    return is_owner ? "owner.concurrency" : "concurrency";
  }
  return is_owner ? "owner" : "rate";
}

std::string limit_text(const Limit& limit) {
  const char* suffix = limit.is_dry_run ? " (dry run)" : "";
  switch (limit.kind) {
    case LimitKind::calendar_quota:
      return fmt::format("{}/{}{}", limit.amount, unit_text(limit.unit), suffix);
    case LimitKind::rolling_quota:
      return fmt::format("{}/{} rolling{}", limit.amount, duration_text(period_seconds(limit)), suffix);
    case LimitKind::concurrency:
      return fmt::format("{} at once{}", limit.amount, suffix);
    default:
      break;
  }
  const char* unit = period_seconds(limit) == 1 ? "s" : period_seconds(limit) == 60 ? "m" : "h";
  return fmt::format("{}/{} burst {}{}", limit.amount, unit, burst_of(limit), suffix);
}

std::string limits_text(const Limits& limits) {
  std::string text;
  for (const Limit& limit : limits) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", limit.name, limit_text(limit));
  }
  return text.empty() ? "unlimited" : text;
}

}  // namespace keyloader
