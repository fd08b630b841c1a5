// Builds a snapshot's content out of the registry.
// Called by publisher.cpp only, which holds the lock and decides what may be published.
#pragma once

#include <cstdint>
#include <functional>

#include "apikey/record.hpp"
#include "publish/snapshot_file.hpp"
#include "publish/snapshot_writer.hpp"
#include "registry/registry.hpp"

namespace keyloader {

struct Built {
  std::uint64_t keys = 0;
  std::uint64_t kept = 0;  // of the keys that are good in `old`, those that are in the new snapshot
  Texts methods;           // in use, newest first
};

// `old`: what is in service, or null. REQUIRES: inside Registry::with_stable_view().
Built build_from_registry(Registry& registry, const apikey::publish::SnapshotFile* old, Seconds now,
                          apikey::publish::SnapshotWriter& writer);

// The digest methods that a snapshot of the registry as it is now would have.
[[nodiscard]] Texts methods_of_snapshot(Registry& registry);

// for_each_key() of a snapshot with a `visit` that may throw: the walk itself must not be thrown through.
void each_key(const apikey::publish::SnapshotFile& file,
              const std::function<void(const apikey::Digest&, const apikey::Record&)>& visit);

// True when the record lets its bearer in at `now`, suspension and owner apart: what must not get lost unnoticed.
[[nodiscard]] bool is_good(const apikey::Record& record, Seconds now);

// The bits of `flag` where `is_set`.
[[nodiscard]] inline unsigned flag_if(bool is_set, apikey::RecordFlag flag) { return is_set ? unsigned{flag} : 0U; }

}  // namespace keyloader
