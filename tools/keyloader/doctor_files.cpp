// Files, modes, owners, disk. Nothing is opened but to see whether it can be.
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <set>
#include <sstream>

#include "doctor.hpp"
#include "file_descriptor.hpp"
#include "hint.hpp"
#include "node_view.hpp"
#include "user.hpp"

namespace keyloader {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kLeastDisk = std::uint64_t{64} << 20U;
constexpr std::uint64_t kSnapshotsThatMustFit = 3;  // the new one, its place in history, and some air
constexpr std::uint64_t kLeastFiles = 100;
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;
constexpr std::size_t kMostNamed = 3;
constexpr const char* kServiceUser = "apikey";  // as packaging/systemd/sysusers-apikey.conf makes it
constexpr mode_t kPermissionBits = 07777;

std::optional<struct stat> look_at(const fs::path& path) {
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0) {
    return std::nullopt;
  }
  return found;
}

// Has none of `forbidden` and all of `needed`. What is not there is another check's business.
void check_mode(const fs::path& path, mode_t forbidden, mode_t needed, mode_t right, Findings& findings) {
  const auto found = look_at(path);
  if (!found || ((found->st_mode & forbidden) == 0 && (found->st_mode & needed) == needed)) {
    return;
  }
  wrong(findings, fmt::format("{} has mode {:04o}", path.string(), found->st_mode & kPermissionBits),
        fmt::format("Run `chmod {:04o} {}`", right, path.string()));
}

void check_secret(const fs::path& path, Findings& findings) {
  check_mode(path, S_IRWXG | S_IRWXO, S_IRUSR | S_IWUSR, 0600, findings);
}

// init --reader-group: the registry is for another group than nginx's, which may pass through the directory.
bool has_readers(const Examined& examined) {
  const auto directory = look_at(examined.directory.path());
  const auto file = look_at(examined.directory.registry_file());
  return directory && file && (file->st_mode & S_IRGRP) != 0 && file->st_gid != directory->st_gid;
}

// With its two journals.
void check_database(const Examined& examined, const fs::path& path, Findings& findings) {
  const bool is_shared = has_readers(examined);
  for (const char* end : {"", "-wal", "-shm"}) {
    const fs::path file = path.string() + end;
    check_mode(file, S_IRWXO | (is_shared ? S_IWGRP | S_IXGRP : S_IRWXG), S_IRUSR | S_IWUSR, is_shared ? 0640 : 0600,
               findings);
    const auto found = look_at(file);
    const auto registry = look_at(examined.directory.registry_file());
    if (is_shared && found && registry && (found->st_mode & S_IRGRP) != 0 && found->st_gid != registry->st_gid) {
      wrong(findings, fmt::format("{} can be read by the group {}", file.string(), group_name(found->st_gid)),
            fmt::format("Run `chgrp {} {}`", group_name(registry->st_gid), file.string()));
    }
  }
}

void directory_mode(Examined& examined, Findings& findings) {
  const mode_t passage = has_readers(examined) ? S_IXOTH : 0;
  check_mode(examined.directory.path(), S_IWGRP | (S_IRWXO & ~passage), S_IRWXU | S_IRGRP | S_IXGRP | S_ISGID,
             02750 | passage, findings);
}

void history_mode(Examined& examined, Findings& findings) {
  check_mode(examined.directory.history(), S_IWGRP | S_IRWXO, S_IRWXU, 02750, findings);
}

void registry_mode(Examined& examined, Findings& findings) {
  check_database(examined, examined.directory.registry_file(), findings);
}

std::string give_it_back(const Examined& examined, uid_t owner) {
  return fmt::format("Run `keyloader --dir {} init --user {}` as root", shell_word(examined.directory.path().string()),
                     user_name(owner));
}

void registry_owner(Examined& examined, Findings& findings) {
  const auto directory = look_at(examined.directory.path());
  const auto file = look_at(examined.directory.registry_file());
  if (directory && file && directory->st_uid != file->st_uid) {
    wrong(findings,
          fmt::format("{} belongs to {}, its directory to {}", examined.directory.registry_file().string(),
                      user_name(file->st_uid), user_name(directory->st_uid)),
          give_it_back(examined, directory->st_uid));
  }
}

