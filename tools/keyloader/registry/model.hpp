// What the registry knows: owners, plans, roles, keys, peppers, audit entries, as plain values.
// Used by every command and by each Registry; knows neither SQL nor the command line.
// Must never hold a secret: a key is here only as its digest.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apikey/digest.hpp"
#include "apikey/key_id.hpp"
#include "apikey/rows.hpp"

namespace keyloader {

using Json = nlohmann::json;
using Texts = std::vector<std::string>;
using MetaMap = std::map<std::string, std::string>;
using OwnerId = std::array<std::uint8_t, 16>;
using Hash = std::array<std::uint8_t, 32>;
using Seconds = std::int64_t;  // since 1970-01-01 UTC; 0 stands for "not set"

inline constexpr std::string_view kDefaultPlan = "default";
inline constexpr std::string_view kPlainMethod = "sha256";
inline constexpr int kAuditVersion = 2;  // of the chain (registry/audit_values.hpp)

// One limit of a plan, an owner or a key. The name says which limit of a plan a key's own one replaces.
struct Limit {
  std::string name;
  apikey::LimitKind kind = apikey::LimitKind::rate;
  apikey::CalendarUnit unit = apikey::CalendarUnit::none;
  std::uint64_t amount = 0;
  std::uint64_t period_ns = 0;
  std::optional<std::uint64_t> burst{};  // of a rate; not written: it follows from the rate whenever that is used
  bool is_dry_run = false;               // counts and reports, but lets pass
  friend bool operator==(const Limit&, const Limit&) = default;
};
using Limits = std::vector<Limit>;  // sorted by name, no name twice

// What has been done to one quota of a family of keys, or of an owner.
struct Adjustment {
  std::string quota;
  std::uint64_t granted = 0;  // on top of the quota's amount …
  Seconds granted_until = 0;  // … while now < this
  Seconds last_reset = 0;     // what was used before is forgotten
};
using Adjustments = std::vector<Adjustment>;  // sorted by quota, no quota twice

struct Owner {
  std::string name;
  OwnerId id{};  // random, stable over renames and publishes
  std::string email;
  std::string team;
  MetaMap meta;
  Limits limits;  // shared by all keys of the owner
  bool is_suspended = false;
  Seconds suspended_until = 0;  // 0: until resumed
  Seconds created = 0;
};

struct Plan {
  std::string name;
  Limits limits;
  Seconds created = 0;
};

// A named set of scopes. Keys refer to it by name; it is expanded when a snapshot is built.
struct Role {
  std::string name;
  Texts scopes;  // sorted, no scope twice
  Seconds created = 0;
};

struct Key {
  apikey::Digest digest;
  std::string method;  // `sha256` or `hmac-sha256:<pepper id>`
  apikey::KeyId id;
  apikey::KeyId family;
  std::string owner;
  std::string plan{kDefaultPlan};
  std::string name;
  std::string env = "live";
  std::string prefix;  // empty for imported keys of another form
  std::string hint;    // its last characters; empty where they are not known or would tell too much
  std::string ref;     // what others call it, unique per owner; may be empty
  Texts scopes;        // sorted, like the other lists
  Texts roles;
  Texts admin_scopes;  // the reserved ones; one in `scopes` or of a role does not count
  Texts may_grant;     // of an administrator's key: scopes it may give to keys; empty: none, of `apikey:admin` all
  Texts teams;         // of an administrator's key: whose owners it is for; empty: for all
  Limits limits;
  Texts allow_ip;
  Texts allow_origin;
  Texts allow_method;
  Texts allow_host;
  bool requires_tls = false;
  MetaMap meta;
  Seconds created = 0;
  Seconds not_before = 0;
  Seconds expires = 0;
  bool is_suspended = false;
  Seconds suspended_until = 0;
  Seconds revoked = 0;  // when; 0: not revoked
  std::string revoked_reason;
};

struct Pepper {
  std::string id;
  Seconds created = 0;
  bool is_current = false;
};

// What a registry asks of changes, whoever makes them (registry/policy.hpp). Empty lists ask for nothing.
struct Policy {
  Texts required_meta;    // names that the meta of a new key must have
  Texts key_names;        // patterns (fnmatch(3)); the name of a new key is as one of them says
  Texts owner_names;      // the same for owners
  Texts approve_scopes;   // whoever gives one of these needs a second person
  Texts approve_actions;  // so does whoever does one of these: `plan.set`, or `plan` for all that begin with it
  friend bool operator==(const Policy&, const Policy&) = default;
  [[nodiscard]] bool asks_second_person() const { return !approve_scopes.empty() || !approve_actions.empty(); }
};

// Who asks for a change, as far as the policy is concerned.
struct Caller {
  std::optional<apikey::KeyId> admin{};  // an administrator, by this key; none: whoever may write registry.db
  bool breaks_glass = false;             // the policy is to be passed over, for a reason that is written down
};

// A change that waits for a second person, or did.
struct Approval {  // NOLINT(bugprone-exception-escape): Json says that moving may throw; it does not
  std::uint64_t number = 0;
  std::string state;  // `pending`, `approved`, `refused`, `ended`
  std::string why;    // it ended
  Seconds created = 0;
  Seconds ends = 0;   // pending while now < this
  Json actor;         // who asked
  std::string owner;  // of the administrator's key that asked; empty: somebody on the machine itself
  std::string reason;
  Texts needs;          // what needs a second person
  Json operations;      // the change itself, step by step; null once it is no longer pending
  std::uint64_t seq{};  // of the audit entry of the request: what was changed behind it, ends the request
  Json decider;         // who approved or refused; null: nobody
  Seconds decided = 0;
};

struct AuditEntry {  // NOLINT(bugprone-exception-escape): Json says that moving may throw; it does not
  std::uint64_t seq = 0;
  Seconds time = 0;
  Json actor;
  std::string action;       // `key.revoke`
  std::string object;       // `key_…`, the name of an owner, plan or role, a pepper's id, or a generation
  Json before;              // null when there was nothing before
  Json after;               // null when there is nothing after
  bool has_erased = false;  // some of its values were erased, and stand as "(erased)"
  Hash prev_hash{};
  Hash hash{};
};

// Which keys somebody asks for; empty fields ask for all.
struct KeyFilter {
  std::string owner;
  std::string env;
  std::string role;
  std::string name{};
  std::string hint{};
  std::string ref{};
};

// Which audit entries somebody asks for; empty fields ask for all.
struct AuditFilter {
  std::string object{};  // the id of a key, a name
  std::string action{};  // `key.revoke`, or `key` for all that begin with it and a dot
  std::string actor{};   // who, or on whose behalf
  Seconds since = 0;
  std::uint64_t first = 0;  // those with this number or a higher one
  std::uint64_t most = 0;   // the newest; 0: all
  bool as_chained = false;  // as they are hashed: personal values as salted hashes
};

// Whether a suspension until `is` lasts at least as long as one until `wanted` (0: until it is resumed). Suspending
// never ends one earlier: it would give access.
[[nodiscard]] bool lasts_as_long(Seconds is, Seconds wanted);

// What a rate's bucket holds: the burst that was written, or the one that follows from the rate. 0 for other kinds.
[[nodiscard]] std::uint64_t burst_of(const Limit& limit);

// Whoever started keyloader, as the operating system says when it is first asked: become_owner() asks before it changes
// the user.
[[nodiscard]] Json current_actor();

// Of such an actor: the user, and not the one that sudo made of him.
[[nodiscard]] std::string user_of(const Json& actor);

[[nodiscard]] std::string text_of(const apikey::KeyId& id);
[[nodiscard]] std::optional<apikey::KeyId> key_id_from(std::string_view text);
[[nodiscard]] std::string hex(const std::uint8_t* bytes, std::size_t length);
template <typename Bytes>
[[nodiscard]] std::string hex(const Bytes& bytes) {
  return hex(bytes.data(), bytes.size());
}

// `minute` … `year`; REQUIRES: not CalendarUnit::none.
[[nodiscard]] std::string_view unit_text(apikey::CalendarUnit unit);

// At `now`: a suspension ends by itself.
[[nodiscard]] bool is_suspended(const Owner& owner, Seconds now);

// `active`, `revoked`, `suspended`, `not_yet_valid`, `expired`: what the module will say of it at `now`, owner apart.
[[nodiscard]] std::string_view state_of(const Key& key, Seconds now);

// All that a key has, by itself and by its roles; sorted. Of reserved scopes only those that `keyloader admin` gave.
// `scopes_of`: of a role.
[[nodiscard]] Texts effective_scopes(const Key& key, const std::function<Texts(const std::string& role)>& scopes_of);

// As they stand in --json output and in the audit. A key's digest is left out: it is nobody's business.
[[nodiscard]] Json to_json(const Limit& limit);
[[nodiscard]] Json to_json(const Limits& limits);
[[nodiscard]] Json to_json(const Adjustment& adjustment);
[[nodiscard]] Json to_json(const Owner& owner);
[[nodiscard]] Json to_json(const Plan& plan);
[[nodiscard]] Json to_json(const Role& role);
[[nodiscard]] Json to_json(const Key& key);
[[nodiscard]] Json to_json(const Pepper& pepper);
[[nodiscard]] Json to_json(const AuditEntry& entry);
[[nodiscard]] Json to_json(const Policy& policy);
[[nodiscard]] Policy policy_from(const Json& json);
// The change itself apart, which says what digest a new key has.
[[nodiscard]] Json to_json(const Approval& approval);
// A field of a state in the audit; null where there is no such state or field.
[[nodiscard]] Json field_of(const Json& state, std::string_view name);
// What to_json() made of a limit. RETURNS: nothing for what is no limit that this keyloader knows. A burst that follows
// from the rate was not written.
[[nodiscard]] std::optional<Limit> limit_from(const Json& json);

// "2026-01-31T12:00:00Z"; JSON null for 0.
[[nodiscard]] std::string time_text(Seconds time);
[[nodiscard]] Json time_json(Seconds time);
// The way back; 0 for what time_text() did not write.
[[nodiscard]] Seconds seconds_from(const std::string& text);
[[nodiscard]] Seconds wall_clock();

// SHA-256 over the previous entry's 32 hash bytes and the entry's canonical JSON: the object of action, actor, after,
// before, object, seq, time (seconds since 1970), names sorted at every level, without white space.
[[nodiscard]] Hash chain_hash(const AuditEntry& entry);

// The same out of JSON texts that are canonical already.
struct AuditTexts {
  std::string_view actor;
  std::string_view before;
  std::string_view after;
};
[[nodiscard]] Hash chain_hash(const AuditEntry& entry, const AuditTexts& texts);

}  // namespace keyloader
