// keyloader admin: the keys that may do something with keys. Their scopes begin with `apikey:` and are reserved.
// INVARIANT: nothing else writes Key::admin_scopes, and no scope that begins with `apikey:` counts elsewhere.
#include <fmt/format.h>

#include <algorithm>

#include "admin_roles.hpp"
#include "apikey/scope_set.hpp"
#include "delivery.hpp"
#include "key.hpp"
#include "key_create.hpp"
#include "names.hpp"
#include "nearest.hpp"
#include "registry/access.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kLeading = 4;  // columns that stay columns on a narrow terminal

struct AdminCreateOptions {
  Texts roles;
  Texts may_grant;
  Texts teams;
  CreateOptions create;
};

struct SetOptions {
  std::string id;
  Texts roles;
  Texts may_grant;
  Texts teams;
  Texts added;
  Texts removed;
  std::string reason;
  DeliveryOptions delivery;
};

struct AdoptOptions {
  Texts ids;
  std::string role;
  bool takes_all = false;  // apikey:*, too
  std::string reason;
  DeliveryOptions delivery;
};

std::string with_stem(const std::string& word) {
  return word.starts_with(kReservedStem) ? word : std::string{kReservedStem} + word;
}

// The scope that a word means; `apikey:view` is as good as `view`.
std::string scope_of(const std::string& word) {
  std::string full = with_stem(word);
  if (admin_word(full) == full) {
    const std::string meant =
        is_none(word) ? std::string{} : did_you_mean(full.substr(kReservedStem.size()), admin_roles());
    throw UsageError(fmt::format("there is no role \"{}\" of administrators; {}there are {}", word, meant,
                                 fmt::join(admin_roles(), ", ")));
  }
  return full;
}

Texts scopes_of(const Texts& words) {
  Texts scopes;
  std::transform(words.begin(), words.end(), std::back_inserter(scopes), scope_of);
  return sorted_once(std::move(scopes));
}

std::string scopes_text(const Key& key) {
  if (key.admin_scopes.empty()) {
    return "no admin scope";
  }
  return fmt::format("{}{}{}", fmt::join(key.admin_scopes, " "),
                     key.may_grant.empty() ? "" : fmt::format(", may grant {}", fmt::join(key.may_grant, " ")),
                     key.teams.empty() ? "" : fmt::format(", for team {}", fmt::join(key.teams, ", ")));
}

// What the key may grant, and whose owners it is for.
void set_bounds(Texts& may_grant, Texts& teams, const Texts& scopes, const Texts& names) {
  if (!scopes.empty()) {
    may_grant = clears("scopes", scopes) ? Texts{} : tidy_scopes(scopes);
  }
  if (!names.empty()) {
    teams = clears("teams", names) ? Texts{} : sorted_once(names);
  }
  for (const std::string& team : teams) {
    check_text("name of a team", team);
  }
}

bool contains(const Texts& texts, std::string_view text) {
  return std::find(texts.begin(), texts.end(), text) != texts.end();
}

// What was meant to be an administrator's key and can do less than that.
void warn_of_bounds(Registry& registry, const Key& key) {
  const Texts teams = teams_of(registry);
  for (const std::string& team : key.teams) {
    if (!contains(teams, team)) {
      Session::warn(fmt::format("no owner is of the team \"{}\"; {}owners get one with `keyloader owner set --team`",
                                team, did_you_mean(team, teams)));
    }
  }
  if (key.may_grant.empty() && !grants_all(key)) {
    if (contains(key.admin_scopes, "apikey:issue")) {
      Session::warn("without --may-grant it gives no scope: it can issue and resume only keys that have none");
    } else if (contains(key.admin_scopes, "apikey:support")) {
      Session::warn("without --may-grant it can suspend keys, but resume only those that have no scope");
    }
  }
}

void create(const Session& session, const AdminCreateOptions& options) {
  CreateOptions all = options.create;
  if (options.roles.empty()) {
    throw UsageError(fmt::format("what may it do? give at least one --role: {}", fmt::join(admin_roles(), ", ")));
  }
  all.admin_scopes = scopes_of(options.roles);
  set_bounds(all.may_grant, all.teams, options.may_grant, options.teams);
  const auto registry = session.dir().open_registry();  // the key of --key-file is read once, by create_key()
  Key made;
  made.admin_scopes = all.admin_scopes;
  made.may_grant = all.may_grant;
  made.teams = all.teams;
  warn_of_bounds(*registry, made);
  create_key(session, all);
}

