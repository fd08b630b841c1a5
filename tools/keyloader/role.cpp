// keyloader role: named sets of scopes. A key that has a role holds its scopes, also those it gets later.
#include <fmt/format.h>

#include "admin_roles.hpp"
#include "delivery.hpp"
#include "names.hpp"
#include "session.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

struct RoleOptions {
  std::string name;
  Texts scopes;
  std::string reason;
  DeliveryOptions delivery;
};

std::string scopes_text(const Role& role) {
  return role.scopes.empty() ? "no scope" : fmt::format("{}", fmt::join(role.scopes, " "));
}

std::string sentence(const Role& role, std::string_view did) {
  return fmt::format("{} role {}: {}", did, role.name, scopes_text(role));
}

void create(const Session& session, const RoleOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  check_label("role", options.name);
  const Role role{.name = options.name, .scopes = tidy_scopes(options.scopes), .created = wall_clock()};
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  change->because(options.reason);
  if (const auto existing = registry->role(options.name)) {
    if (existing->scopes != role.scopes) {
      throw Failure(fmt::format("there is a role \"{}\" already; `keyloader role set` changes it", options.name));
    }
    report(session, fmt::format("role {} exists already, just like this: {}", role.name, scopes_text(role)),
           to_json(*existing), deliver_nothing(session, *registry, *change, options.delivery));
    return;
  }
  if (is_admin_role(role.name)) {
    throw UsageError(
        fmt::format("\"{}\" is a role of administrators' keys (`keyloader admin`), so a role of the registry needs "
                    "another name, such as shop-{}",
                    role.name, role.name));
  }
  change->create(role);
  report(session, sentence(role, "created"), to_json(role), deliver(session, *registry, *change, options.delivery));
}

void set(const Session& session, const RoleOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  if (options.scopes.empty()) {
    throw UsageError("nothing to set; give at least one --scope, or --scope none");
  }
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  change->because(options.reason);
  Role role = require_role(*registry, options.name);
  const Texts before = role.scopes;
  if (!options.scopes.empty()) {
    role.scopes = clears("scopes", options.scopes) ? Texts{} : tidy_scopes(options.scopes);
  }
  if (role.scopes == before) {
    report(session, fmt::format("role {} is so already: {}", role.name, scopes_text(role)), to_json(role),
           deliver_nothing(session, *registry, *change, options.delivery));
    return;
  }
  change->update(role, "set");
  report(session, sentence(role, "updated"), to_json(role), deliver(session, *registry, *change, options.delivery));
}

void remove(const Session& session, const RoleOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  change->because(options.reason);
  if (const Seconds deleted = registry->role(options.name) ? 0 : registry->deleted(options.name, "role.delete");
      deleted != 0) {
    report(session, fmt::format("role {} was deleted already, at {}", options.name, time_text(deleted)),
           {{"name", options.name}, {"deleted", time_json(deleted)}},
           deliver_nothing(session, *registry, *change, options.delivery));
    return;
  }
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
  report(session, fmt::format("deleted role {}", role.name), to_json(role),
         deliver(session, *registry, *change, options.delivery));
}

void list(const Session& session) {
  Json json = Json::array();
  std::vector<Texts> rows;
  for (const Role& role : session.open_registry()->roles()) {
    json.push_back(to_json(role));
    rows.push_back({role.name, fmt::format("{}", fmt::join(role.scopes, " "))});
  }
  session.report_table({"ROLE", "SCOPES"}, rows, json, "no roles");
}

void add_fields(Command& command, RoleOptions& options) {
  command.argument("NAME", options.name, "The role");
  command.words("--scope", options.scopes, "SCOPE", "A scope it grants (again for more)");
  command.option("--reason", options.reason, "TEXT", "Kept in the audit");
  command.delivers(options.delivery);
}

}  // namespace

void add_role_commands(Command& app, Session& session) {
  Command group = app.add_group("role", "Named sets of scopes");
  auto options = std::make_shared<RoleOptions>();

  Command make = group.add("create", "Make a role");
  add_fields(make, *options);
  make.tries(options->delivery);
  make.footer("  keyloader role create clerk --scope orders:read --scope orders:write");
  make.run([&session, options] { create(session, *options); });

  Command change = group.add("set", "Give a role another set of scopes; its keys follow at once");
  add_fields(change, *options);
  change.tries(options->delivery);
  change.footer(
      "The scopes named replace those it had; `--scope none` takes all away.\n\n"
      "  keyloader role set clerk --scope 'orders:*'");
  change.run([&session, options] { set(session, *options); });

  Command all = group.add("list", "All roles");
  all.footer("  keyloader role list");
  all.read([&session] { list(session); });

  Command away = group.add("delete", "Remove a role that no key has");
  away.argument("NAME", options->name, "The role");
  away.option("--reason", options->reason, "TEXT", "Kept in the audit");
  away.tries(options->delivery);
  away.delivers(options->delivery);
  away.footer("  keyloader role delete clerk");
  away.run([&session, options] { remove(session, *options); });
}

}  // namespace keyloader
