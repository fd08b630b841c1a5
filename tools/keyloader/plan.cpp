// keyloader plan: named limits that keys refer to. The plan `default` is what a key has that names none.
#include <fmt/format.h>

#include "delivery.hpp"
#include "limit_rules.hpp"
#include "limits.hpp"
#include "names.hpp"
#include "session.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

struct PlanOptions {
  std::string name;
  LimitOptions limits;
  std::string reason;
  DeliveryOptions delivery;
};

std::string sentence(const Plan& plan, std::string_view did) {
  return fmt::format("{} plan {}: {}", did, plan.name, limits_text(plan.limits));
}

void create(const Session& session, const PlanOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  check_label("plan", options.name);
  Plan plan{.name = options.name, .limits = {}, .created = wall_clock()};
  apply_limits(plan.limits, options.limits, LimitHolder::plan);
  const auto registry = session.open_registry();
  Session::warn(check_limits(*registry, plan));
  const auto change = registry->begin_change();
  change->because(options.reason);
  if (const auto existing = registry->plan(options.name)) {
    if (existing->limits != plan.limits) {
      throw Failure(fmt::format("there is a plan \"{}\" already; `keyloader plan set` changes it", options.name));
    }
    report(session, fmt::format("plan {} exists already, just like this: {}", plan.name, limits_text(plan.limits)),
           to_json(*existing), deliver_nothing(session, *registry, *change, options.delivery));
    return;
  }
  change->create(plan);
  report(session, sentence(plan, "created"), to_json(plan), deliver(session, *registry, *change, options.delivery));
}

void set(const Session& session, const PlanOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  if (options.limits.names_nothing()) {
    throw UsageError(
        "nothing to set; give at least one of --rate, --burst, --quota, --rolling-quota, --concurrency … "
        "(`keyloader plan set --help`)");
  }
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  change->because(options.reason);
  Plan plan = require_plan(*registry, options.name);
  const Limits before = plan.limits;
  apply_limits(plan.limits, options.limits, LimitHolder::plan);
  Session::warn(check_limits(*registry, plan));
  if (plan.limits == before) {
    report(session, fmt::format("plan {} is so already: {}", plan.name, limits_text(plan.limits)), to_json(plan),
           deliver_nothing(session, *registry, *change, options.delivery));
    return;
  }
  change->update(plan, "set");
  report(session, sentence(plan, "updated"), to_json(plan), deliver(session, *registry, *change, options.delivery));
}

void remove(const Session& session, const PlanOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  change->because(options.reason);
  if (const Seconds deleted = registry->plan(options.name) ? 0 : registry->deleted(options.name, "plan.delete");
      deleted != 0) {
    report(session, fmt::format("plan {} was deleted already, at {}", options.name, time_text(deleted)),
           {{"name", options.name}, {"deleted", time_json(deleted)}},
           deliver_nothing(session, *registry, *change, options.delivery));
    return;
  }
  const Plan plan = require_plan(*registry, options.name);
  if (plan.name == kDefaultPlan) {
    throw Failure(
        "the plan default cannot be deleted: keys that name no plan have it. `keyloader plan set default` changes it");
  }
  std::uint64_t users = 0;
  registry->each_key({}, [&](const Key& key) {
    users += key.plan == plan.name ? 1U : 0U;
    return true;
  });
  if (users != 0) {
    throw Failure(fmt::format("{} key(s) have plan {}; give them another with `keyloader key set ID --plan …`", users,
                              plan.name));
  }
  change->remove(plan);
  report(session, fmt::format("deleted plan {}", plan.name), to_json(plan),
         deliver(session, *registry, *change, options.delivery));
}

void show(const Session& session, const std::string& name) {
  const Plan plan = require_plan(*session.open_registry(), name);
  session.report(fmt::format("name:    {}\nlimits:  {}\ncreated: {}", plan.name, limits_text(plan.limits),
                             time_text(plan.created)),
                 to_json(plan));
}

void list(const Session& session) {
  Json json = Json::array();
  std::vector<Texts> rows;
  for (const Plan& plan : session.open_registry()->plans()) {
    json.push_back(to_json(plan));
    rows.push_back({plan.name, limits_text(plan.limits)});
  }
  session.report_table({"PLAN", "LIMITS"}, rows, json, "no plans");
}

void add_fields(Command& command, PlanOptions& options, bool is_new) {
  command.argument("NAME", options.name, "The plan");
  add_limit_options(command, options.limits, LimitHolder::plan);
  if (!is_new) {
    add_enforce_option(command, options.limits);
  }
  command.option("--reason", options.reason, "TEXT", "Kept in the audit");
  command.delivers(options.delivery);
}

}  // namespace

void add_plan_commands(Command& app, Session& session) {
  Command group = app.add_group("plan", "Named limits that keys refer to");
  auto options = std::make_shared<PlanOptions>();

  Command make = group.add("create", "Make a plan");
  add_fields(make, *options, true);
  make.tries(options->delivery);
  make.footer(
      "All limits of a plan hold together, for each family of keys. What is not named is not limited.\n\n"
      "  keyloader plan create gold --rate 100/s --burst 200 --quota 1000000/month --concurrency 20\n"
      "  keyloader plan create chat --rate 60/m --rate tokens=90000/m --quota tokens.month=2000000/month");
  make.run([&session, options] { create(session, *options); });

  Command change = group.add("set", "Change a plan; keys that have it follow at once, buckets keep their level");
  add_fields(change, *options, false);
  change.tries(options->delivery);
  change.footer(
      "A limit that is not named stays; `none` removes one. What was used of a quota stays used.\n\n"
      "  keyloader plan set gold --rate 200/s\n"
      "  keyloader plan set gold --quota month=none --quota 50000/day --dry-run-limit day");
  change.run([&session, options] { set(session, *options); });

  Command one = group.add("show", "Everything about one plan");
  one.argument("NAME", options->name, "The plan");
  one.footer("  keyloader plan show gold --json");
  one.read([&session, options] { show(session, options->name); });

  Command all = group.add("list", "All plans");
  all.footer("  keyloader plan list");
  all.read([&session] { list(session); });

  Command away = group.add("delete", "Remove a plan that no key has");
  away.argument("NAME", options->name, "The plan");
  away.option("--reason", options->reason, "TEXT", "Kept in the audit");
  away.tries(options->delivery);
  away.delivers(options->delivery);
  away.footer("  keyloader plan delete gold");
  away.run([&session, options] { remove(session, *options); });
}

}  // namespace keyloader
