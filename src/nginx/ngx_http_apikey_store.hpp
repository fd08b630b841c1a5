// The snapshot a worker has in service for each store, and the requests that refer to it.
// A request pins what is in service when it first needs it and keeps that one to its end; the last unpin of an old
// snapshot closes it, its mapping is released in slices by the worker's timer.
#pragma once

#include <cstdint>

#include "apikey/adoption.hpp"
#include "apikey/node_rows.hpp"
#include "apikey/snapshot.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

struct StoreCounters;  // ngx_http_apikey_zone.hpp

// A verified copy of a snapshot: a sealed memfd, or with memory=mapped the file itself. Owned by whoever holds it.
struct Copy {
  int fd = -1;
  std::span<const std::byte> mapping;
  bool is_mapped_file = false;
};
void release_copy(Copy& copy) noexcept;  // unmaps and closes at once; for what never was in service

// One open snapshot of this worker.
struct Loaded {
  Snapshot snapshot;
  std::uint8_t methods[kMaxDigestMethods] = {};  // indexes into MainConf::methods, in the snapshot's order
  std::size_t method_count = 0;
  std::uint64_t change = 0;  // Adopted::change
  ngx_uint_t pins = 0;
  Copy copy;
};

// As many as a store can have open at once: the one in service and old ones that long requests keep.
inline constexpr std::size_t kMaxLoaded = 8;

// What this worker has open for one store, and what it has noticed of the file.
struct StoreRuntime {
  MainConf* main = nullptr;
  StoreRow* slot = nullptr;           // what all workers know of the store
  StoreCounters* counters = nullptr;  // what they count of it
  std::size_t row_number = 0;         // of both
  std::uint64_t key = 0;              // of the row when this configuration was loaded
  std::uint64_t configuration = 0;    // number of this configuration
  bool has_root_master = false;       // else everything belongs to one user, and a worker could change it anyway
  Loaded loaded[kMaxLoaded];
  Loaded* current = nullptr;
  std::uint64_t tried = 0;            // the latest change this worker has tried to open
  bool is_waiting = false;            // for one of `loaded` to become free
  std::uint64_t birth = 0;            // of the inode in service, ns; 0: not known
  Copy verified;                      // what this worker's own verification left for the next change-over …
  std::uint64_t verified_change = 0;  // … to this change
};

// The snapshot in service for this store, one reference taken; null when there is none, or it is older than max_age
// with on_stale=deny. Costs one acquire load when nothing has changed; else opens the newly adopted one first.
Loaded* pin(StoreConf& store) noexcept;
void unpin(Loaded* loaded) noexcept;

// For decide().
inline StoreView view_of(const Loaded* loaded) noexcept {
  if (loaded == nullptr) {
    return {};
  }
  return {&loaded->snapshot, {loaded->methods, loaded->method_count}};
}

// Made at configuration time by set_store(), in the cycle's pool; attached to a row of node memory when that is there.
StoreRuntime* make_store_runtime(ngx_pool_t* pool) noexcept;
void attach_store_runtime(const StoreConf& store, MainConf& main, std::size_t row_number) noexcept;

// Index into MainConf::methods of the method a snapshot names, among those the store may use.
// RETURNS: kMaxConfiguredMethods when the store does not have it.
[[nodiscard]] std::size_t find_method(const StoreConf& store, std::string_view name) noexcept;

// Worker life, called by _worker: open what is adopted, look for a new file, release what is old.
void change_over(StoreConf& store, ngx_log_t* log) noexcept;
bool release_old(StoreConf& store) noexcept;  // at most 8 MiB; RETURNS: true while there is more
void close_all(StoreConf& store) noexcept;
void drop_verified(StoreConf& store) noexcept;  // what a verification left and no change-over took
// Takes what killed workers held out of node memory, or in time there would be no place left for the living.
void forget_dead(const StoreConf& store) noexcept;
// What this worker has in service; null: nothing.
const Loaded* in_service(const StoreConf& store) noexcept;
// True when what is in service here is what was adopted last.
[[nodiscard]] bool is_up_to_date(const StoreConf& store) noexcept;
[[nodiscard]] bool is_stale(const StoreConf& store, std::int64_t created) noexcept;  // older than max_age

}  // namespace apikey::nginx
