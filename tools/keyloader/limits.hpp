// The limits of plans, keys and owners as people write them: --rate, --quota and so on.
// Called by the commands that make or change any of the three, and by import. Whether limits go together is judged by
// limit_rules.hpp.
#pragma once

#include <cstdint>
#include <string>

#include "command.hpp"
#include "limit_text.hpp"
#include "registry/registry.hpp"

namespace keyloader {

// Words of the command line, `VALUE` or `NAME=VALUE`. A limit that is not named stays; the value `none` removes one.
struct LimitOptions {
  Texts rates;           // 100/s
  Texts bursts;          // 200
  Texts quotas;          // 1000000/month
  Texts rolling_quotas;  // 1000/24h
  Texts concurrencies;   // 20
  Texts dry_run;         // names
  Texts enforced;        // names

  [[nodiscard]] bool names_nothing() const;
};

void add_limit_options(Command& command, LimitOptions& options, LimitHolder holder);
// Of what changes limits that are there: takes back --dry-run-limit.
void add_enforce_option(Command& command, LimitOptions& options);

// Throws UsageError for what is badly written, or not there to be changed.
void apply_limits(Limits& limits, const LimitOptions& options, LimitHolder holder);

// Something to be counted, 1 to kMaxQuotaAmount: an amount of a quota, or of a grant.
[[nodiscard]] std::uint64_t parse_quota_amount(const std::string& text);
[[nodiscard]] std::uint64_t parse_grant(const std::string& text);

}  // namespace keyloader
