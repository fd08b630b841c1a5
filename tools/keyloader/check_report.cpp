// Compares what a key is with what a location asks, and says it. The decision itself is decide()'s; what stands here
// has to agree with it, which a test sees to.
#include "check_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>

#include "apikey/binding.hpp"
#include "limit_text.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

constexpr std::uint64_t kLongestInSeconds = 120;  // later than that is a time

std::string string_of(const apikey::Snapshot& snapshot, std::uint32_t number) {
  std::string_view text;
  return snapshot.string(number, text) ? std::string{text} : std::string{"(damaged)"};
}

// The entries of these kinds alone, as they stand in the list.
std::vector<std::byte> entries_of(std::span<const std::byte> list, std::initializer_list<std::uint8_t> kinds) {
  std::vector<std::byte> chosen;
  apikey::Binding binding;
  for (std::span<const std::byte> rest = list; !rest.empty();) {
    const std::span<const std::byte> before = rest;
    if (!apikey::next_binding(rest, binding)) {
      break;
    }
    if (std::find(kinds.begin(), kinds.end(), binding.kind) != kinds.end()) {
      const auto entry = before.first(before.size() - rest.size());
      chosen.insert(chosen.end(), entry.begin(), entry.end());
    }
  }
  return chosen;
}

void report_known(const CheckSubject& subject, CheckReport& report) {
  apikey::OwnerRow owner;
  const bool has_owner = subject.snapshot.owner(subject.known.record.owner, owner);
  report.row("known", true,
             fmt::format("{} of {}, in generation {}", text_of(subject.known.record.id),
                         has_owner ? string_of(subject.snapshot, owner.name) : "(damaged)", subject.generation));
}

void report_state(const CheckSubject& subject, CheckReport& report) {
  const apikey::Record& record = subject.known.record;
  const apikey::UnixSec now = subject.clocks.wall;
  const auto is_over = [&](apikey::UnixSec until) { return until.value != 0 && until.value <= now.value; };
  const bool is_revoked = (record.flags & apikey::kFlagRevoked) != 0;
  const bool is_suspended = (record.flags & apikey::kFlagSuspended) != 0 && !is_over(record.suspended_until);
  apikey::OwnerRow owner;
  const bool has_owner = subject.snapshot.owner(record.owner, owner);
  const bool is_owner_suspended = has_owner && owner.is_suspended && !is_over(owner.suspended_until);
  report.row("state", !is_revoked && !is_suspended && !is_owner_suspended,
             is_revoked           ? "the key is revoked"
             : is_suspended       ? "the key is suspended"
             : is_owner_suspended ? "its owner is suspended"
                                  : "neither the key nor its owner is suspended, the key is not revoked");
  const bool has_begun = record.not_before.value <= now.value;
  const bool has_ended = record.expires.value != 0 && record.expires.value <= now.value;
  report.row("time", has_begun && !has_ended,
             !has_begun ? "good from " + time_text(record.not_before.value)
             : record.expires.value == 0
                 ? "never expires"
                 : fmt::format("{} {}", has_ended ? "expired" : "expires", time_text(record.expires.value)));
}

void report_conditions(const CheckSubject& subject, CheckReport& report) {
  const apikey::LocationPolicy& policy = subject.policy;
  const apikey::Record& record = subject.known.record;
  const apikey::RequestFacts& facts = subject.facts;
  const std::string env = string_of(subject.snapshot, record.env);
  const bool is_env_ok = policy.allows_any_environment ||
                         std::find(policy.environments.begin(), policy.environments.end(), std::string_view{env}) !=
                             policy.environments.end();
  report.row("environment", is_env_ok,
             policy.allows_any_environment
                 ? fmt::format("{}; the location takes any", env)
                 : fmt::format("{}; the location takes {}", env, fmt::join(policy.environments, ", ")));
  std::span<const std::byte> list;
  static_cast<void>(subject.snapshot.bytes(record.bindings, list));
  struct Condition {
    const char* name;
    std::initializer_list<std::uint8_t> kinds;
    const char* missing;
  };
  const Condition conditions[] = {
      {"address", {1, 2}, facts.has_address ? "not in the key's networks" : "the key has networks; say --from ADDRESS"},
      {"origin", {3}, facts.origin.empty() ? "the key has origins; say --origin" : "not one of the key's origins"},
      {"method", {4}, "not one of the key's methods"},
      {"host",
       {5},
       facts.host.empty() ? "the key has hosts; write the URL with its host" : "not one of the key's hosts"}};
  for (const Condition& condition : conditions) {
    const std::vector<std::byte> chosen = entries_of(list, condition.kinds);
    const bool is_ok = apikey::check_bindings(chosen, facts) == apikey::Outcome::ok;
    report.row(condition.name, is_ok, chosen.empty() ? "any" : is_ok ? "one that the key has" : condition.missing);
  }
  const bool needs_tls = (record.flags & apikey::kFlagRequireTls) != 0;
  report.row("tls", !needs_tls || facts.is_tls,
             !needs_tls     ? "not needed"
             : facts.is_tls ? "needed, and so it is"
                            : "the key is for https only");
}

