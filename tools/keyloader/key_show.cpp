// keyloader key show: everything about keys. Never the key, never its digest.
#include <fmt/format.h>

#include <algorithm>

#include "admin_roles.hpp"
#include "apikey/scope_set.hpp"
#include "key.hpp"
#include "last_use.hpp"
#include "limit_rules.hpp"
#include "limit_text.hpp"
#include "names.hpp"
#include "quota_use.hpp"
#include "table.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

constexpr std::ptrdiff_t kRowsBeforeLimits = 4;

std::string words(const Texts& list) { return list.empty() ? "-" : fmt::format("{}", fmt::join(list, " ")); }

// Of before such scopes were reserved.
std::string own_scopes(const Key& key) {
  Texts shown;
  for (const std::string& scope : key.scopes) {
    shown.push_back(apikey::is_reserved_scope(scope) ? scope + " (does not count; see `keyloader doctor`)" : scope);
  }
  return words(shown);
}

std::string moment(Seconds time) { return time == 0 ? "-" : time_text(time); }

std::string meta_words(const MetaMap& meta) {
  Texts pairs;
  for (const auto& [name, value] : meta) {
    pairs.push_back(fmt::format("{}={}", name, value));
  }
  return words(pairs);
}

// A limit, and if it is a quota, what was used of it.
struct ShownLimit {
  EffectiveLimit effective;
  bool is_quota = false;
  std::optional<QuotaUse> use;
};

std::vector<ShownLimit> limits_of(Registry& registry, const Key& key, const QuotaMeter& meter, Seconds now) {
  const Owner owner = registry.owner(key.owner).value_or(Owner{});
  const Adjustments of_family = registry.adjustments(key.family);
  const Adjustments of_owner = registry.adjustments(owner);
  std::vector<ShownLimit> limits;
  for (const EffectiveLimit& each : effective_limits(registry, key)) {
    ShownLimit limit{.effective = each, .is_quota = is_quota(each.limit), .use = std::nullopt};
    if (limit.is_quota) {
      const bool is_of_owner = each.from.starts_with("owner:");
      const Adjustment adjustment = adjustment_of(is_of_owner ? of_owner : of_family, each.limit.name, now);
      limit.use =
          meter.read(each.limit, adjustment, is_of_owner ? std::span<const std::uint8_t>{owner.id} : key.family.bytes);
    }
    limits.push_back(std::move(limit));
  }
  return limits;
}

// One row a limit: what, where it comes from, and what was used of it.
std::vector<Texts> limit_rows(const std::vector<ShownLimit>& limits) {
  if (limits.empty()) {
    return {{"limits", "unlimited"}};
  }
  std::vector<Texts> rows;
  rows.reserve(limits.size());
  for (const ShownLimit& limit : limits) {
    rows.push_back({rows.empty() ? "limits" : "",
                    fmt::format("{} {} (of {}){}", limit.effective.limit.name, limit_text(limit.effective.limit),
                                source_text(limit.effective), limit.use ? ": " + use_text(*limit.use) : "")});
  }
  return rows;
}

std::string suspension_text(const Key& key) {
  if (!key.is_suspended) {
    return "no";
  }
  return key.suspended_until == 0 ? "yes, until somebody resumes it" : "until " + time_text(key.suspended_until);
}

void print_key(const Key& key, const std::vector<ShownLimit>& limits, const Texts& scopes, Seconds last_used,
               const SuspendedOwners& suspended) {
  std::vector<Texts> rows{
      {"owner", key.owner},
      {"name", key.name.empty() ? "-" : key.name},
      {"environment", key.env},
      {"plan", key.plan},
      {"scopes", own_scopes(key)},
      {"roles", words(key.roles)},
      {"admin scopes", words(key.admin_scopes)},
      {"effective scopes", words(scopes)},
      {"allowed networks", words(key.allow_ip)},
      {"allowed origins", words(key.allow_origin)},
      {"allowed methods", words(key.allow_method)},
      {"allowed hosts", words(key.allow_host)},
      {"TLS only", key.requires_tls ? "yes" : "no"},
      {"meta", meta_words(key.meta)},
      {"created", moment(key.created)},
      {"not before", moment(key.not_before)},
      {"expires", moment(key.expires)},
      {"last used", moment(last_used)},
      {"suspended", suspension_text(key)},
      {"owner suspended", suspended.holds(key.owner) ? "yes: nginx refuses all keys of " + key.owner : "no"},
      {"revoked", key.revoked == 0 ? "-" : fmt::format("{} {}", time_text(key.revoked), key.revoked_reason)},
      {"hint", key.hint.empty() ? "-" : key.hint},
      {"ref", key.ref.empty() ? "-" : key.ref},
      {"digest", key.method},
      {"family", text_of(key.family)},
  };
  if (!key.admin_scopes.empty()) {
    const auto after =
        std::find_if(rows.begin(), rows.end(), [](const Texts& row) { return row[0] == "admin scopes"; });
    rows.insert(after + 1, {{"may grant", may_grant_text(key)}, {"teams", teams_text(key)}});
  }
  const std::vector<Texts> of_limits = limit_rows(limits);
  rows.insert(rows.begin() + kRowsBeforeLimits, of_limits.begin(), of_limits.end());
  print_out(table_text({text_of(key.id), std::string{suspended.state_of(key)}}, rows) + "\n");
}

void show(const Session& session, const Texts& ids) {
  if (ids.empty()) {
    throw UsageError("which key? give one or more ids, key_… (`keyloader key list`)");
  }
  require_key_ids(ids);
  const auto registry = session.open_registry();
  const Seconds now = wall_clock();
  const RoleScopes roles(*registry);
  const SuspendedOwners suspended(*registry, now);
  const QuotaMeter meter(session);
  LastUse use(session);
  use.warn_of_problem();
  Json list = Json::array();
  for (const std::string& id : ids) {
    const Key key = require_key(*registry, id);
    const std::vector<ShownLimit> limits = limits_of(*registry, key, meter, now);
    const Seconds last_used = use.of(key.id);
    if (!session.is_json) {
      print_key(key, limits, roles.scopes_of(key), last_used, suspended);
      continue;
    }
    Json json = to_json(key);
    json["state"] = suspended.state_of(key);
    json["owner_suspended"] = suspended.holds(key.owner);
    json["effective_scopes"] = roles.scopes_of(key);
    json["last_used"] = time_json(last_used);
    json["effective_limits"] = Json::array();
    for (const ShownLimit& limit : limits) {
      json["effective_limits"].push_back(to_json(limit.effective));
      if (limit.is_quota) {
        json["effective_limits"].back().update(to_json(limit.use));
      }
    }
    list.push_back(std::move(json));
  }
  if (session.is_json) {
    print_out(json_text(list.size() == 1 ? list.front() : list) + "\n");
  }
}

}  // namespace

void add_key_show(Command& group, Session& session) {
  auto ids = std::make_shared<Texts>();
  Command one = group.add("show", "Everything about keys, but the keys");
  one.arguments("ID", *ids, "Ids of keys: key_…");
  one.footer("  keyloader key show key_… --json");
  one.read([&session, ids] { show(session, *ids); });
}

}  // namespace keyloader
