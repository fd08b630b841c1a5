// Whoever made a change, for people. Used by `audit list` and by `usage statement`.
#pragma once

#include <string>

#include "registry/model.hpp"

namespace keyloader {

// "root", or "alice as root" behind sudo.
[[nodiscard]] std::string actor_text(const Json& actor);

}  // namespace keyloader
