// Counts the audit's entries about it.
#include "broken_glass.hpp"

namespace keyloader {

BrokenGlass broken_glass(Registry& registry, Seconds since) {
  BrokenGlass glass;
  registry.each_audit_entry({.action = "policy.break_glass", .since = since}, [&](const AuditEntry& entry) {
    ++glass.count;
    glass.last_entry = entry.seq;
    glass.last = entry.time;
  });
  return glass;
}

}  // namespace keyloader
