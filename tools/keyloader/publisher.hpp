// From the registry to keys.mdb: the one way a change reaches nginx, and the way back to an older content.
// Called by every changing command, `publish`, `import` and `snapshot rollback`.
// Must never put into service what promise of this file forbids: another registry's snapshot over this one's, a lower
// generation, fewer than half of the keys, or the silent loss of a key nobody deleted.
#pragma once

#include <cstdint>

#include "data_dir.hpp"
#include "registry/registry.hpp"

namespace keyloader {

struct Published {
  std::uint64_t generation = 0;
  std::uint64_t keys = 0;
  std::uint64_t dropped = 0;         // by a rollback: keys deleted since
  std::uint64_t refused_since = 0;   // by a rollback: keys revoked or suspended since
  std::uint64_t rolled_back_to = 0;  // 0: not a rollback
};

// Which losses are meant.
struct Loss {
  bool is_meant = false;    // --allow-shrink: any
  std::uint64_t named = 0;  // `key delete ID…`: so many, named one by one
};

// Builds a snapshot of the registry and puts it into service.
Published publish(const DataDir& directory, Registry& registry, const Loss& loss);

// The same, unless a publisher that ran in between has taken the change with audit entry `seq` along.
void publish_change(const DataDir& directory, Registry& registry, std::uint64_t seq, const Loss& loss);

// A new generation with the content of an older one from history/ (0: the one before what is in service).
Published rollback(const DataDir& directory, Registry& registry, std::uint64_t generation, bool allow_shrink);

}  // namespace keyloader
