// Use by groups, largest first, and quotas that are nearly used up. Called by usage.cpp.
#pragma once

#include "usage.hpp"

namespace keyloader {

// --by, --top: one row for each key, owner, plan or day.
void show_groups(const Session& session, UsageStore& store, const UsageNames& names, const UsageFilter& filter,
                 const UsageOptions& options);

// --over: the quotas of which so much was used, by what nginx counts now.
void show_nearly_used_up(const Session& session, const UsageOptions& options);

}  // namespace keyloader
