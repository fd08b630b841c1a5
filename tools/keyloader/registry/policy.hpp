// Who may change what: the rules of a registry (`keyloader policy`), what an administrator's key allows, and which
// changes need a second person.
// Called by SqliteChange for every change, inside its transaction, so that there is no way around it; and by `policy
// test`. Knows no SQL.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "registry/registry.hpp"

namespace keyloader {

// What the rules say of one change. Sentences begin in small letters and have no full stop.
struct Decision {
  Texts refused;  // what is not allowed
  Texts rules;    // by which rules, as the audit keeps it: without names of people or keys
  Texts needs;    // what of it needs a second person: "scope billing:write"

  void add(const Decision& more);
};

// LIFETIME: the registry's. REQUIRES: a state of the registry that nobody else changes meanwhile.
class Judge {
 public:
  // Throws Failure when the caller's key is no administrator's key that is good now.
  Judge(Registry& registry, const Caller& caller);

  // Nobody's rules are asked: every decision is empty.
  [[nodiscard]] bool is_idle() const { return !admin_ && policy_ == Policy{}; }
  [[nodiscard]] const Policy& policy() const { return policy_; }
  // Who asks: the owner of the administrator's key; on the machine itself the user.
  [[nodiscard]] const std::string& person() const { return person_; }
  [[nodiscard]] bool is_admin() const { return admin_.has_value(); }
  [[nodiscard]] std::string caller_text() const;

  // Whether the caller may end what `asker` asked for.
  [[nodiscard]] bool may_refuse(const std::string& asker) const;

  // null: there was, or is, no such object. `action`: `key.set`.
  [[nodiscard]] Decision judge(std::string_view action, const Key* before, const Key* after);
  [[nodiscard]] Decision judge(std::string_view action, const Owner* before, const Owner* after);
  [[nodiscard]] Decision judge(std::string_view action, const Plan* before, const Plan* after);
  [[nodiscard]] Decision judge(std::string_view action, const Role* before, const Role* after);
  // A quota of an owner or of a key.
  [[nodiscard]] Decision judge_quota(std::string_view action, const Owner& owner, const Key* key);
  // Whatever concerns the registry as a whole.
  [[nodiscard]] Decision judge(std::string_view action);

 private:
  [[nodiscard]] Texts reach_of(const Key& key);
  [[nodiscard]] Texts reach_of(const Owner& owner);
  [[nodiscard]] bool is_administrator(const Owner& owner);
  [[nodiscard]] bool holds(std::string_view role) const;
  [[nodiscard]] bool may_grant(const std::string& scope) const;
  void require_role(Decision& decision, std::string_view role, std::string_view what) const;
  void require_all_teams(Decision& decision, std::string_view what) const;
  void require_team(Decision& decision, const std::string& team) const;
  void require_team_of(Decision& decision, const std::string& owner);
  void require_grants(Decision& decision, const Texts& scopes) const;
  void check_meta_and_name(Decision& decision, const Key* before, const Key& after) const;
  void need_second_person(Decision& decision, const Texts& scopes) const;
  void need_second_person_to(Decision& decision, const Texts& effects) const;
  void check_admin(Decision& decision, std::string_view action, const Key* before, const Key* after);
  void check_admin(Decision& decision, std::string_view action, const Owner* before, const Owner* after);
  // `stops`: the change takes access away and does nothing else.
  void check_admin_key(Decision& decision, const Key* before, const Key* after, bool stops) const;
  void require_rights_of(Decision& decision, const Key& key) const;

  Registry& registry_;
  Policy policy_;
  std::optional<Key> admin_;
  std::string person_;
};

// Stopping somebody never waits for anybody: `key.revoke`, `key.suspend`, `owner.suspend`.
[[nodiscard]] bool is_restriction(std::string_view action);

// Whether `name` is as one of the patterns says: `*` any characters, `?` one, `[a-z]` one of these (fnmatch(3)).
[[nodiscard]] bool matches_one(const Texts& patterns, const std::string& name);

}  // namespace keyloader
