// What other command families need of owners. Implemented in owner.cpp; called by `key create` and `import`.
#pragma once

#include <string>

#include "registry/model.hpp"

namespace keyloader {

// A new owner with a random id. Throws UsageError for what cannot be a name.
[[nodiscard]] Owner new_owner(const std::string& name);

}  // namespace keyloader
