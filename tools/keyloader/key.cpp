// keyloader key: the family of commands. What each does is in key_create.cpp, key_change.cpp, key_show.cpp.
#include "key.hpp"

#include <fmt/format.h>

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

void add_key_commands(Command& app, Session& session) {
  Command group = app.add_group("key", "The keys themselves");
  add_key_create(group, session);
  add_key_views(group, session);
  add_key_changes(group, session);
}

}  // namespace keyloader