// What keyloader keeps in the directory beside the registry: of files nginx's announcements in nodes/ are left out,
// which belong to whoever starts it.
std::vector<fs::path> files_of(const DataDir& directory) {
  std::vector<fs::path> files;
  for (const fs::path& place : {directory.path(), directory.history(), directory.peppers()}) {
    std::error_code error;
    for (fs::directory_iterator each(place, error), end; !error && each != end; each.increment(error)) {
      const fs::path& path = each->path();
      const auto found = look_at(path);
      const bool is_place = path == directory.history() || path == directory.peppers() || path.filename() == "nodes";
      if (found && (S_ISREG(found->st_mode) || (S_ISDIR(found->st_mode) && is_place)) &&
          path != directory.registry_file()) {
        files.push_back(path);
      }
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

void file_owners(Examined& examined, Findings& findings) {
  const auto directory = look_at(examined.directory.path());
  Texts others;
  for (const fs::path& file : files_of(examined.directory)) {
    if (const auto found = look_at(file); directory && found && found->st_uid != directory->st_uid) {
      others.push_back(fmt::format("{} ({})", shown(file.string()), user_name(found->st_uid)));
    }
  }
  if (others.empty()) {
    return;
  }
  const std::size_t more = others.size() - std::min(others.size(), kMostNamed);
  others.resize(others.size() - more);
  wrong(findings,
        fmt::format("{}{} {} not to {}, who owns the directory", fmt::join(others, ", "),
                    more == 0 ? "" : fmt::format(" and {} more", more),
                    others.size() + more == 1 ? "belongs" : "belong", user_name(directory->st_uid)),
        give_it_back(examined, directory->st_uid));
}

void directory_user(Examined& examined, Findings& findings) {
  const auto directory = look_at(examined.directory.path());
  const bool has_service_user = getpwnam(kServiceUser) != nullptr;  // NOLINT(concurrency-mt-unsafe): one thread
  if (directory && directory->st_uid == 0 && has_service_user) {
    notice(findings,
           fmt::format("{} belongs to root, and there is a user {} to own it and run the timers",
                       examined.directory.path().string(), kServiceUser),
           fmt::format("Run `keyloader --dir {} init --user {}` as root",
                       shell_word(examined.directory.path().string()), kServiceUser));
  }
}

void snapshot_mode(Examined& examined, Findings& findings) {
  check_mode(examined.directory.snapshot_file(), S_IWGRP | S_IRWXO, S_IRUSR | S_IRGRP, 0640, findings);
}

void snapshot_group(Examined& examined, Findings& findings) {
  const auto directory = look_at(examined.directory.path());
  const auto file = look_at(examined.directory.snapshot_file());
  if (directory && file && directory->st_gid != file->st_gid) {
    wrong(findings,
          fmt::format("{} has the group {}, its directory the group {}, which nginx's workers should be in",
                      examined.directory.snapshot_file().string(), group_name(file->st_gid),
                      group_name(directory->st_gid)),
          fmt::format("Run `chgrp {} {}`", group_name(directory->st_gid), examined.directory.snapshot_file().string()));
  }
}

void peppers_mode(Examined& examined, Findings& findings) {
  check_mode(examined.directory.peppers(), S_IRWXG | S_IRWXO, S_IRWXU, 0700, findings);
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(examined.directory.peppers(), error)) {
    check_secret(entry.path(), findings);
  }
}

void usage_mode(Examined& examined, Findings& findings) {
  check_database(examined, examined.directory.usage_file(), findings);
}

void nodes_mode(Examined& examined, Findings& findings) {
  const fs::path path = examined.directory.path() / "nodes";
  const auto found = look_at(path);
  if (found && !S_ISDIR(found->st_mode)) {
    wrong(findings, fmt::format("{} is not a directory, so no nginx can announce itself there", path.string()),
          fmt::format("Remove it; the next nginx makes it: `rm {}`", path.string()));
    return;
  }
  check_mode(path, S_IWGRP | S_IWOTH, S_IRWXU, 0755, findings);
}

void leftovers(Examined& examined, Findings& findings) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(examined.directory.path(), error)) {
    if (entry.path().filename().string().starts_with("keys.mdb.new.")) {
      notice(findings, fmt::format("{} was left by a keyloader that was killed", entry.path().string()),
             "The next publish removes it");
    }
  }
}

