// keyloader policy: what a registry asks of changes, and what somebody may do by it.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "approvers.hpp"
#include "broken_glass.hpp"
#include "delivery.hpp"
#include "key.hpp"
#include "key_fields.hpp"
#include "names.hpp"
#include "nearest.hpp"
#include "policy_actions.hpp"
#include "registry/policy.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

struct SetOptions {
  Texts required_meta;
  Texts key_names;
  Texts owner_names;
  Texts approve_scopes;
  Texts approve_actions;
  std::string reason;
  DeliveryOptions delivery;
};

struct TestOptions {
  std::string as;
  std::string owner;
  std::string name;
  Texts scopes;
  Texts roles;
  Texts meta;
};

std::string list_text(const Texts& words) { return words.empty() ? "-" : fmt::format("{}", fmt::join(words, " ")); }

std::string policy_text(const Policy& policy) {
  return fmt::format(
      "meta of new keys:          {}\nnames of new keys:         {}\nnames of new owners:       {}\n"
      "second person for scopes:  {}\nsecond person for actions: {}",
      list_text(policy.required_meta), list_text(policy.key_names), list_text(policy.owner_names),
      list_text(policy.approve_scopes), list_text(policy.approve_actions));
}

std::string tidy_meta_name(const std::string& name) {
  MetaMap meta;
  set_meta_value(meta, name, "x");  // throws for what can be no name
  return name;
}

// fnmatch(3) takes a bracket that nothing closes for itself, and no name can have one there.
bool has_open_bracket(const std::string& pattern) {
  for (std::size_t at = pattern.find('['); at != std::string::npos; at = pattern.find('[', at + 1)) {
    const std::size_t first = at + 1 + (at + 1 < pattern.size() && (pattern[at + 1] == '!' || pattern[at + 1] == '^'));
    at = pattern.find(']', first + 1);  // one that comes first stands for itself
    if (at == std::string::npos) {
      return true;
    }
  }
  return false;
}

std::string tidy_pattern(const std::string& pattern) {
  check_text("pattern of a name", pattern);
  if (has_open_bracket(pattern)) {
    throw UsageError(fmt::format("the pattern \"{}\" has a [ that no ] closes, so no name would be like it", pattern));
  }
  return pattern;
}

std::string tidy_action(const std::string& action) {
  const Texts& known = approvable_actions();
  if (std::find(known.begin(), known.end(), action) != known.end()) {
    return action;
  }
  if (is_restriction(action)) {
    throw UsageError(fmt::format("{} cannot wait for a second person: stopping somebody never waits", action));
  }
  throw UsageError(fmt::format("there is no action \"{}\" that can wait for a second person; {}there are {}", action,
                               did_you_mean(action, known), fmt::join(known, ", ")));
}

void set_list(Texts& field, std::string_view what, const Texts& words, std::string (*tidy)(const std::string&)) {
  if (words.empty()) {
    return;
  }
  Texts list;
  if (!clears(what, words)) {
    std::transform(words.begin(), words.end(), std::back_inserter(list), tidy);
  }
  field = sorted_once(std::move(list));
}

void warn_of_approvers(Registry& registry, const Policy& policy) {
  if (const std::string sentence = few_approvers(registry, policy); !sentence.empty()) {
    Session::warn(sentence);
  }
}

void set(const Session& session, const SetOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  if (options.required_meta.empty() && options.key_names.empty() && options.owner_names.empty() &&
      options.approve_scopes.empty() && options.approve_actions.empty()) {
    throw UsageError(
        "nothing to set; give at least one of --require-meta, --key-name, --owner-name, --approve-scope, "
        "--approve-action; `none` clears");
  }
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  change->because(options.reason);
  const Policy before = registry->policy();
  Policy policy = before;
  set_list(policy.required_meta, "names of meta", options.required_meta, tidy_meta_name);
  set_list(policy.key_names, "patterns", options.key_names, tidy_pattern);
  set_list(policy.owner_names, "patterns", options.owner_names, tidy_pattern);
  set_list(policy.approve_actions, "actions", options.approve_actions, tidy_action);
  if (!options.approve_scopes.empty()) {
    policy.approve_scopes = clears("scopes", options.approve_scopes) ? Texts{} : tidy_scopes(options.approve_scopes);
  }
  if (policy == before) {
    session.report("the policy is so already\n" + policy_text(policy), to_json(policy));
    return;
  }
  warn_of_approvers(*registry, policy);
  change->set(policy);
  const std::string sentence = "the policy is now\n" + policy_text(policy);
  if (options.delivery.is_dry_run) {
    report(session, sentence, to_json(policy), deliver(session, *registry, *change, options.delivery));
    return;
  }
  change->commit();  // nginx need not know
  session.report(sentence, to_json(policy));
}

void show(const Session& session) {
  const auto registry = session.open_registry();
  const Policy policy = registry->policy();
  const BrokenGlass glass = broken_glass(*registry, wall_clock() - kGlassTime);
  Json json = to_json(policy);
  json["break_glass"] = {{"last_30_days", glass.count},
                         {"last", time_json(glass.last)},
                         {"entry", glass.count == 0 ? Json(nullptr) : Json(glass.last_entry)}};
  const std::string broken = glass.count == 0
                                 ? "not in the last 30 days"
                                 : fmt::format("{} in the last 30 days, last at {} (audit entry {})",
                                               glass.count == 1 ? "once" : fmt::format("{} times", glass.count),
                                               time_text(glass.last), glass.last_entry);
  session.report(fmt::format("{}\nbreak-glass was used:      {}", policy_text(policy), broken), json);
}

