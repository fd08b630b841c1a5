// What is so once nginx refuses keys: since when, and how many of their requests still run. The receipt of an incident.
// Called by `key revoke --wait`.
#pragma once

#include <vector>

#include "delivery.hpp"

namespace keyloader {

// Adds it to an outcome that is active in every nginx; to any other nothing, as there is no such moment then.
void add_receipt(const Session& session, Registry& registry, const std::vector<Key>& keys, Outcome& outcome);

}  // namespace keyloader
