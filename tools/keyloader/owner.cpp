// keyloader owner: whoever keys belong to. Suspending an owner stops all of its keys at once.
#include "owner.hpp"

#include <fmt/format.h>

#include <functional>

#include "delivery.hpp"
#include "hint.hpp"
#include "limit_rules.hpp"
#include "limit_text.hpp"
#include "limits.hpp"
#include "listing.hpp"
#include "names.hpp"
#include "quota_use.hpp"
#include "secret.hpp"
#include "session.hpp"
#include "terminal.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

struct OwnerOptions {
  std::string name;
  std::optional<std::string> email;
  std::optional<std::string> team;
  Texts meta;
  LimitOptions limits;
  std::string duration;
  std::string reason;
  bool is_sure = false;
  DeliveryOptions delivery;
};

void set_text(std::string& field, const std::optional<std::string>& value, std::string_view what) {
  if (!value) {
    return;
  }
  if (is_none(*value)) {
    field.clear();
    return;
  }
  check_text(what, *value);
  field = *value;
}

// Whether there is somebody at some place; who that is, the mail decides.
bool is_email(std::string_view text) {
  const std::size_t at = text.find('@');
  return at != std::string_view::npos && at != 0 && at + 1 < text.size() &&
         text.find('@', at + 1) == std::string_view::npos && text.find(' ') == std::string_view::npos;
}

void apply(const OwnerOptions& options, Owner& owner) {
  if (options.email && !is_none(*options.email) && !is_email(*options.email)) {
    throw UsageError(
        fmt::format("\"{}\" is no e-mail address; write one like ops@acme.example, or `none`", *options.email));
  }
  set_text(owner.email, options.email, "e-mail address");
  set_text(owner.team, options.team, "team");
  apply_meta(owner.meta, options.meta);
  apply_limits(owner.limits, options.limits, LimitHolder::owner);
  Session::warn(check_limits(owner));
}

bool names_nothing(const OwnerOptions& options) {
  return !options.email && !options.team && options.meta.empty() && options.limits.names_nothing();
}

// The same but for what the registry alone decides.
bool is_same(const Owner& a, Owner b) {
  b.id = a.id;
  b.created = a.created;
  return to_json(a) == to_json(b);
}

void create(const Session& session, const OwnerOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  const auto registry = session.open_registry();
  Owner owner = new_owner(options.name);
  apply(options, owner);
  const auto change = registry->begin_change();
  change->because(options.reason);
  if (const auto existing = registry->owner(options.name)) {
    if (!is_same(*existing, owner)) {
      throw Failure(fmt::format("there is an owner \"{}\" already; `keyloader owner set` changes it", options.name));
    }
    report(session, fmt::format("owner {} exists already, just like this", owner.name), to_json(*existing),
           deliver_nothing(session, *registry, *change, options.delivery));
    return;
  }
  change->create(owner);
  report(session, fmt::format("created owner {}", owner.name), to_json(owner),
         deliver(session, *registry, *change, options.delivery));
}

// Before the registry is locked, as whoever is asked may take his time.
void ask(Registry& registry, const OwnerOptions& options, std::string_view action) {
  const auto owner = registry.owner(options.name);
  if (!owner || options.is_sure || options.delivery.is_dry_run) {
    return;
  }
  const std::uint64_t keys = registry.key_count_of(*owner);
  confirm(fmt::format("{} owner {} ({} {})?", action, owner->name, keys, keys == 1 ? "key" : "keys"), false);
}

// set, suspend, resume: the same but for what they do to the owner, and what they say when that is so already.
struct Update {
  std::string_view action;
  std::string_view did;
  std::string_view is_already;
  Effect effect = Effect::any;
};

void update(const Session& session, const OwnerOptions& options, const Update& what,
            const std::function<void(Owner&)>& edit) {
  check(options.delivery);
  check_reason(options.reason);
  const auto registry = session.open_registry();
  if (what.effect == Effect::restricts) {
    ask(*registry, options, what.action);
  }
  const auto change = registry->begin_change();
  change->because(options.reason);
  Owner owner = require_owner(*registry, options.name);
  const Json before = to_json(owner);
  edit(owner);
  if (to_json(owner) == before) {
    report(session, fmt::format("owner {} {}", owner.name, what.is_already), before,
           deliver_nothing(session, *registry, *change, options.delivery, what.effect));
    return;
  }
  change->update(owner, what.action);
  report(session, fmt::format("{} owner {}", what.did, owner.name), to_json(owner),
         deliver(session, *registry, *change, options.delivery, what.effect));
}

