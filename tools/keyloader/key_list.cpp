// keyloader key list: the keys somebody asks for, in the shape he wants. Never the key, never its digest.
#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <map>
#include <set>

#include "apikey/key_form.hpp"
#include "key.hpp"
#include "last_use.hpp"
#include "listing.hpp"
#include "names.hpp"
#include "nearest.hpp"
#include "secret.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

struct KeyListOptions {
  KeyFilter filter;
  std::string state;
  std::string plan;
  std::string name;
  Texts meta;
  std::string created;
  std::string expires_within;
  std::string unused_for;
  ListOptions list;
};

Columns columns() {
  return {
      .known = {{"id", "ID"},
                {"owner", "OWNER"},
                {"env", "ENV"},
                {"state", "STATE"},
                {"expires", "EXPIRES"},
                {"last_used", "LAST USED"},
                {"plan", "PLAN"},
                {"effective_scopes", "SCOPES"},
                {"name", "NAME"},
                {"hint", "HINT"},
                {"ref", "REF"},
                {"admin_scopes", "ADMIN SCOPES"},
                {"may_grant", "MAY GRANT"},
                {"teams", "TEAMS"},
                {"roles", "ROLES"},
                {"scopes", "OWN SCOPES"},
                {"created", "CREATED"},
                {"not_before", "NOT BEFORE"},
                {"suspended_until", "SUSPENDED UNTIL"},
                {"revoked", "REVOKED"},
                {"revoked_reason", "REASON"},
                {"meta", "META"},
                {"allow_ip", "ALLOWED NETWORKS"},
                {"allow_origin", "ALLOWED ORIGINS"},
                {"allow_method", "ALLOWED METHODS"},
                {"allow_host", "ALLOWED HOSTS"},
                {"require_tls", "TLS ONLY"},
                {"prefix", "PREFIX"},
                {"digest_method", "DIGEST"},
                {"family", "FAMILY"}},
      .of_table = {"id", "owner", "env", "state", "expires", "last_used", "plan", "effective_scopes", "name", "hint"},
      .of_wide = {"id", "owner", "env", "state", "created", "expires", "last_used", "plan", "effective_scopes", "roles",
                  "name", "hint", "ref", "meta"}};
}

// What keys are compared with, once it has been read.
class Wanted {
 public:
  Wanted(const KeyListOptions& options, const SuspendedOwners& suspended, Seconds now)
      : options_(options), suspended_(suspended), now_(now) {
    if (!options.created.empty()) {
      created_ = parse_past(options.created, now);
    }
    if (!options.expires_within.empty()) {
      expires_by_ = now + parse_duration(options.expires_within);
    }
    if (!options.unused_for.empty()) {
      unused_since_ = now - parse_duration(options.unused_for);
    }
    for (const std::string& pair : options.meta) {
      const std::size_t equals = pair.find('=');
      if (equals == std::string::npos || equals == 0) {
        throw UsageError(
            fmt::format("--meta \"{}\" asks for nothing; write name=value, such as --meta crm=4711", pair));
      }
      meta_.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
    }
  }

  [[nodiscard]] const std::optional<Seconds>& unused_since() const { return unused_since_; }

  // All but what use decides.
  [[nodiscard]] bool holds(const Key& key) const {
    const bool expires_in_time =
        !expires_by_ || (key.revoked == 0 && key.expires > now_ && key.expires <= *expires_by_);
    return (options_.state.empty() || options_.state == suspended_.state_of(key)) &&
           (options_.plan.empty() || options_.plan == key.plan) &&
           (options_.name.empty() || options_.name == key.name ||
            fnmatch(options_.name.c_str(), key.name.c_str(), 0) == 0) &&
           (!created_ || key.created >= *created_) && expires_in_time &&
           std::all_of(meta_.begin(), meta_.end(), [&](const auto& pair) {
             const auto found = key.meta.find(pair.first);
             return found == key.meta.end() ? pair.second.empty() : found->second == pair.second;
           });
  }

  // A key that is younger than that has had no time to be unused for so long.
  [[nodiscard]] bool is_unused(const Key& key, Seconds last_used) const {
    return !unused_since_ || (last_used + apikey::kUsageHour <= *unused_since_ && key.created <= *unused_since_);
  }

 private:
  const KeyListOptions& options_;
  const SuspendedOwners& suspended_;
  Seconds now_;
  std::optional<Seconds> created_;
  std::optional<Seconds> expires_by_;
  std::optional<Seconds> unused_since_;
  std::vector<std::pair<std::string, std::string>> meta_;
};

constexpr std::string_view kDefaultEnv = "live";

// An environment is there as soon as it has a key, or is the one of all that do not say it.
void require_env(Registry& registry, const std::string& env) {
  bool is_known = env == kDefaultEnv;
  registry.each_key({.owner = {}, .env = env, .role = {}}, [&](const Key&) {
    is_known = true;
    return false;
  });
  if (is_known) {
    return;
  }
  std::set<std::string> envs{std::string{kDefaultEnv}};
  registry.each_key({.owner = {}, .env = {}, .role = {}}, [&](const Key& key) {
    envs.insert(key.env);
    return true;
  });
  throw Failure(fmt::format("there is no key of the environment \"{}\"; {}there are keys of {}", env,
                            did_you_mean(env, Texts(envs.begin(), envs.end())), fmt::join(envs, ", ")));
}

