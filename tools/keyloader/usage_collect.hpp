// Taking over what nginx has counted. Used by `keyloader usage` before it shows anything, and by `usage collect`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "nodes.hpp"
#include "session.hpp"
#include "usage_store.hpp"

namespace keyloader {

// From one nginx.
struct Collected {
  std::string from;  // "nginx (pid 812)", or the socket
  std::string place;
  UsageInstance instance{};
  std::uint64_t rows = 0;
  Seconds complete_to = 0;
  Seconds acknowledged_to = 0;  // before this collection
};

// Reads all rows into usage.db, commits them, then lets nginx forget the hours that are complete. May be killed at any
// moment, repeated, and run beside others: nothing is lost or counted twice.
// `socket`: where to ask; empty: the node memory of every nginx that has our keys.mdb, those that are gone as well, and
// usage.sock of the directory where that does not say it all. Throws NotAnswering when there is nobody to ask, or
// Failure.
std::vector<Collected> collect_usage(const Session& session, UsageStore& store, const std::string& socket);

// From one that is about to be removed. RETURNS: nothing where it has not counted for our keys.mdb. Throws Failure.
std::optional<Collected> collect_usage(const Session& session, const Nodes& nodes, const Node& node);

}  // namespace keyloader