// A scope that the key holds can be taken away even if it is none of ours, as after an adoption.
void take_away(Key& key, const Texts& words) {
  for (const std::string& word : words) {
    const std::string full = with_stem(word);
    std::erase(key.admin_scopes, contains(key.admin_scopes, full) ? full : scope_of(word));
  }
  if (!words.empty() && contains(key.admin_scopes, kAllReserved)) {
    throw Failure(fmt::format("{} still has {} by {}; say all that it is to have: `keyloader admin set {} --role …`",
                              text_of(key.id), words.front(), kAllReserved, text_of(key.id)));
  }
}

void check(const SetOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  const bool edits = !options.added.empty() || !options.removed.empty();
  if (options.roles.empty() && !edits && options.may_grant.empty() && options.teams.empty()) {
    throw UsageError("what is it to have? give --role, --add-role, --remove-role, --may-grant or --team");
  }
  if (!options.roles.empty() && edits) {
    throw UsageError("give either --role, for all it is to have, or --add-role and --remove-role");
  }
  for (const std::string& word : options.added) {
    for (const std::string& other : options.removed) {
      if (with_stem(word) == with_stem(other)) {
        throw UsageError(fmt::format("{} is in both --add-role and --remove-role; say one of them", word));
      }
    }
  }
}

void set(const Session& session, const SetOptions& options) {
  check(options);
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  change->because(options.reason);
  Key key = require_key(*registry, options.id);
  const Json before = to_json(key);
  set_bounds(key.may_grant, key.teams, options.may_grant, options.teams);
  if (!options.roles.empty()) {
    key.admin_scopes = clears("roles", options.roles) ? Texts{} : scopes_of(options.roles);
  }
  take_away(key, options.removed);
  const Texts added = scopes_of(options.added);
  key.admin_scopes.insert(key.admin_scopes.end(), added.begin(), added.end());
  key.admin_scopes = sorted_once(std::move(key.admin_scopes));
  if (key.admin_scopes.empty()) {
    key.may_grant.clear();
    key.teams.clear();
  }
  if (key.revoked != 0) {
    Session::warn(fmt::format("{} is revoked, and stays refused whatever is set", text_of(key.id)));
  }
  if (key.admin_scopes.empty() && !(options.may_grant.empty() && options.teams.empty())) {
    throw UsageError(
        fmt::format("{} has no role of administrators, so there is nothing that it may grant", text_of(key.id)));
  }
  if (to_json(key) == before) {
    report(session, fmt::format("{} of {} is so already: {}", text_of(key.id), key.owner, scopes_text(key)),
           to_json(key), deliver_nothing(session, *registry, *change, options.delivery));
    return;
  }
  change->update(key, "admin");
  warn_of_bounds(*registry, key);
  report(session, fmt::format("updated {} of {}: {}", text_of(key.id), key.owner, scopes_text(key)), to_json(key),
         deliver(session, *registry, *change, options.delivery));
}

// Which reserved scopes an adoption moves, and which it leaves where they do not count.
struct Reserved {
  Texts adopted;
  Texts left;
};

bool is_adopted(const std::string& scope, bool takes_all) {
  return scope == kAllReserved ? takes_all : admin_word(scope) != scope;
}

void add_reserved(Reserved& reserved, const Texts& scopes, bool takes_all) {
  for (const std::string& scope : scopes) {
    if (apikey::is_reserved_scope(scope)) {
      (is_adopted(scope, takes_all) ? reserved.adopted : reserved.left).push_back(scope);
    }
  }
}

// Which are left where they are, and why.
Texts lines_of_left(const std::string& what, const Texts& left) {
  Texts lines;
  for (const std::string& scope : sorted_once(left)) {
    lines.push_back(
        scope == kAllReserved
            ? fmt::format("{} of {} stays without effect: it is all of them, and moves with --all only", scope, what)
            : fmt::format("{} of {} stays without effect: there is no such role of administrators", scope, what));
  }
  return lines;
}

// RETURNS: whether there was anything that did not count yet.
bool adopt(Key& key, const Texts& scopes) {
  const Texts before = key.admin_scopes;
  key.admin_scopes.insert(key.admin_scopes.end(), scopes.begin(), scopes.end());
  key.admin_scopes = sorted_once(std::move(key.admin_scopes));
  const auto moved = std::erase_if(key.scopes, [&](const std::string& scope) { return contains(scopes, scope); });
  return moved != 0 || key.admin_scopes != before;
}

// What an adoption did, key by key.
struct Adopted {  // NOLINT(bugprone-exception-escape): Json says that moving may throw; it does not
  Texts lines;
  Json json = Json::array();
  bool has_changed = false;

