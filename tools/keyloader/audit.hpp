// Whoever made a change, for people; and whether the audit is whole. Used by the family
// `audit` (by file: audit.cpp, audit_revert.cpp), by `usage statement` and `doctor`.
#pragma once

#include <string>

#include "command.hpp"
#include "registry/registry.hpp"
#include "session.hpp"

namespace keyloader {

// "root", or "alice as root" behind sudo.
[[nodiscard]] std::string actor_text(const Json& actor);

// RETURNS: where the chain of hashes is broken, as a sentence; empty: nowhere.
[[nodiscard]] std::string audit_problem(Registry& registry);

void add_audit_revert(Command& group, Session& session);

}  // namespace keyloader
