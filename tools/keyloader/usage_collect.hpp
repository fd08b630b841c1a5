// Taking over what nginx has counted. Used by `keyloader usage` before it shows anything, and by `usage collect`.
#pragma once

#include <string>

#include "usage_store.hpp"

namespace keyloader {

struct Collected {
  UsageInstance instance{};
  std::uint64_t rows = 0;
  Seconds complete_to = 0;
  Seconds acknowledged_to = 0;  // before this collection
};

// Reads all rows into usage.db, commits them, then lets nginx forget the hours that are complete. May be killed at any
// moment, repeated, and run beside others: nothing is lost or counted twice. Throws NotAnswering, or Failure.
Collected collect_usage(UsageStore& store, const std::string& socket);

}  // namespace keyloader
