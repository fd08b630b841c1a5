// The commands of the family `key`, by file: key_create.cpp, key_change.cpp, key_list.cpp, key_show.cpp.
// Called by key.cpp only.
#pragma once

#include <map>
#include <string>

#include "registry/registry.hpp"
#include "session.hpp"

namespace keyloader {

void add_key_create(Command& group, Session& session);
void add_key_changes(Command& group, Session& session);  // set, suspend, resume, revoke, delete
void add_key_list(Command& group, Session& session);
void add_key_show(Command& group, Session& session);

// Throws UsageError for the first that is not the id of a key.
void require_key_ids(const Texts& ids);
// `argument`: which one of the command line it is, from 1 on.
[[nodiscard]] apikey::KeyId require_key_id(const std::string& id, std::size_t argument = 1);

// What the roles of a registry stand for.
class RoleScopes {
 public:
  explicit RoleScopes(Registry& registry);
  // All that the key has, by itself and by its roles; sorted. Of reserved scopes only those that `keyloader admin`
  // gave.
  [[nodiscard]] Texts scopes_of(const Key& key) const;

 private:
  std::map<std::string, Texts> scopes_;
};

// The key with this id; throws UsageError for what is no id, Failure for one the registry does not know.
[[nodiscard]] Key require_key(Registry& registry, const std::string& id);

}  // namespace keyloader
