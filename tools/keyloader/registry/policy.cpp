// The rules themselves. The table of what each role of an administrator may do is in docs/keyloader.md.
#include "registry/policy.hpp"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <array>

#include "apikey/scope_set.hpp"
#include "registry/access.hpp"

namespace keyloader {
namespace {

constexpr std::string_view kAll = "apikey:*";

bool contains(const Texts& texts, std::string_view text) {
  return std::find(texts.begin(), texts.end(), text) != texts.end();
}

void refuse(Decision& decision, std::string_view rule, std::string sentence) {
  if (!contains(decision.refused, sentence)) {
    decision.refused.push_back(std::move(sentence));
  }
  if (!contains(decision.rules, rule)) {
    decision.rules.emplace_back(rule);
  }
}

void need(Decision& decision, std::string what) {
  if (!contains(decision.needs, what)) {
    decision.needs.push_back(std::move(what));
  }
}

// Either grants the other. Grants are words or end in a star, so two that have a scope in common are nested.
bool overlap(std::string_view a, std::string_view b) {
  return apikey::scope_grants(a, b) || apikey::scope_grants(b, a);
}

// Whether somebody may do more with the key behind the change than before it.
bool gives_access(const Key* before, const Key& after) {
  if (before == nullptr) {
    return true;
  }
  const Fields now = fields_of(to_json(*before));
  const Fields then = fields_of(to_json(after));
  const Access access(now, then);
  return !access.regained().empty() || access.ends_revocation() || access.ends_suspension();
}

template <typename Object>
bool ends_suspension(const Object* before, const Object* after) {
  if (before == nullptr || after == nullptr) {
    return false;
  }
  const Fields now = fields_of(to_json(*before));
  const Fields then = fields_of(to_json(*after));
  return Access(now, then).ends_suspension();
}

// What an action does, by all names that a policy has for it: an import creates keys, a revert sets something, and a
// suspension that ends earlier than the one before is a resume.
template <typename Object>
Texts effects_of(std::string_view action, const Object* before, const Object* after, bool resumes) {
  const std::string kind{action.substr(0, action.find('.'))};
  Texts effects{std::string{action}};
  if (before == nullptr) {
    effects.push_back(kind + ".create");
  } else if (after == nullptr) {
    effects.push_back(kind + ".delete");
  } else if (resumes) {
    effects.push_back(kind + ".resume");
  } else if (!is_restriction(action)) {
    effects.push_back(kind + ".set");
  }
  return effects;
}

bool is_administrators(const Key* key) { return key != nullptr && !key->admin_scopes.empty(); }

std::string words(const Texts& texts) { return fmt::format("{}", fmt::join(texts, " ")); }

}  // namespace

bool is_restriction(std::string_view action) {
  return action == "key.revoke" || action == "key.suspend" || action == "owner.suspend";
}

bool matches_one(const Texts& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& each) { return fnmatch(each.c_str(), name.c_str(), FNM_NOESCAPE) == 0; });
}

void Decision::add(const Decision& more) {
  for (const std::string& sentence : more.refused) {
    if (!contains(refused, sentence)) {
      refused.push_back(sentence);
    }
  }
  for (const std::string& rule : more.rules) {
    if (!contains(rules, rule)) {
      rules.push_back(rule);
    }
  }
  for (const std::string& what : more.needs) {
    need(*this, what);
  }
}

Judge::Judge(Registry& registry, const Caller& caller) : registry_(registry), policy_(registry.policy()) {
  if (!caller.admin) {
    person_ = user_of(current_actor());
    return;
  }
  admin_ = registry.key(*caller.admin);
  if (!admin_ || admin_->admin_scopes.empty()) {
    throw Failure(fmt::format("{} is no administrator's key (any more)", text_of(*caller.admin)));
  }
  const Seconds now = wall_clock();
  const auto owner = registry.owner(admin_->owner);
  if (const std::string_view state = state_of(*admin_, now); state != "active" || !owner || is_suspended(*owner, now)) {
    throw Failure(fmt::format("{} of {} is {}, so nothing can be done with it", text_of(admin_->id), admin_->owner,
                              state != "active" ? state : "of a suspended owner"));
  }
  person_ = admin_->owner;
}

