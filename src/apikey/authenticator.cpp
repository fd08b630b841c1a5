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
Outcome check_life(const Record& record, const OwnerRow& owner, UnixSec now) noexcept {
  if ((record.flags & kFlagRevoked) != 0) {
    return Outcome::revoked;
  }
  if (is_suspended((record.flags & kFlagSuspended) != 0, record.suspended_until, now) ||
      is_suspended(owner.is_suspended, owner.suspended_until, now)) {
    return Outcome::suspended;
  }
  if (now < record.not_before) {
    return Outcome::not_yet_valid;
  }
  if (record.expires.value != 0 && now >= record.expires) {
    return Outcome::expired;
  }
  return Outcome::ok;
}

// Rows 4-6 of a credential that is a key. Its digests are tried in the order of the snapshot; a miss has tried them
// all.
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
    return check_life(known.record, known.owner, now);
  }
  return Outcome::unknown;
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

bool applies(const ScopeLine& line, MethodSet method) noexcept {
  return line.methods == ~MethodSet{0} || (line.methods & method) != 0;
}

// Row 8. On a refusal `required` is what the first line that is not satisfied asks for; empty when no line applies.
Outcome check_scopes(const LocationPolicy& policy, const Snapshot& snapshot, const Recognition& known, MethodSet method,
                     std::span<const std::string_view>& required) noexcept {
  if (policy.allows_any_scope || policy.scope_lines.empty()) {
    return Outcome::ok;
  }
  ScopeSet held;
  if (!snapshot.scopes(known.record.scopes, held)) {
    return Outcome::unavailable;
  }
  bool has_applied = false;
  for (const ScopeLine& line : policy.scope_lines) {
    if (!applies(line, method)) {
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

// Adds the rates of one list for one subject. `replaces`: a limit of the same name already there gives way (a key's own
// before its plan's). RETURNS: false when a name cannot be read or there is no room.
bool add_limits(const Snapshot& snapshot, const LimitList& limits, const BucketTable& table,
                std::span<const std::uint8_t> subject, bool replaces, std::span<NamedUse> uses,
                std::size_t& count) noexcept {
  const std::size_t before = count;
  for (std::size_t i = 0; i < limits.size(); ++i) {
    const LimitRow row = limits[i];
    if (row.kind != LimitKind::rate) {
      continue;
    }
    NamedUse named;
    if (!snapshot.string(row.name, named.name)) {
      return false;
    }
    named.rate = {row.amount, row.period_ns};
    named.use = {table.subject(named.name, subject), make_rate_limit(named.rate, row.burst), row.is_dry_run};
    const auto old = std::find_if(uses.begin(), uses.begin() + static_cast<std::ptrdiff_t>(before),
                                  [&](const NamedUse& use) { return use.name == named.name; });
    const bool is_there = replaces && static_cast<std::size_t>(old - uses.begin()) < before;
    if (!is_there && count == uses.size()) {
      return false;
    }
    (is_there ? *old : uses[count++]) = named;
  }
  return true;
}

bool has_taken(const Charge& charge, std::uint64_t subject) noexcept {
  const auto end = charge.taken.begin() + static_cast<std::ptrdiff_t>(charge.taken_count);
  return std::find(charge.taken.begin(), end, subject) != end;
}

void show_limit(const NamedUse& named, const TakeResult& result, Verdict& verdict) noexcept {
  verdict.has_limit = true;
  verdict.limit_name = named.name;
  verdict.limit_burst = named.use.limit.burst;
  verdict.limit_rate = named.rate;
  verdict.remaining = result.remaining;
  verdict.reset_ns = result.reset_ns;
  verdict.retry_after_ns = result.retry_after_ns;
}

// Row 9: takes from all limits this client request has not taken from yet, or from none.
Outcome charge_limits(const Snapshot& snapshot, const Recognition& known, MonoNs now, Charge& charge,
                      Verdict& verdict) noexcept {
  std::array<NamedUse, BucketTable::kMaxUses> named;
  std::size_t count = 0;
  if (!gather_limits(snapshot, known, *charge.table, named, count)) {
    return Outcome::unavailable;
  }
  const auto end = named.begin() + static_cast<std::ptrdiff_t>(count);
  const auto fresh_end =
      std::partition(named.begin(), end, [&](const NamedUse& use) { return !has_taken(charge, use.use.subject); });
  const auto fresh = static_cast<std::size_t>(fresh_end - named.begin());
  if (count == 0) {
    return Outcome::ok;
  }

  std::array<LimitUse, BucketTable::kMaxUses> uses;
  std::transform(named.begin(), end, uses.begin(), [](const NamedUse& use) { return use.use; });
  const std::span<const LimitUse> all(uses.data(), count);
  // Where everything was taken in an earlier pass, what is left is shown and nothing taken.
  const TakeResult result =
      fresh == 0 ? charge.table->look(all, 0, now) : charge.table->take(all.first(fresh), charge.cost, now);
  show_limit(named[result.decided_by], result, verdict);
  if (!result.is_admitted) {
    return Outcome::rate_limited;
  }
  for (std::size_t i = 0; i < fresh && charge.taken_count < charge.taken.size(); ++i) {
    charge.taken[charge.taken_count++] = uses[i].subject;
  }
  return Outcome::ok;
}

}  // namespace

void recognise(const Credential& credential, const StoreView& store, UnixSec now, Recognition& known) noexcept {
  if (!known.is_done) {
    known.outcome = find_key(credential, store, now, known);
    known.is_done = true;
  }
}

bool gather_limits(const Snapshot& snapshot, const Recognition& known, const BucketTable& table,
                   std::span<NamedUse> uses, std::size_t& count) noexcept {
  count = 0;
  PlanRow plan;
  LimitList own;
  std::span<const std::byte> own_bytes;
  const bool is_sound = snapshot.plan(known.record.plan, plan) && snapshot.bytes(known.record.limits, own_bytes) &&
                        decode_limits(own_bytes, own);
  if (!is_sound) {
    return false;
  }
  const std::span<const std::uint8_t> family(known.record.family.bytes);
  std::array<std::uint8_t, 16> owner_id{};
  std::transform(known.owner.id.begin(), known.owner.id.end(), owner_id.begin(),
                 [](std::byte b) { return static_cast<std::uint8_t>(b); });
  return add_limits(snapshot, plan.limits, table, family, false, uses, count) &&
         add_limits(snapshot, own, table, family, true, uses, count) &&
         add_limits(snapshot, known.owner.limits, table, owner_id, false, uses, count);
}

namespace {

Outcome decide_rows(const LocationPolicy& policy, const Credential& credential, const StoreView& store,
                    const RequestFacts& facts, const Clocks& clocks, Recognition& known, Charge* charge,
                    Verdict& verdict) noexcept {
  // 2. no credential
  if (credential.found == Found::none) {
    return policy.is_optional ? Outcome::anonymous : Outcome::missing;
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
    outcome = check_scopes(policy, *store.snapshot, known, facts.method, verdict.required_scopes);
  }
  // 9. limits
  if (outcome == Outcome::ok && charge != nullptr && charge->table != nullptr) {
    outcome = charge_limits(*store.snapshot, known, clocks.mono, *charge, verdict);
  }
  // 4 again: whatever failed on the way
  return outcome == Outcome::unavailable && policy.allows_on_error ? Outcome::bypass : outcome;
}

}  // namespace

Verdict decide(const LocationPolicy& policy, const Credential& credential, const StoreView& store,
               const RequestFacts& facts, const Clocks& clocks, Recognition& known, Charge* charge) noexcept {
  if (charge != nullptr && charge->is_refused) {
    return charge->refusal;
  }
  Verdict verdict;
  verdict.outcome = decide_rows(policy, credential, store, facts, clocks, known, charge, verdict);
  if (charge != nullptr && !lets_pass(verdict.outcome)) {
    charge->is_refused = true;
    charge->refusal = verdict;
  }
  return verdict;
}

}  // namespace apikey
