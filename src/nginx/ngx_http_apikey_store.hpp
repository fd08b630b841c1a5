// What a worker has open for each store, and the requests that refer to it.
// A request pins the newest generation when it is decided and keeps that one to its end; the last unpin of an old
// generation closes it, its mapping is released in slices by the worker's timer.
// A worker never decides by an older generation than the one that is adopted (but under a veto, see adoption.hpp): one
// that cannot open it is fenced, and every decision of its is `unavailable` until it can.
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
void release_copy(Copy& copy) noexcept;  // unmaps and closes at once; for what no request has seen

// One open snapshot of this worker. Its descriptor is closed as soon as a newer one takes its place: long requests cost
// memory, but no descriptors.
struct Opened {
  Snapshot snapshot;
  // Indexes into MainConf::methods, in the snapshot's order, of those that the store has.
  std::uint8_t methods[kMaxDigestMethods] = {};
  std::size_t method_count = 0;
  bool has_all_methods = false;
  std::uint64_t change = 0;  // AdoptedFile::change
  ngx_uint_t users = 0;      // Loaded that refer to it
  Copy copy;                 // an empty mapping: this slot is free
};

// What a request pins: one change, whole.
struct Loaded {
  Opened* deciding = nullptr;  // null: this slot is free
  Opened* veto = nullptr;
  ngx_uint_t pins = 0;

  [[nodiscard]] const Snapshot& snapshot() const noexcept { return deciding->snapshot; }
};

// As many generations as the requests of a worker can keep open at once, beside the newest.
inline constexpr std::size_t kMaxLoaded = 64;

// What this worker has open for one store, and what it has noticed of the file.
struct StoreRuntime {
  MainConf* main = nullptr;
  StoreRow* slot = nullptr;           // what all workers know of the store
  StoreCounters* counters = nullptr;  // what they count of it
  std::size_t row_number = 0;         // of both
  std::uint64_t key = 0;              // of the row when this configuration was loaded
  std::uint64_t configuration = 0;    // number of this configuration
  bool has_root_master = false;       // else everything belongs to one user, and a worker could change it anyway
  Opened opened[kMaxLoaded + 2];
  Loaded loaded[kMaxLoaded + 1];
  Loaded* current = nullptr;      // null: nothing decides
  std::uint64_t change = 0;       // Adopted::change that this worker has open: `current` is all of it
  bool is_waiting = false;        // it cannot open the newest, because requests hold every slot or descriptor
  bool needs_copy = false;        // … because no copy could be had
  bool has_closed_peers = false;  // other workers' copies cannot be opened here, so this worker verifies for itself
  ngx_msec_t tried_at = 0;        // when it last tried to switch
  std::uint64_t tried = 0;        // … to which change
  std::uint64_t complained = 0;   // the change it said it cannot open
  std::uint64_t tried_permission =
      0;                          // Permission::granted_us of the last one by which it looked at a refused file again
  bool has_named_scopes = false;  // what it has to say of the configured scopes is said
  std::uint64_t birth = 0;        // of the inode that was adopted last, ns; 0: not known
  Copy verified;                  // what this worker's own verification left, until it is opened …
  SealHash verified_seal{};       // … and which snapshot that is
  std::uint64_t verified_change = 0;  // … and the change it is held for; 0: not adopted yet
};

// The newest generation of this store, one reference taken; null when there is none, this worker is fenced, or it is
// older than max_age with on_stale=deny. Costs an acquire load when nothing has changed; else switches first.
Loaded* pin(StoreConf& store) noexcept;
void unpin(Loaded* loaded) noexcept;
// True when pin() would give this one (or null as well).
[[nodiscard]] bool is_newest(const StoreConf& store, const Loaded* loaded) noexcept;

// For decide().
inline StoreView view_of(const Loaded* loaded) noexcept {
  if (loaded == nullptr) {
    return {};
  }
  const Opened& deciding = *loaded->deciding;
  StoreView view;
  view.snapshot = &deciding.snapshot;
  view.methods = {deciding.methods, deciding.method_count};
  if (loaded->veto != nullptr) {
    view.veto = &loaded->veto->snapshot;
    view.veto_methods = {loaded->veto->methods, loaded->veto->method_count};
    view.has_all_veto_methods = loaded->veto->has_all_methods;
  }
  return view;
}

// Made at configuration time by set_store(), in the cycle's pool; attached to a row of node memory when that is there.
StoreRuntime* make_store_runtime(ngx_pool_t* pool) noexcept;
void attach_store_runtime(const StoreConf& store, MainConf& main, std::size_t row_number) noexcept;

// Index into MainConf::methods of the method a snapshot names, among those the store may use.
// RETURNS: kMaxConfiguredMethods when the store does not have it.
[[nodiscard]] std::size_t find_method(const StoreConf& store, std::string_view name) noexcept;

// Worker life, called by _worker and _verifier.
void switch_to_adopted(StoreConf& store, ngx_log_t* log) noexcept;  // or fences, and acknowledges either
bool release_old(StoreConf& store) noexcept;                        // at most 8 MiB; RETURNS: true while there is more
void close_all(StoreConf& store) noexcept;
// A copy that this worker has verified itself. `change`: which it is held for, 0: it is not adopted yet.
void keep_verified(StoreConf& store, Copy& copy, const SealHash& seal, std::uint64_t change) noexcept;
void drop_verified(StoreConf& store) noexcept;
// Takes what killed workers held out of node memory, or in time there would be no place left for the living.
void forget_dead(const StoreConf& store) noexcept;
// True when what is open here is what was adopted last.
[[nodiscard]] bool is_up_to_date(const StoreConf& store) noexcept;
[[nodiscard]] bool is_stale(const StoreConf& store, std::int64_t created) noexcept;  // older than max_age

}  // namespace apikey::nginx