void publish_lock(Examined& examined, Findings& findings) {
  const fs::path path = examined.directory.path() / "publish.lock";
  const FileDescriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (fd.is_open() && flock(fd.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    notice(findings, "another keyloader is publishing at this moment",
           fmt::format("If that lasts, look for one that hangs: `fuser {}`", path.string()));
  }
}

std::uint64_t size_of(const fs::path& path) {
  const auto found = look_at(path);
  return found ? static_cast<std::uint64_t>(found->st_size) : 0;
}

void disk_space(Examined& examined, Findings& findings) {
  struct statvfs disk {};
  if (statvfs(examined.directory.path().c_str(), &disk) != 0) {
    return;
  }
  const std::uint64_t available = disk.f_bavail * disk.f_frsize;
  const std::uint64_t needed =
      std::max(kLeastDisk, kSnapshotsThatMustFit * size_of(examined.directory.snapshot_file()));
  if (available < needed) {
    wrong(findings,
          fmt::format("{} MiB are left on the disk of {}, and publishing may need {}", available / kMiB,
                      examined.directory.path().string(), needed / kMiB),
          "Make room: a change that cannot be written is not made");
  }
  if (disk.f_files != 0 && disk.f_favail < kLeastFiles) {
    wrong(findings,
          fmt::format("the disk of {} has room for {} more files", examined.directory.path().string(), disk.f_favail),
          "Remove files: each snapshot is a new one");
  }
}

void runtime_space(Examined& examined, Findings& findings) {
  std::set<fs::path> seen;
  for (const auto& node : examined.nodes.all()) {
    const fs::path place = node->place().state.parent_path();
    struct statvfs disk {};
    if (!seen.insert(place).second || node->is_removed() || statvfs(place.c_str(), &disk) != 0) {
      continue;
    }
    const std::uint64_t available = disk.f_bavail * disk.f_frsize;
    if (available < kLeastDisk) {
      wrong(findings,
            fmt::format("{} MiB are left in {}, where nginx keeps its node memory", available / kMiB,
                        shown(place.string())),
            "Make room, or nginx cannot start with a larger zone: `keyloader node prune` removes what is left over");
    }
  }
}

// Who a process is, as the kernel says. Empty: it is not there, or it is not an nginx (of this pid namespace).
struct Identity {
  uid_t uid = 0;
  std::set<gid_t> groups;
};
std::optional<Identity> identity_of(std::uint64_t pid) {
  std::ifstream name(fmt::format("/proc/{}/comm", pid));
  std::string comm;
  if (!std::getline(name, comm) || comm != "nginx") {
    return std::nullopt;
  }
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  Identity identity;
  for (std::string line; std::getline(status, line);) {
    std::istringstream words(line);
    std::string label;
    words >> label;
    std::uint64_t real = 0;
    std::uint64_t effective = 0;
    if (label == "Uid:" && words >> real >> effective) {
      identity.uid = static_cast<uid_t>(effective);
    } else if (label == "Gid:" && words >> real >> effective) {
      identity.groups.insert(static_cast<gid_t>(effective));
    } else if (label == "Groups:") {
      for (std::uint64_t group = 0; words >> group;) {
        identity.groups.insert(static_cast<gid_t>(group));
      }
    }
  }
  return identity;
}

bool may(const Identity& who, const struct stat& what, mode_t bit) {
  if (who.uid == 0) {
    return true;
  }
  const unsigned shift = what.st_uid == who.uid ? 6 : who.groups.count(what.st_gid) != 0 ? 3 : 0;
  return ((what.st_mode >> shift) & bit) != 0;
}

// The first part of the path that it may not search, or the file itself.
std::optional<fs::path> barrier(const Identity& who, const fs::path& file) {
  fs::path at;
  for (const fs::path& part : fs::absolute(file)) {
    at /= part;
    struct stat found {};
    if (stat(at.c_str(), &found) != 0) {
      return std::nullopt;
    }
    if (!may(who, found, S_ISDIR(found.st_mode) ? 1 : 4)) {
      return at;
    }
  }
  return std::nullopt;
}

void workers_can_read(Examined& examined, Findings& findings) {
  std::set<std::string> said;
  for (const auto& node : examined.nodes.all()) {
    if (!node->problem().empty() || node->rows_of(examined.nodes.snapshot()).empty()) {
      continue;
    }
    for (const WorkerView& worker : workers_of(*node, 0)) {
      const auto who = identity_of(worker.pid);
      const auto where = who ? barrier(*who, examined.nodes.snapshot()) : std::nullopt;
      if (!where || !said.insert(where->string()).second) {
        continue;
      }
      const auto found = look_at(*where);
      wrong(findings,
            fmt::format("nginx's workers run as {} and may not read {} (group {})", user_name(who->uid),
                        where->string(), found ? group_name(found->st_gid) : "?"),
            "Name a user in nginx.conf who may, such as `user www-data;`, or give the directory to the workers' group "
            "with `keyloader init --group`");
    }
  }
}

constexpr std::array kChecks = {
    Check{"directory-mode", "the directory is open to its owner and nginx's group only", directory_mode},
    Check{"history-mode", "so is history/", history_mode},
    Check{"registry-mode", "only the owner may read the registry", registry_mode},
    Check{"registry-owner", "the registry belongs to the owner of the directory", registry_owner},
    Check{"file-owners", "so does everything else in it", file_owners},
    Check{"directory-user", "the directory belongs to a user of its own, where there is one", directory_user},
    Check{"snapshot-mode", "nginx's group may read keys.mdb, nobody else, and none may write it", snapshot_mode},
    Check{"snapshot-group", "keys.mdb has the group of its directory", snapshot_group},
    Check{"peppers-mode", "only the owner may read peppers", peppers_mode},
    Check{"usage-mode", "only the owner may read usage.db", usage_mode},
    Check{"nodes-mode", "nodes/ is a directory that no stranger may write", nodes_mode},
    Check{"leftovers", "no half-written snapshot is left over", leftovers},
    Check{"publish-lock", "nobody is publishing", publish_lock},
    Check{"disk-space", "there is room for the next snapshots", disk_space},
    Check{"runtime-space", "there is room for node memory", runtime_space},
    Check{"workers-can-read", "nginx's workers may read keys.mdb", workers_can_read},
};

}  // namespace

std::span<const Check> file_checks() { return kChecks; }

}  // namespace keyloader
