// Choosing, judging and making the runtime directory. A directory that somebody else could write into is never used:
// what is opened in it later would be theirs.
#include "ngx_http_apikey_runtime.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace apikey::nginx {
namespace {

constexpr const char* kRun = "/run";
constexpr const char* kRunDir = "/run/apikey";
constexpr mode_t kOthersWrite = S_IWGRP | S_IWOTH;
constexpr mode_t kOwnMode = S_IRWXU;
constexpr mode_t kGroupMode = S_IRWXU | S_IRGRP | S_IXGRP;

bool is_memory(const char* path) noexcept {
  struct statfs found {};
  return statfs(path, &found) == 0 && found.f_type == TMPFS_MAGIC;
}

bool is_ours(const struct stat& found) noexcept {
  return S_ISDIR(found.st_mode) && found.st_uid == geteuid() && (found.st_mode & kOthersWrite) == 0;
}

// Is /run/apikey a place for us, or can it become one?
bool can_use_run() noexcept {
  struct stat found {};
  if (lstat(kRunDir, &found) == 0) {
    return is_ours(found) && is_memory(kRunDir);
  }
  return errno == ENOENT && is_memory(kRun) && access(kRun, W_OK | X_OK) == 0;
}

ngx_str_t shared_memory_dir(ngx_pool_t* pool) noexcept {
  constexpr std::size_t longest = sizeof("/dev/shm/apikey-4294967295");
  ngx_str_t path{0, static_cast<u_char*>(ngx_pnalloc(pool, longest))};
  if (path.data != nullptr) {
    u_char* end = ngx_sprintf(path.data, "/dev/shm/apikey-%uD", static_cast<std::uint32_t>(geteuid()));
    *end = '\0';
    path.len = static_cast<std::size_t>(end - path.data);
  }
  return path;
}

bool make(const char* path, mode_t mode, gid_t group) noexcept {
  if (mkdir(path, mode) != 0) {
    return errno == EEXIST;
  }
  const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    return false;
  }
  if (mode == kGroupMode) {
    static_cast<void>(fchown(fd, static_cast<uid_t>(-1), group) != 0);
  }
  static_cast<void>(fchmod(fd, mode));  // whatever the umask
  close(fd);
  return true;
}

}  // namespace

ngx_str_t directory_of(ngx_pool_t* pool, const ngx_str_t& path) noexcept {
  const std::string_view text = view(path);
  const std::size_t slash = text.rfind('/');
  const std::string_view directory = slash == std::string_view::npos ? "." : text.substr(0, slash == 0 ? 1 : slash);
  ngx_str_t copy{0, static_cast<u_char*>(ngx_pnalloc(pool, directory.size() + 1))};
  if (copy.data != nullptr) {
    *ngx_cpymem(copy.data, directory.data(), directory.size()) = '\0';
    copy.len = directory.size();
  }
  return copy;
}

gid_t node_group(ngx_pool_t* pool, const MainConf& main) noexcept {
  if (geteuid() != 0 || main.stores.nelts == 0) {
    return getegid();
  }
  const ngx_str_t directory = directory_of(pool, static_cast<StoreConf**>(main.stores.elts)[0]->path);
  struct stat found {};
  const bool is_there = directory.len != 0 && stat(text_of(directory.data), &found) == 0;
  return is_there ? found.st_gid : getegid();
}

ngx_str_t choose_runtime_dir(ngx_pool_t* pool, const MainConf& main) noexcept {
  if (main.runtime.len != 0) {
    return main.runtime;
  }
  return can_use_run() ? to_ngx_str(kRunDir) : shared_memory_dir(pool);
}

int open_runtime_dir(ngx_pool_t* pool, const MainConf& main, ngx_log_t* log, ngx_str_t& path) noexcept {
  path = choose_runtime_dir(pool, main);
  if (path.len == 0) {
    return -1;
  }
  const bool is_given = main.runtime.len != 0;
  const bool is_private = !is_given && view(path) != kRunDir;
  const bool is_made = make(text_of(path.data), is_private ? kOwnMode : kGroupMode, node_group(pool, main));
  const int error = errno;
  // Where the operator says so a link is followed; elsewhere somebody else has put it there.
  const int fd =
      is_made ? open(text_of(path.data), O_RDONLY | O_DIRECTORY | O_CLOEXEC | (is_given ? 0 : O_NOFOLLOW)) : -1;
  if (fd < 0) {
    ngx_log_error(NGX_LOG_EMERG, log, is_made ? errno : error,
                  "apikey_zone: the runtime directory %V cannot be %s; write runtime=<directory> with one that belongs "
                  "to the user who starts nginx",
                  &path, is_made ? "opened" : "made");
    return -1;
  }
  struct stat found {};
  const mode_t forbidden = is_private ? S_IRWXG | S_IRWXO : kOthersWrite;
  if (fstat(fd, &found) == 0 && is_ours(found) && (found.st_mode & forbidden) == 0) {
    return fd;
  }
  ngx_log_error(
      NGX_LOG_EMERG, log, 0,
      "apikey_zone: the runtime directory %V is not used: it has to belong to the user who starts nginx (%uD) "
      "and nobody else may %s it, and it belongs to user %uD with mode 0%uD%uD%uD; write runtime=<directory> "
      "with another one",
      &path, static_cast<std::uint32_t>(geteuid()), is_private ? "use" : "write to",
      static_cast<std::uint32_t>(found.st_uid), found.st_mode >> 6U & 7U, found.st_mode >> 3U & 7U, found.st_mode & 7U);
  close(fd);
  return -1;
}

}  // namespace apikey::nginx
