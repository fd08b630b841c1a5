// Opening what was adopted, from this worker's own verification or from a living peer, and closing what is old.
// Called on the event loop of a worker only. A worker that cannot open what was adopted decides nothing until it can.
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

#include "apikey/features.hpp"
#include "apikey/seal.hpp"
#include "ngx_http_apikey_candidate.hpp"
#include "ngx_http_apikey_fault.hpp"
#include "ngx_http_apikey_known_scopes.hpp"
#include "ngx_http_apikey_node.hpp"
#include "ngx_http_apikey_reserve.hpp"
#include "ngx_http_apikey_room.hpp"
#include "ngx_http_apikey_rows.hpp"
#include "ngx_http_apikey_verifier.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kReleaseSlice = std::size_t{8} << 20U;
constexpr ngx_msec_t kTryEvery = 20;  // how often the requests of a fenced worker let it try to switch
constexpr int kNeededSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;

std::uint32_t own_pid() noexcept { return static_cast<std::uint32_t>(ngx_pid); }

void unmap(std::span<const std::byte> mapping) noexcept {
  munmap(const_cast<std::byte*>(mapping.data()), mapping.size());
}

// Is this still what was verified? A sealed memfd cannot have changed; a file may have.
bool is_copy_of(int fd, const AdoptedFile& adopted) noexcept {
  struct stat found;
  if (fstat(fd, &found) != 0 || static_cast<std::uint64_t>(found.st_size) != adopted.identity.size) {
    return false;
  }
  if (!adopted.has(kAdoptedIsMapped)) {
    const int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & kNeededSeals) == kNeededSeals;
  }
  const std::uint64_t mtime_ns = static_cast<std::uint64_t>(found.st_mtim.tv_sec) * kNsPerSecond +
                                 static_cast<std::uint64_t>(found.st_mtim.tv_nsec);
  return found.st_dev == adopted.identity.device && found.st_ino == adopted.identity.inode &&
         mtime_ns == adopted.identity.mtime_ns;
}

// The last page says which snapshot it is.
bool has_seal_of(std::span<const std::byte> mapping, const AdoptedFile& adopted) noexcept {
  Seal seal;
  return decode_seal(mapping, seal).ok() && seal.sha256 == adopted.seal;
}

bool map_copy(Copy& copy, const AdoptedFile& adopted) noexcept {
  if (!is_copy_of(copy.fd, adopted)) {
    return false;
  }
  void* memory = mmap(nullptr, adopted.identity.size, PROT_READ, MAP_SHARED, copy.fd, 0);
  if (memory == MAP_FAILED) {
    return false;
  }
  copy.mapping = {static_cast<const std::byte*>(memory), adopted.identity.size};
  if (adopted.has(kAdoptedIsMapped) && !guard(copy.mapping)) {
    unmap(copy.mapping);
    copy.mapping = {};
    return false;
  }
  copy.is_mapped_file = adopted.has(kAdoptedIsMapped);
  return has_seal_of(copy.mapping, adopted);
}

// What a copy could not be had for.
struct CopyFailure {
  int error = 0;
  bool is_refused = false;  // the system keeps a living worker's descriptors from us
};

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
bool is_relative(std::uint32_t pid, std::uint32_t parent) noexcept {
  const auto master = static_cast<std::uint32_t>(ngx_process == NGX_PROCESS_SINGLE ? ngx_pid : ngx_parent);
  if (pid == own_pid() || pid == master) {
    return true;
  }
  return parent > 1 && (parent == master || parent == parent_of(master) || parent_of(parent) == master);
}

// A descriptor cannot be opened though its holder lives and still holds it: AppArmor, SELinux, hidepid or gVisor.
bool keeps_closed(const Adoption& adoption, const AdoptedFile& adopted, const Adoption::Holder& holder) noexcept {
  Adoption::Holder now;
  for (std::size_t i = 0; adoption.holder(i, adopted.change, now); ++i) {
    if (now.pid == holder.pid && now.fd == holder.fd) {
      return is_worker_alive(holder.pid);
    }
  }
  return false;
}

