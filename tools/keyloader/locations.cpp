// keyloader locations: what each location of nginx asks of keys, as the running nginx has read it.
#include <fmt/format.h>

#include "limit_text.hpp"
#include "policy_view.hpp"
#include "session.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kLeadingColumns = 3;  // SERVER, LOCATION, SCOPES: what everybody looks for

std::string joined(const Texts& texts, std::string_view separator = " ") {
  return fmt::format("{}", fmt::join(texts, separator));
}

std::string_view by_text(apikey::LimitBy by) {
  return by == apikey::LimitBy::owner ? "owner" : by == apikey::LimitBy::value ? "variable" : "key";
}

// "orders:read (GET,HEAD); orders:write or admin (POST)": of a line any of its scopes, but of every line one.
std::string scopes_text(const LocationView& location) {
  if (location.is(apikey::kPolicyAnyScope)) {
    return "any";
  }
  std::string text;
  for (const ScopeLineView& line : location.scope_lines) {
    const std::string methods = methods_text(line.methods);
    text += fmt::format("{}{}{}", text.empty() ? "" : "; ", joined(line.scopes, " or "),
                        methods == "all methods" ? "" : fmt::format(" ({})", methods));
  }
  return text.empty() ? "-" : text;
}

std::string environments_text(const LocationView& location) {
  return location.is(apikey::kPolicyAnyEnvironment) ? "any" : joined(location.environments);
}

std::string limits_of(const LocationView& location) {
  Texts texts;
  for (const LocationLimitView& each : location.limits) {
    texts.push_back(fmt::format("{} by {}", limit_text(each.limit), by_text(each.by)));
  }
  for (const std::string& name : location.required_limits) {
    texts.push_back("key must have " + name);
  }
  for (const Limit& limit : location.fail_limits) {
    texts.push_back(fmt::format("failed attempts {}", limit_text(limit)));
  }
  return texts.empty() ? "-" : joined(texts, "; ");
}

std::string remarks_of(const LocationView& location) {
  Texts texts;
  const auto add = [&](apikey::PolicyFlag flag, const char* text) {
    if (location.is(flag)) {
      texts.emplace_back(text);
    }
  };
  add(apikey::kPolicyOptional, "optional");
  add(apikey::kPolicySatisfyAny, "satisfy any");
  add(apikey::kPolicyAllowsOnError, "on_error=allow");
  add(apikey::kPolicyDryRunLimits, "limits in dry run");
  add(apikey::kPolicyDryRunScopes, "scopes in dry run");
  if (location.except_methods != 0) {
    texts.push_back("for " + methods_text(location.except_methods));
  }
  return texts.empty() ? "-" : joined(texts, ", ");
}

Json limits_json(const LocationView& location) {
  Json limits = Json::array();
  for (const LocationLimitView& each : location.limits) {
    limits.push_back({{"name", each.limit.name},
                      {"limit", limit_text(each.limit)},
                      {"by", by_text(each.by)},
                      {"place", each.place == 0 ? Json(nullptr) : Json(fmt::format("{:016x}", each.place))}});
  }
  return limits;
}

Json json_of(const LocationView& location) {
  Json json{
      {"location", location.name()}, {"depth", location.depth}, {"asks_for_keys", location.is(apikey::kPolicyOn)}};
  if (!location.is(apikey::kPolicyOn)) {
    return json;
  }
  Json lines = Json::array();
  for (const ScopeLineView& line : location.scope_lines) {
    lines.push_back({{"scopes", line.scopes}, {"methods", methods_text(line.methods)}});
  }
  json.update({{"realm", location.realm},
               {"store", location.store},
               {"store_path", location.store_path},
               {"sources", location.sources},
               {"any_scope", location.is(apikey::kPolicyAnyScope) || location.scope_lines.empty()},
               {"scope_lines", lines},
               {"any_environment", location.is(apikey::kPolicyAnyEnvironment)},
               {"environments", location.is(apikey::kPolicyAnyEnvironment) ? Texts{} : location.environments},
               {"limits", limits_json(location)},
               {"required_limits", location.required_limits},
               {"fail_limit", location.fail_limits.empty() ? Json(nullptr) : Json(limit_text(location.fail_limits[0]))},
               {"optional", location.is(apikey::kPolicyOptional)},
               {"satisfy_any", location.is(apikey::kPolicySatisfyAny)},
               {"on_error_allow", location.is(apikey::kPolicyAllowsOnError)},
               {"dry_run_limits", location.is(apikey::kPolicyDryRunLimits)},
               {"dry_run_scopes", location.is(apikey::kPolicyDryRunScopes)}});
  if (location.except_methods != 0) {
    json["except_methods"] = methods_text(location.except_methods);
  }
  return json;
}

Json json_of(const NodePolicies& policies) {
  Json servers = Json::array();
  for (const ServerView& server : policies.servers) {
    Json locations = Json::array();
    for (const LocationView& location : server.locations) {
      locations.push_back(json_of(location));
    }
    servers.push_back({{"names", server.names}, {"listen", server.listens}, {"locations", locations}});
  }
  return {{"nginx", policies.node},
          {"problem", policies.problem.empty() ? Json(nullptr) : Json(policies.problem)},
          {"configuration", policies.configuration},
          {"servers", servers}};
}

void locations(Session& session) {
  const Nodes nodes(session.dir(), session.runtime);
  std::vector<Texts> rows;
  Json json = Json::array();
  for (const Node* const node : require_nodes_with_our_keys(nodes)) {
    const NodePolicies policies = policies_of(*node);
    json.push_back(json_of(policies));
    json.back()["running"] = node->is_live();
    if (!node->is_live()) {
      Session::warn(fmt::format("{} is not running; this is what it asked for before it ended", node->name()));
      session.exit_code = 1;
    }
    if (!policies.problem.empty()) {
      Session::warn(policies.problem);
      session.exit_code = 1;
    }
    for (const ServerView& server : policies.servers) {
      for (const LocationView& location : server.locations) {
        if (location.is(apikey::kPolicyOn)) {
          rows.push_back({server.name(), location.name(), scopes_text(location), environments_text(location),
                          limits_of(location), joined(location.sources), location.store, remarks_of(location)});
        }
      }
    }
  }
  if (session.exit_code != 0 && rows.empty() && !session.is_json) {
    return;
  }
  session.report_table({"SERVER", "LOCATION", "SCOPES", "ENVIRONMENTS", "LIMITS", "KEY FROM", "STORE", "ALSO"}, rows,
                       json, "no location asks for keys", kLeadingColumns);
}

}  // namespace

void add_locations_command(Command& app, Session& session) {
  Command command = app.add("locations", "What each location of nginx asks of a key, as the running nginx has read it");
  command.footer(
      "Of a line of scopes a key needs one, but of every line that names the request's method. With --json also the\n"
      "locations that ask for no key.\n\n"
      "  keyloader locations\n"
      "  keyloader locations --json | jq -r '.[].servers[].locations[] | select(.any_scope).location'");
  command.read([&session] { locations(session); });
}

}  // namespace keyloader
