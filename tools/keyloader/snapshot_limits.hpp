// Limits and adjustments of quotas as they stand in snapshots.
// Called by snapshot_builder.cpp and, for a rollback, by snapshot_copier.cpp.
#pragma once

#include <map>
#include <vector>

#include "publish/snapshot_writer.hpp"
#include "registry/registry.hpp"

namespace keyloader {

using LimitRows = std::vector<apikey::publish::Limit>;

[[nodiscard]] LimitRows limit_rows(const Limits& limits);

// Adds to `rows` what still counts at `now` and belongs to a quota among `applying`. A grant that is over and a reset
// that no window can reach back to are left out.
void add_adjustments(LimitRows& rows, const Adjustments& adjustments, const LimitRows& applying, Seconds now);

// The adjustments of all families, by family.
using FamilyAdjustments = std::map<apikey::KeyId, Adjustments>;
[[nodiscard]] FamilyAdjustments family_adjustments(Registry& registry);

}  // namespace keyloader