// A word that stands for nothing here would show an empty list, which reads as if there were none.
void require_known(Registry& registry, const KeyListOptions& options) {
  if (!options.filter.owner.empty()) {
    static_cast<void>(require_owner(registry, options.filter.owner));
  }
  if (!options.filter.role.empty()) {
    static_cast<void>(require_role(registry, options.filter.role));
  }
  if (!options.plan.empty()) {
    static_cast<void>(require_plan(registry, options.plan));
  }
  if (!options.filter.hint.empty() && !is_valid_hint(options.filter.hint)) {
    // As with ids: whoever pastes the key itself here must not find it in a log.
    throw UsageError(
        apikey::has_own_form(options.filter.hint)
            ? std::
                  string{"--hint got the key itself, now in your shell's history: revoke it. `keyloader find` reads it "
                         "and tells its id, key_…"}
            : fmt::format("--hint takes the last {} characters of a key, such as AbCd", kHintLength));
  }
  if (!options.filter.env.empty()) {
    require_env(registry, options.filter.env);
  }
}

// What --unused-for says is worth as much as what was counted.
void judge_use(const LastUse& use, const Wanted& wanted) {
  if (!wanted.unused_since()) {
    return;
  }
  if (!use.problem().empty()) {
    throw Failure(fmt::format("{}, so nobody knows which keys were not used", use.problem()));
  }
  if (!use.known_since()) {
    throw Failure(
        "no use was ever counted here, so nobody knows which keys were not used: there is neither a usage.db nor an "
        "nginx with this keys.mdb. `keyloader usage collect` on the node collects it");
  }
  if (*use.known_since() > *wanted.unused_since()) {
    Session::warn(fmt::format("use is counted since {} only; these keys may have been used before that",
                              time_text(*use.known_since())));
  }
}

// Somebody who was told the last characters on the telephone does not know which of them are large.
void warn_of_case(Registry& registry, const std::string& hint) {
  Texts others;
  registry.each_key({}, [&](const Key& key) {
    if (lower_case(key.hint) == lower_case(hint)) {
      others.push_back(fmt::format("{} ends in {}", text_of(key.id), key.hint));
    }
    return true;
  });
  if (!others.empty()) {
    Session::warn(fmt::format("no key ends in {}, and case counts: {}", hint, fmt::join(others, ", ")));
  }
}

void list(const Session& session, const KeyListOptions& options) {
  const Seconds now = wall_clock();
  Columns shown_columns = columns();
  if (!options.filter.ref.empty()) {
    shown_columns.of_table.emplace_back("ref");
  }
  Listing listing(session, options.list, std::move(shown_columns), "no keys");
  const auto registry = session.open_registry();
  const SuspendedOwners suspended(*registry, now);
  const Wanted wanted(options, suspended, now);
  require_known(*registry, options);
  LastUse use(session);
  judge_use(use, wanted);
  use.warn_of_problem();
  const RoleScopes roles(*registry);
  bool has_one = false;
  registry->each_key(options.filter, [&](const Key& key) {
    has_one = true;
    const Seconds last_used = wanted.holds(key) ? use.of(key.id) : 0;
    if (wanted.holds(key) && wanted.is_unused(key, last_used)) {
      Json row = to_json(key);
      row["state"] = suspended.state_of(key);
      row["owner_suspended"] = suspended.holds(key.owner);
      row["effective_scopes"] = roles.scopes_of(key);
      row["last_used"] = time_json(last_used);
      listing.add(std::move(row));
    }
    return !listing.is_full();
  });
  listing.finish();
  if (!options.filter.hint.empty() && !has_one) {
    warn_of_case(*registry, options.filter.hint);
  }
}

}  // namespace

void add_key_list(Command& group, Session& session) {
  auto options = std::make_shared<KeyListOptions>();
  Command all = group.add("list", "Keys, oldest first");
  all.option("--owner", options->filter.owner, "OWNER", "Only those of this owner");
  all.option("--env", options->filter.env, "ENV", "Only those of this environment");
  all.option("--role", options->filter.role, "ROLE", "Only those that have this role");
  all.option("--plan", options->plan, "PLAN", "Only those of this plan");
  all.option("--name", options->name, "NAME", "Only those of this name; * in it stands for anything");
  all.option("--hint", options->filter.hint, "HINT", "Only keys that end in these four characters (case counts)");
  all.option("--ref", options->filter.ref, "REF", "Only those with this ref: your own name or number for a key");
  all.words("--meta", options->meta, "NAME=VALUE", "Only those with this value; may be given again");
  all.choice("--state", options->state, {"active", "suspended", "revoked", "expired", "not_yet_valid"}, "STATE",
             "Only those that are active, suspended, revoked, expired or not_yet_valid");
  all.option("--created", options->created, "SINCE", "Only those made since then: 7d (ago), today, 2026-01-31");
  all.option("--expires-within", options->expires_within, "TIME", "Only those that will end in that time: 14d");
  all.option("--unused-for", options->unused_for, "TIME", "Only those that nobody has used for so long: 90d");
  add_list_options(all, options->list);
  all.footer(
      "SCOPES are all that a key has, by itself and by its roles. LAST USED is the hour of the last request with the\n"
      "key, refused or not. CSV has the columns of `wide` and JSON everything, where --columns does not choose.\n\n"
      "  keyloader key list --owner acme --state active\n"
      "  keyloader key list --expires-within 14d --sort expires\n"
      "  keyloader key list --unused-for 90d --columns id,owner,last_used -o csv\n"
      "  keyloader key list --json | jq -r '.[].id'");
  all.read([&session, options] { list(session, *options); });
}

}  // namespace keyloader
