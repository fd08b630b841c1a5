// Opening what was adopted, from this worker's own verification or from a living peer, and letting go of what is old.
// Called on the event loop of a worker only. A copy that cannot be had leaves the last good one in service.
#include "ngx_http_apikey_store.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <new>
#include <utility>

#include "apikey/seal.hpp"
#include "ngx_http_apikey_candidate.hpp"
#include "ngx_http_apikey_fault.hpp"
#include "ngx_http_apikey_node.hpp"
#include "ngx_http_apikey_room.hpp"
#include "ngx_http_apikey_rows.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kReleaseSlice = std::size_t{8} << 20U;
constexpr int kNeededSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;

std::uint32_t own_pid() noexcept { return static_cast<std::uint32_t>(ngx_pid); }

void unmap(std::span<const std::byte> mapping) noexcept {
  munmap(const_cast<std::byte*>(mapping.data()), mapping.size());
}

// Is this still what was verified? A sealed memfd cannot have changed; a file may have.
bool is_copy_of(int fd, const Adopted& adopted) noexcept {
  struct stat found;
  if (fstat(fd, &found) != 0 || static_cast<std::uint64_t>(found.st_size) != adopted.identity.size) {
    return false;
  }
  if (!adopted.is_mapped) {
    const int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & kNeededSeals) == kNeededSeals;
  }
  const std::uint64_t mtime_ns = static_cast<std::uint64_t>(found.st_mtim.tv_sec) * kNsPerSecond +
                                 static_cast<std::uint64_t>(found.st_mtim.tv_nsec);
  return found.st_dev == adopted.identity.device && found.st_ino == adopted.identity.inode &&
         mtime_ns == adopted.identity.mtime_ns;
}

// The last page says which snapshot it is.
bool has_seal_of(std::span<const std::byte> mapping, const Adopted& adopted) noexcept {
  Seal seal;
  return decode_seal(mapping, seal).ok() && seal.sha256 == adopted.seal;
}

bool map_copy(Copy& copy, const Adopted& adopted) noexcept {
  if (!is_copy_of(copy.fd, adopted)) {
    return false;
  }
  void* memory = mmap(nullptr, adopted.identity.size, PROT_READ, MAP_SHARED, copy.fd, 0);
  if (memory == MAP_FAILED) {
    return false;
  }
  copy.mapping = {static_cast<const std::byte*>(memory), adopted.identity.size};
  if (adopted.is_mapped && !guard(copy.mapping)) {
    unmap(copy.mapping);
    copy.mapping = {};
    return false;
  }
  copy.is_mapped_file = adopted.is_mapped;
  return has_seal_of(copy.mapping, adopted);
}

