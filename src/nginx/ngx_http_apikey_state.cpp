// Making, adopting and replacing the file of /dev/shm. Runs in the master only, while it configures.
// Trusts the file as far as it belongs to the user who starts nginx and nobody else can open it; what workers may have
// left in it is checked all the same.
#include "ngx_http_apikey_state.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "ngx_http_apikey_checkpoint.hpp"
#include "ngx_http_apikey_thread.hpp"

namespace apikey::nginx {
namespace {

constexpr std::uint64_t kMagic = 0x4554415453594b41;  // "AKYSTATE" in memory
constexpr std::size_t kMaxNameLength = 64;
// How long requests that old workers finish after a change of size are said to be missing from usage.
constexpr std::int64_t kDrainSeconds = 60;
constexpr const char* kDirectory = "/dev/shm";

// Differs whenever what lies in the file differs in place, size or meaning.
constexpr std::uint64_t make_layout() noexcept {
  Fold64 fold(4 * sizeof(std::uint64_t));
  for (const std::uint64_t word :
       {kStateLayout, std::uint64_t{sizeof(StateHeader)}, QuotaTable::kLayout, UsageTable::kLayout}) {
    fold.word(word);
  }
  return fold.value();
}
constexpr std::uint64_t kLayout = make_layout();

const char* path_of(const State& state) noexcept { return text_of(state.path.data); }

void unmap(std::span<std::byte>& memory) noexcept {
  if (!memory.empty()) {
    munmap(memory.data(), memory.size());
    memory = {};
  }
}

void on_pool_end(void* data) noexcept {
  auto& state = *static_cast<State*>(data);
  unmap(state.memory);
  unmap(state.source);
  if (state.new_fd >= 0) {
    close(state.new_fd);
  }
}

State* make_state(ngx_pool_t* pool) noexcept {
  ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(pool, sizeof(State));
  if (cleanup == nullptr) {
    return nullptr;
  }
  cleanup->handler = on_pool_end;
  auto* state = ::new (cleanup->data) State{};
  state->new_fd = -1;
  return state;
}

// /dev/shm/apikey-<zone>-<hash of nginx's pid path>.v<layout>
bool name_state(ngx_cycle_t* cycle, State& state) noexcept {
  const auto* core = static_cast<ngx_core_conf_t*>(static_cast<void*>(ngx_get_conf(cycle->conf_ctx, ngx_core_module)));
  const std::uint64_t instance = fold64(std::as_bytes(std::span(view(core->pid))));
  const ngx_str_t name = file_name_of(cycle->pool, view(state.zone_name));
  constexpr std::size_t rest = sizeof("/dev/shm/apikey--0123456789abcdef.v00000000000000000000");
  state.path.data = static_cast<u_char*>(ngx_pnalloc(cycle->pool, name.len + rest));
  if (name.len == 0 || state.path.data == nullptr) {
    return false;
  }
  u_char* end = ngx_sprintf(state.path.data, "%s/apikey-%V-%016xL.v%uL", kDirectory, &name, instance, kStateLayout);
  *end = '\0';
  state.path.len = static_cast<std::size_t>(end - state.path.data);
  return true;
}

// RETURNS: an empty span with errno set.
std::span<std::byte> map_file(int fd, std::size_t size) noexcept {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return memory == MAP_FAILED ? std::span<std::byte>() : std::span(static_cast<std::byte*>(memory), size);
}

StateHeader* header_of(std::span<std::byte> memory) noexcept {
  return static_cast<StateHeader*>(static_cast<void*>(memory.data()));
}

// Attaches to what lies in the mapping. RETURNS: false when it is not what this build writes.
bool attach(std::span<std::byte> memory, StateTables& tables) noexcept {
  if (memory.size() <= kStateHeaderSize) {
    return false;
  }
  const StateHeader& header = *header_of(memory);
  return header.magic == kMagic && header.layout == kLayout && header.size == memory.size() &&
         attach_tables(memory, tables);
}

// The file that is there already, if it may be trusted.
enum class Existing : std::uint8_t { none, mapped, refused };

Existing map_existing(const State& state, ngx_log_t* log, std::span<std::byte>& memory) noexcept {
  const int fd = open(path_of(state), O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0 && errno == ENOENT) {
    return Existing::none;
  }
  struct stat found {};
  if (fd < 0 || fstat(fd, &found) != 0) {
    ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                  "apikey_zone \"%V\": %V cannot be opened; remove it, or give the zone another name", &state.zone_name,
                  &state.path);
    if (fd >= 0) {
      close(fd);
    }
    return Existing::refused;
  }
  const bool is_ours = S_ISREG(found.st_mode) && found.st_uid == geteuid() && found.st_nlink == 1 &&
                       (found.st_mode & 07777U) == (S_IRUSR | S_IWUSR);
  if (!is_ours) {
    ngx_log_error(NGX_LOG_EMERG, log, 0,
                  "apikey_zone \"%V\": %V is not taken: it has to be a plain file of the user who starts nginx (%uD) "
                  "with mode 0600, and is one of user %uD with mode 0%uD%uD%uD; remove it, or give the zone another "
                  "name",
                  &state.zone_name, &state.path, geteuid(), found.st_uid, found.st_mode >> 6U & 7U,
                  found.st_mode >> 3U & 7U, found.st_mode & 7U);
    close(fd);
    return Existing::refused;
  }
  memory = found.st_size <= 0 ? std::span<std::byte>() : map_file(fd, static_cast<std::size_t>(found.st_size));
  close(fd);
  return Existing::mapped;
}

void read_boot_id(StateHeader& header) noexcept {
  const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    static_cast<void>(read(fd, header.boot_id.data(), header.boot_id.size() - 1) < 0);
    close(fd);
  }
}

