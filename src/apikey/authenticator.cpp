// The decision table. decide_rows() is read from top to bottom as the table in docs/design.md is; everything else here
// serves one of its rows. Called by the adapter: in the access phase with a Charge, before it without. Must never let
// somebody in because something of ours failed: every failure is Outcome::unavailable.
#include "apikey/authenticator.hpp"

#include <algorithm>

namespace apikey {
namespace {

// A suspension with an end is over by itself.
bool is_suspended(bool flag, UnixSec until, UnixSec now) noexcept { return flag && (until.value == 0 || now < until); }

// Row 6. RETURNS: Outcome::ok when the key is alive.
Outcome check_life(const Life& key, const OwnerLife& owner, UnixSec now) noexcept {
  if (key.is_revoked) {
    return Outcome::revoked;
  }
  if (is_suspended(key.is_suspended, key.suspended_until, now) ||
      is_suspended(owner.is_suspended, owner.suspended_until, now)) {
    return Outcome::suspended;
  }
  if (now < key.not_before) {
    return Outcome::not_yet_valid;
  }
  if (key.expires.value != 0 && now >= key.expires) {
    return Outcome::expired;
  }
  return Outcome::ok;
}

Life life_of(const Record& record) noexcept {
  return {(record.flags & kFlagRevoked) != 0,
          (record.flags & kFlagSuspended) != 0,
          record.suspended_until,
          record.not_before,
          record.expires,
          record.owner};
}

// What a vetoing snapshot says of a digest: only whether it may still pass.
Outcome check_veto(const Snapshot& veto, const Digest& digest, UnixSec now) noexcept {
  Life key;
  OwnerLife owner;
  switch (veto.find_life(digest, key, owner)) {
    case Snapshot::Find::found:
      return check_life(key, owner, now);
    case Snapshot::Find::absent:
      return Outcome::unknown;
    case Snapshot::Find::damaged:
      break;
  }
  return Outcome::unavailable;
}

// A credential that the deciding snapshot does not have, under a veto. A good key of the newer snapshot is not called
// unknown; and where that one has a digest method this nginx lacks, nobody can tell which credentials are its keys.
Outcome find_held_back(const Credential& credential, const StoreView& store, UnixSec now, HeldBack& why) noexcept {
  Outcome outcome = Outcome::unknown;
  for (const std::uint8_t method : store.veto_methods) {
    const Outcome found = method < credential.digests.size() ? check_veto(*store.veto, credential.digests[method], now)
                                                             : Outcome::unavailable;
    outcome = found == Outcome::unknown ? outcome : found;
  }
  if (outcome == Outcome::ok) {
    why = HeldBack::new_key;
    return Outcome::unavailable;
  }
  if (outcome == Outcome::unknown && !store.has_all_veto_methods) {
    why = HeldBack::unknown_key;
    return Outcome::unavailable;
  }
  return outcome;
}

// Rows 4-6 of a credential that is a key. Its digests are tried in the order of the snapshot; a miss has tried them
// all. Under a veto the newer snapshot is asked too, whatever the deciding one says.
Outcome find_key(const Credential& credential, const StoreView& store, UnixSec now, Recognition& known) noexcept {
  // Without a digest method of the snapshot's nothing could be found, which would prove nothing.
  if (store.snapshot == nullptr || store.methods.empty()) {
    return Outcome::unavailable;
  }
  const Snapshot& snapshot = *store.snapshot;
  for (const std::uint8_t method : store.methods) {
    if (method >= credential.digests.size()) {
      return Outcome::unavailable;
    }
    const Snapshot::Find found = snapshot.find(credential.digests[method], known.record);
    if (found == Snapshot::Find::damaged) {
      return Outcome::unavailable;
    }
    if (found == Snapshot::Find::absent) {
      continue;
    }
    if (!snapshot.owner(known.record.owner, known.owner) || !snapshot.string(known.record.env, known.env)) {
      return Outcome::unavailable;
    }
    known.has_record = true;
    const Outcome vetoed =
        store.veto == nullptr ? Outcome::ok : check_veto(*store.veto, credential.digests[method], now);
    const OwnerLife owner{known.owner.is_suspended, known.owner.suspended_until};
    const Outcome alive = check_life(life_of(known.record), owner, now);
    return alive == Outcome::ok ? vetoed : alive;
  }
  return store.veto == nullptr ? Outcome::unknown : find_held_back(credential, store, now, known.held_back);
}

// Row 7.
Outcome check_conditions(const LocationPolicy& policy, const Snapshot& snapshot, const Recognition& known,
                         const RequestFacts& facts) noexcept {
  const auto& allowed = policy.environments;
  if (!policy.allows_any_environment && std::find(allowed.begin(), allowed.end(), known.env) == allowed.end()) {
    return Outcome::wrong_environment;
  }
  std::span<const std::byte> bindings;
  if (!snapshot.bytes(known.record.bindings, bindings)) {
    return Outcome::unavailable;
  }
  const Outcome bound = check_bindings(bindings, facts);
  if (bound == Outcome::wrong_address || bound == Outcome::unavailable) {
    return bound;
  }
  if ((known.record.flags & kFlagRequireTls) != 0 && !facts.is_tls) {
    return Outcome::tls_required;
  }
  return bound;
}

bool names_methods(const ScopeLine& line) noexcept { return line.methods != ~MethodSet{0}; }

bool applies(const ScopeLine& line, MethodSet method) noexcept {
  return !names_methods(line) || (line.methods & method) != 0;
}

// Row 8. On a refusal `required` is what the first line that is not satisfied asks for; empty when no line applies.
Outcome check_scopes(const LocationPolicy& policy, const Snapshot& snapshot, const Recognition& known,
                     const RequestFacts& facts, std::span<const std::string_view>& required) noexcept {
  if (policy.allows_any_scope || policy.scope_lines.empty()) {
    return Outcome::ok;
  }
  if (!facts.has_method && std::any_of(policy.scope_lines.begin(), policy.scope_lines.end(), names_methods)) {
    return Outcome::wrong_method;
  }
  ScopeSet held;
  if (!snapshot.scopes(known.record.scopes, held)) {
    return Outcome::unavailable;
  }
  bool has_applied = false;
  for (const ScopeLine& line : policy.scope_lines) {
    if (!applies(line, facts.method)) {
      continue;
    }
    has_applied = true;
    const bool is_granted =
        std::any_of(line.scopes.begin(), line.scopes.end(), [&](std::string_view scope) { return held.grants(scope); });
    if (!is_granted) {
      required = line.scopes;
      return Outcome::scope;
    }
  }
  return has_applied ? Outcome::ok : Outcome::scope;
}

// What stands apart from the limits of keys in the tables they share.
constexpr std::uint64_t kByKey = 0x9e3779b97f4a7c15;
constexpr std::uint64_t kByOwner = 0xc2b2ae3d27d4eb4f;
constexpr std::uint64_t kByValue = 0x165667b19e3779f9;
constexpr std::uint64_t kByAddress = 0x27d4eb2f165667c5;
constexpr std::uint64_t kByFailures = 0x85ebca77c2b2ae63;
constexpr std::uint64_t kByNotice = 0xd6e8feb86659fd93;
constexpr RateLimit kOneNoticeAMinute = {1, 60 * kNsPerSecond, 1};

// An IPv6 client has a /64 at least.
std::span<const std::uint8_t> client_network(const Address& address) noexcept {
  const auto bytes = std::span(address.bytes).first(address.length);
  return bytes.size() == 16 ? bytes.first(8) : bytes;
}

BucketUse per_address(const LimitTables& tables, const RateLimit& limit, std::uint64_t domain,
                      const Address& address) noexcept {
  return {tables.client_buckets->subject({}, client_network(address)) ^ domain, limit};
}

std::uint64_t location_subject(const PolicyLimit& limit, const Recognition& known, const RequestFacts& facts,
                               const Charge& charge) noexcept {
  const auto subject = [&](std::span<const std::uint8_t> id, std::uint64_t domain) {
    const std::uint64_t hash = limit.limit.kind == LimitKind::rate
                                   ? charge.tables->buckets->subject(limit.limit.name, id)
                                   : charge.tables->flights->subject(limit.limit.name, id);
    return hash ^ domain ^ limit.limit.place;
  };
  if (limit.by == LimitBy::value && limit.value < charge.values.size() && !charge.values[limit.value].empty()) {
    const std::string_view value = charge.values[limit.value];
    return subject({reinterpret_cast<const std::uint8_t*>(value.data()), value.size()}, kByValue);
  }
  if (limit.by == LimitBy::key && known.has_record) {
    return subject(known.record.family.bytes, kByKey);
  }
  if (limit.by == LimitBy::owner && known.has_record) {
    return subject({reinterpret_cast<const std::uint8_t*>(known.owner.id.data()), known.owner.id.size()}, kByOwner);
  }
  return subject(client_network(facts.address), kByAddress);
}

// Whether the subject is one that a client can make up; see location_subject().
bool is_client_chosen(const PolicyLimit& limit, const Recognition& known) noexcept {
  return limit.by == LimitBy::value || !known.has_record;
}

bool is_uncounted(const LocationPolicy& policy, std::string_view measure) noexcept {
  const auto& measures = policy.uncounted_measures;
  return !measures.empty() && std::find(measures.begin(), measures.end(), measure) != measures.end();
}

bool add_location_limits(const LocationPolicy& policy, const Recognition& known, const RequestFacts& facts,
                         const Charge& charge, std::span<LimitUse> uses, std::size_t& count) noexcept {
  if (uses.size() - count < policy.limits.size()) {
    return false;
  }
  for (const PolicyLimit& limit : policy.limits) {
    if (!counts_here(policy, limit)) {
      continue;
    }
    const std::uint64_t subject = location_subject(limit, known, facts, charge);
    uses[count++] = location_use(limit.limit, subject, is_client_chosen(limit, known), *charge.tables, charge.costs);
  }
  return true;
}

// The first name that no limit of the key has; empty: it has them all.
std::string_view missing_limit(const LocationPolicy& policy, std::span<const LimitUse> uses) noexcept {
  for (const std::string_view name : policy.required_limits) {
    if (std::none_of(uses.begin(), uses.end(),
                     [&](const LimitUse& use) { return std::string_view(use.name) == name; })) {
      return name;
    }
  }
  return {};
}

void show_limit(const LimitUse& use, const LimitLevel& level, Verdict& verdict) noexcept {
  verdict.has_limit = true;
  verdict.limit_name = use.name;
  verdict.limit_size = use.size;
  verdict.remaining = level.remaining;
  verdict.reset_ns = level.reset_ns;
  verdict.retry_after_ns = level.retry_after_ns;
}

Outcome refuse_without(std::string_view name, Verdict& verdict) noexcept {
  verdict.has_limit = true;
  verdict.limit_name = name;
  verdict.retry_after_ns = UINT64_MAX;
  return Outcome::rate_limited;
}

bool covers_limits(DryRun dry_run) noexcept { return dry_run == DryRun::limits || dry_run == DryRun::on; }
bool covers_scopes(DryRun dry_run) noexcept { return dry_run == DryRun::scopes || dry_run == DryRun::on; }

void note_dry_run(Verdict& verdict, Outcome outcome) noexcept {
  if (!verdict.is_dry_run && outcome != Outcome::ok) {
    verdict.is_dry_run = true;
    verdict.reason = outcome;
  }
}

// Row 9: takes from all limits this client request has not taken from yet, or from none. `known` may be of nobody.
Outcome charge_limits(const LocationPolicy& policy, const Snapshot* snapshot, const Recognition& known,
                      const RequestFacts& facts, const Clocks& clocks, Charge& charge, Verdict& verdict) noexcept {
  std::array<LimitUse, kMaxUses> buffer;
  std::size_t count = 0;
  if (!gather_limits(policy, snapshot, known, facts, clocks, charge, buffer, count)) {
    return Outcome::unavailable;
  }
  const auto uses = std::span<const LimitUse>(buffer).first(count);
  if (const std::string_view name = missing_limit(policy, uses); !name.empty()) {
    return refuse_without(name, verdict);
  }
  if (count == 0) {
    return Outcome::ok;
  }
  const TakeResult result = take_limits(*charge.tables, uses, clocks, *charge.takings);
  if (result.has_limit) {
    show_limit(uses[result.decided_by], result.level, verdict);
  }
  verdict.is_zone_full = result.outcome == Outcome::unavailable;
  if (result.outcome == Outcome::ok && result.dry_outcome != Outcome::ok) {
    note_dry_run(verdict, result.dry_outcome);
  }
  return result.outcome;
}

bool is_failed_attempt(Outcome outcome) noexcept {
  switch (outcome) {
    case Outcome::malformed:
    case Outcome::unknown:
    case Outcome::revoked:
    case Outcome::suspended:
    case Outcome::not_yet_valid:
    case Outcome::expired:
      return true;
    default:
      return false;
  }
}

// Rows 3, 5 and 6 of a client that has failed too often: throttled. One take per client request. A credential that a
// veto holds back may be a guess, and counts as one, or a new key: its answer stays 503.
Outcome count_failure(const FailLimit& limit, Outcome outcome, HeldBack held_back, const Address& address, MonoNs now,
                      Charge& charge, Verdict& verdict) noexcept {
  const bool is_guess = held_back == HeldBack::unknown_key;
  if (!limit.is_on || charge.has_failed || (!is_guess && !is_failed_attempt(outcome))) {
    return outcome;
  }
  charge.has_failed = true;
  const BucketResult taken = charge.tables->client_buckets->take(
      per_address(*charge.tables, limit.limit, kByFailures ^ limit.place, address), 1, now);
  if (taken.is_admitted || is_guess) {
    return outcome;
  }
  verdict.reason = outcome;
  verdict.retry_after_ns = taken.retry_after_ns;
  return Outcome::throttled;
}

}  // namespace

bool counts_here(const LocationPolicy& policy, const PolicyLimit& limit) noexcept {
  return limit.stands_here || !is_uncounted(policy, measure_of(limit.limit));
}

void recognise(const Credential& credential, const StoreView& store, UnixSec now, Recognition& known) noexcept {
  if (!known.is_done) {
    known.outcome = find_key(credential, store, now, known);
    known.is_done = true;
  }
}

std::uint64_t throttled_for(const FailLimit& limit, const LimitTables& tables, const Address& address,
                            MonoNs now) noexcept {
  const BucketUse use = per_address(tables, limit.limit, kByFailures ^ limit.place, address);
  return tables.client_buckets->look_at_own(use, 1, now).retry_after_ns;
}

bool takes_notice(const LimitTables& tables, const Address& address, MonoNs now) noexcept {
  return tables.client_buckets->take(per_address(tables, kOneNoticeAMinute, kByNotice, address), 1, now).is_admitted;
}

bool gather_limits(const LocationPolicy& policy, const Snapshot* snapshot, const Recognition& known,
                   const RequestFacts& facts, const Clocks& clocks, const Charge& charge, std::span<LimitUse> uses,
                   std::size_t& count) noexcept {
  count = 0;
  if (snapshot != nullptr && !gather_key_limits(*snapshot, known.record, known.owner, *charge.tables, charge.costs,
                                                clocks.wall, uses, count)) {
    return false;
  }
  if (!policy.uncounted_measures.empty()) {
    const auto gathered = uses.first(count);
    const auto end = std::remove_if(gathered.begin(), gathered.end(),
                                    [&](const LimitUse& use) { return is_uncounted(policy, use.measure); });
    count = static_cast<std::size_t>(end - gathered.begin());
  }
  return add_location_limits(policy, known, facts, charge, uses, count);
}

namespace {

// Row 9, let pass in dry run.
Outcome charge_or_note(const LocationPolicy& policy, const Snapshot* snapshot, const Recognition& known,
                       const RequestFacts& facts, const Clocks& clocks, Charge& charge, Verdict& verdict) noexcept {
  const Outcome outcome = charge_limits(policy, snapshot, known, facts, clocks, charge, verdict);
  const bool is_limited = outcome != Outcome::ok && outcome != Outcome::unavailable;
  if (is_limited && covers_limits(policy.dry_run)) {
    note_dry_run(verdict, outcome);
    return Outcome::ok;
  }
  return outcome;
}

// `on_error=allow` is for a store that cannot be used, not for keys that a usable one does not have yet.
Outcome unless_allowed(const LocationPolicy& policy, Outcome outcome, HeldBack held_back = HeldBack::no) noexcept {
  const bool is_allowed = policy.allows_on_error && held_back == HeldBack::no;
  return outcome == Outcome::unavailable && is_allowed ? Outcome::bypass : outcome;
}

Outcome decide_rows(const LocationPolicy& policy, const Credential& credential, const StoreView& store,
                    const RequestFacts& facts, const Clocks& clocks, Recognition& known, Charge* charge,
                    Verdict& verdict) noexcept {
  const auto take = [&](const Snapshot* snapshot) {
    return charge == nullptr || charge->tables == nullptr
               ? Outcome::ok
               : charge_or_note(policy, snapshot, known, facts, clocks, *charge, verdict);
  };
  // 2. no credential
  if (credential.found == Found::none) {
    if (!policy.is_optional) {
      return Outcome::missing;
    }
    const Outcome limited = take(nullptr);
    return limited == Outcome::ok ? Outcome::anonymous : unless_allowed(policy, limited);
  }
  // 3. what was sent is not one key
  if (credential.found != Found::key) {
    return Outcome::malformed;
  }
  // 4. no usable snapshot · 5. unknown · 6. revoked, suspended, not yet valid, expired
  recognise(credential, store, clocks.wall, known);
  Outcome outcome = known.outcome;
  // 7. environment, address, TLS, origin, method, host
  if (outcome == Outcome::ok) {
    outcome = check_conditions(policy, *store.snapshot, known, facts);
  }
  // 8. scopes
  if (outcome == Outcome::ok) {
    outcome = check_scopes(policy, *store.snapshot, known, facts, verdict.required_scopes);
    if (outcome == Outcome::scope && covers_scopes(policy.dry_run)) {
      note_dry_run(verdict, outcome);
      outcome = Outcome::ok;
    }
  }
  // 9. limits
  if (outcome == Outcome::ok) {
    outcome = take(store.snapshot);
  }
  // 4 again: whatever failed on the way
  return unless_allowed(policy, outcome, known.held_back);
}

// What a dry run and a refusal that has to last make of the outcome.
Verdict concluded(const LocationPolicy& policy, Outcome outcome, Verdict verdict, Charge* charge) noexcept {
  verdict.outcome = outcome;
  if (lets_pass(outcome) && verdict.is_dry_run) {
    verdict.outcome = verdict.reason;
  } else {
    verdict.is_dry_run = !lets_pass(outcome) && policy.dry_run == DryRun::on;
  }
  if (charge != nullptr && !passes(verdict)) {
    charge->is_refused = true;
    charge->refusal = verdict;
  }
  return verdict;
}

}  // namespace

Verdict decide_preflight(const LocationPolicy& policy, const RequestFacts& facts, const Clocks& clocks,
                         Charge* charge) noexcept {
  if (charge != nullptr && charge->is_refused) {
    return charge->refusal;
  }
  Verdict verdict;
  Outcome outcome = Outcome::ok;
  if (charge != nullptr && charge->tables != nullptr) {
    LocationPolicy of_anybody = policy;
    of_anybody.required_limits = {};  // they are asked of keys
    const Recognition nobody;
    outcome = charge_or_note(of_anybody, nullptr, nobody, facts, clocks, *charge, verdict);
  }
  return concluded(policy, outcome == Outcome::ok ? Outcome::preflight : unless_allowed(policy, outcome), verdict,
                   charge);
}

Verdict decide(const LocationPolicy& policy, const Credential& credential, const StoreView& store,
               const RequestFacts& facts, const Clocks& clocks, Recognition& known, Charge* charge) noexcept {
  if (charge != nullptr && charge->is_refused) {
    return charge->refusal;
  }
  Verdict verdict;
  Outcome outcome = decide_rows(policy, credential, store, facts, clocks, known, charge, verdict);
  if (charge != nullptr && charge->tables != nullptr) {
    outcome = count_failure(policy.fail_limit, outcome, known.held_back, facts.address, clocks.mono, *charge, verdict);
  }
  return concluded(policy, outcome, verdict, charge);
}

}  // namespace apikey
