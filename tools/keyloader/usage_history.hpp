// What was changed that bears on an owner's use in a month: grants, resets, plans, limits, out of the registry's audit.
// Called by `usage statement`.
#pragma once

#include <string>
#include <vector>

#include "registry/registry.hpp"

namespace keyloader {

struct UsageHistory {
  std::vector<AuditEntry> entries;  // oldest first
  std::uint64_t audit_entries = 0;  // in all, with those that were archived
  std::uint64_t broken_at = 0;      // the first entry that does not fit the one before; 0: the audit is whole
  Hash last_hash{};
};

// Entries of the window that are about the owner, a key he had at that time, a quota of either, or a plan such a key
// had. Throws Failure for a window from which entries were archived.
[[nodiscard]] UsageHistory history_of(Registry& registry, const std::string& owner, Seconds from, Seconds to);

// "plan basic → pro, granted 0 → 1000": of what bears on use, what differs.
[[nodiscard]] std::string change_text(const AuditEntry& entry);

}  // namespace keyloader
