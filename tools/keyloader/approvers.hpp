// Who is there to approve what needs a second person. Used by `policy set`, by the sentence of a request, and by
// doctor.
#pragma once

#include <set>
#include <string>

#include "registry/registry.hpp"

namespace keyloader {

// Owners with a key that is good now and has the role `admin` for all teams: they can approve everything that can wait,
// also new administrators' keys.
[[nodiscard]] std::set<std::string> approvers(Registry& registry);

// What there is to say where changes wait for a second person and fewer than two people can approve them all: one of
// them may be who asks. Empty: nothing.
[[nodiscard]] std::string few_approvers(Registry& registry, const Policy& policy);

}  // namespace keyloader
