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
#include "apikey/bucket_table.hpp"
#include "apikey/credential.hpp"
#include "apikey/digest.hpp"
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

// What a worker has in service for one store. No snapshot: `unavailable`.
struct StoreView {
  const Snapshot* snapshot = nullptr;
  std::span<const std::uint8_t> methods;  // indexes into Credential::digests, in the snapshot's order
};

// One `apikey_scope` line: any of the scopes, for these methods.
struct ScopeLine {
  MethodSet methods = ~MethodSet{0};  // all
  std::span<const std::string_view> scopes;
};

// What the configuration says of a location. Views live as long as the configuration.
struct LocationPolicy {
  bool is_optional = false;
  bool allows_on_error = false;
  bool allows_any_scope = false;                   // `apikey_scope any`
  bool allows_any_environment = false;             // `apikey_environment any`
  std::span<const std::string_view> environments;  // never empty unless any
  std::span<const ScopeLine> scope_lines;
};

// Who it is, found once per request (rows 4-6). Views into the pinned snapshot.
struct Recognition {
  bool is_done = false;
  Outcome outcome = Outcome::missing;  // ok, or why not
  bool has_record = false;             // a key was recognised, whatever became of it
  Record record;
  OwnerRow owner;
  std::string_view env;
};

struct Clocks {
  UnixSec wall;
  MonoNs mono;
};

struct Verdict {
  Outcome outcome = Outcome::missing;
  // scope: what would have been needed. LIFETIME: the configuration's. Empty for a method no line names.
  std::span<const std::string_view> required_scopes;
  // The limit that decided, or the most restrictive one. LIFETIME: the snapshot's.
  bool has_limit = false;
  std::string_view limit_name;
  std::uint64_t limit_burst = 0;  // size of the bucket
  Rate limit_rate;
  std::uint64_t remaining = 0;
  std::uint64_t reset_ns = 0;
  std::uint64_t retry_after_ns = 0;
};

// What the access phase has done to this client request so far, over internal redirects: a limit is taken once, and a
// request that was refused stays refused. Null in decide(): rows 1-8 only, nothing is charged or remembered.
struct Charge {
  const BucketTable* table = nullptr;  // null: no limits
  std::uint64_t cost = 1;
  std::array<std::uint64_t, BucketTable::kMaxUses> taken{};  // subjects
  std::size_t taken_count = 0;
  bool is_refused = false;
  Verdict refusal;
};

// Rows 4-6: fills `known` unless that was done before.
void recognise(const Credential& credential, const StoreView& store, UnixSec now, Recognition& known) noexcept;

Verdict decide(const LocationPolicy& policy, const Credential& credential, const StoreView& store,
               const RequestFacts& facts, const Clocks& clocks, Recognition& known, Charge* charge) noexcept;

// The limits that apply to a key: its plan's, replaced by its own of the same name, and its owner's (shared by all the
// owner's keys). Only rates so far. RETURNS: false when a row is damaged or there are more than `uses` has room for;
// then nobody knows what applies.
struct NamedUse {
  LimitUse use;
  std::string_view name;  // LIFETIME: the snapshot's
  Rate rate;
};
[[nodiscard]] bool gather_limits(const Snapshot& snapshot, const Recognition& known, const BucketTable& table,
                                 std::span<NamedUse> uses, std::size_t& count) noexcept;

}  // namespace apikey
