// The seven words of `keyloader admin`, and what is said where one stands in the wrong place.
#include "admin_roles.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "registry/access.hpp"

namespace keyloader {

const Texts& admin_roles() {
  static const Texts all{"view", "support", "issue", "admin", "portal", "node", "metrics"};
  return all;
}

bool is_admin_role(std::string_view name) {
  return std::find(admin_roles().begin(), admin_roles().end(), name) != admin_roles().end();
}

std::string admin_word(const std::string& scope) {
  const std::string word = scope.starts_with(kReservedStem) ? scope.substr(kReservedStem.size()) : scope;
  return is_admin_role(word) ? word : scope;
}

std::string may_grant_text(const Key& key) {
  if (key.may_grant.empty()) {
    return grants_all(key) ? "all" : "-";
  }
  return fmt::format("{}", fmt::join(key.may_grant, " "));
}

std::string teams_text(const Key& key) {
  return key.teams.empty() ? "all" : fmt::format("{}", fmt::join(key.teams, ", "));
}

std::string reserved_sentence(const std::string& scope) {
  if (const std::string word = admin_word(scope); word != scope) {
    return fmt::format(
        "\"{}\" is reserved for administrators' keys: `keyloader admin create … --role {}` makes such a key, "
        "`keyloader admin set key_… --add-role {}` gives it to one that is there",
        scope, word, word);
  }
  return fmt::format(
      "scopes that begin with apikey: are reserved for administrators' keys, and there is no \"{}\"; there are {}, "
      "which `keyloader admin create` and `keyloader admin set` give",
      scope, fmt::join(admin_roles(), ", "));
}

}  // namespace keyloader
