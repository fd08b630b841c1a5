// What limits mean together. Called by the commands that change plans, keys and owners, before they write.
// Must judge every combination that a publish can bring together, also those of keys the command did not name.
#include "limit_rules.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "apikey/limit_gathering.hpp"
#include "limit_text.hpp"

namespace keyloader {
namespace {

using apikey::CalendarUnit;
using apikey::LimitKind;

constexpr std::size_t kMaxDoubts = 3;
constexpr std::uint64_t kDay = 86'400;

bool is_same_measure(const Limit& a, const Limit& b) {
  const auto measure = [](const Limit& limit) {
    const std::string_view of = apikey::measure_of(limit.name);
    return of == "requests" ? std::string_view{} : of;
  };
  return measure(a) == measure(b);
}

// In seconds. Months and years are not always as long.
struct Period {
  std::uint64_t shortest = 0;
  std::uint64_t longest = 0;
};

Period period_of(const Limit& limit) {
  switch (limit.unit) {
    case CalendarUnit::minute:
      return {60, 60};
    case CalendarUnit::hour:
      return {3600, 3600};
    case CalendarUnit::day:
      return {kDay, kDay};
    case CalendarUnit::week:
      return {7 * kDay, 7 * kDay};
    case CalendarUnit::month:
      return {28 * kDay, 31 * kDay};
    case CalendarUnit::year:
      return {365 * kDay, 366 * kDay};
    case CalendarUnit::none:
      break;
  }
  const std::uint64_t seconds = limit.period_ns / apikey::kNsPerSecond;
  return {seconds, seconds};
}

bool allows_less_in_longer(const Limit& longer, const Limit& shorter) {
  return longer.kind != LimitKind::concurrency && shorter.kind != LimitKind::concurrency &&
         period_of(longer).shortest > period_of(shorter).longest && longer.amount < shorter.amount &&
         is_same_measure(longer, shorter);
}

// RETURNS: what is allowed, but may not be meant.
Texts check_together(const Limits& limits, const std::string& whose) {
  if (limits.size() > apikey::kMaxLimits) {
    throw Failure(fmt::format("{}: {} limits apply together, {} can: {}", whose, limits.size(), apikey::kMaxLimits,
                              limits_text(limits)));
  }
  Texts doubts;
  for (const Limit& longer : limits) {
    for (const Limit& shorter : limits) {
      if (allows_less_in_longer(longer, shorter)) {
        doubts.push_back(
            fmt::format("{}: {} allows {}, less than {} with {}, so {} ends first. If that is not meant, raise {} or "
                        "lower {}",
                        whose, longer.name, limit_text(longer), shorter.name, limit_text(shorter), longer.name,
                        longer.name, shorter.name));
      }
    }
  }
  return doubts;
}

// As nginx judges it (limit_gathering.cpp): a rate does not replace a quota that happens to have its name.
bool replaces(const Limit& own, const Limit& of_plan) {
  return own.name == of_plan.name && apikey::is_same_table(own.kind, of_plan.kind);
}

std::vector<EffectiveLimit> limits_with_source(const Key& key, const Plan& plan) {
  std::vector<EffectiveLimit> limits;
  for (const Limit& own : key.limits) {
    limits.push_back({.limit = own, .from = "key"});
  }
  for (const Limit& of_plan : plan.limits) {
    if (std::none_of(key.limits.begin(), key.limits.end(), [&](const Limit& own) { return replaces(own, of_plan); })) {
      limits.push_back({.limit = of_plan, .from = "plan:" + plan.name});
    }
  }
  std::stable_sort(limits.begin(), limits.end(),
                   [](const EffectiveLimit& a, const EffectiveLimit& b) { return a.limit.name < b.limit.name; });
  return limits;
}

Limits limits_of(const Key& key, const Plan& plan) {
  Limits limits;
  for (const EffectiveLimit& each : limits_with_source(key, plan)) {
    limits.push_back(each.limit);
  }
  return limits;
}

Texts check_key(const Key& key, const Plan& plan, const std::string& whose) {
  return check_together(limits_of(key, plan), fmt::format("{} with plan {}", whose, plan.name));
}

Plan plan_of(Registry& registry, const Key& key) {
  auto plan = registry.plan(key.plan);
  if (!plan) {
    throw Failure(fmt::format("registry.db is damaged (plan {} is missing); restore it from a backup", key.plan));
  }
  return *plan;
}

}  // namespace

std::vector<EffectiveLimit> effective_limits(const Key& key, const Plan& plan, const Owner& owner) {
  std::vector<EffectiveLimit> effective = limits_with_source(key, plan);
  for (const Limit& limit : owner.limits) {
    effective.push_back({.limit = limit, .from = "owner:" + owner.name});
  }
  return effective;
}

std::vector<EffectiveLimit> effective_limits(Registry& registry, const Key& key) {
  return effective_limits(key, plan_of(registry, key), registry.owner(key.owner).value_or(Owner{}));
}

Json to_json(const EffectiveLimit& effective) {
  Json json = to_json(effective.limit);
  json["from"] = effective.from;
  return json;
}

std::string source_text(const EffectiveLimit& effective) {
  std::string text = "the " + effective.from;
  // Only the first: an owner's name may hold more of them.
  if (const std::size_t colon = text.find(':'); colon != std::string::npos) {
    text[colon] = ' ';
  }
  return text;
}

Texts check_limits(const Owner& owner) { return check_together(owner.limits, fmt::format("owner {}", owner.name)); }

Texts check_limits(Registry& registry, const Plan& plan) {
  Texts doubts = check_together(plan.limits, fmt::format("plan {}", plan.name));
  // What the plan says by itself need not be said of each key that has it.
  const bool is_doubtful = !doubts.empty();
  registry.each_key_with_limits(plan, [&](const Key& key) {
    if (key.revoked != 0) {
      return;  // nothing comes of its limits any more
    }
    Texts of_key =
        check_key(key, plan, fmt::format("{} of {}, which has limits of its own,", text_of(key.id), key.owner));
    if (!is_doubtful && doubts.size() < kMaxDoubts) {
      doubts.insert(doubts.end(), of_key.begin(), of_key.end());
    }
  });
  return doubts;
}

Texts check_limits(Registry& registry, const Key& key, const std::string& whose) {
  // A plan alone was judged when it was made.
  return key.limits.empty() ? Texts{} : check_key(key, plan_of(registry, key), whose);
}

}  // namespace keyloader
