// The whole policy. decide() reads like the decision table of docs/design.md: one row after the other.
// Called by the adapter in the access phase (with limits), and when an identity variable is read earlier (without).
// Allocates nothing, throws nothing, reads no clock, knows no nginx.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/binding.hpp"
#include "apikey/credential.hpp"
#include "apikey/digest.hpp"
#include "apikey/limit_gathering.hpp"
#include "apikey/record.hpp"
#include "apikey/snapshot.hpp"
#include "apikey/units.hpp"
#include "apikey/verdict.hpp"

namespace apikey {

// The credential as it is kept after the text has been hidden: one digest per method the configuration knows.
inline constexpr std::size_t kMaxConfiguredMethods = 8;
struct Credential {
  Found found = Found::none;  // none, malformed or key
  bool has_own_form = false;  // for metrics
  std::array<Digest, kMaxConfiguredMethods> digests{};
};

// What a worker decides by for one store. No snapshot: `unavailable`.
struct StoreView {
  const Snapshot* snapshot = nullptr;
  std::span<const std::uint8_t> methods{};  // indexes into Credential::digests, in the snapshot's order
  // A newer snapshot that needs what this nginx lacks. It only takes away: who is absent from it, or not good any more,
  // is refused. Null: none.
  const Snapshot* veto = nullptr;
  std::span<const std::uint8_t> veto_methods{};  // as many of its methods as this nginx has
  bool has_all_veto_methods = true;
};

// One `apikey_scope` line: any of the scopes, for these methods.
struct ScopeLine {
  MethodSet methods = ~MethodSet{0};  // all
  std::span<const std::string_view> scopes;
};

enum class DryRun : std::uint8_t { off, limits, scopes, on };

// Whom a limit of a location is for. Who has none of it (no key, an empty value) is known by the client's address.
enum class LimitBy : std::uint8_t { key, owner, value };
struct PolicyLimit {
  LocationLimit limit;
  LimitBy by = LimitBy::key;
  std::size_t value = 0;    // index into Charge::values
  bool stands_here = true;  // in the location itself, where it counts whatever it measures
};

// Failed attempts per client address (IPv6: per /64).
struct FailLimit {
  bool is_on = false;
  bool blocks_all = false;  // nobody is looked up any more for that address
  RateLimit limit;
  std::uint64_t place = 0;  // where in the configuration it stands
};

// What the configuration says of a location. Views live as long as the configuration.
struct LocationPolicy {
  bool is_optional = false;
  bool allows_on_error = false;
  bool allows_any_scope = false;        // `apikey_scope any`
  bool allows_any_environment = false;  // `apikey_environment any`
  DryRun dry_run = DryRun::off;
  std::span<const std::string_view> environments;  // never empty unless any
  std::span<const ScopeLine> scope_lines;
  std::span<const PolicyLimit> limits;                // at most kMaxLocationLimits
  std::span<const std::string_view> required_limits;  // names a key must have a limit of
  // What other locations of the store count and this one does not: limits of these measures do not apply here.
  std::span<const std::string_view> uncounted_measures;
  FailLimit fail_limit;
};

// Whether this limit of the policy is taken from here: limits of a measure may count in other locations only.
[[nodiscard]] bool counts_here(const LocationPolicy& policy, const PolicyLimit& limit) noexcept;

// Why a credential that is not in the deciding snapshot is `unavailable` and not `unknown`: the vetoing one may have
// it.
enum class HeldBack : std::uint8_t {
  no,
  new_key,      // it is there, and good
  unknown_key,  // it may be, under a digest method this nginx lacks: such a credential cannot be told from a wrong one
};

// Who it is, found once per request (rows 4-6). Views into the pinned snapshot.
struct Recognition {
  bool is_done = false;
  Outcome outcome = Outcome::missing;  // ok, or why not
  HeldBack held_back = HeldBack::no;
  bool has_record = false;  // a key was recognised, whatever became of it
  Record record;
  OwnerRow owner;
  std::string_view env;
};

struct Verdict {
  Outcome outcome = Outcome::missing;
  // What it would be if it counted: the request passes.
  bool is_dry_run = false;
  Outcome reason = Outcome::missing;  // throttled: of the attempt itself
  bool is_zone_full = false;          // unavailable: a table of limits has no room
  // scope: what would have been needed. LIFETIME: the configuration's. Empty for a method no line names.
  std::span<const std::string_view> required_scopes;
  // The limit that decided, or the most restrictive one. LIFETIME: the snapshot's, or the configuration's.
  bool has_limit = false;
  std::string_view limit_name;
  std::uint64_t limit_size =
      0;  // burst, amount, or requests at once; 0: a limit the location asks for and the key lacks
  std::uint64_t remaining = 0;
  std::uint64_t reset_ns = 0;
  std::uint64_t retry_after_ns = 0;
};

// True when the request goes on.
[[nodiscard]] inline bool passes(const Verdict& verdict) noexcept {
  return verdict.is_dry_run || lets_pass(verdict.outcome);
}

// What the access phase has done to this client request so far, over internal redirects: a limit is taken once, and a
// request that was refused stays refused. Null in decide(): rows 1-8 only, nothing is charged or remembered.
struct Charge {
  const LimitTables* tables = nullptr;       // null: no limits
  Takings* takings = nullptr;                // of the client request. REQUIRES: not null where tables is not
  std::span<const MeasuredCost> costs;       // none: every request costs 1
  std::span<const std::string_view> values;  // of the location's limits by $variable
  bool has_failed = false;                   // a failed attempt has been counted
  bool is_refused = false;
  Verdict refusal;
};

// Rows 4-6: fills `known` unless that was done before.
void recognise(const Credential& credential, const StoreView& store, UnixSec now, Recognition& known) noexcept;

Verdict decide(const LocationPolicy& policy, const Credential& credential, const StoreView& store,
               const RequestFacts& facts, const Clocks& clocks, Recognition& known, Charge* charge) noexcept;

// Row 1 for a CORS preflight that passes without a key: the limits of the location count it for the client's address,
// as one request. Without a Charge it passes.
Verdict decide_preflight(const LocationPolicy& policy, const RequestFacts& facts, const Clocks& clocks,
                         Charge* charge) noexcept;

// How long until the address may fail again; 0: now, or the table does not know of any failure of its own. Takes
// nothing.
[[nodiscard]] std::uint64_t throttled_for(const FailLimit& limit, const LimitTables& tables, const Address& address,
                                          MonoNs now) noexcept;
// One notice per address and minute: true for the first to ask.
[[nodiscard]] bool takes_notice(const LimitTables& tables, const Address& address, MonoNs now) noexcept;

// All limits of a recognised key in this location; without a key (no snapshot) those of the location. RETURNS: as
// gather_key_limits().
[[nodiscard]] bool gather_limits(const LocationPolicy& policy, const Snapshot* snapshot, const Recognition& known,
                                 const RequestFacts& facts, const Clocks& clocks, const Charge& charge,
                                 std::span<LimitUse> uses, std::size_t& count) noexcept;

}  // namespace apikey