void report_scopes(const CheckSubject& subject, CheckReport& report) {
  const apikey::LocationPolicy& policy = subject.policy;
  if (policy.allows_any_scope || policy.scope_lines.empty()) {
    return report.row("scope", true, "the location asks for none");
  }
  apikey::ScopeSet held;
  static_cast<void>(subject.snapshot.scopes(subject.known.record.scopes, held));
  std::string has;
  for (auto it = held.begin(); it != held.end(); ++it) {
    has += fmt::format("{}{}", has.empty() ? "" : " ", *it);
  }
  bool applies_any = false;
  for (const apikey::ScopeLine& line : policy.scope_lines) {
    const bool is_for_all = line.methods == ~apikey::MethodSet{0};
    if (!is_for_all && (line.methods & subject.facts.method) == 0) {
      continue;
    }
    applies_any = true;
    const bool is_granted =
        std::any_of(line.scopes.begin(), line.scopes.end(), [&](std::string_view scope) { return held.grants(scope); });
    report.row("scope", is_granted,
               fmt::format("needs {}; the key has {}", fmt::join(line.scopes, " or "), has.empty() ? "none" : has));
  }
  if (!applies_any) {
    report.row("scope", false, fmt::format("no API key may use {} here: no apikey_scope names it", subject.method));
  }
}

}  // namespace

void CheckReport::row(const char* name, bool is_ok, const std::string& why) {
  rows.push_back({name, is_ok ? "ok" : "NO", why});
  json.push_back({{"check", name}, {"ok", is_ok}, {"why", why}});
}

void report_key(const CheckSubject& subject, CheckReport& report) {
  report_known(subject, report);
  report_state(subject, report);
  report_conditions(subject, report);
  report_scopes(subject, report);
}

apikey::Outcome report_limits(const CheckSubject& subject, const apikey::LimitTables* tables, CheckReport& report) {
  if (tables == nullptr) {
    report.row("limits", true, "not known: the tables of this nginx are of another version");
    return apikey::Outcome::ok;
  }
  apikey::Charge charge;
  charge.tables = tables;
  std::array<apikey::LimitUse, apikey::kMaxUses> uses;
  std::size_t count = 0;
  if (!apikey::gather_limits(subject.policy, &subject.snapshot, subject.known, subject.facts, subject.clocks, charge,
                             uses, count)) {
    report.row("limits", false, "what limits this key has is damaged");
    return apikey::Outcome::unavailable;
  }
  for (const apikey::LimitUse& use : std::span(uses).first(count)) {
    const apikey::LimitLevel level = apikey::look_at_limit(*tables, use, subject.clocks);
    const bool has_room = level.status == apikey::LimitLevel::Status::admitted && level.remaining >= use.cost;
    const bool is_ok = use.is_dry_run || has_room;
    const std::uint64_t seconds = (level.reset_ns + apikey::kNsPerSecond - 1) / apikey::kNsPerSecond;
    report.row("limit", is_ok,
               fmt::format("{}: {} of {} left{}{}", std::string_view{use.name}, level.remaining, use.size,
                           seconds == 0 ? ""
                           : seconds < kLongestInSeconds
                               ? fmt::format(", all again in {} s", seconds)
                               : ", all again at " + time_text(wall_clock() + static_cast<Seconds>(seconds)),
                           use.is_dry_run ? " (dry run)" : ""));
  }
  for (const std::string_view name : subject.policy.required_limits) {
    const bool has = std::any_of(uses.begin(), uses.begin() + static_cast<std::ptrdiff_t>(count),
                                 [&](const apikey::LimitUse& use) { return std::string_view{use.name} == name; });
    report.row("limit", has, fmt::format("{}: the location wants every key to have one of this name", name));
    if (!has) {
      return apikey::Outcome::rate_limited;
    }
  }
  if (count == 0) {
    report.row("limit", true, "none");
  }
  return apikey::look_at_limits(*tables, std::span(uses).first(count), subject.clocks).outcome;
}

}  // namespace keyloader
