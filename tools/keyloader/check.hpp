// Which server and which location of an nginx a request would come to, by the rules that need no regular expression.
// Used by `keyloader check`.
#pragma once

#include <string>
#include <string_view>

#include "policy_view.hpp"

namespace keyloader {

struct Url {
  bool is_tls = false;
  std::string host{};  // lower-case, without the port; empty: only a path was given
  std::uint64_t port = 0;
  std::string path;  // without the query; decoded, without `.`, `..` and `//`, as nginx looks for a location
  bool has_merged_slashes = false;
};
// "https://api.example.com/orders/1?x=2", "/orders/1". Throws UsageError, or Failure for what nginx answers with 400.
[[nodiscard]] Url parse_url(const std::string& text);
[[nodiscard]] bool listens_on(const ServerView& server, std::uint64_t port);

struct Proposal {
  const ServerView* server = nullptr;
  const LocationView* location = nullptr;
  Texts remarks{};            // what is good to know, in sentences
  Texts doubts{};             // why nginx may decide by other rules than those of this location
  Texts doubts_if_allowed{};  // why it may refuse what this location alone would allow
};
// `named`: the location as `keyloader locations` or `why` shows it; empty: the longest prefix. Throws UsageError where
// several are meant.
[[nodiscard]] Proposal find_location(const NodePolicies& policies, const Url& url, apikey::MethodSet method,
                                     const std::string& named);

}  // namespace keyloader
