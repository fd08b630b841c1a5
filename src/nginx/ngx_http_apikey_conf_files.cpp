// What `nginx -t` says of files and of directives beside ours: warnings only, as all of it may change before a request
// comes. Looks, and opens nothing but to read what it is (promise: a test of the configuration has no side effects).
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_neighbours.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kMostGroups = 256;
constexpr std::size_t kLongestPath = 4096;

// As whom workers will run.
struct Worker {
  bool is_us = true;  // nobody but root changes who workers are
  const char* name = "";
  uid_t uid = 0;
  std::array<gid_t, kMostGroups> groups{};
  std::size_t group_count = 0;
};

// NOLINTBEGIN(concurrency-mt-unsafe): the configuration is read by one thread
bool find_worker(ngx_conf_t* cf, Worker& worker) noexcept {
  const auto* core =
      static_cast<const ngx_core_conf_t*>(static_cast<const void*>(ngx_get_conf(cf->cycle->conf_ctx, ngx_core_module)));
  if (geteuid() != 0) {
    return true;
  }
  worker.is_us = false;
  // nginx itself fills in its default only when everything has been read.
  const bool is_named = core->user != static_cast<ngx_uid_t>(NGX_CONF_UNSET_UINT);
  const passwd* user = is_named ? getpwuid(core->user) : getpwnam(NGX_USER);
  if (user == nullptr) {
    return false;
  }
  worker.name = is_named && core->username != nullptr ? core->username : NGX_USER;
  worker.uid = user->pw_uid;
  const group* given = is_named ? nullptr : getgrnam(NGX_GROUP);
  const gid_t gid = is_named ? core->group : given != nullptr ? given->gr_gid : user->pw_gid;
  int count = static_cast<int>(kMostGroups);
  if (getgrouplist(worker.name, gid, worker.groups.data(), &count) < 0) {
    return false;
  }
  worker.group_count = static_cast<std::size_t>(count);
  return true;
}

const char* group_of(const struct stat& found) noexcept {
  const group* entry = getgrgid(found.st_gid);
  return entry == nullptr ? "?" : entry->gr_name;
}
// NOLINTEND(concurrency-mt-unsafe)

bool may(const Worker& worker, const char* path, const struct stat& found, mode_t bit) noexcept {
  if (worker.is_us) {
    return access(path, bit == S_IXOTH ? X_OK : R_OK) == 0;
  }
  if (worker.uid == 0) {
    return true;
  }
  const auto groups = std::span(worker.groups).first(worker.group_count);
  const bool is_member = std::find(groups.begin(), groups.end(), found.st_gid) != groups.end();
  const unsigned shift = found.st_uid == worker.uid ? 6 : is_member ? 3 : 0;
  return ((found.st_mode >> shift) & bit) != 0;
}

void warn_of_barrier(ngx_conf_t* cf, const Worker& worker, const StoreConf& store, const char* path,
                     const struct stat& found) noexcept {
  if (worker.is_us) {
    ngx_conf_log_error(NGX_LOG_WARN, cf, 0, "apikey_store: \"%V\": \"%s\" may not be read by the user who starts nginx",
                       &store.path, path);
    return;
  }
  ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                     "apikey_store: \"%V\": workers run as \"%s\" and may not read \"%s\" (group %s), so requests will "
                     "be answered with 503; write \"user\" with a user of that group, or give the directory to the "
                     "workers' group with keyloader init --group",
                     &store.path, worker.name, path, group_of(found));
}

// RETURNS: false when it has warned.
bool check_path(ngx_conf_t* cf, const Worker& worker, const StoreConf& store) noexcept {
  std::array<char, kLongestPath> path;
  if (store.path.len >= path.size()) {
    return true;
  }
  for (std::size_t i = 1; i <= store.path.len; ++i) {
    if (i < store.path.len && store.path.data[i] != '/') {
      continue;
    }
    std::copy_n(store.path.data, i, path.data());
    path[i] = '\0';
    struct stat found {};
    if (stat(path.data(), &found) != 0) {
      if (errno == ENOENT || errno == ENOTDIR) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "apikey_store: there is no snapshot \"%V\" yet, so requests will be answered with 503 until "
                           "keyloader init or keyloader snapshot install makes it",
                           &store.path);
      }
      return false;
    }
    if (!may(worker, path.data(), found, S_ISDIR(found.st_mode) ? S_IXOTH : S_IROTH)) {
      warn_of_barrier(cf, worker, store, path.data(), found);
      return false;
    }
    if (i == store.path.len && !S_ISREG(found.st_mode)) {
      ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                         "apikey_store: \"%V\" is not a file, write the path of the snapshot, such as "
                         "/var/lib/apikey/keys.mdb",
                         &store.path);
      return false;
    }
  }
  return true;
}

// The file beside the snapshot that is named by mistake most often.
void check_content(ngx_conf_t* cf, const StoreConf& store) noexcept {
  constexpr std::string_view sqlite = "SQLite format 3";
  std::array<char, sqlite.size()> begin{};
  std::array<char, kLongestPath> path{};
  if (store.path.len >= path.size()) {
    return;
  }
  std::copy_n(store.path.data, store.path.len, path.data());
  const int fd = open(path.data(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    return;
  }
  const ssize_t length = read(fd, begin.data(), begin.size());
  close(fd);
  if (length == static_cast<ssize_t>(begin.size()) && std::string_view(begin.data(), begin.size()) == sqlite) {
    ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                       "apikey_store: \"%V\" is a registry, not a snapshot, write the path of keys.mdb beside it",
                       &store.path);
  }
}

void check_state(ngx_conf_t* cf, const CheckpointConf& place) noexcept {
  struct stat found {};
  std::array<char, kLongestPath> path{};
  if (place.directory.len == 0 || place.directory.len >= path.size()) {
    return;
  }
  std::copy_n(place.directory.data, place.directory.len, path.data());
  if (stat(path.data(), &found) != 0 || !S_ISDIR(found.st_mode)) {
    ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                       "apikey_zone: there is no directory \"%V\", so quotas will not survive a reboot; make it for "
                       "the workers' user, with mode 0700",
                       &place.directory);
  }
}

// A program of rewrite's that begins with return answers every request.
bool returns_at_once(const ngx_cycle_t& cycle, const LocConf& conf) noexcept {
  const ngx_array_t* const codes = conf.loc_confs == nullptr ? nullptr : rewrite_codes(cycle, conf.loc_confs);
  return codes != nullptr && codes->nelts >= sizeof(ngx_http_script_return_code_t) &&
         *static_cast<ngx_http_script_code_pt*>(codes->elts) == ngx_http_script_return_code;
}

}  // namespace

void warn_of_files(ngx_conf_t* cf, const MainConf& main) noexcept {
  Worker worker;
  if (ngx_process == NGX_PROCESS_SIGNALLER || !find_worker(cf, worker)) {
    return;
  }
  for (StoreConf* const store : elements<StoreConf*>(main.stores)) {
    if (check_path(cf, worker, *store)) {
      check_content(cf, *store);
    }
  }
  check_state(cf, main.checkpoint);
}

void warn_of_returns(ngx_conf_t* cf, const MainConf& main) noexcept {
  for (const LocConf* const location : elements<LocConf*>(main.locations)) {
    if (location->is_place && returns_at_once(*cf->cycle, *location)) {
      ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                         "apikey: \"%V\" answers everybody: nginx runs its \"return\" before it asks for a key; let a "
                         "proxy_pass, a file or try_files answer",
                         &location->location_name);
    }
  }
}

}  // namespace apikey::nginx