  void add(const Texts& more) { lines.insert(lines.end(), more.begin(), more.end()); }
};

void adopt_one(Change& change, Key key, const Reserved& reserved, Adopted& adopted) {
  const bool is_new = adopt(key, reserved.adopted);
  if (is_new) {
    change.update(key, "adopt");
    adopted.has_changed = true;
  }
  adopted.lines.push_back(is_new ? fmt::format("{} of {} has {} now", text_of(key.id), key.owner, scopes_text(key))
                                 : fmt::format("{} of {} has nothing to adopt", text_of(key.id), key.owner));
  adopted.add(lines_of_left(text_of(key.id), reserved.left));
  adopted.json.push_back(to_json(key));
}

Adopted adopt_keys(Registry& registry, Change& change, const AdoptOptions& options) {
  std::map<std::string, Texts> roles;
  for (const Role& role : registry.roles()) {
    roles[role.name] = role.scopes;
  }
  Adopted adopted;
  for (const std::string& id : sorted_once(options.ids)) {
    const Key key = require_key(registry, id);
    Reserved reserved;
    add_reserved(reserved, key.scopes, options.takes_all);
    for (const std::string& role : key.roles) {
      add_reserved(reserved, roles[role], options.takes_all);
    }
    adopt_one(change, key, reserved, adopted);
  }
  return adopted;
}

// The keys that have the role keep it; what it held moves to them.
Adopted adopt_role(Registry& registry, Change& change, const AdoptOptions& options) {
  Role role = require_role(registry, options.role);
  Reserved of_role;
  add_reserved(of_role, role.scopes, options.takes_all);
  Adopted adopted;
  if (of_role.adopted.empty()) {
    adopted.lines.push_back(fmt::format("role {} has nothing to adopt", role.name));
    adopted.add(lines_of_left("role " + role.name, of_role.left));
    return adopted;
  }
  std::erase_if(role.scopes, [&](const std::string& scope) { return contains(of_role.adopted, scope); });
  change.update(role, "adopt");
  adopted.has_changed = true;
  adopted.lines.push_back(fmt::format("role {} has {} no longer", role.name, fmt::join(of_role.adopted, " ")));
  adopted.add(lines_of_left("role " + role.name, of_role.left));
  std::vector<Key> keys;
  registry.each_key({.owner = {}, .env = {}, .role = role.name}, [&](const Key& key) {
    keys.push_back(key);
    return true;
  });
  for (const Key& key : keys) {
    Reserved reserved{.adopted = of_role.adopted, .left = {}};
    add_reserved(reserved, key.scopes, options.takes_all);
    adopt_one(change, key, reserved, adopted);
  }
  return adopted;
}

void adopt(const Session& session, const AdoptOptions& options) {
  check(options.delivery);
  if (options.ids.empty() == options.role.empty()) {
    throw UsageError("give either the ids of keys, key_…, or --role");
  }
  if (options.reason.empty()) {
    throw UsageError("say why with --reason: the audit keeps it");
  }
  check_reason(options.reason);
  require_key_ids(options.ids);
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  change->because(options.reason);
  const Adopted adopted =
      options.role.empty() ? adopt_keys(*registry, *change, options) : adopt_role(*registry, *change, options);
  const Outcome outcome = adopted.has_changed ? deliver(session, *registry, *change, options.delivery)
                                              : deliver_nothing(session, *registry, *change, options.delivery);
  report(session, fmt::format("{}", fmt::join(adopted.lines, "\n")),
         options.ids.size() == 1 ? adopted.json.front() : adopted.json, outcome);
}

void list(const Session& session) {
  const auto registry = session.open_registry();
  const SuspendedOwners suspended(*registry, wall_clock());
  Json json = Json::array();
  std::vector<Texts> rows;
  registry->each_key({}, [&](const Key& key) {
    if (!key.admin_scopes.empty()) {
      const std::string state{suspended.state_of(key)};
      json.push_back(to_json(key));
      json.back()["state"] = state;
      Texts words;
      std::transform(key.admin_scopes.begin(), key.admin_scopes.end(), std::back_inserter(words), admin_word);
      rows.push_back({text_of(key.id), key.owner, state, fmt::format("{}", fmt::join(words, " ")), may_grant_text(key),
                      teams_text(key), key.expires == 0 ? "never" : time_text(key.expires), key.name});
    }
    return true;
  });
  session.report_table({"ID", "OWNER", "STATE", "ROLES", "MAY GRANT", "TEAMS", "EXPIRES", "NAME"}, rows, json,
                       "no administrators' keys", kLeading);
}

