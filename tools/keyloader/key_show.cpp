// keyloader key list and key show: what the registry knows of keys. Never the key, never its digest.
#include <fmt/format.h>

#include <utility>

#include "key.hpp"
#include "limit_rules.hpp"
#include "limit_text.hpp"
#include "table.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kOutputChunk = 65'536;
constexpr std::ptrdiff_t kRowsBeforeLimits = 4;

struct ListOptions {
  KeyFilter filter;
  std::string state;
};

Json json_of(const Key& key, Seconds now) {
  Json json = to_json(key);
  json["state"] = state_of(key, now);
  return json;
}

std::string words(const Texts& list) { return list.empty() ? "-" : fmt::format("{}", fmt::join(list, " ")); }

std::string moment(Seconds time) { return time == 0 ? "-" : time_text(time); }

std::string meta_words(const MetaMap& meta) {
  Texts pairs;
  for (const auto& [name, value] : meta) {
    pairs.push_back(fmt::format("{}={}", name, value));
  }
  return words(pairs);
}

// One row a limit: what, and where it comes from.
std::vector<Texts> limit_rows(const std::vector<EffectiveLimit>& limits) {
  if (limits.empty()) {
    return {{"limits", "unlimited"}};
  }
  std::vector<Texts> rows;
  rows.reserve(limits.size());
  for (const EffectiveLimit& effective : limits) {
    rows.push_back({rows.empty() ? "limits" : "", fmt::format("{} {} (of {})", effective.limit.name,
                                                              limit_text(effective.limit), source_text(effective))});
  }
  return rows;
}

void print_key(const Key& key, const std::vector<EffectiveLimit>& limits, Seconds now) {
  std::vector<Texts> rows{
      {"owner", key.owner},
      {"name", key.name},
      {"environment", key.env},
      {"plan", key.plan},
      {"scopes", words(key.scopes)},
      {"roles", words(key.roles)},
      {"allowed networks", words(key.allow_ip)},
      {"allowed origins", words(key.allow_origin)},
      {"allowed methods", words(key.allow_method)},
      {"allowed hosts", words(key.allow_host)},
      {"TLS only", key.requires_tls ? "yes" : "no"},
      {"meta", meta_words(key.meta)},
      {"created", moment(key.created)},
      {"not before", moment(key.not_before)},
      {"expires", moment(key.expires)},
      {"suspended until",
       key.is_suspended ? (key.suspended_until == 0 ? "resumed" : time_text(key.suspended_until)) : "-"},
      {"revoked", key.revoked == 0 ? "-" : fmt::format("{} {}", time_text(key.revoked), key.revoked_reason)},
      {"digest", key.method},
      {"family", text_of(key.family)},
  };
  const std::vector<Texts> of_limits = limit_rows(limits);
  rows.insert(rows.begin() + kRowsBeforeLimits, of_limits.begin(), of_limits.end());
  print_out(table_text({text_of(key.id), std::string{state_of(key, now)}}, rows) + "\n");
}

void show(const Session& session, const Texts& ids) {
  if (ids.empty()) {
    throw UsageError("name the id of a key; `keyloader key list` shows them all");
  }
  const auto registry = session.dir().open_registry();
  const Seconds now = wall_clock();
  Json list = Json::array();
  for (const std::string& id : ids) {
    const Key key = require_key(*registry, id);
    const std::vector<EffectiveLimit> limits = effective_limits(*registry, key);
    if (!session.is_json) {
      print_key(key, limits, now);
      continue;
    }
    list.push_back(json_of(key, now));
    list.back()["effective_limits"] = Json::array();
    for (const EffectiveLimit& effective : limits) {
      list.back()["effective_limits"].push_back(to_json(effective));
    }
  }
  if (session.is_json) {
    print_out(json_text(list.size() == 1 ? list.front() : list) + "\n");
  }
}

void list(const Session& session, const ListOptions& options) {
  const auto registry = session.dir().open_registry();
  const Seconds now = wall_clock();
  std::vector<Texts> rows;
  bool is_first = true;
  std::string json = "[";
  registry->each_key(options.filter, [&](const Key& key) {
    const std::string_view state = state_of(key, now);
    if (!options.state.empty() && options.state != state) {
      return true;
    }
    if (session.is_json) {
      json += (is_first ? "" : ",\n") + json_text(json_of(key, now));
      is_first = false;
      if (json.size() > kOutputChunk) {
        print_out(std::exchange(json, {}));
      }
    } else {
      rows.push_back({text_of(key.id), key.owner, key.env, std::string{state}, moment(key.expires), key.plan,
                      words(key.scopes), key.name});
    }
    return true;
  });
  if (session.is_json) {
    print_out(json + "]\n");
    return;
  }
  session.report_table({"ID", "OWNER", "ENV", "STATE", "EXPIRES", "PLAN", "SCOPES", "NAME"}, rows, Json(), "no keys");
}

}  // namespace

void add_key_views(Command& group, Session& session) {
  auto options = std::make_shared<ListOptions>();
  Command all = group.add("list", "Keys, oldest first");
  all.option("--owner", options->filter.owner, "OWNER", "Only those of this owner");
  all.option("--env", options->filter.env, "ENV", "Only those of this environment");
  all.option("--role", options->filter.role, "ROLE", "Only those that have this role");
  all.choice("--state", options->state, {"active", "suspended", "revoked", "expired", "not_yet_valid"}, "STATE",
             "Only those that are active, suspended, revoked, expired or not_yet_valid");
  all.footer("  keyloader key list --owner acme --state active\n  keyloader key list --json | jq -r '.[].id'");
  all.read([&session, options] { list(session, *options); });

  auto ids = std::make_shared<Texts>();
  Command one = group.add("show", "Everything about keys, but the keys");
  one.arguments("ID", *ids, "Ids of keys: key_…");
  one.footer("  keyloader key show key_… --json");
  one.read([&session, ids] { show(session, *ids); });
}

}  // namespace keyloader