// The pid of a process's parent; 0: not to be seen.
std::uint32_t parent_of(std::uint32_t pid) noexcept {
  std::array<u_char, 64> path;
  *ngx_snprintf(path.data(), path.size() - 1, "/proc/%uD/stat", pid) = '\0';
  const int fd = open(reinterpret_cast<const char*>(path.data()), O_RDONLY | O_CLOEXEC);
  std::array<char, 512> text;
  const ssize_t length = fd < 0 ? 0 : read(fd, text.data(), text.size());
  if (fd >= 0) {
    close(fd);
  }
  // pid (name) state ppid …; the name may hold anything, parentheses too.
  const std::string_view stat(text.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
  const std::size_t name_end = stat.rfind(')');
  std::uint32_t parent = 0;
  if (name_end != std::string_view::npos && name_end + 4 < stat.size()) {
    static_cast<void>(std::from_chars(stat.data() + name_end + 4, stat.data() + stat.size(), parent));
  }
  return parent;
}

// A worker of this one's master, of the master that it replaces, or of the one that replaces it.
bool is_relative(std::uint32_t pid) noexcept {
  const auto master = static_cast<std::uint32_t>(ngx_process == NGX_PROCESS_SINGLE ? ngx_pid : ngx_parent);
  if (pid == own_pid() || pid == master) {
    return true;
  }
  const std::uint32_t parent = parent_of(pid);
  return parent > 1 && (parent == master || parent == parent_of(master) || parent_of(parent) == master);
}

bool take_from_peer(const Adoption& adoption, const Adopted& adopted, Copy& copy) noexcept {
  Adoption::Holder holder;
  for (std::size_t i = 0; adoption.holder(i, adopted.change, holder); ++i) {
    if (!is_relative(holder.pid)) {  // anybody could have put another process's pid there
      continue;
    }
    std::array<u_char, 64> path;
    *ngx_snprintf(path.data(), path.size() - 1, "/proc/%uD/fd/%d", holder.pid, holder.fd) = '\0';
    copy.fd = open(reinterpret_cast<const char*>(path.data()), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (copy.fd >= 0 && map_copy(copy, adopted)) {
      return true;
    }
    release_copy(copy);
  }
  return false;
}

bool take_own(StoreConf& store, const Adopted& adopted, Copy& copy) noexcept {
  StoreRuntime& mine = *store.runtime;
  if (mine.verified_change != adopted.change) {
    drop_verified(store);
    return false;
  }
  copy = std::exchange(mine.verified, {});
  mine.verified_change = 0;
  return true;
}

Status open_snapshot(const StoreConf& store, Loaded& loaded) noexcept {
  const GuardAll while_lmdb_reads;
  const Status opened = loaded.snapshot.open(loaded.copy.fd, loaded.copy.mapping, store.lookup);
  if (!opened.ok()) {
    return opened;
  }
  const Meta& meta = loaded.snapshot.meta();
  for (std::size_t i = 0; i < meta.digest_count; ++i) {
    const std::size_t method = find_method(store, meta.digests[i]);
    if (method == kMaxConfiguredMethods) {
      return {StatusCode::refused, "its keys need a pepper that apikey_store does not name: add pepper=<id>:<file>"};
    }
    loaded.methods[i] = static_cast<std::uint8_t>(method);
  }
  loaded.method_count = meta.digest_count;
  return {};
}

// For forget_dead(): who was found dead. Adoption asks of each holder in turn whether it lives.
struct Dead {
  std::array<std::uint32_t, kMaxHolders> pids;
  std::size_t count = 0;
};
Dead dead;

bool note_dead(std::uint32_t pid) noexcept {
  if (!is_worker_alive(pid) && dead.count < dead.pids.size()) {
    dead.pids[dead.count++] = pid;
  }
  return false;  // so that it asks of all
}

Loaded* find_free(StoreRuntime& mine) noexcept {
  auto* end = std::end(mine.loaded);
  auto* found = std::find_if(std::begin(mine.loaded), end,
                             [](const Loaded& loaded) { return loaded.copy.fd < 0 && loaded.copy.mapping.empty(); });
  return found == end ? nullptr : found;
}

void close_snapshot(StoreRuntime& mine, Loaded& loaded) noexcept {
  if (loaded.copy.fd < 0) {
    return;
  }
  loaded.snapshot.close();
  if (loaded.copy.is_mapped_file) {
    unguard(loaded.copy.mapping);
    loaded.copy.is_mapped_file = false;
  }
  mine.slot->adoption.drop(own_pid(), loaded.change);
  close(loaded.copy.fd);
  loaded.copy.fd = -1;
}

void log_not_opened(const StoreConf& store, const Adopted& adopted, const Status& status, ngx_log_t* log) noexcept {
  std::array<char, 256> buffer;
  const std::string_view why = describe(status, buffer);
  ngx_log_error(NGX_LOG_ERR, log, status.error, "apikey store \"%V\": generation %uL cannot be opened: %*s",
                &store.name, adopted.generation, why.size(), why.data());
}

}  // namespace

void release_copy(Copy& copy) noexcept {
  if (!copy.mapping.empty()) {
    if (copy.is_mapped_file) {
      unguard(copy.mapping);
    }
    unmap(copy.mapping);
  }
  if (copy.fd >= 0) {
    close(copy.fd);
  }
  copy = {};
}

StoreRuntime* make_store_runtime(ngx_pool_t* pool) noexcept {
  // Snapshots have a destructor that nobody calls: close_all() is called at the end of a worker, and the master never
  // opens one.
  void* memory = ngx_pmemalign(pool, sizeof(StoreRuntime), 16);
  return memory == nullptr ? nullptr : ::new (memory) StoreRuntime;
}

void attach_store_runtime(const StoreConf& store, MainConf& main, std::size_t row_number) noexcept {
  StoreRuntime& mine = *store.runtime;
  mine.main = &main;
  mine.slot = &main.node->file->memory.store_row(row_number);
  mine.counters = &main.node->tables.counters->stores[row_number];
  mine.row_number = row_number;
  mine.key = mine.slot->key.load();
  mine.configuration = main.node->configuration;
  mine.has_root_master = geteuid() == 0;
}

std::size_t find_method(const StoreConf& store, std::string_view name) noexcept {
  const DigestMethod* methods = store.runtime->main->methods;
  for (ngx_uint_t i = 0; i < store.method_count; ++i) {
    if (methods[store.methods[i]].is_named(name)) {
      return store.methods[i];
    }
  }
  return kMaxConfiguredMethods;
}

Loaded* pin(StoreConf& store) noexcept {
  StoreRuntime& mine = *store.runtime;
  if (mine.slot->adoption.change() != mine.tried) {
    change_over(store, ngx_cycle->log);
  }
  Loaded* loaded = mine.current;
  if (loaded == nullptr || (store.denies_when_stale && is_stale(store, loaded->snapshot.meta().created.value))) {
    return nullptr;
  }
  ++loaded->pins;
  return loaded;
}

void unpin(Loaded* loaded) noexcept {
  if (loaded != nullptr && loaded->pins > 0) {
    --loaded->pins;
  }
}

void change_over(StoreConf& store, ngx_log_t* log) noexcept {
  StoreRuntime& mine = *store.runtime;
  Adoption& adoption = mine.slot->adoption;
  const Adopted adopted = adoption.read();
  mine.tried = adopted.change;
  if (adopted.change == 0 || is_up_to_date(store) || mine.slot->key.load() != mine.key) {
    return;
  }
  Loaded* fresh = find_free(mine);
  // Many snapshots in one second: the timer that releases them little by little has not come round yet.
  while (fresh == nullptr && release_old(store)) {
    fresh = find_free(mine);
  }
  if (fresh == nullptr) {
    if (!std::exchange(mine.is_waiting, true)) {
      ngx_log_error(NGX_LOG_WARN, log, 0,
                    "apikey store \"%V\": generation %uL has to wait: requests in progress still use %uz older ones",
                    &store.name, adopted.generation, kMaxLoaded);
    }
    return;
  }
  mine.is_waiting = false;
  const bool is_own = take_own(store, adopted, fresh->copy);
  if (!is_own && !take_from_peer(adoption, adopted, fresh->copy)) {
    return;
  }
  fresh->change = adopted.change;
  fresh->pins = 0;
  const Status opened = open_snapshot(store, *fresh);
  if (!opened.ok()) {
    log_not_opened(store, adopted, opened, log);
    fresh->snapshot.close();
    adoption.drop(own_pid(), adopted.change);
    release_copy(fresh->copy);
    return;
  }
  if (!is_own) {  // an own copy has been held since it was verified
    static_cast<void>(adoption.hold(own_pid(), fresh->copy.fd, adopted.change));
  }
  if (mine.current != nullptr) {  // nobody takes an old copy from here any more, though requests may still use it
    adoption.drop(own_pid(), mine.current->change);
  }
  mine.current = fresh;
  acknowledge(store, {adopted.generation, adopted.change, AckState::open});
  const FileState file = look_at(reinterpret_cast<const char*>(store.path.data));
  mine.birth = is_same_content(file.identity, adopted.identity) ? file.birth_ns : 0;
  warn_if_crowded(store, *fresh, log);
}

bool release_old(StoreConf& store) noexcept {
  StoreRuntime& mine = *store.runtime;
  for (Loaded& old : mine.loaded) {
    std::span<const std::byte>& mapping = old.copy.mapping;
    if (&old == mine.current || old.pins != 0 || mapping.empty()) {
      continue;
    }
    close_snapshot(mine, old);
    const std::size_t keep = mapping.size() > kReleaseSlice ? (mapping.size() - 1) / kReleaseSlice * kReleaseSlice : 0;
    unmap(mapping.subspan(keep));
    mapping = mapping.first(keep);
    return true;
  }
  return false;
}

void close_all(StoreConf& store) noexcept {
  StoreRuntime& mine = *store.runtime;
  mine.current = nullptr;
  for (Loaded& loaded : mine.loaded) {
    close_snapshot(mine, loaded);
    release_copy(loaded.copy);
  }
  drop_verified(store);
  mine.slot->adoption.drop_all(own_pid());
}

void drop_verified(StoreConf& store) noexcept {
  StoreRuntime& mine = *store.runtime;
  if (mine.verified_change != 0) {
    mine.slot->adoption.drop(own_pid(), mine.verified_change);
    mine.verified_change = 0;
    release_copy(mine.verified);
  }
}

void forget_dead(const StoreConf& store) noexcept {
  Adoption& adoption = store.runtime->slot->adoption;
  dead.count = 0;
  static_cast<void>(adoption.oldest_held(note_dead));
  std::for_each_n(dead.pids.begin(), dead.count, [&](std::uint32_t pid) { adoption.drop_all(pid); });
}

const Loaded* in_service(const StoreConf& store) noexcept { return store.runtime->current; }

bool is_up_to_date(const StoreConf& store) noexcept {
  const StoreRuntime& mine = *store.runtime;
  return mine.current != nullptr && mine.current->change == mine.slot->adoption.change();
}

bool is_stale(const StoreConf& store, std::int64_t created) noexcept {
  return store.max_age > 0 && created + store.max_age < ngx_time();
}

}  // namespace apikey::nginx
