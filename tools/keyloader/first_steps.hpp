// What comes after `keyloader init`: the lines that nginx needs, the first key, a request; with the paths as they are.
// And whether nginx's workers will get to the directory at all. Called by init.cpp.
#pragma once

#include <string>

#include "session.hpp"

namespace keyloader {

// `pepper`: id of the one that was made, or nothing. RETURNS: a list of {where, text}, in the order of doing.
[[nodiscard]] Json first_steps(const Session& session, const std::string& pepper);
// The same for people.
[[nodiscard]] std::string first_steps_text(const Json& steps);

// RETURNS: why nginx's workers, which run in the directory's group, cannot reach it, and what to do; or nothing.
[[nodiscard]] std::string unreachable_for_workers(const DataDir& directory);

}  // namespace keyloader
