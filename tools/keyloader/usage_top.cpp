// keyloader usage --by, --top, --over. Called by usage.cpp.
#include "usage_top.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "limit_text.hpp"
#include "listing.hpp"
#include "names.hpp"
#include "quota_use.hpp"

namespace keyloader {
namespace {

constexpr Seconds kDay = 86'400;
constexpr std::string_view kNoKey = "(no room for the key)";

// What a row is of, as its members.
using Group = std::map<std::string, std::string>;

// The plan that each key has today.
std::map<apikey::KeyId, std::string> plans_of_keys(const Session& session) {
  std::map<apikey::KeyId, std::string> plans;
  session.open_registry()->each_key({}, [&](const Key& key) {
    plans[key.id] = key.plan;
    return true;
  });
  return plans;
}

class Grouper {
 public:
  Grouper(const Session& session, const UsageNames& names, std::string by) : names_(names), by_(std::move(by)) {
    if (by_ == "plan") {
      plans_ = plans_of_keys(session);
    }
  }

  [[nodiscard]] Group group_of(const UsageRecord& record) const {
    if (by_ == "day") {
      // Of a month that was pruned nobody knows the days.
      const std::string_view shape = record.instance == UsageInstance{} ? "2026-11" : "2026-11-01";
      return {{"day", time_text(record.hour / kDay * kDay).substr(0, shape.size())}};
    }
    if (by_ == "plan") {
      const auto found = plans_.find(record.key);
      return {{"plan", found == plans_.end() ? "(key deleted or unknown)" : found->second}};
    }
    Group group{{"owner", names_.owner(record.owner)}, {"owner_id", hex(record.owner)}};
    if (by_ == "key") {
      group["key"] = record.key == apikey::KeyId{} ? std::string{kNoKey} : usage_key_text(record.key);
    }
    return group;
  }

  [[nodiscard]] Columns columns() const {
    std::vector<Column> known;
    std::vector<std::string_view> shown;
    const auto add = [&](std::string_view name, std::string_view heading) {
      known.push_back({name, heading});
      shown.push_back(name);
    };
    if (by_ == "day") {
      add("day", "DAY");
    } else if (by_ == "plan") {
      add("plan", "PLAN");
    } else {
      add("owner", "OWNER");
    }
    if (by_ == "key") {
      add("key", "KEY");
    }
    add("admitted", "ADMITTED");
    add("cost", "COST");
    add("refunded", "REFUNDED");
    add("refused", "REFUSED");
    add("bytes", "BYTES");
    add("upstream_seconds", "UPSTREAM_S");
    return {.known = known, .of_table = shown, .of_wide = shown};
  }

 private:
  const UsageNames& names_;
  std::string by_;
  std::map<apikey::KeyId, std::string> plans_;
};

Json row_of(const Group& group, const UsageCounters& counters) {
  Json row(group);
  row.update(to_json(counters));
  row["refused"] = refused_total(counters);
  return row;
}

// "80%", "80" → 80.
std::uint64_t parse_percent(const std::string& text) {
  const std::size_t length = text.size() - (text.ends_with('%') ? 1U : 0U);
  std::uint64_t percent = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + length, percent);
  if (error != std::errc{} || end != text.data() + length || percent == 0 || percent > 100) {
    throw UsageError(fmt::format("--over \"{}\" is no part of a quota; write --over 80%", text));
  }
  return percent;
}

Columns quota_columns() {
  return {.known = {{"owner", "OWNER"},
                    {"key", "KEY"},
                    {"quota", "QUOTA"},
                    {"amount", "AMOUNT"},
                    {"used", "USED"},
                    {"left", "LEFT"},
                    {"percent", "PERCENT"},
                    {"resets", "RESETS"}},
          .of_table = {"owner", "key", "quota", "amount", "used", "left", "percent", "resets"},
          .of_wide = {"owner", "key", "quota", "amount", "used", "left", "percent", "resets"}};
}

// Adds the quotas of one subject that are used up so far.
class OverFinder {
 public:
  OverFinder(const QuotaMeter& meter, Listing& listing, std::uint64_t percent)
      : meter_(meter), listing_(listing), percent_(percent), now_(wall_clock()) {}

