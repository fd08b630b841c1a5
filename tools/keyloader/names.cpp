// Looking names up, and comparing those that are not there with those that are. Called by the command files.
#include "names.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "admin_roles.hpp"
#include "nearest.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

template <typename Objects>
Texts names_of(const Objects& objects) {
  Texts names;
  for (const auto& each : objects) {
    names.push_back(each.name);
  }
  return names;
}

std::string sentence(std::string_view what, const std::string& name, const Texts& names, std::string_view hint) {
  return fmt::format("there is no {} \"{}\"; {}{}", what, name, did_you_mean(name, names),
                     hint.empty() ? fmt::format("`keyloader {} list` shows them all", what) : std::string{hint});
}

}  // namespace

std::string no_owner(Registry& registry, const std::string& name, std::string_view hint) {
  return sentence("owner", name, names_of(registry.owners()), hint);
}

std::string no_plan(Registry& registry, const std::string& name, std::string_view hint) {
  return sentence("plan", name, names_of(registry.plans()), hint);
}

std::string no_role(Registry& registry, const std::string& name, std::string_view hint) {
  if (is_admin_role(name)) {
    return fmt::format(
        "there is no role \"{}\" of the registry; as an administrator's role it is given by `keyloader admin create … "
        "--role {}` and `keyloader admin set key_… --add-role {}`, and `keyloader admin list` shows who has it",
        name, name, name);
  }
  return sentence("role", name, names_of(registry.roles()), hint);
}

Owner require_owner(Registry& registry, const std::string& name) {
  auto owner = registry.owner(name);
  return owner ? *owner : throw Failure(no_owner(registry, name));
}

Plan require_plan(Registry& registry, const std::string& name) {
  auto plan = registry.plan(name);
  return plan ? *plan : throw Failure(no_plan(registry, name));
}

Role require_role(Registry& registry, const std::string& name) {
  auto role = registry.role(name);
  return role ? *role : throw Failure(no_role(registry, name));
}

SuspendedOwners::SuspendedOwners(Registry& registry, Seconds now) : now_(now) {
  for (const Owner& owner : registry.owners()) {
    if (is_suspended(owner, now)) {
      names_.push_back(owner.name);
    }
  }
  std::sort(names_.begin(), names_.end());
}

Texts teams_of(Registry& registry) {
  Texts teams;
  for (const Owner& owner : registry.owners()) {
    if (!owner.team.empty()) {
      teams.push_back(owner.team);
    }
  }
  return sorted_once(std::move(teams));
}

bool SuspendedOwners::holds(const std::string& owner) const {
  return std::binary_search(names_.begin(), names_.end(), owner);
}

std::string_view SuspendedOwners::state_of(const Key& key) const {
  return key.revoked == 0 && holds(key.owner) ? "suspended" : keyloader::state_of(key, now_);
}

}  // namespace keyloader