// Lays empty tables over new memory. `seed`: that of what is to be carried over.
bool lay_out(State& state, const SipKey& seed, ngx_log_t* log) noexcept {
  StateHeader& header = *state.header;
  header.layout = kLayout;
  header.size = state.memory.size();
  read_boot_id(header);
  if (getrandom(header.instance.data(), sizeof header.instance, 0) != static_cast<ssize_t>(sizeof header.instance) ||
      !format_tables(state.memory, seed, state.tables)) {
    ngx_log_error(NGX_LOG_EMERG, log, 0,
                  "apikey_zone \"%V\": no tables can be laid out in its %uz bytes; make it larger", &state.zone_name,
                  state.memory.size());
    return false;
  }
  header.magic = kMagic;
  return true;
}

// A file without a name, as long as the zone. It gets all its memory now: a page that is missing later kills a worker.
bool make_file(State& state, std::size_t size, ngx_log_t* log) noexcept {
  state.new_fd = open(kDirectory, O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
  int error = state.new_fd < 0 ? errno : 0;
  if (error == 0) {
    do {
      error = posix_fallocate(state.new_fd, 0, static_cast<off_t>(size));
    } while (error == EINTR);
  }
  if (error != 0) {
    ngx_log_error(
        NGX_LOG_EMERG, log, error,
        "apikey_zone \"%V\": %uz bytes for %V cannot be had; make /dev/shm larger (docker run --shm-size), or "
        "the zone smaller",
        &state.zone_name, size, &state.path);
    return false;
  }
  state.memory = map_file(state.new_fd, size);
  if (state.memory.empty()) {
    ngx_log_error(NGX_LOG_EMERG, log, ngx_errno, "apikey_zone \"%V\": %uz bytes of %V cannot be mapped",
                  &state.zone_name, size, &state.path);
    return false;
  }
  state.header = header_of(state.memory);
  return true;
}

// What the new file begins with: nothing yet when something is to be carried over, else what the checkpoint says.
ngx_int_t begin_new(ngx_cycle_t* cycle, const MainConf& main, State& state, const StateTables* old,
                    ngx_log_t* log) noexcept {
  if (old != nullptr) {
    return lay_out(state, old->quotas.seed(), log) ? NGX_OK : NGX_ERROR;
  }
  SipKey seed{};
  if (getrandom(seed.data(), sizeof seed, 0) != static_cast<ssize_t>(sizeof seed)) {
    ngx_log_error(NGX_LOG_EMERG, log, ngx_errno, "getrandom() failed for apikey_zone \"%V\"", &state.zone_name);
    return NGX_ERROR;
  }
  CheckpointFile file;
  const bool is_found = read_checkpoint(cycle, main, state, log, file);
  const bool is_laid_out = lay_out(state, is_found ? file.checkpoint.head.seed : seed, log);
  if (is_found && is_laid_out) {
    restore_checkpoint(file, state, log);
  }
  release_checkpoint(file);
  return is_laid_out ? NGX_OK : NGX_ERROR;
}

// From a table that is not used any more, or is by workers that are about to end.
void take_over(const StateTables& from, StateHeader& header, bool is_running, const State& state,
               ngx_log_t* log) noexcept {
  const auto now = static_cast<std::int64_t>(wall_us() / 1'000'000);
  const Carried carried = carry_over(from, {now, is_running ? now + kDrainSeconds : now}, state.tables);
  state.header->checkpoint_us.store(header.checkpoint_us.load());
  state.header->checkpoint_errors.store(header.checkpoint_errors.load());
  header.is_superseded.store(1);
  const ngx_uint_t level = carried.lost == 0 ? NGX_LOG_NOTICE : NGX_LOG_WARN;
  ngx_log_error(
      level, log, 0,
      "apikey_zone \"%V\": %V is new with %uz bytes, the one before had %uL: %uL quotas and %uL rows of usage "
      "were carried over, %uL found no room",
      &state.zone_name, &state.path, state.memory.size(), header.size, carried.quotas, carried.usage, carried.lost);
}

// Gives the new file its name, in place of the old one if there is one.
bool put_in_place(const State& state, ngx_cycle_t* cycle) noexcept {
  std::array<u_char, 32> own;
  *ngx_snprintf(own.data(), own.size() - 1, "/proc/self/fd/%d", state.new_fd) = '\0';
  auto* name = static_cast<u_char*>(ngx_pnalloc(cycle->pool, state.path.len + 16));
  if (name == nullptr) {
    return false;
  }
  *ngx_sprintf(name, "%V.%P", &state.path, ngx_getpid()) = '\0';
  static_cast<void>(unlink(text_of(name)));
  if (linkat(AT_FDCWD, text_of(own.data()), AT_FDCWD, text_of(name), AT_SYMLINK_FOLLOW) != 0) {
    return false;
  }
  if (rename(text_of(name), path_of(state)) == 0) {
    return true;
  }
  const int error = errno;
  static_cast<void>(unlink(text_of(name)));
  errno = error;
  return false;
}

// RETURNS: the tables in the mapping of the file that was there; null when there was none, or none that is whole.
const StateTables* look_at_source(const State& state, StateTables& tables, ngx_log_t* log) noexcept {
  if (attach(state.source, tables)) {
    return &tables;
  }
  if (state.source.empty()) {
    return nullptr;
  }
  ngx_log_error(NGX_LOG_WARN, log, 0,
                "apikey_zone \"%V\": %V is damaged or was laid out by another version of this module: it is replaced, "
                "quotas begin with what the checkpoint says, if there is one",
                &state.zone_name, &state.path);
  return nullptr;
}

bool is_same(const State& state, const State& running) noexcept {
  return running.header != nullptr && header_of(state.source)->instance == running.header->instance;
}

}  // namespace

