// Whoever made a change, for people; and whether the audit is whole. Used by `audit`, `usage statement` and `doctor`.
#pragma once

#include <string>

#include "registry/registry.hpp"

namespace keyloader {

// "root", or "alice as root" behind sudo.
[[nodiscard]] std::string actor_text(const Json& actor);

// RETURNS: where the chain of hashes is broken, as a sentence; empty: nowhere.
[[nodiscard]] std::string audit_problem(Registry& registry);

}  // namespace keyloader