void remove(const Session& session, const OwnerOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  const auto registry = session.open_registry();
  ask(*registry, options, "delete");
  const auto change = registry->begin_change();
  change->because(options.reason);
  if (const Seconds deleted = registry->owner(options.name) ? 0 : registry->deleted(options.name, "owner.delete");
      deleted != 0) {
    report(session, fmt::format("owner {} was deleted already, at {}", options.name, time_text(deleted)),
           {{"name", options.name}, {"deleted", time_json(deleted)}},
           deliver_nothing(session, *registry, *change, options.delivery, Effect::restricts));
    return;
  }
  const Owner owner = require_owner(*registry, options.name);
  const std::uint64_t keys = registry->key_count_of(owner);
  if (keys != 0) {
    throw Failure(fmt::format(
        "{} still has {} key(s); `keyloader key revoke --owner {}` stops them, `keyloader key delete` removes "
        "them",
        owner.name, keys, shell_word(owner.name)));
  }
  change->remove(owner);
  report(session, fmt::format("deleted owner {}", owner.name), to_json(owner),
         deliver(session, *registry, *change, options.delivery, Effect::restricts));
}

std::string suspension_text(const Owner& owner) {
  if (!is_suspended(owner, wall_clock())) {
    return "no";
  }
  return owner.suspended_until == 0 ? "until resumed" : "until " + time_text(owner.suspended_until);
}

void show(const Session& session, const std::string& name) {
  const auto registry = session.open_registry();
  const Owner owner = require_owner(*registry, name);
  const std::uint64_t keys = registry->key_count_of(owner);
  const Adjustments adjustments = registry->adjustments(owner);
  const QuotaMeter meter(session);
  Json json = to_json(owner);
  json["keys"] = keys;
  json["quotas"] = Json::array();
  std::string quotas;
  for (const Limit& limit : owner.limits) {
    if (is_quota(limit)) {
      const Adjustment adjustment = adjustment_of(adjustments, limit.name, wall_clock());
      const auto use = meter.read(limit, adjustment, owner.id);
      Json quota = to_json(limit);
      quota["amount_now"] = limit.amount + adjustment.granted;
      quota.update(to_json(use));
      json["quotas"].push_back(std::move(quota));
      quotas += use ? fmt::format("\n           {}: {}", limit.name, use_text(*use)) : "";
    }
  }
  std::string meta;
  for (const auto& [key, value] : owner.meta) {
    meta += fmt::format("{}{}={}", meta.empty() ? "" : " ", key, value);
  }
  session.report(
      fmt::format("name:      {}\nid:        {}\nemail:     {}\nteam:      {}\nlimits:    {}{}\nsuspended: {}\n"
                  "meta:      {}\nkeys:      {}\ncreated:   {}",
                  owner.name, hex(owner.id), cell_text(owner.email), cell_text(owner.team), limits_text(owner.limits),
                  quotas, suspension_text(owner), cell_text(meta), keys, time_text(owner.created)),
      json);
}

void list(const Session& session) {
  const auto registry = session.open_registry();
  Json json = Json::array();
  std::vector<Texts> rows;
  for (const Owner& owner : registry->owners()) {
    const std::uint64_t keys = registry->key_count_of(owner);
    json.push_back(to_json(owner));
    json.back()["keys"] = keys;
    rows.push_back({owner.name, owner.team, owner.email, std::to_string(keys), suspension_text(owner)});
  }
  session.report_table({"OWNER", "TEAM", "EMAIL", "KEYS", "SUSPENDED"}, rows, json, "no owners");
}

void add_fields(Command& command, OwnerOptions& options, bool is_new) {
  command.argument("NAME", options.name, "The owner");
  command.option("--email", options.email, "ADDRESS", "Whom to write to");
  command.option("--team", options.team, "TEAM", "Who answers for it");
  command.words("--meta", options.meta, "NAME=VALUE",
                is_new ? "A value for $apikey_meta_<name>" : "A value for $apikey_meta_<name>; name= removes it");
  add_limit_options(command, options.limits, LimitHolder::owner);
  if (!is_new) {
    add_enforce_option(command, options.limits);
  }
  command.option("--reason", options.reason, "TEXT", "Kept in the audit");
  command.delivers(options.delivery);
}

