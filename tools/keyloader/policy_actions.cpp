// The actions that a policy can let wait for a second person.
#include "policy_actions.hpp"

#include <array>
#include <set>
#include <string_view>

namespace keyloader {
namespace {

// What can wait for a second person. What stops somebody never waits, and what concerns the machine is done on it.
constexpr std::array<std::string_view, 24> kActions = {
    "owner.create", "owner.set",   "owner.resume", "owner.revert", "owner.delete", "plan.create",
    "plan.set",     "plan.revert", "plan.delete",  "role.create",  "role.set",     "role.adopt",
    "role.revert",  "role.delete", "key.create",   "key.import",   "key.set",      "key.admin",
    "key.adopt",    "key.resume",  "key.revert",   "key.delete",   "quota.grant",  "quota.reset"};

Texts with_kinds() {
  std::set<std::string> all;
  for (const std::string_view each : kActions) {
    all.emplace(each);
    all.emplace(each.substr(0, each.find('.')));
  }
  return {all.begin(), all.end()};
}

}  // namespace

const Texts& approvable_actions() {
  static const Texts all = with_kinds();
  return all;
}

}  // namespace keyloader
