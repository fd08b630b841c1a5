// See approvers.hpp. Reads all keys.
#include "approvers.hpp"

#include <fmt/format.h>

#include "names.hpp"
#include "registry/access.hpp"

namespace keyloader {

std::set<std::string> approvers(Registry& registry) {
  const SuspendedOwners suspended(registry, wall_clock());
  std::set<std::string> names;
  registry.each_key({}, [&](const Key& key) {
    if (grants_all(key) && key.teams.empty() && suspended.state_of(key) == "active") {
      names.insert(key.owner);
    }
    return true;
  });
  return names;
}

std::string few_approvers(Registry& registry, const Policy& policy) {
  if (!policy.asks_second_person()) {
    return {};
  }
  const std::set<std::string> names = approvers(registry);
  if (names.size() >= 2) {
    return {};
  }
  return fmt::format(
      "{} approve whatever waits for a second person. With two people who have the role admin, for all teams and "
      "scopes, everybody's changes can be approved: `keyloader admin create --role admin … --break-glass --reason "
      "TEXT` "
      "makes their keys without anybody's approval",
      names.empty() ? "nobody can" : fmt::format("only {} can", *names.begin()));
}

}  // namespace keyloader