bool Judge::may_refuse(const std::string& asker) const {
  return !admin_ || person_ == asker || (holds("issue") && admin_->teams.empty());
}

std::string Judge::caller_text() const {
  return admin_ ? fmt::format("{} of {}", text_of(admin_->id), admin_->owner) : person_;
}

Texts Judge::reach_of(const Key& key) {
  return effective_scopes(key, [&](const std::string& name) {
    const auto role = registry_.role(name);
    return role ? role->scopes : Texts{};
  });
}

bool Judge::is_administrator(const Owner& owner) {
  bool is_one = false;
  registry_.each_key({.owner = owner.name, .env = {}, .role = {}}, [&](const Key& key) {
    is_one = is_administrators(&key) && key.revoked == 0;
    return !is_one;
  });
  return is_one;
}

Texts Judge::reach_of(const Owner& owner) {
  Texts all;
  registry_.each_key({.owner = owner.name, .env = {}, .role = {}}, [&](const Key& key) {
    const Texts more = reach_of(key);
    all.insert(all.end(), more.begin(), more.end());
    return true;
  });
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

bool Judge::holds(std::string_view role) const { return holds_role(admin_->admin_scopes, role); }

bool Judge::may_grant(const std::string& scope) const {
  if (admin_->may_grant.empty()) {
    return holds("admin");
  }
  return std::any_of(admin_->may_grant.begin(), admin_->may_grant.end(),
                     [&](const std::string& each) { return apikey::scope_grants(each, scope); });
}

void Judge::require_role(Decision& decision, std::string_view role, std::string_view what) const {
  if (!holds(role)) {
    refuse(decision, "role",
           fmt::format("{} has {}; {} takes apikey:{}", caller_text(), words(admin_->admin_scopes), what, role));
  }
}

void Judge::require_all_teams(Decision& decision, std::string_view what) const {
  if (!admin_->teams.empty()) {
    refuse(decision, "team",
           fmt::format("{} is for the team {} only; {} concern everybody", caller_text(), words(admin_->teams), what));
  }
}

void Judge::require_team(Decision& decision, const std::string& team) const {
  if (!admin_->teams.empty() && !contains(admin_->teams, team)) {
    refuse(decision, "team",
           fmt::format("{} is for the team {} only; this owner {}", caller_text(), words(admin_->teams),
                       team.empty() ? "has no team" : fmt::format("is of the team {}", team)));
  }
}

void Judge::require_team_of(Decision& decision, const std::string& owner) {
  if (!admin_->teams.empty()) {
    const auto found = registry_.owner(owner);
    require_team(decision, found ? found->team : std::string{});
  }
}

// Nobody gives a scope without being entitled to it. Reserved scopes go with roles (check_admin_key).
void Judge::require_grants(Decision& decision, const Texts& scopes) const {
  for (const std::string& scope : scopes) {
    if (!apikey::is_reserved_scope(scope) && !may_grant(scope)) {
      refuse(decision, "may-grant",
             fmt::format("{} may not give the scope {} (it may grant {})", caller_text(), scope,
                         admin_->may_grant.empty() ? "none until `keyloader admin set --may-grant` names some"
                                                   : words(admin_->may_grant)));
    }
  }
}

void Judge::check_meta_and_name(Decision& decision, const Key* before, const Key& after) const {
  const auto has = [](const Key& key, const std::string& name) {
    const auto found = key.meta.find(name);
    return found != key.meta.end() && found->second.find_first_not_of(' ') != std::string::npos;
  };
  for (const std::string& name : policy_.required_meta) {
    if (!has(after, name) && (before == nullptr || has(*before, name))) {
      refuse(decision, "require-meta", fmt::format("a key needs the meta {0}, as in --meta {0}=VALUE", name));
    }
  }
  const bool is_named_now = before == nullptr || before->name != after.name;
  if (!policy_.key_names.empty() && is_named_now && !matches_one(policy_.key_names, after.name)) {
    refuse(decision, "key-name",
           after.name.empty() ? fmt::format("a key needs a name such as {}", fmt::join(policy_.key_names, " or "))
                              : fmt::format("the name of the key, \"{}\", is not as {}", after.name,
                                            fmt::join(policy_.key_names, " or ")));
  }
}

void Judge::need_second_person(Decision& decision, const Texts& scopes) const {
  for (const std::string& scope : scopes) {
    const bool is_listed = std::any_of(policy_.approve_scopes.begin(), policy_.approve_scopes.end(),
                                       [&](const std::string& each) { return overlap(each, scope); });
    // Whoever makes administrators alone would make a second person for any request.
    if (is_listed || (policy_.asks_second_person() && apikey::is_reserved_scope(scope))) {
      need(decision, "scope " + scope);
    }
  }
}

// Of several names of one action the first that is listed is said.
void Judge::need_second_person_to(Decision& decision, const Texts& effects) const {
  const auto is_listed = [&](const std::string& effect) {
    return std::any_of(policy_.approve_actions.begin(), policy_.approve_actions.end(), [&](const std::string& each) {
      return effect == each || (effect.starts_with(each) && effect.substr(each.size()).starts_with('.'));
    });
  };
  for (const std::string& effect : effects) {
    // Whoever changes the rules alone is bound by none.
    if ((is_listed(effect) && !is_restriction(effect)) || (policy_.asks_second_person() && effect == "policy.set")) {
      need(decision, effect);
      return;
    }
  }
}

// A key with reserved scopes is made and changed by `admin` only, and no administrator makes one with more rights than
// their own.
void Judge::check_admin_key(Decision& decision, const Key* before, const Key* after, bool stops) const {
  if (!is_administrators(before) && !is_administrators(after)) {
    return;
  }
  require_role(decision, "admin", "a change of administrators' keys");
  for (const Key* each : {before, after}) {
    if (each != nullptr && is_administrators(each) && !stops) {
      require_rights_of(decision, *each);
    }
  }
}

void Judge::require_rights_of(Decision& decision, const Key& key) const {
  if (contains(key.admin_scopes, kAll) && !holds("*")) {
    refuse(decision, "may-grant", fmt::format("{} may not give {}, which it does not hold", caller_text(), kAll));
  }
  require_grants(decision, key.may_grant);
  if (grants_all(key) && !admin_->may_grant.empty()) {
    refuse(
        decision, "may-grant",
        fmt::format("a key with apikey:admin may give all scopes unless --may-grant says which; {} may grant {} only",
                    caller_text(), words(admin_->may_grant)));
  }
  const bool is_beyond =
      key.teams.empty() || !std::all_of(key.teams.begin(), key.teams.end(),
                                        [&](const std::string& team) { return contains(admin_->teams, team); });
  if (!admin_->teams.empty() && is_beyond) {
    refuse(decision, "team",
           fmt::format("{} is for the team {} only, so a key that it makes or changes is, too", caller_text(),
                       words(admin_->teams)));
  }
}

void Judge::check_admin(Decision& decision, std::string_view action, const Key* before, const Key* after) {
  require_team_of(decision, after != nullptr ? after->owner : before->owner);
  const bool stops = is_restriction(action) && after != nullptr && !gives_access(before, *after);
  check_admin_key(decision, before, after, stops);
  const bool is_support = is_restriction(action) || action == "key.resume";
  require_role(decision, is_support ? "support" : "issue", is_support ? "suspending and revoking" : "issuing keys");
  if (stops) {
    return;
  }
  // A key that the caller could not have made is not changed either: no scope, nor its end, nor its name; nor deleted.
  for (const Key* each : {before, after}) {
    if (each != nullptr) {
      require_grants(decision, reach_of(*each));
    }
  }
  if (after != nullptr && after->limits != (before != nullptr ? before->limits : Limits{})) {
    require_role(decision, "admin", "a limit of a key beside its plan");
  }
}

Decision Judge::judge(std::string_view action, const Key* before, const Key* after) {
  Decision decision;
  if (is_idle()) {
    return decision;
  }
  if (after != nullptr) {
    check_meta_and_name(decision, before, *after);
    if (gives_access(before, *after)) {  // a shorter suspension does, too
      need_second_person(decision, reach_of(*after));
    }
  }
  need_second_person_to(decision, effects_of(action, before, after, ends_suspension(before, after)));
  if (admin_) {
    check_admin(decision, action, before, after);
  }
  return decision;
}

Decision Judge::judge(std::string_view action, const Owner* before, const Owner* after) {
  Decision decision;
  if (is_idle()) {
    return decision;
  }
  if (before == nullptr && !policy_.owner_names.empty() && !matches_one(policy_.owner_names, after->name)) {
    refuse(decision, "owner-name",
           fmt::format("the name of the owner, \"{}\", is not as {}", after->name,
                       fmt::join(policy_.owner_names, " or ")));
  }
  const bool resumes = ends_suspension(before, after);
  const Texts reach = resumes ? reach_of(*after) : Texts{};
  need_second_person(decision, reach);
  need_second_person_to(decision, effects_of(action, before, after, resumes));
  if (admin_) {
    check_admin(decision, action, before, after);
    require_grants(decision, reach);
  }
  return decision;
}

void Judge::check_admin(Decision& decision, std::string_view action, const Owner* before, const Owner* after) {
  for (const Owner* each : {before, after}) {
    if (each != nullptr) {
      require_team(decision, each->team);
    }
  }
  const bool is_support = is_restriction(action) || action == "owner.resume";
  require_role(decision, is_support ? "support" : "issue", is_support ? "suspending owners" : "a change of owners");
  if (before != nullptr && is_administrator(*before)) {
    require_role(decision, "admin", "a change of an owner who has administrators' keys");
  }
  if (after == nullptr || after->limits != (before != nullptr ? before->limits : Limits{})) {
    require_role(decision, "admin", after == nullptr ? "deleting owners" : "a limit of an owner");
  }
}

Decision Judge::judge(std::string_view action, const Plan* before, const Plan* after) {
  Decision decision;
  need_second_person_to(decision, effects_of(action, before, after, false));
  if (admin_) {
    require_role(decision, "admin", "a change of plans");
    require_all_teams(decision, "plans");
  }
  return decision;
}

Decision Judge::judge(std::string_view action, const Role* before, const Role* after) {
  Decision decision;
  need_second_person_to(decision, effects_of(action, before, after, false));
  const auto holds_scope = [](const std::string& held, const std::string& one) {
    return apikey::scope_grants(held, one);
  };
  const Texts more =
      after != nullptr ? gained(after->scopes, before != nullptr ? before->scopes : Texts{}, holds_scope) : Texts{};
  need_second_person(decision, more);
  if (admin_) {
    require_role(decision, "admin", "a change of roles");
    require_all_teams(decision, "roles");
    require_grants(decision, more);
  }
  return decision;
}

Decision Judge::judge_quota(std::string_view action, const Owner& owner, const Key* key) {
  Decision decision;
  need_second_person_to(decision, {std::string{action}});
  if (admin_) {
    require_team(decision, owner.team);
    check_admin_key(decision, key, key, false);
    const bool is_reset = action == "quota.reset";
    require_role(decision, is_reset ? "support" : "admin",
                 is_reset ? "resetting quotas" : "granting more than the plan");
  }
  return decision;
}

// What concerns the machine is done on it and cannot wait.
Decision Judge::judge(std::string_view action) {
  Decision decision;
  if (action == "policy.set") {
    need_second_person_to(decision, {std::string{action}});
  }
  if (action == "snapshot.rollback" && policy_.asks_second_person()) {
    refuse(decision, "rollback", "an older snapshot may let in what a second person has to approve");
  }
  if (!admin_) {
    return decision;
  }
  if (action != "policy.set") {
    refuse(decision, "machine", "this is done on the machine itself, without --key-file");
    return decision;
  }
  require_role(decision, "admin", "the policy");
  require_all_teams(decision, "policies");
  if (!admin_->may_grant.empty()) {
    refuse(decision, "may-grant",
           fmt::format("{} may not grant all scopes, so it may not set the policy either", caller_text()));
  }
  return decision;
}

}  // namespace keyloader
