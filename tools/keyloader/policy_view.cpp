// Copying the region first, then looking. See policy_view.hpp for what is believed.
#include "policy_view.hpp"

#include <fmt/format.h>

#include <tuple>

#include "output.hpp"

namespace keyloader {
namespace {

using apikey::PolicyPlace;
using apikey::PolicyTag;

Limit limit_of(const apikey::PolicyLimitEntry& entry) {
  Limit limit{.name = std::string{entry.name}, .amount = entry.amount, .period_ns = entry.period_ns};
  if (entry.kind == static_cast<std::uint8_t>(apikey::LimitKind::concurrency)) {
    limit.kind = apikey::LimitKind::concurrency;
  } else {
    limit.burst = entry.burst;
  }
  return limit;
}

apikey::LimitBy by_of(std::uint8_t by) {
  return by == static_cast<std::uint8_t>(apikey::LimitBy::owner)   ? apikey::LimitBy::owner
         : by == static_cast<std::uint8_t>(apikey::LimitBy::value) ? apikey::LimitBy::value
                                                                   : apikey::LimitBy::key;
}

// What is calculated with has to be within what nginx.conf can say.
bool is_sound(const Limit& limit) {
  constexpr std::uint64_t most_ns = std::uint64_t{366} * 86'400 * apikey::kNsPerSecond;
  const auto is_number = [](std::uint64_t number) { return number >= 1 && number <= apikey::kMaxRateAmount; };
  return is_number(limit.amount) && (limit.kind == apikey::LimitKind::concurrency ||
                                     (limit.period_ns >= 1 && limit.period_ns <= most_ns && is_number(*limit.burst)));
}

// RETURNS: false for an entry where nobody expects it, or whose numbers nobody can have written.
bool take_into(LocationView& location, const apikey::PolicyEntry& entry) {
  const std::string text{entry.text()};
  switch (entry.tag) {
    case PolicyTag::realm:
      location.realm = text;
      return true;
    case PolicyTag::store:
      location.store = text;
      return true;
    case PolicyTag::store_path:
      location.store_path = text;
      return true;
    case PolicyTag::source:
      location.sources.push_back(text);
      return true;
    case PolicyTag::scope_line:
      location.scope_lines.push_back({.methods = entry.methods()});
      return true;
    case PolicyTag::scope:
      if (!location.scope_lines.empty()) {
        location.scope_lines.back().scopes.push_back(text);
      }
      return !location.scope_lines.empty();
    case PolicyTag::environment:
      location.environments.push_back(text);
      return true;
    case PolicyTag::limit:
      location.limits.push_back(
          {.limit = limit_of(entry.limit()), .by = by_of(entry.limit().by), .place = entry.limit().place});
      return is_sound(location.limits.back().limit);
    case PolicyTag::required_limit:
      location.required_limits.push_back(text);
      return true;
    case PolicyTag::fail_limit:
      location.fail_limits = {limit_of(entry.limit())};
      return is_sound(location.fail_limits.front());
    case PolicyTag::except_methods:
      location.except_methods = entry.methods();
      return true;
    case PolicyTag::server:
    case PolicyTag::server_name:
    case PolicyTag::listen:
    case PolicyTag::location:
      break;
  }
  return false;
}

bool take(std::vector<ServerView>& servers, const apikey::PolicyEntry& entry) {
  if (entry.tag == PolicyTag::server) {
    servers.emplace_back();
    return true;
  }
  if (servers.empty()) {
    return false;
  }
  ServerView& server = servers.back();
  if (entry.tag == PolicyTag::server_name) {
    server.names.emplace_back(entry.text());
  } else if (entry.tag == PolicyTag::listen) {
    server.listens.emplace_back(entry.text());
  } else if (entry.tag == PolicyTag::location) {
    server.locations.push_back({.place = entry.place(),
                                .depth = entry.depth(),
                                .flags = entry.flags(),
                                .path = std::string{entry.location_name()}});
  } else {
    return !server.locations.empty() && take_into(server.locations.back(), entry);
  }
  return true;
}

}  // namespace

std::string LocationView::name() const {
  switch (place) {
    case PolicyPlace::server:
      return "(server)";
    case PolicyPlace::prefix:
    case PolicyPlace::named:
      return path;
    case PolicyPlace::exact:
      return "= " + path;
    case PolicyPlace::first_prefix:
      return "^~ " + path;
    case PolicyPlace::regex:
      return "~ " + path;
    case PolicyPlace::regex_nocase:
      return "~* " + path;
    case PolicyPlace::condition:
      return fmt::format("if in {}", path.empty() ? "(server)" : path);
    case PolicyPlace::limit_except:
      return "limit_except in " + path;
  }
  return path;
}

bool LocationView::is_written_out() const {
  return place != PolicyPlace::server && place != PolicyPlace::condition && place != PolicyPlace::limit_except;
}

bool LocationView::has_rules_of(const LocationView& other) const {
  const auto rules = [](const LocationView& view) {
    return std::tie(view.flags, view.store_path, view.sources, view.scope_lines, view.environments, view.limits,
                    view.required_limits);
  };
  return rules(*this) == rules(other);
}

std::string ServerView::name() const {
  for (const std::string& name : names) {
    if (!name.empty()) {
      return name;
    }
  }
  return listens.empty() ? "(no name)" : listens.front();
}

NodePolicies policies_of(const Node& node) {
  NodePolicies policies{.node = node.name()};
  const std::span<const std::byte> region =
      node.memory().region(apikey::NodeRegion::policies, apikey::kPoliciesVersion);
  if (region.empty() || region.size() > apikey::kMaxPoliciesSize) {
    policies.problem = fmt::format(
        "{} has version {} of the module, which does not say what its locations ask for in a way that this keyloader "
        "reads; install the module and the keyloader of one version, and restart nginx",
        node.name(), shown(node.memory().module_version()));
    return policies;
  }
  std::vector<std::byte> copy(region.size());
  apikey::PoliciesRead read;
  if (const apikey::Status status = apikey::read_policies(region, copy, read); !status.ok()) {
    policies.problem = fmt::format("{}: {}{}", node.name(), sentence_of(status),
                                   status.code == apikey::StatusCode::refused
                                       ? "; a reload does not enlarge it: stop nginx and start it again"
                                       : "");
    return policies;
  }
  policies.configuration = read.configuration;
  std::span<const std::byte> rest = read.entries;
  apikey::PolicyEntry entry;
  bool is_whole = true;
  while (is_whole && apikey::next_policy(rest, entry)) {
    is_whole = take(policies.servers, entry);
  }
  if (!is_whole || !rest.empty()) {
    policies.servers.clear();
    policies.problem = fmt::format("{}: what it says of its locations is damaged", node.name());
  }
  return policies;
}

namespace {

// Those that live; where none does, those that are gone.
std::vector<const Node*> nodes_with_our_keys(const Nodes& nodes) {
  std::vector<const Node*> live;
  std::vector<const Node*> gone;
  for (const auto& node : nodes.all()) {
    if (node->problem().empty() && !node->rows_of(nodes.snapshot()).empty() && !node->memory().is_superseded()) {
      (node->is_live() ? live : gone).push_back(node.get());
    }
  }
  return live.empty() ? gone : live;
}

}  // namespace

std::vector<const Node*> require_nodes_with_our_keys(const Nodes& nodes) {
  std::vector<const Node*> all = nodes_with_our_keys(nodes);
  if (all.empty()) {
    throw Failure(nodes.hidden() != nullptr
                      ? nodes.hidden()->hidden_sentence()
                      : fmt::format("no nginx of this machine uses {}; start it, or name its directory with --runtime",
                                    nodes.snapshot().string()));
  }
  return all;
}

std::string methods_text(apikey::MethodSet methods) {
  std::string text;
  bool has_all = true;
  for (apikey::MethodSet bit = 1; bit <= apikey::kMethodTrace; bit <<= 1U) {
    has_all = has_all && (methods & bit) != 0;
    if ((methods & bit) != 0) {
      text += fmt::format("{}{}", text.empty() ? "" : ",", apikey::method_name(bit));
    }
  }
  return has_all ? "all methods" : text;
}

}  // namespace keyloader
