// Copies an older snapshot into a new one: what a rollback publishes.
// Called by publisher.cpp only, which holds the lock and decides what may be published.
#pragma once

#include <cstdint>

#include "publish/snapshot_file.hpp"
#include "publish/snapshot_writer.hpp"
#include "registry/registry.hpp"

namespace keyloader {

struct Copied {
  std::uint64_t keys = 0;
  std::uint64_t dropped = 0;  // the registry does not know them any more
  std::uint64_t refused = 0;  // revoked or suspended since
};

// Key by key what `old` holds, with revocations and suspensions (of keys and owners) as the registry has them today,
// without the keys it no longer knows. REQUIRES: inside Registry::with_stable_view().
Copied build_from_snapshot(Registry& registry, const apikey::publish::SnapshotFile& old,
                           apikey::publish::SnapshotWriter& writer);

}  // namespace keyloader
