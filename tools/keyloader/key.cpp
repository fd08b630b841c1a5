// keyloader key: the family of commands. What each does is in key_create.cpp, key_change.cpp,
// key_list.cpp, key_show.cpp.
#include "key.hpp"

#include <fmt/format.h>

#include "values.hpp"

namespace keyloader {

apikey::KeyId require_key_id(const std::string& id) {
  const auto parsed = key_id_from(id);
  if (!parsed) {
    // Whoever pastes the key itself here must not find it in a log.
    throw UsageError(fmt::format(
        "that is no key id; ids begin with key_ and have {} characters. `keyloader find` tells the id of a key",
        apikey::kKeyIdTextLength));
  }
  return *parsed;
}

Key require_key(Registry& registry, const std::string& id) {
  auto key = registry.key(require_key_id(id));
  if (!key) {
    if (const Seconds deleted = registry.deleted(id, "key.delete"); deleted != 0) {
      throw Failure(fmt::format("{} was deleted at {}; only the audit remembers it", id, time_text(deleted)));
    }
    throw Failure(fmt::format("there is no key {}; `keyloader key list` shows them all", id));
  }
  return *key;
}

RoleScopes::RoleScopes(Registry& registry) {
  for (Role& role : registry.roles()) {
    scopes_[role.name] = std::move(role.scopes);
  }
}

Texts RoleScopes::scopes_of(const Key& key) const {
  Texts scopes = key.scopes;
  for (const std::string& role : key.roles) {
    if (const auto found = scopes_.find(role); found != scopes_.end()) {
      scopes.insert(scopes.end(), found->second.begin(), found->second.end());
    }
  }
  return sorted_once(std::move(scopes));
}

void add_key_commands(Command& app, Session& session) {
  Command group = app.add_group("key", "The keys themselves");
  add_key_create(group, session);
  add_key_list(group, session);
  add_key_show(group, session);
  add_key_changes(group, session);
}

}  // namespace keyloader
