// The snapshot a worker has in service for each store, and the requests that refer to it.
// A request pins what is in service when it first needs it and keeps that one to its end; the last unpin of an old
// snapshot closes it, its mapping is released in slices by the worker's timer.
#pragma once

#include <cstdint>

#include "apikey/adoption.hpp"
#include "apikey/snapshot.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// One open snapshot of this worker.
struct Loaded {
  Snapshot snapshot;
  std::uint8_t methods[kMaxDigestMethods] = {};  // indexes into MainConf::methods, in the snapshot's order
  std::size_t method_count = 0;
  std::uint64_t change = 0;  // Adopted::change
  ngx_uint_t pins = 0;
  int fd = -1;
  std::span<const std::byte> mapping;
  StoreConf* store = nullptr;
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

// Made at configuration time by set_store(), in the cycle's pool.
StoreRuntime* make_store_runtime(ngx_pool_t* pool) noexcept;

// Worker life, called by _worker: open what is adopted, look for a new file, release what is old.
void change_over(StoreConf& store, ngx_log_t* log) noexcept;
bool release_old(StoreConf& store) noexcept;  // at most 8 MiB; RETURNS: true while there is more
void close_all(StoreConf& store) noexcept;
// What this worker has in service; null: nothing.
const Loaded* in_service(const StoreConf& store) noexcept;

}  // namespace apikey::nginx
