// What a line of nginx's logs says of one decision of the module: a line of the access log in JSON of
// conf/snippets/apikey-log.conf, or the error log's line about a refusal.
// INVARIANT: a line may hold anything, as clients write parts of it. Whatever is taken from one is text to be shown,
// and no key of ours is in it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "registry/registry.hpp"

namespace keyloader {

struct LoggedDecision {
  std::string time_text;  // as the log has it
  Seconds time = 0;       // 0: not understood
  std::string outcome;    // `revoked`, without `_dry_run`
  bool is_dry_run = false;
  std::string status;  // empty, as all below: the line does not say it
  std::string key;
  std::string owner;
  std::string env;
  Texts required;  // any one of these scopes was needed
  std::string limit;
  std::string location;
  std::string generation;
  std::string address;
  std::string scheme;
  std::string method;
  std::string host;
  std::string origin;
  std::string request;
  std::string words;  // of the error log: its sentence
};

// `text` with asterisks in place of what has the form of our keys.
[[nodiscard]] std::string without_keys(std::string text);

// RETURNS: nothing for a line that is about another request, or that the module has not written.
[[nodiscard]] std::optional<LoggedDecision> parse_log_line(std::string_view line, std::string_view instance);

}  // namespace keyloader
