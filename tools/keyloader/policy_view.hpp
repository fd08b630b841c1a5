// What the locations of one nginx ask for, as its master has written it into node memory.
// For `locations` and `check`.
// INVARIANT: all of it may be a lie of whoever runs as the workers' user; it is shown, and nothing is let in by it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apikey/authenticator.hpp"
#include "apikey/binding.hpp"
#include "apikey/policies.hpp"
#include "nodes.hpp"

namespace keyloader {

struct ScopeLineView {
  apikey::MethodSet methods = 0;
  Texts scopes{};
  bool operator==(const ScopeLineView&) const = default;
};

struct LocationLimitView {
  Limit limit;
  apikey::LimitBy by = apikey::LimitBy::key;
  std::uint64_t place = 0;
  bool operator==(const LocationLimitView&) const = default;
};

struct LocationView {
  apikey::PolicyPlace place = apikey::PolicyPlace::server;
  std::uint8_t depth = 0;
  std::uint16_t flags = 0;
  std::string path;  // as it is written, without what is before it
  std::string realm{};
  std::string store{};
  std::string store_path{};
  Texts sources{};
  std::vector<ScopeLineView> scope_lines{};
  Texts environments{};
  std::vector<LocationLimitView> limits{};
  Texts required_limits{};
  Limits fail_limits{};  // one or none
  apikey::MethodSet except_methods = 0;

  [[nodiscard]] bool is(apikey::PolicyFlag flag) const { return (flags & flag) != 0; }
  // As nginx.conf has it: "/orders/", "= /health", "~ ^/v1", "@later"; "(server)" outside of all locations.
  [[nodiscard]] std::string name() const;
  // It is a `location` of nginx.conf: neither what is outside of all of them nor a block inside of one.
  [[nodiscard]] bool is_written_out() const;
  // Both ask the same of a key.
  [[nodiscard]] bool has_rules_of(const LocationView& other) const;
};

struct ServerView {
  Texts names{};
  Texts listens{};
  std::vector<LocationView> locations{};  // as nginx merges them: each behind the one around it

  // "api.example.com", or an address where it has no name.
  [[nodiscard]] std::string name() const;
};

struct NodePolicies {
  std::string node;       // "nginx (pid 812)"
  std::string problem{};  // why it is not known; empty: it is
  std::uint64_t configuration = 0;
  std::vector<ServerView> servers{};
};

// Every nginx that has our keys.mdb: those that live; where none does, those that are gone. Throws where there is none.
[[nodiscard]] std::vector<const Node*> require_nodes_with_our_keys(const Nodes& nodes);
[[nodiscard]] NodePolicies policies_of(const Node& node);

// "GET,HEAD"; "all methods".
[[nodiscard]] std::string methods_text(apikey::MethodSet methods);

}  // namespace keyloader
