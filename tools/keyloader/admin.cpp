// keyloader admin: the keys that may do something with keys. Their scopes begin with `apikey:` and are reserved.
// INVARIANT: nothing else writes Key::admin_scopes, and no scope that begins with `apikey:` counts elsewhere.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "apikey/scope_set.hpp"
#include "delivery.hpp"
#include "key.hpp"
#include "key_create.hpp"
#include "names.hpp"
#include "nearest.hpp"

namespace keyloader {
namespace {

constexpr std::string_view kStem = "apikey:";
constexpr std::array<std::string_view, 7> kRoles{"view", "support", "issue", "admin", "portal", "node", "metrics"};

struct AdminCreateOptions {
  Texts roles;
  CreateOptions create;
};

struct SetOptions {
  std::string id;
  Texts roles;
  Texts added;
  Texts removed;
  std::string reason;
  DeliveryOptions delivery;
};

struct AdoptOptions {
  Texts ids;
  std::string role;
  std::string reason;
  DeliveryOptions delivery;
};

// The scope that a word means; `apikey:view` is as good as `view`.
std::string scope_of(const std::string& word) {
  const std::string name = word.starts_with(kStem) ? word.substr(kStem.size()) : word;
  if (std::find(kRoles.begin(), kRoles.end(), name) == kRoles.end()) {
    throw UsageError(fmt::format("there is no role \"{}\" of administrators; {}there are {}", word,
                                 did_you_mean(name, Texts(kRoles.begin(), kRoles.end())), fmt::join(kRoles, ", ")));
  }
  return std::string{kStem} + name;
}

Texts scopes_of(const Texts& words) {
  Texts scopes;
  std::transform(words.begin(), words.end(), std::back_inserter(scopes), scope_of);
  return sorted_once(std::move(scopes));
}

std::string scopes_text(const Key& key) {
  return key.admin_scopes.empty() ? "no reserved scope" : fmt::format("{}", fmt::join(key.admin_scopes, " "));
}

void create(const Session& session, const AdminCreateOptions& options) {
  CreateOptions all = options.create;
  if (options.roles.empty()) {
    throw UsageError(fmt::format("what may it do? give at least one --role: {}", fmt::join(kRoles, ", ")));
  }
  all.admin_scopes = scopes_of(options.roles);
  create_key(session, all);
}

// A scope that the key holds can be taken away even if it is none of ours, as after an adoption.
void take_away(Texts& scopes, const Texts& words) {
  for (const std::string& word : words) {
    const std::string full = word.starts_with(kStem) ? word : std::string{kStem} + word;
    const bool is_held = std::find(scopes.begin(), scopes.end(), full) != scopes.end();
    std::erase(scopes, is_held ? full : scope_of(word));
  }
}

void set(const Session& session, const SetOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  const bool edits = !options.added.empty() || !options.removed.empty();
  if (options.roles.empty() != edits) {
    throw UsageError("give either --role, for all it is to have, or --add-role and --remove-role");
  }
  const auto registry = session.dir().open_registry();
  const auto change = registry->begin_change();
  change->because(options.reason);
  Key key = require_key(*registry, options.id);
  const Texts before = key.admin_scopes;
  if (!options.roles.empty()) {
    key.admin_scopes = clears("roles", options.roles) ? Texts{} : scopes_of(options.roles);
  }
  take_away(key.admin_scopes, options.removed);
  const Texts added = scopes_of(options.added);
  key.admin_scopes.insert(key.admin_scopes.end(), added.begin(), added.end());
  key.admin_scopes = sorted_once(std::move(key.admin_scopes));
  if (key.admin_scopes == before) {
    report(session, fmt::format("{} of {} is so already: {}", text_of(key.id), key.owner, scopes_text(key)),
           to_json(key), deliver_nothing(session, *registry, *change, options.delivery));
    return;
  }
  if (key.revoked != 0) {
    Session::warn(fmt::format("{} is revoked, and stays refused whatever is set", text_of(key.id)));
  }
  change->update(key, "admin");
  report(session, fmt::format("updated {} of {}: {}", text_of(key.id), key.owner, scopes_text(key)), to_json(key),
         deliver(session, *registry, *change, options.delivery));
}

Texts reserved_of(const Texts& scopes) {
  Texts reserved;
  std::copy_if(scopes.begin(), scopes.end(), std::back_inserter(reserved), apikey::is_reserved_scope);
  return reserved;
}

// RETURNS: whether there was anything that did not count yet.
bool adopt(Key& key, const Texts& reserved) {
  const Texts before = key.admin_scopes;
  key.admin_scopes.insert(key.admin_scopes.end(), reserved.begin(), reserved.end());
  key.admin_scopes = sorted_once(std::move(key.admin_scopes));
  return std::erase_if(key.scopes, apikey::is_reserved_scope) != 0 || key.admin_scopes != before;
}

// What an adoption did, key by key.
struct Adopted {  // NOLINT(bugprone-exception-escape): Json says that moving may throw; it does not
  Texts lines;
  Json json = Json::array();
  bool has_changed = false;
};

void adopt_one(Change& change, Key key, const Texts& reserved, Adopted& adopted) {
  const bool is_new = adopt(key, reserved);
  if (is_new) {
    change.update(key, "adopt");
    adopted.has_changed = true;
  }
  adopted.lines.push_back(is_new ? fmt::format("{} of {} has {} now", text_of(key.id), key.owner, scopes_text(key))
                                 : fmt::format("{} of {} has nothing to adopt", text_of(key.id), key.owner));
  adopted.json.push_back(to_json(key));
}

Adopted adopt_keys(Registry& registry, Change& change, const Texts& ids) {
  std::map<std::string, Texts> roles;
  for (const Role& role : registry.roles()) {
    roles[role.name] = reserved_of(role.scopes);
  }
  Adopted adopted;
  for (const std::string& id : sorted_once(ids)) {
    const Key key = require_key(registry, id);
    Texts reserved = reserved_of(key.scopes);
    for (const std::string& role : key.roles) {
      reserved.insert(reserved.end(), roles[role].begin(), roles[role].end());
    }
    adopt_one(change, key, reserved, adopted);
  }
  return adopted;
}

// The keys that have the role keep it; what it held moves to them.
Adopted adopt_role(Registry& registry, Change& change, const std::string& name) {
  Role role = require_role(registry, name);
  const Texts reserved = reserved_of(role.scopes);
  Adopted adopted;
  if (reserved.empty()) {
    adopted.lines.push_back(fmt::format("role {} has nothing to adopt", name));
    return adopted;
  }
  std::erase_if(role.scopes, apikey::is_reserved_scope);
  change.update(role, "adopt");
  adopted.has_changed = true;
  adopted.lines.push_back(fmt::format("role {} has {} no longer", name, fmt::join(reserved, " ")));
  std::vector<Key> keys;
  registry.each_key({.owner = {}, .env = {}, .role = name}, [&](const Key& key) {
    keys.push_back(key);
    return true;
  });
  for (const Key& key : keys) {
    Texts all = reserved_of(key.scopes);
    all.insert(all.end(), reserved.begin(), reserved.end());
    adopt_one(change, key, all, adopted);
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
  const auto registry = session.dir().open_registry();
  const auto change = registry->begin_change();
  change->because(options.reason);
  const Adopted adopted =
      options.role.empty() ? adopt_keys(*registry, *change, options.ids) : adopt_role(*registry, *change, options.role);
  const Outcome outcome = adopted.has_changed ? deliver(session, *registry, *change, options.delivery)
                                              : deliver_nothing(session, *registry, *change, options.delivery);
  report(session, fmt::format("{}", fmt::join(adopted.lines, "\n")),
         options.ids.size() == 1 ? adopted.json.front() : adopted.json, outcome);
}

void list(const Session& session) {
  const auto registry = session.dir().open_registry();
  const SuspendedOwners suspended(*registry, wall_clock());
  Json json = Json::array();
  std::vector<Texts> rows;
  registry->each_key({}, [&](const Key& key) {
    if (!key.admin_scopes.empty()) {
      const std::string state{suspended.state_of(key)};
      json.push_back(to_json(key));
      json.back()["state"] = state;
      rows.push_back({text_of(key.id), key.owner, state, key.expires == 0 ? "never" : time_text(key.expires),
                      scopes_text(key), key.name});
    }
    return true;
  });
  session.report_table({"ID", "OWNER", "STATE", "EXPIRES", "ADMIN SCOPES", "NAME"}, rows, json,
                       "no key has a reserved scope");
}

void add_admin_create(Command& group, Session& session) {
  auto options = std::make_shared<AdminCreateOptions>();
  CreateOptions& create_options = options->create;
  KeyFields& fields = create_options.fields;
  Command make = group.add("create", "Issue a key for an administrator or a machine, as `key create` does");
  add_create_options(make, create_options);
  make.words("--role", options->roles, "ROLE",
             "What it may do: view, support, issue, admin; portal, node, metrics (again for more)");
  make.option("--name", fields.name, "NAME", "What it is for, for people");
  make.option("--ref", fields.ref, "REF", "What your systems call it");
  make.option("--expires", fields.expires, "WHEN", "90d, 24h, 2027-01-31, 2027-01-31T12:00:00Z, none");
  make.option("--not-before", fields.not_before, "WHEN", "Good from then on: a time, as with --expires");
  make.words("--allow-ip", fields.allow_ip, "CIDR", "Only from this network (again for more)");
  make.flag("--require-tls", fields.requires_tls, "Only over TLS");
  make.option("--reason", create_options.reason, "TEXT", "Kept in the audit");
  make.tries(create_options.delivery);
  make.delivers(create_options.delivery);
  make.footer(
      "The key is shown once; exit codes are those of `keyloader key create`. Its roles are the scopes apikey:view …,\n"
      "which no wildcard but apikey:* contains, and which no other command gives.\n\n"
      "  keyloader admin create --owner alice --create-owner --role issue --expires 90d --allow-ip 10.0.0.0/8");
  make.run([&session, options] { create(session, *options); });
}

}  // namespace

void add_admin_commands(Command& app, Session& session) {
  Command group = app.add_group("admin", "Keys that may do something with keys");
  add_admin_create(group, session);

  auto options = std::make_shared<SetOptions>();
  Command edit = group.add("set", "Change what an administrator's key may do");
  edit.argument("ID", options->id, "The id of the key: key_…");
  edit.words("--role", options->roles, "ROLE", "All it may do from now on; none (again for more)");
  edit.words("--add-role", options->added, "ROLE", "Also this (again for more)");
  edit.words("--remove-role", options->removed, "ROLE", "No longer this (again for more)");
  edit.option("--reason", options->reason, "TEXT", "Kept in the audit");
  edit.tries(options->delivery);
  edit.delivers(options->delivery);
  edit.footer(
      "All else of the key is changed with `keyloader key set`.\n\n"
      "  keyloader admin set key_… --add-role support --remove-role issue\n"
      "  keyloader admin set key_… --role none");
  edit.run([&session, options] { set(session, *options); });

  Command all = group.add("list", "The keys that have a reserved scope");
  all.footer("  keyloader admin list");
  all.read([&session] { list(session); });

  auto adoption = std::make_shared<AdoptOptions>();
  Command take = group.add("adopt", "Let reserved scopes count that were given before they were reserved");
  take.arguments("ID", adoption->ids, "Ids of keys: key_…");
  take.option("--role", adoption->role, "ROLE", "Move those of this role to the keys that have it now");
  take.option("--reason", adoption->reason, "TEXT", "Kept in the audit; required");
  take.tries(adoption->delivery);
  take.delivers(adoption->delivery);
  take.footer(
      "`keyloader doctor` names the keys and roles that hold one. Of a key those move that it has itself or by "
      "roles.\n\n"
      "  keyloader admin adopt key_… --reason 'she administers the shop'\n"
      "  keyloader admin adopt --role operators --reason 'all of them are administrators'");
  take.run([&session, adoption] { adopt(session, *adoption); });
}

}  // namespace keyloader
