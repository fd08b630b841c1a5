// What `keyloader policy set --approve-action` can name. Called by policy_command.cpp and completion.cpp.
#pragma once

#include "registry/model.hpp"

namespace keyloader {

// Sorted: the actions that can wait for a second person, `plan.set`, and their kinds, `plan`.
[[nodiscard]] const Texts& approvable_actions();

}  // namespace keyloader