Command add_named(Command& group, const std::string& name, const std::string& help, OwnerOptions& options) {
  Command command = group.add(name, help);
  command.argument("NAME", options.name, "The owner");
  return command;
}

void add_changes(Command& group, Session& session) {
  auto options = std::make_shared<OwnerOptions>();
  Command make = group.add("create", "Make an owner");
  add_fields(make, *options, true);
  make.tries(options->delivery);
  make.footer("  keyloader owner create acme --email ops@acme.example --team billing --meta crm=4711");
  make.run([&session, options] { create(session, *options); });

  Command set = group.add("set", "Change what is named; `none` clears, what is not named stays");
  add_fields(set, *options, false);
  set.tries(options->delivery);
  set.footer(
      "Limits of an owner are shared by all its keys, on top of what their plans say. Without a name they are called\n"
      "owner, owner.day …, owner.concurrency.\n\n"
      "  keyloader owner set acme --team payments\n"
      "  keyloader owner set acme --email none --rate 500/s --quota 5000000/month");
  set.run([&session, options] {
    if (names_nothing(*options)) {
      throw UsageError(
          "nothing to set; give at least one of --email, --team, --meta, --rate, --quota … "
          "(`keyloader owner set --help`)");
    }
    update(session, *options, {.action = "set", .did = "updated", .is_already = "is so already"},
           [&](Owner& owner) { apply(*options, owner); });
  });

  Command suspend = add_named(group, "suspend", "Stop all keys of an owner for a while", *options);
  suspend.option("--for", options->duration, "DURATION", "How long: 15m, 24h (default: until resumed)");
  suspend.option("--reason", options->reason, "TEXT", "Kept in the audit");
  suspend.flag("--yes", options->is_sure, "Do not ask, on a terminal");
  suspend.tries(options->delivery);
  suspend.delivers(options->delivery);
  suspend.footer("  keyloader owner suspend acme --for 24h");
  suspend.run([&session, options] {
    const Seconds until = options->duration.empty() ? 0 : wall_clock() + parse_duration(options->duration);
    const Update what{.action = "suspend",
                      .did = "suspended",
                      .is_already = "is suspended already, for as long or longer",
                      .effect = Effect::restricts};
    update(session, *options, what, [&](Owner& owner) {
      if (!owner.is_suspended || !lasts_as_long(owner.suspended_until, until)) {
        owner.is_suspended = true;
        owner.suspended_until = until;
      }
    });
  });

  Command resume = add_named(group, "resume", "Let the keys of an owner in again", *options);
  resume.option("--reason", options->reason, "TEXT", "Kept in the audit");
  resume.tries(options->delivery);
  resume.delivers(options->delivery);
  resume.footer("  keyloader owner resume acme");
  resume.run([&session, options] {
    update(session, *options, {.action = "resume", .did = "resumed", .is_already = "is not suspended"},
           [](Owner& owner) {
             owner.is_suspended = false;
             owner.suspended_until = 0;
           });
  });

  Command away = add_named(group, "delete", "Remove an owner that has no keys left", *options);
  away.option("--reason", options->reason, "TEXT", "Kept in the audit");
  away.flag("--yes", options->is_sure, "Do not ask, on a terminal");
  away.tries(options->delivery);
  away.delivers(options->delivery);
  away.footer("  keyloader owner delete acme");
  away.run([&session, options] { remove(session, *options); });

  add_owner_erase(group, session);
}

}  // namespace

Owner new_owner(const std::string& name) {
  check_text("name of an owner", name);
  Owner owner;
  owner.name = name;
  owner.created = wall_clock();
  fill_random(owner.id);
  return owner;
}

void add_owner_commands(Command& app, Session& session) {
  Command group = app.add_group("owner", "Whoever keys belong to");
  add_changes(group, session);
  auto options = std::make_shared<OwnerOptions>();
  Command one = add_named(group, "show", "Everything about one owner", *options);
  one.footer("  keyloader owner show acme --json");
  one.read([&session, options] { show(session, options->name); });
  Command all = group.add("list", "All owners");
  all.footer("  keyloader owner list");
  all.read([&session] { list(session); });
}

}  // namespace keyloader