bool take_from_peer(const Adoption& adoption, const AdoptedFile& adopted, Copy& copy, CopyFailure& failure) noexcept {
  Adoption::Holder holder;
  for (std::size_t i = 0; adoption.holder(i, adopted.change, holder); ++i) {
    const std::uint32_t parent = parent_of(holder.pid);
    if (!is_relative(holder.pid, parent)) {  // anybody could have put another process's pid there
      failure.is_refused |= parent == 0 && errno != EMFILE && keeps_closed(adoption, adopted, holder);
      continue;
    }
    std::array<u_char, 64> path;
    *ngx_snprintf(path.data(), path.size() - 1, "/proc/%uD/fd/%d", holder.pid, holder.fd) = '\0';
    copy.fd = open(reinterpret_cast<const char*>(path.data()), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    failure.error = copy.fd < 0 ? ngx_errno : 0;
    if (copy.fd >= 0 && map_copy(copy, adopted)) {
      return true;
    }
    if (failure.error == EACCES || failure.error == EPERM || failure.error == ENOENT) {
      failure.is_refused |= keeps_closed(adoption, adopted, holder);
    }
    release_copy(copy);
  }
  return false;
}

// memory=mapped: the file itself, if it is still where it was.
bool take_file(const StoreConf& store, const AdoptedFile& adopted, Copy& copy) noexcept {
  if (!adopted.has(kAdoptedIsMapped)) {
    return false;
  }
  copy.fd = open(reinterpret_cast<const char*>(store.path.data), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (copy.fd >= 0 && map_copy(copy, adopted)) {
    return true;
  }
  release_copy(copy);
  return false;
}

bool take_own(StoreConf& store, const AdoptedFile& adopted, Copy& copy) noexcept {
  StoreRuntime& mine = *store.runtime;
  if (mine.verified.fd < 0 || mine.verified_seal != adopted.seal) {
    return false;
  }
  if (mine.verified_change != adopted.change) {  // it was verified before it was adopted
    static_cast<void>(mine.slot->adoption.hold({own_pid(), mine.verified.fd}, adopted.change));
  }
  copy = std::exchange(mine.verified, {});
  mine.verified_change = 0;
  return true;
}

// Whatever is wrong with a file that was verified is wrong here.
Status open_snapshot(const StoreConf& store, Opened& opened, bool is_veto) noexcept {
  const GuardAll while_lmdb_reads;
  const Status status = opened.snapshot.open(opened.copy.fd, opened.copy.mapping, store.lookup);
  if (!status.ok()) {
    return status;
  }
  const Meta& meta = opened.snapshot.meta();
  opened.method_count = 0;
  opened.has_all_methods = true;
  for (std::size_t i = 0; i < meta.digest_count; ++i) {
    const std::size_t method = find_method(store, meta.digests[i]);
    if (method != kMaxConfiguredMethods) {
      opened.methods[opened.method_count++] = static_cast<std::uint8_t>(method);
      continue;
    }
    opened.has_all_methods = false;
    if (!is_veto) {
      return {StatusCode::refused,
              "its keys need a pepper that apikey_store does not name here: add pepper=<id>:<file> and reload"};
    }
  }
  for (std::size_t i = 0; i < meta.feature_count && !is_veto; ++i) {
    if (!is_known_feature(meta.features[i])) {
      return {StatusCode::refused, "it requires a feature that this version of the module does not have"};
    }
  }
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

template <typename T, std::size_t N, typename F>
T* find_in(T (&slots)[N], F&& is_wanted) noexcept {
  T* found = std::find_if(std::begin(slots), std::end(slots), is_wanted);
  return found == std::end(slots) ? nullptr : found;
}

// The snapshot goes on being read by requests that have it pinned; nobody takes a copy of it from here any more.
void close_descriptor(StoreRuntime& mine, Opened& opened) noexcept {
  if (opened.copy.fd >= 0) {
    mine.slot->adoption.drop(own_pid(), opened.change);
    close(opened.copy.fd);
    opened.copy.fd = -1;
  }
}

void close_snapshot(StoreRuntime& mine, Opened& opened) noexcept {
  opened.snapshot.close();
  if (opened.copy.is_mapped_file) {
    unguard(opened.copy.mapping);
    opened.copy.is_mapped_file = false;
  }
  close_descriptor(mine, opened);
}

void leave(Opened* opened) noexcept {
  if (opened != nullptr) {
    --opened->users;
  }
}

void free_unpinned(StoreRuntime& mine) noexcept {
  for (Loaded& old : mine.loaded) {
    if (&old != mine.current && old.deciding != nullptr && old.pins == 0) {
      leave(old.deciding);
      leave(old.veto);
      old = {};
    }
  }
}

// Descriptors of what no request needs any more: only with lookup=btree old snapshots have some.
void close_unused(StoreRuntime& mine) noexcept {
  free_unpinned(mine);
  for (Opened& each : mine.opened) {
    if (each.users == 0 && each.snapshot.is_open()) {
      close_snapshot(mine, each);
    }
  }
}

// Many snapshots in one second: the timer that releases them little by little has not come round yet.
template <typename F>
auto find_free(StoreConf& store, F&& find) noexcept {
  free_unpinned(*store.runtime);
  auto* found = find();
  while (found == nullptr && release_old(store)) {
    found = find();
  }
  return found;
}

// Opens a file of what is adopted, or finds it open. The caller is one user more of it.
// RETURNS: null with `failure` filled.
Opened* open_file(StoreConf& store, const AdoptedFile& adopted, bool is_veto, Status& failure,
                  CopyFailure& copy_failure) noexcept {
  StoreRuntime& mine = *store.runtime;
  Adoption& adoption = mine.slot->adoption;
  const auto is_it = [&](const Opened& each) { return each.snapshot.is_open() && each.change == adopted.change; };
  if (Opened* known = find_in(mine.opened, is_it)) {
    ++known->users;
    return known;
  }
  Opened* fresh = find_free(
      store, [&] { return find_in(mine.opened, [](const Opened& opened) { return opened.copy.mapping.empty(); }); });
  if (fresh == nullptr) {
    mine.is_waiting = true;
    failure = {StatusCode::failed, "requests in progress still use {0} older generations", kMaxLoaded};
    return nullptr;
  }
  const bool is_own = take_own(store, adopted, fresh->copy);
  if (!is_own && !take_from_peer(adoption, adopted, fresh->copy, copy_failure) &&
      !take_file(store, adopted, fresh->copy)) {
    mine.needs_copy = true;
    failure = {StatusCode::unreadable, "no copy of it can be had from another worker", 0, 0, copy_failure.error};
    return nullptr;
  }
  fresh->change = adopted.change;
  failure = open_snapshot(store, *fresh, is_veto);
  if (!failure.ok()) {
    fresh->snapshot.close();
    if (is_own) {
      keep_verified(store, fresh->copy, adopted.seal, adopted.change);
    } else {
      release_copy(fresh->copy);
    }
    return nullptr;
  }
  if (!is_own) {  // an own copy has been held since it was verified
    static_cast<void>(adoption.hold({own_pid(), fresh->copy.fd}, adopted.change));
  }
  fresh->users = 1;
  return fresh;
}

// Makes one Loaded of all that is adopted. RETURNS: false with `failure` filled.
bool open_adopted(StoreConf& store, const Adopted& adopted, Loaded*& loaded, Status& failure,
                  CopyFailure& copy_failure) noexcept {
  StoreRuntime& mine = *store.runtime;
  loaded = nullptr;
  if (!adopted.has_active()) {
    return true;  // a veto by itself decides nothing
  }
  Loaded* fresh = find_free(store, [&] {
    return find_in(mine.loaded, [&](const Loaded& slot) { return &slot != mine.current && slot.deciding == nullptr; });
  });
  if (fresh == nullptr) {
    mine.is_waiting = true;
    failure = {StatusCode::failed, "requests in progress still use {0} older generations", kMaxLoaded};
    return false;
  }
  Opened* deciding = open_file(store, adopted.active, false, failure, copy_failure);
  if (deciding == nullptr) {
    return false;
  }
  Opened* veto = adopted.has_veto() ? open_file(store, adopted.veto, true, failure, copy_failure) : nullptr;
  if (adopted.has_veto() && veto == nullptr) {
    leave(deciding);
    return false;
  }
  *fresh = {deciding, veto, 0};
  loaded = fresh;
  return true;
}

AckState fenced_state(const StoreConf& store) noexcept {
  return store.allows_on_error ? AckState::unchecked : AckState::fenced;
}

AckState open_state(const Adopted& adopted) noexcept { return adopted.has_veto() ? AckState::vetoed : AckState::open; }

void acknowledge(const StoreConf& store, const Adopted& adopted, AckState state) noexcept {
  // Before the first change there may be something known from before, which nobody has open.
  const std::uint64_t generation = adopted.change == 0 ? 0 : adopted.latest().generation;
  acknowledge(store, {generation, adopted.change, state});
}

void warn_of_closed_peers(StoreConf& store, const CopyFailure& failure, ngx_log_t* log) noexcept {
  StoreRuntime& mine = *store.runtime;
  mine.has_closed_peers = true;
  if (mine.slot->adoption.is_first_notice(Notice::peers_are_closed, mine.configuration)) {
    ngx_log_error(NGX_LOG_WARN, log, failure.error,
                  "apikey store \"%V\": workers may not open each other's /proc/<pid>/fd, so each of them verifies "
                  "every snapshot for itself and has a copy of its own; allow it in the AppArmor or SELinux profile",
                  &store.name);
  }
}

void log_fence(StoreConf& store, const Adopted& adopted, const Status& status, ngx_log_t* log) noexcept {
  if (std::exchange(store.runtime->complained, adopted.change) == adopted.change) {
    return;
  }
  std::array<char, 256> buffer;
  const std::string_view why = describe(status, buffer);
  ngx_log_error(
      NGX_LOG_ERR, log, status.error,
      "apikey store \"%V\": generation %uL cannot be opened by this worker: %*s; until it can be %s", &store.name,
      adopted.latest().generation, why.size(), why.data(),
      store.allows_on_error ? "its requests pass unchecked (on_error=allow)" : "it answers its requests with 503");
}

void fence(StoreConf& store, const Adopted& adopted, const Status& failure, const CopyFailure& copy_failure,
           ngx_log_t* log) noexcept {
  StoreRuntime& mine = *store.runtime;
  acknowledge(store, adopted, fenced_state(store));
  if (mine.needs_copy && copy_failure.is_refused) {
    warn_of_closed_peers(store, copy_failure, log);
  } else {
    log_fence(store, adopted, failure, log);
  }
}

// `fresh` is what requests get from now on; null: nothing decides.
void make_current(StoreRuntime& mine, Loaded* fresh) noexcept {
  Loaded* const old = std::exchange(mine.current, fresh);
  if (old != nullptr) {
    for (Opened* each : {old->deciding, old->veto}) {
      const bool stays = each == nullptr || (fresh != nullptr && (each == fresh->deciding || each == fresh->veto));
      if (!stays) {
        close_descriptor(mine, *each);
      }
    }
  }
}

void remember_birth(StoreConf& store, const AdoptedFile& latest) noexcept {
  const FileState file = look_at(reinterpret_cast<const char*>(store.path.data));
  store.runtime->birth = is_same_content(file.identity, latest.identity) ? file.birth_ns : 0;
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
  if (!is_up_to_date(store)) {
    const bool is_new = mine.tried != mine.slot->adoption.change();
    if (is_new || ngx_current_msec - mine.tried_at >= kTryEvery) {
      switch_to_adopted(store, ngx_cycle->log);
    }
    if (!is_up_to_date(store)) {
      return nullptr;
    }
  }
  Loaded* loaded = mine.current;
  if (loaded == nullptr || (store.denies_when_stale && is_stale(store, loaded->snapshot().meta().created.value))) {
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

bool is_newest(const StoreConf& store, const Loaded* loaded) noexcept {
  return loaded != nullptr && loaded == store.runtime->current && is_up_to_date(store);
}

void switch_to_adopted(StoreConf& store, ngx_log_t* log) noexcept {
  StoreRuntime& mine = *store.runtime;
  const Adopted adopted = mine.slot->adoption.read();
  mine.tried = adopted.change;
  mine.tried_at = ngx_current_msec;
  if (is_up_to_date(store)) {
    acknowledge(store, adopted, open_state(adopted));
    return;
  }
  mine.is_waiting = false;
  mine.needs_copy = false;
  Status failure;
  CopyFailure copy_failure;
  if (mine.slot->key.load() != mine.key) {
    failure = {StatusCode::refused, "this worker's configuration is so old that its store was forgotten"};
    fence(store, adopted, failure, copy_failure, log);
    return;
  }
  Loaded* fresh = nullptr;
  close_unused(mine);
  spend_reserve();
  const bool is_open = open_adopted(store, adopted, fresh, failure, copy_failure);
  if (is_open) {
    make_current(mine, fresh);
  }
  if (!is_verifying()) {  // else the thread may need them
    fill_reserve();
  }
  mine.is_waiting |= failure.error == EMFILE;  // with lookup=btree old generations hold descriptors, too
  if (!is_open) {
    fence(store, adopted, failure, copy_failure, log);
    return;
  }
  mine.change = adopted.change;
  acknowledge(store, adopted, open_state(adopted));
  if (mine.complained == adopted.change && adopted.change != 0) {
    ngx_log_error(NGX_LOG_NOTICE, log, 0, "apikey store \"%V\": generation %uL is open in this worker now", &store.name,
                  adopted.latest().generation);
  }
  remember_birth(store, adopted.latest());
  if (fresh != nullptr) {
    warn_if_crowded(store, *fresh, log);
    name_unknown_scopes(store, fresh->snapshot(), log);
  }
}

bool release_old(StoreConf& store) noexcept {
  StoreRuntime& mine = *store.runtime;
  free_unpinned(mine);
  Opened* old = find_in(mine.opened, [](const Opened& each) { return each.users == 0 && !each.copy.mapping.empty(); });
  if (old == nullptr) {
    return false;
  }
  close_snapshot(mine, *old);
  std::span<const std::byte>& mapping = old->copy.mapping;
  const std::size_t keep = mapping.size() > kReleaseSlice ? (mapping.size() - 1) / kReleaseSlice * kReleaseSlice : 0;
  unmap(mapping.subspan(keep));
  mapping = mapping.first(keep);
  return true;
}

void close_all(StoreConf& store) noexcept {
  StoreRuntime& mine = *store.runtime;
  mine.current = nullptr;
  for (Opened& opened : mine.opened) {
    close_snapshot(mine, opened);
    release_copy(opened.copy);
    opened.users = 0;
  }
  std::fill(std::begin(mine.loaded), std::end(mine.loaded), Loaded{});
  drop_verified(store);
  mine.slot->adoption.drop_all(own_pid());
  mine.change = 0;
}

void keep_verified(StoreConf& store, Copy& copy, const SealHash& seal, std::uint64_t change) noexcept {
  StoreRuntime& mine = *store.runtime;
  drop_verified(store);
  mine.verified = std::exchange(copy, {});
  mine.verified_seal = seal;
  mine.verified_change = change;
}

void drop_verified(StoreConf& store) noexcept {
  StoreRuntime& mine = *store.runtime;
  if (mine.verified_change != 0) {
    mine.slot->adoption.drop(own_pid(), mine.verified_change);
    mine.verified_change = 0;
  }
  release_copy(mine.verified);
}

void forget_dead(const StoreConf& store) noexcept {
  Adoption& adoption = store.runtime->slot->adoption;
  dead.count = 0;
  static_cast<void>(adoption.oldest_held(note_dead));
  std::for_each_n(dead.pids.begin(), dead.count, [&](std::uint32_t pid) { adoption.drop_all(pid); });
}

bool is_up_to_date(const StoreConf& store) noexcept {
  const StoreRuntime& mine = *store.runtime;
  return mine.change == mine.slot->adoption.change() && mine.key == mine.slot->key.load(std::memory_order_relaxed);
}

bool is_stale(const StoreConf& store, std::int64_t created) noexcept {
  return store.max_age > 0 && created + store.max_age < ngx_time();
}

}  // namespace apikey::nginx
