// What `keyloader check` answers, row by row: which of the checks a key passes, and what was compared.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apikey/authenticator.hpp"
#include "apikey/limits.hpp"
#include "session.hpp"

namespace keyloader {

// One row for each check.
struct CheckReport {
  std::vector<Texts> rows{};
  Json json = Json::array();

  void row(const char* name, bool is_ok, const std::string& why);
};

// A key that the snapshot has, at a location. LIFETIME: all of it is the caller's.
struct CheckSubject {
  const apikey::Snapshot& snapshot;
  std::uint64_t generation = 0;
  const apikey::LocationPolicy& policy;
  const apikey::Recognition& known;
  const apikey::RequestFacts& facts;
  const apikey::Clocks& clocks;
  const std::string& method;  // as it was written
};

// Everything but limits.
void report_key(const CheckSubject& subject, CheckReport& report);
// `tables`: null where those of this nginx cannot be read. RETURNS: what the limits alone would say.
apikey::Outcome report_limits(const CheckSubject& subject, const apikey::LimitTables* tables, CheckReport& report);

}  // namespace keyloader
