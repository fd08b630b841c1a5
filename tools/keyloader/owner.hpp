// What other command families need of owners. Implemented in owner.cpp; called by `key create` and `import`.
#pragma once

#include <string>

#include "command.hpp"
#include "registry/model.hpp"
#include "session.hpp"

namespace keyloader {

// A new owner with a random id. Throws UsageError for what cannot be a name.
[[nodiscard]] Owner new_owner(const std::string& name);

void add_owner_erase(Command& group, Session& session);

}  // namespace keyloader
