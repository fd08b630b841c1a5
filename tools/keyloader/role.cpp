// keyloader role: named sets of scopes. A key that has a role holds its scopes, also those it gets later.
#include <fmt/format.h>

#include "session.hpp"
#include "table.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

struct RoleOptions {
  std::string name;
  Texts scopes;
  bool is_quiet = false;
};

Role require_role(Registry& registry, const std::string& name) {
  auto role = registry.role(name);
  if (!role) {
    throw Failure(fmt::format("there is no role \"{}\"; `keyloader role list` shows them all", name));
  }
  return *role;
}

std::string sentence(const Role& role, std::string_view done) {
  return fmt::format("role {} is {}: {}", role.name, done,
                     role.scopes.empty() ? "no scope" : fmt::format("{}", fmt::join(role.scopes, " ")));
}

void create(const Session& session, const RoleOptions& options) {
  check_label("role", options.name);
  const Role role{.name = options.name, .scopes = tidy_scopes(options.scopes), .created = wall_clock()};
  const auto registry = session.dir().open_registry();
  const auto change = registry->begin_change();
  if (registry->role(options.name)) {
    throw Failure(fmt::format("there is a role \"{}\" already; `keyloader role set` changes it", options.name));
  }
  change->create(role);
  finish_change(session, *registry, *change, options.is_quiet);
  session.report(sentence(role, "made"), to_json(role));
}

void set(const Session& session, const RoleOptions& options) {
  const auto registry = session.dir().open_registry();
  const auto change = registry->begin_change();
  Role role = require_role(*registry, options.name);
  if (!options.scopes.empty()) {
    role.scopes = clears("scopes", options.scopes) ? Texts{} : tidy_scopes(options.scopes);
  }
  change->update(role, "set");
  finish_change(session, *registry, *change, options.is_quiet);
  session.report(sentence(role, "changed"), to_json(role));
}

void remove(const Session& session, const RoleOptions& options) {
  const auto registry = session.dir().open_registry();
  const auto change = registry->begin_change();
  const Role role = require_role(*registry, options.name);
  std::uint64_t users = 0;
  registry->each_key({.owner = {}, .env = {}, .role = role.name}, [&](const Key&) {
    ++users;
    return true;
  });
  if (users != 0) {
    throw Failure(
        fmt::format("{} key(s) have role {}; `keyloader key list --role {}` names them", users, role.name, role.name));
  }
  change->remove(role);
  finish_change(session, *registry, *change, options.is_quiet);
  session.report(fmt::format("role {} is deleted", role.name), to_json(role));
}

void list(const Session& session) {
  Json json = Json::array();
  std::vector<Texts> rows;
  for (const Role& role : session.dir().open_registry()->roles()) {
    json.push_back(to_json(role));
    rows.push_back({role.name, fmt::format("{}", fmt::join(role.scopes, " "))});
  }
  session.report(table_text({"ROLE", "SCOPES"}, rows), json);
}

void add_fields(Command& command, RoleOptions& options) {
  command.argument("NAME", options.name, "The role");
  command.words("--scope", options.scopes, "SCOPE", "A scope it grants (again for more)");
  command.no_publish(options.is_quiet);
}

}  // namespace

void add_role_commands(Command& app, Session& session) {
  Command group = app.add_group("role", "Named sets of scopes");
  auto options = std::make_shared<RoleOptions>();

  Command make = group.add("create", "Make a role");
  add_fields(make, *options);
  make.footer("  keyloader role create clerk --scope orders:read --scope orders:write");
  make.run([&session, options] { create(session, *options); });

  Command change = group.add("set", "Give a role another set of scopes; its keys follow at once");
  add_fields(change, *options);
  change.footer(
      "The scopes named replace those it had; `--scope none` takes all away.\n\n"
      "  keyloader role set clerk --scope 'orders:*'");
  change.run([&session, options] { set(session, *options); });

  Command all = group.add("list", "All roles");
  all.footer("  keyloader role list");
  all.run([&session] { list(session); });

  Command away = group.add("delete", "Remove a role that no key has");
  away.argument("NAME", options->name, "The role");
  away.no_publish(options->is_quiet);
  away.footer("  keyloader role delete clerk");
  away.run([&session, options] { remove(session, *options); });
}

}  // namespace keyloader
