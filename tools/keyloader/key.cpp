// keyloader key: the family of commands. What each does is in key_create.cpp, key_change.cpp,
// key_list.cpp, key_show.cpp.
#include "key.hpp"

#include <fmt/format.h>

#include "apikey/key_form.hpp"
#include "values.hpp"

namespace keyloader {

apikey::KeyId require_key_id(const std::string& id, std::size_t argument) {
  if (const auto parsed = key_id_from(id)) {
    return *parsed;
  }
  // Whoever pastes the key itself here must not find it in a log; so only what begins as an id does is shown.
  if (apikey::has_own_form(id)) {
    throw UsageError(
        fmt::format("argument {} is the key itself, now in your shell's history: revoke it. `keyloader find` reads it "
                    "and tells its id, key_…",
                    argument));
  }
  throw UsageError(fmt::format(
      "argument {}{} is no key id; ids begin with key_ and have {} characters. `keyloader key list` shows "
      "them, also by --hint (its last four characters) and --ref, and `keyloader find` tells the id of a key",
      argument, id.starts_with("key_") ? fmt::format(", \"{}\",", id) : std::string{}, apikey::kKeyIdTextLength));
}

void require_key_ids(const Texts& ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    static_cast<void>(require_key_id(ids[i], i + 1));
  }
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
  return effective_scopes(key, [&](const std::string& role) {
    const auto found = scopes_.find(role);
    return found != scopes_.end() ? found->second : Texts{};
  });
}

void add_key_commands(Command& app, Session& session) {
  Command group = app.add_group("key", "The keys themselves");
  add_key_create(group, session);
  add_key_list(group, session);
  add_key_show(group, session);
  add_key_changes(group, session);
}

}  // namespace keyloader