// A key as it would be made, with the same checks.
Key key_of(Registry& registry, const TestOptions& options) {
  Key key;
  key.owner = require_owner(registry, options.owner).name;
  KeyFields fields;
  if (!options.name.empty()) {
    fields.name = options.name;
  }
  fields.scopes = options.scopes;
  fields.roles = options.roles;
  fields.meta = options.meta;
  apply(fields, registry, key);
  return key;
}

// Does not repeat the word: it may be a key in the wrong place.
Caller caller_named(Registry& registry, const std::string& word) {
  if (word == "local") {
    return {};
  }
  if (!key_id_from(word)) {
    throw UsageError(
        "--as takes the id of an administrator's key, key_…, or local; `keyloader admin list` shows the keys");
  }
  return {.admin = require_key(registry, word).id};
}

struct Verdict {
  std::string_view word;  // `allowed`, `second person`, `refused`
  int exit_code = 0;
};

Verdict verdict_of(const Decision& decision) {
  if (!decision.refused.empty()) {
    return {.word = "refused", .exit_code = 1};
  }
  return decision.needs.empty() ? Verdict{.word = "allowed", .exit_code = 0}
                                : Verdict{.word = "second person", .exit_code = 3};
}

Decision judge_as(Registry& registry, const Caller& caller, const TestOptions& options) {
  Judge judge(registry, caller);
  const Key key = key_of(registry, options);
  return judge.judge("key.create", nullptr, &key);
}

void add_row(Json& json, std::vector<Texts>& rows, const std::string& who, const Decision& decision) {
  const Texts& why = decision.refused.empty() ? decision.needs : decision.refused;
  const std::string_view word = verdict_of(decision).word;
  rows.push_back({who, std::string{word}, why.empty() ? "-" : fmt::format("{}", fmt::join(why, "; "))});
  json.push_back({{"who", who}, {"decision", word}, {"refused", decision.refused}, {"needs", decision.needs}});
}

void test(Session& session, const TestOptions& options) {
  const auto registry = session.open_registry();
  Json json = Json::array();
  std::vector<Texts> rows;
  if (!options.as.empty()) {
    const Decision decision = judge_as(*registry, caller_named(*registry, options.as), options);
    add_row(json, rows, options.as, decision);
    session.exit_code = verdict_of(decision).exit_code;
  } else {
    add_row(json, rows, "local", judge_as(*registry, {}, options));
    const SuspendedOwners suspended(*registry, wall_clock());
    std::vector<Key> administrators;
    registry->each_key({}, [&](const Key& key) {
      if (!key.admin_scopes.empty() && suspended.state_of(key) == "active") {
        administrators.push_back(key);
      }
      return true;
    });
    for (const Key& key : administrators) {
      add_row(json, rows, fmt::format("{} of {}", text_of(key.id), key.owner),
              judge_as(*registry, {.admin = key.id}, options));
    }
  }
  session.report_table({"WHO", "DECISION", "WHY"}, rows, json, "", 2);
}

}  // namespace

void add_policy_commands(Command& app, Session& session) {
  Command group = app.add_group("policy", "What is asked of changes, whoever makes them");

  auto options = std::make_shared<SetOptions>();
  Command edit = group.add("set", "Change what is named; `none` clears, what is not named stays");
  edit.words("--require-meta", options->required_meta, "NAME", "A new key needs this meta (again for more)");
  edit.words("--key-name", options->key_names, "PATTERN", "A new key's name is like this: svc-* (again for others)");
  edit.words("--owner-name", options->owner_names, "PATTERN", "The same for new owners");
  edit.words("--approve-scope", options->approve_scopes, "SCOPE",
             "Giving this scope needs a second person (again for more)");
  edit.words("--approve-action", options->approve_actions, "ACTION",
             "So does this: plan.set, or plan for all of them (again for more)");
  edit.option("--reason", options->reason, "TEXT", "Kept in the audit");
  edit.tries(options->delivery);
  edit.footer(
      "In a pattern * stands for any characters, ? for one, [a-z] for one of these. A scope also means what grants "
      "it,\n"
      "as * does, and every way to it: roles, imports, reverts, a later end. Where anything needs a second person, "
      "the\n"
      "policy and administrators' keys do, too. Revoking and suspending never do.\n\n"
      "  keyloader policy set --require-meta ticket --key-name 'svc-*' --key-name 'ci-*'\n"
      "  keyloader policy set --approve-scope 'billing:*' --approve-action plan.set\n"
      "  keyloader policy set --key-name none");
  edit.run([&session, options] { set(session, *options); });

  Command one = group.add("show", "The rules, and when --break-glass passed over them");
  one.footer("  keyloader policy show");
  one.read([&session] { show(session); });

  auto tries = std::make_shared<TestOptions>();
  Command trial = group.add("test", "Who may issue a certain key, alone or with a second person");
  trial.option("--as", tries->as, "WHO", "One administrator's key, key_…, or local (default: all)");
  trial.required_option("--owner", tries->owner, "OWNER", "Whose key it would be");
  trial.option("--name", tries->name, "NAME", "Its name");
  trial.words("--scope", tries->scopes, "SCOPE", "A scope it would have (again for more)");
  trial.words("--role", tries->roles, "ROLE", "A role it would have (again for more)");
  trial.words("--meta", tries->meta, "NAME=VALUE", "Its meta (again for more)");
  trial.footer(
      "local is whoever may write the registry on this machine. With --as the exit code says it: 0 allowed, 3 with a\n"
      "second person, 1 refused. For any other change use its own --dry-run.\n\n"
      "  keyloader policy test --owner acme --scope billing:write --meta ticket=4711");
  trial.read([&session, tries] { test(session, *tries); });
}

}  // namespace keyloader
