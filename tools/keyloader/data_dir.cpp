// Making a node's directory with the right owner, group and modes; opening its registry.
// Called by every command. Must never leave a file readable to the world.
#include "data_dir.hpp"

#include <fmt/format.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "apikey/status.hpp"
#include "directory_owner.hpp"
#include "disk_full.hpp"
#include "hint.hpp"
#include "registry/sqlite_registry.hpp"
#include "user.hpp"

namespace keyloader {
namespace {

// setgid: what is made inside belongs to nginx's group, whoever makes it.
constexpr mode_t kDirectoryMode = 02750;

// Root is told why it may not, too.
std::string words_of(int error) {
  const std::string user = error == EACCES || error == EPERM ? works_as() : std::string{};
  return user.empty() ? strerrordesc_np(error) : fmt::format("{}; {}", strerrordesc_np(error), user);
}

std::string no_access(const std::filesystem::path& directory) {
  return fmt::format("registry.db in {} cannot be read: {}, or let a group read with `keyloader init --reader-group`",
                     directory.string(), who_may(directory));
}

}  // namespace

// NOLINTBEGIN(concurrency-mt-unsafe): there is one thread
std::optional<gid_t> workers_group(const std::string& wanted) {
  if (!wanted.empty()) {
    const group* entry = getgrnam(wanted.c_str());
    if (entry == nullptr) {
      throw Failure(fmt::format(
          "there is no group \"{}\" on this machine; give --group the group nginx's workers run as", wanted));
    }
    return entry->gr_gid;
  }
  for (const char* name : {"www-data", "nginx"}) {
    if (const group* entry = getgrnam(name); entry != nullptr) {
      return entry->gr_gid;
    }
  }
  return std::nullopt;
}
// NOLINTEND(concurrency-mt-unsafe)

bool make_directory(const std::filesystem::path& path) {
  const bool is_new = mkdir(path.c_str(), S_IRWXU) == 0;
  if (!is_new && errno != EEXIST) {
    if (errno == ENOENT) {
      throw Failure(fmt::format("cannot make {}: there is no directory {}; make that first, with `mkdir -p {}`",
                                path.string(), path.parent_path().string(), path.parent_path().string()));
    }
    fail_errno("make", path);
  }
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) {
    fail_errno("look at", path);
  }
  if (!S_ISDIR(status.st_mode)) {
    throw Failure(fmt::format("{} is not a directory", path.string()));
  }
  return is_new;
}

std::filesystem::path DataDir::trace_of_registry() const {
  std::error_code error;
  for (const char* suffix : {"-wal", "-shm"}) {
    std::filesystem::path path = registry_file().string() + suffix;
    if (std::filesystem::exists(path, error)) {
      return path;
    }
  }
  return {};
}

std::string DataDir::make(const std::string& group) const {
  const std::optional<gid_t> gid = workers_group(group);
  // Whoever may read the registry must get through the directory (init --reader-group).
  struct stat registry {};
  const bool has_readers = stat(registry_file().c_str(), &registry) == 0 && (registry.st_mode & S_IRGRP) != 0;
  std::string warning;
  for (const std::filesystem::path& path : {path_, history()}) {
    make_directory(path);
    if (gid && chown(path.c_str(), static_cast<uid_t>(-1), *gid) != 0) {
      if (!group.empty() || errno != EPERM) {
        fail_errno("give the group to", path);
      }
      warning = fmt::format(
          "{} keeps its group, as only root may give it nginx's: nginx's workers may not be able to read keys.mdb",
          path_.string());
    }
    if (chmod(path.c_str(), has_readers && path == path_ ? kDirectoryMode | S_IXOTH : kDirectoryMode) != 0) {
      fail_errno("set the mode of", path);
    }
  }
  if (!gid) {
    warning = "there is neither a group www-data nor nginx here; give --group the group nginx's workers run as";
  }
  return warning;
}

void DataDir::share_as_registry(const std::filesystem::path& database) const {
  struct stat registry {};
  if (stat(registry_file().c_str(), &registry) == 0 && (registry.st_mode & S_IRGRP) != 0) {
    let_group_read(database, registry.st_gid);
  }
}

void let_group_read(const std::filesystem::path& database, gid_t group) {
  for (const char* suffix : {"", "-wal", "-shm"}) {
    const std::string file = database.string() + suffix;
    if (lchown(file.c_str(), static_cast<uid_t>(-1), group) != 0) {
      if (errno == ENOENT && *suffix != '\0') {
        continue;  // it will be made like the database
      }
      fail_errno("give the group to", file);
    }
    if (chmod(file.c_str(), S_IRUSR | S_IWUSR | S_IRGRP) != 0) {
      fail_errno("set the mode of", file);
    }
  }
}

std::unique_ptr<Registry> DataDir::create_registry(const std::function<void(Change&)>& fill) const {
  return create_sqlite_registry(registry_file(), fill);
}

std::unique_ptr<Registry> DataDir::open_registry() const {
  if (access(registry_file().c_str(), R_OK) != 0 && errno == EACCES) {
    throw Failure(no_access(path_));
  }
  if (access(registry_file().c_str(), F_OK) != 0) {
    const bool is_absent = errno == ENOENT || errno == ENOTDIR;
    if (is_absent && access(snapshot_file().c_str(), F_OK) == 0) {
      throw Failure(
          fmt::format("there is no registry in {}, only a snapshot: this is a node, or the registry was lost. Bring "
                      "registry.db back from a backup; `keyloader status` and `keyloader snapshot show` show what is "
                      "there. `keyloader init` would make another registry, whose snapshots nginx refuses",
                      path_.string()));
    }
    if (struct stat found{}; stat(path_.c_str(), &found) == 0 && !S_ISDIR(found.st_mode)) {
      throw Failure(
          fmt::format("{} is a file, not a directory; name the directory of the registry with --dir or "
                      "APIKEY_DIR",
                      path_.string()));
    }
    if (is_absent) {
      throw Failure(
          fmt::format("there is no registry in {}; make one with `keyloader init --dir {}`, or name another directory "
                      "with --dir or APIKEY_DIR",
                      path_.string(), shell_word(path_.string())));
    }
    fail_errno("open", registry_file());
  }
  return open_sqlite_registry(registry_file());
}

void fail_errno(std::string_view doing, const std::filesystem::path& path) {
  const int error = errno;
  if (error == ENOSPC) {
    throw DiskFull(fmt::format("cannot {} {}: the disk is full; make room and try again", doing, path.string()));
  }
  throw Failure(fmt::format("cannot {} {}: {}", doing, path.string(), words_of(error)));
}

void write_all(int fd, std::string_view bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno != EINTR) {
      fail_errno("write", path);
    }
    bytes.remove_prefix(written > 0 ? static_cast<std::size_t>(written) : 0);
  }
}

std::string sentence_of(const apikey::Status& status) {
  std::array<char, 512> buffer{};
  std::string text{apikey::describe(status, buffer)};
  if (status.error == ENOSPC) {
    text += ": the disk is full; make room and try again";
  } else if (status.error != 0) {
    text += fmt::format(" ({})", words_of(status.error));
  }
  return text;
}

void check(const apikey::Status& status, std::string_view doing) {
  if (status.error == ENOSPC) {
    throw DiskFull(fmt::format("{}: {}", doing, sentence_of(status)));
  }
  if (!status.ok()) {
    throw Failure(fmt::format("{}: {}", doing, sentence_of(status)));
  }
}

}  // namespace keyloader
