// keyloader key: the family of commands. What each does is in key_create.cpp, key_change.cpp, key_show.cpp.
#include "key.hpp"

#include <fmt/format.h>

namespace keyloader {

Key require_key(Registry& registry, const std::string& id) {
  const auto parsed = key_id_from(id);
  if (!parsed) {
    // Whoever pastes the key itself here must not find it in a log.
    throw UsageError(fmt::format(
        "that is no key id; ids begin with key_ and have {} characters. `keyloader find` tells the id of a key",
        apikey::kKeyIdTextLength));
  }
  auto key = registry.key(*parsed);
  if (!key) {
    throw Failure(fmt::format("there is no key {}; `keyloader key list` shows them all", id));
  }
  return *key;
}

void add_key_commands(Command& app, Session& session) {
  Command group = app.add_group("key", "The keys themselves");
  add_key_create(group, session);
  add_key_views(group, session);
  add_key_changes(group, session);
}

}  // namespace keyloader