ngx_str_t file_name_of(ngx_pool_t* pool, std::string_view zone_name) noexcept {
  ngx_str_t name = copy_to_pool(pool, zone_name.substr(0, kMaxNameLength));
  std::replace_if(
      name.data, name.data + name.len,
      [](u_char c) {
        const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        const bool is_plain = is_letter || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
        return !is_plain;
      },
      u_char{'_'});
  return name;
}

ngx_int_t prepare_state(ngx_cycle_t* cycle, MainConf& main, const ngx_shm_zone_t& zone, const State* running) noexcept {
  if (ngx_test_config) {
    return NGX_OK;
  }
  ngx_log_t* log = zone.shm.log;
  State* state = main.state = make_state(cycle->pool);
  if (state == nullptr) {
    return NGX_ERROR;
  }
  state->zone_name = zone.shm.name;
  if (!name_state(cycle, *state) || map_existing(*state, log, state->source) == Existing::refused) {
    return NGX_ERROR;
  }
  StateTables found;
  const StateTables* source = look_at_source(*state, found, log);
  // What the running workers count in is what counts, even if somebody has put another file in its place.
  const bool is_running = running != nullptr && running->header != nullptr;
  if (source != nullptr && state->source.size() == zone.shm.size && (!is_running || is_same(*state, *running))) {
    state->memory = std::exchange(state->source, {});
    state->header = header_of(state->memory);
    state->tables = found;
    return NGX_OK;
  }
  if (is_running) {
    state->running = running;
    source = &running->tables;
  }
  if (!make_file(*state, zone.shm.size, log)) {
    return NGX_ERROR;
  }
  return begin_new(cycle, main, *state, source, log);
}

ngx_int_t on_init_module(ngx_cycle_t* cycle) noexcept {
  MainConf* main = ngx_test_config ? nullptr : main_conf(cycle);
  State* state = main == nullptr ? nullptr : main->state;
  if (state == nullptr || state->new_fd < 0) {
    return NGX_OK;
  }
  StateTables found;
  if (state->running != nullptr) {
    take_over(state->running->tables, *state->running->header, true, *state, cycle->log);
  } else if (attach(state->source, found)) {
    take_over(found, *header_of(state->source), false, *state, cycle->log);
  }
  state->running = nullptr;
  unmap(state->source);
  if (!put_in_place(*state, cycle)) {
    ngx_log_error(NGX_LOG_ERR, cycle->log, ngx_errno,
                  "apikey_zone \"%V\": %V cannot be put in place; quotas will not survive a restart", &state->zone_name,
                  &state->path);
  }
  close(std::exchange(state->new_fd, -1));
  return NGX_OK;
}

const QuotaTable& quota_table(const MainConf& conf) noexcept { return conf.state->tables.quotas; }

const UsageTable& usage_table(const MainConf& conf) noexcept { return conf.state->tables.usage; }

}  // namespace apikey::nginx