  void look(const std::vector<EffectiveLimit>& limits, const Adjustments& adjustments, std::span<const std::uint8_t> id,
            const Json& whose) {
    for (const EffectiveLimit& each : limits) {
      if (!is_quota(each.limit)) {
        continue;
      }
      const auto use = meter_.read(each.limit, adjustment_of(adjustments, each.limit.name, now_), id);
      if (use && use->percent() >= percent_) {
        Json row = to_json(use);
        row.update(whose);
        row["quota"] = each.limit.name;
        row["amount"] = use->amount;
        listing_.add(std::move(row));
      }
    }
  }

 private:
  const QuotaMeter& meter_;
  Listing& listing_;
  std::uint64_t percent_;
  Seconds now_;
};

void look_at_keys(Registry& registry, const std::string& owner, OverFinder& finder) {
  std::map<std::string, Plan> plans;
  for (Plan& plan : registry.plans()) {
    plans[plan.name] = std::move(plan);
  }
  std::set<apikey::KeyId> families;  // keys of one share their quotas
  registry.each_key({.owner = owner, .env = {}, .role = {}}, [&](const Key& key) {
    const std::vector<EffectiveLimit> limits = effective_limits(key, plans[key.plan], Owner{});
    const bool has_quota =
        std::any_of(limits.begin(), limits.end(), [](const EffectiveLimit& each) { return is_quota(each.limit); });
    if (key.revoked == 0 && has_quota && families.insert(key.family).second) {
      finder.look(limits, registry.adjustments(key.family), key.family.bytes,
                  {{"owner", key.owner}, {"key", text_of(key.id)}});
    }
    return true;
  });
}

}  // namespace

void show_groups(const Session& session, UsageStore& store, const UsageNames& names, const UsageFilter& filter,
                 const UsageOptions& options) {
  const std::string by = options.by.empty() ? "key" : options.by;
  const Grouper grouper(session, names, by);
  std::map<Group, UsageCounters> sums;
  store.each_with_months(filter,
                         [&](const UsageRecord& record) { add(sums[grouper.group_of(record)], record.counters); });
  ListOptions list{.format = {}, .columns = {}, .sort = "admitted", .is_reversed = true, .most = options.top};
  if (by == "day" && !options.top) {
    list.sort = "day";
    list.is_reversed = false;
  }
  Listing listing(session, list, grouper.columns(), "nothing was counted");
  for (const auto& [group, counters] : sums) {
    listing.add(row_of(group, counters));
  }
  listing.finish();
}

void show_nearly_used_up(const Session& session, const UsageOptions& options) {
  const std::uint64_t percent = parse_percent(options.over);
  Listing listing(session, {.format = {}, .columns = {}, .sort = "percent", .is_reversed = true, .most = options.top},
                  quota_columns(), "no quota is used up so far");
  const auto registry = session.open_registry();
  if (!options.owner.empty()) {
    static_cast<void>(require_owner(*registry, options.owner));
  }
  const QuotaMeter meter(session);
  if (!meter.knows_anything()) {
    throw Failure("what was used of quotas is not known: no nginx here counts them");
  }
  OverFinder finder(meter, listing, percent);
  look_at_keys(*registry, options.owner, finder);
  for (const Owner& owner : registry->owners()) {
    if (options.owner.empty() || options.owner == owner.name) {
      finder.look(effective_limits(Key{}, Plan{}, owner), registry->adjustments(owner), owner.id,
                  {{"owner", owner.name}, {"key", nullptr}});
    }
  }
  listing.finish();
  if (const std::string remark = meter.remark(); !remark.empty()) {
    Session::warn(remark);
  }
}

}  // namespace keyloader