void add_admin_create(Command& group, Session& session) {
  auto options = std::make_shared<AdminCreateOptions>();
  CreateOptions& create_options = options->create;
  KeyFields& fields = create_options.fields;
  Command make = group.add("create", "Issue an administrator's key, or a machine's, as `key create` does");
  add_create_options(make, create_options);
  make.words("--role", options->roles, "ROLE",
             "What it may do: view, support, issue, admin; portal, node, metrics (again for more)");
  make.words("--may-grant", options->may_grant, "SCOPE",
             "A scope that it may give to keys (again for more; admin without any: all)");
  make.words("--team", options->teams, "TEAM", "Only for owners of this team (again for more)");
  make.words("--meta", fields.meta, "NAME=VALUE", "A value for $apikey_meta_<name>");
  make.option("--name", fields.name, "NAME", "What it is for, for people");
  make.option("--ref", fields.ref, "REF", "Your own name or number for it, unique per owner");
  make.option("--expires", fields.expires, "WHEN", "90d, 24h, 2027-01-31, 2027-01-31T12:00:00Z, none");
  make.option("--not-before", fields.not_before, "WHEN", "Good from then on: a time, as with --expires");
  make.words("--allow-ip", fields.allow_ip, "CIDR", "Only from this network (again for more)");
  make.flag("--require-tls", fields.requires_tls, "Only over TLS");
  make.option("--reason", create_options.reason, "TEXT", "Kept in the audit");
  make.tries(create_options.delivery);
  make.delivers(create_options.delivery);
  make.footer(
      "The key is shown once; exit codes are those of `keyloader key create`. Its plan is default, its environment\n"
      "live. Its roles are the admin scopes apikey:view, apikey:support …. They are reserved: no other command gives\n"
      "them, and the scope * does not contain them.\n\n"
      "  install -m 600 /dev/null alice.key\n"
      "  keyloader admin create --owner alice --create-owner --role issue --may-grant 'orders:*' --expires 90d > "
      "alice.key");
  make.run([&session, options] { create(session, *options); });
}

}  // namespace

void add_admin_commands(Command& app, Session& session) {
  Command group = app.add_group("admin", "Administrators' keys: what may be done with keys");
  add_admin_create(group, session);

  auto options = std::make_shared<SetOptions>();
  Command edit = group.add("set", "Change what an administrator's key may do");
  edit.argument("ID", options->id, "The id of the key: key_…");
  edit.words("--role", options->roles, "ROLE", "All it may do from now on, or none (again for more)");
  edit.words("--add-role", options->added, "ROLE", "Also this (again for more)");
  edit.words("--remove-role", options->removed, "ROLE",
             "No longer this, also another apikey:… scope that it holds (again for more)");
  edit.words("--may-grant", options->may_grant, "SCOPE",
             "All that it may give to keys from now on, or none (again for more)");
  edit.words("--team", options->teams, "TEAM", "Only for owners of this team, or none for all (again for more)");
  edit.option("--reason", options->reason, "TEXT", "Kept in the audit");
  edit.tries(options->delivery);
  edit.delivers(options->delivery);
  edit.footer(
      "All else of the key is changed with `keyloader key set`.\n\n"
      "  keyloader admin set key_… --add-role support --remove-role issue\n"
      "  keyloader admin set key_… --role none");
  edit.run([&session, options] { set(session, *options); });

  Command all = group.add("list", "Administrators' keys, revoked ones too");
  all.footer("  keyloader admin list");
  all.read([&session] { list(session); });

  auto adoption = std::make_shared<AdoptOptions>();
  Command take = group.add("adopt", "Make admin scopes count that were given before they were reserved");
  take.arguments("ID", adoption->ids, "Ids of keys: key_…");
  take.option("--role", adoption->role, "ROLE", "Move those of this role to the keys that have it now");
  take.flag("--all", adoption->takes_all, "Also apikey:*, which is every admin scope");
  take.option("--reason", adoption->reason, "TEXT", "Kept in the audit; required");
  take.tries(adoption->delivery);
  take.delivers(adoption->delivery);
  take.footer(
      "`keyloader doctor` names the keys and roles that hold one. Of a key those move that it has itself or by roles.\n"
      "A scope that `admin create` does not know stays where it is, without effect; so does apikey:* without --all.\n\n"
      "  keyloader admin adopt key_… --reason 'she administers the shop'\n"
      "  keyloader admin adopt --role operators --reason 'all of them are administrators'");
  take.run([&session, adoption] { adopt(session, *adoption); });
}

}  // namespace keyloader
