// Changing the owner of everything in a node's directory while its owner may be against it. See take_over.hpp.
// INVARIANT: no path is looked up twice. What is changed is the open file that was looked at.
#include "take_over.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <dirent.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "data_dir.hpp"
#include "directory_owner.hpp"
#include "file_descriptor.hpp"
#include "user.hpp"

namespace keyloader {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSnapshot = "keys.mdb";
// What lies in other directories is not ours.
constexpr std::array<const char*, 3> kBelow{"history", "peppers", "nodes"};

using Inode = std::pair<dev_t, ino_t>;

struct OpenFile {
  fs::path path;
  FileDescriptor fd;
  struct stat found {};
};

Inode inode_of(const struct stat& found) { return {found.st_dev, found.st_ino}; }

struct CloseDir {
  void operator()(DIR* directory) const { static_cast<void>(closedir(directory)); }
};

// Not opened for anything but to be looked at and given away, so that no fifo or device does anything.
OpenFile open_at(int directory, const fs::path& path, int flags) {
  OpenFile file{.path = path,
                .fd = FileDescriptor(openat(directory, path.filename().c_str(), flags | O_NOFOLLOW | O_CLOEXEC))};
  if (!file.fd.is_open() || fstat(file.fd.get(), &file.found) != 0) {
    fail_errno("look at", path);
  }
  return file;
}

void give(const OpenFile& file, uid_t user) {
  if (fchownat(file.fd.get(), "", user, static_cast<gid_t>(-1), AT_EMPTY_PATH) != 0) {
    fail_errno(fmt::format("give to {}", user_name(user)), file.path);
  }
}

// What the group and all others may write, the user whose it was may go on writing.
void close_to_writers(const OpenFile& file) {
  constexpr mode_t writers = S_IWGRP | S_IWOTH;
  constexpr mode_t all_bits = 07777;
  const std::string link = fmt::format("/proc/self/fd/{}", file.fd.get());  // an O_PATH descriptor knows no fchmod()
  if ((file.found.st_mode & writers) != 0 && chmod(link.c_str(), file.found.st_mode & all_bits & ~writers) != 0) {
    fail_errno("set the mode of", file.path);
  }
}

// The directories and files of a node, open.
class Tree {
 public:
  explicit Tree(const fs::path& root) {
    directories_.push_back({.path = root, .fd = FileDescriptor(open(root.c_str(), kDirectory))});
    OpenFile& top = directories_.back();
    if (!top.fd.is_open() && (errno == ENOTDIR || errno == ELOOP)) {
      throw Failure(fmt::format("{} is not a directory", root.string()));
    }
    if (!top.fd.is_open() || fstat(top.fd.get(), &top.found) != 0) {
      fail_errno("open", root);
    }
    for (const char* name : kBelow) {
      if (const auto found = look_at(name); found && S_ISDIR(found->st_mode)) {
        directories_.push_back(open_at(top_fd(), root / name, kDirectory));
      }
    }
    if (const auto found = look_at(kSnapshot); found && S_ISREG(found->st_mode) && found->st_uid == owner()) {
      trusted_.push_back(open_at(top_fd(), root / kSnapshot, O_PATH));
    }
    if (const OpenFile* const peppers = below("peppers")) {
      each_file(*peppers, [&](OpenFile file) {
        if (file.found.st_uid == owner()) {
          trusted_.push_back(std::move(file));
        }
      });
    }
  }

  [[nodiscard]] uid_t owner() const { return directories_.front().found.st_uid; }

  // From now on nobody but root can give a file in there another name. nginx takes a snapshot and peppers of root's or
  // of the owner of the directory: so they are root's before the directory is, and until it is the new owner's.
  void close_to_owner() const {
    for (const OpenFile& file : trusted_) {
      give(file, 0);
    }
    for (const OpenFile& directory : directories_) {
      give(directory, 0);
    }
  }

  // The other way round.
  void give_back() const {
    for (const OpenFile& directory : directories_) {
      give(directory, directory.found.st_uid);
    }
    for (const OpenFile& file : trusted_) {
      give(file, file.found.st_uid);
    }
  }

  // Its owner could rename directories until they were root's. REQUIRES: close_to_owner().
  void refuse_replaced() const {
    for (const char* name : kBelow) {
      const auto found = look_at(name);
      const OpenFile* const opened = below(name);
      if (found && S_ISLNK(found->st_mode)) {
        throw Failure(fmt::format(
            "{} is a link, and keyloader would follow it later on. Remove it, or put a directory there, and "
            "run this again; nothing was changed",
            (directories_.front().path / name).string()));
      }
      const bool is_directory = found && S_ISDIR(found->st_mode);
      if (is_directory != (opened != nullptr) || (is_directory && inode_of(*found) != inode_of(opened->found))) {
        throw Failure(fmt::format(
            "{} was renamed or replaced while this looked at it. End what {} runs there, and run this again; "
            "nothing was changed",
            (directories_.front().path / name).string(), user_name(owner())));
      }
    }
  }

  // REQUIRES: close_to_owner().
  void read() {
    for (const OpenFile& directory : directories_) {
      each_file(directory, [&](OpenFile file) {
        ++names_[inode_of(file.found)];
        files_.push_back(std::move(file));
      });
    }
  }

  // Through a name outside whoever owns the place of that name goes on writing, or is given a file of others.
  void refuse_linked(uid_t user) const {
    for (const OpenFile& file : files_) {
      const OpenFile* const closed = trusted(file);
      const uid_t whose = closed != nullptr ? closed->found.st_uid : file.found.st_uid;
      const bool stays = owner() == user && whose == user;
      if (!stays && file.found.st_nlink > names_.at(inode_of(file.found))) {
        throw Failure(fmt::format(
            "{} belongs to {} and has another name outside of the directory, so it is not given to {}: a hard link may "
            "have been put there, or be left elsewhere. Remove the other one, or put a copy in its place, and run this "
            "again; nothing was changed",
            file.path.string(), user_name(whose), user_name(user)));
      }
    }
  }

  // What nginx trusts comes last, see close_to_owner().
  void give_to(uid_t user, TakeOver& result) const {
    const auto hand_over = [&](const OpenFile& file) {
      close_to_writers(file);
      give(file, user);
      if (file.found.st_uid != user) {
        ++result.given;
        result.from = result.from == user ? file.found.st_uid : result.from;
      }
    };
    for (const OpenFile& file : files_) {
      if (trusted(file) == nullptr) {
        hand_over(file);
      }
    }
    std::for_each(directories_.rbegin(), directories_.rend(), hand_over);
    std::for_each(trusted_.begin(), trusted_.end(), hand_over);
  }

 private:
  static constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

  [[nodiscard]] int top_fd() const { return directories_.front().fd.get(); }

  [[nodiscard]] std::optional<struct stat> look_at(const char* name) const {
    struct stat found {};
    return fstatat(top_fd(), name, &found, AT_SYMLINK_NOFOLLOW) == 0 ? std::optional(found) : std::nullopt;
  }

  [[nodiscard]] const OpenFile* below(const char* name) const {
    const auto found = std::find_if(directories_.begin() + 1, directories_.end(),
                                    [&](const OpenFile& directory) { return directory.path.filename() == name; });
    return found == directories_.end() ? nullptr : &*found;
  }

  [[nodiscard]] const OpenFile* trusted(const OpenFile& file) const {
    const auto found = std::find_if(trusted_.begin(), trusted_.end(),
                                    [&](const OpenFile& each) { return inode_of(each.found) == inode_of(file.found); });
    return found == trusted_.end() ? nullptr : &*found;
  }

  template <typename Take>
  static void each_file(const OpenFile& directory, const Take& take) {
    const std::unique_ptr<DIR, CloseDir> list(fdopendir(dup(directory.fd.get())));
    if (list == nullptr) {
      fail_errno("read", directory.path);
    }
    rewinddir(list.get());                               // the copies of a descriptor have one position
    while (const dirent* entry = readdir(list.get())) {  // NOLINT(concurrency-mt-unsafe): there is one thread
      OpenFile file = open_at(directory.fd.get(), directory.path / entry->d_name, O_PATH);
      if (S_ISFIFO(file.found.st_mode)) {
        throw Failure(
            fmt::format("{} is a named pipe, for which keyloader would wait for ever. Remove it, and run this "
                        "again; nothing was changed",
                        file.path.string()));
      }
      if (S_ISREG(file.found.st_mode)) {
        take(std::move(file));
      }
    }
  }

  std::vector<OpenFile> directories_;  // the first is the node's own
  std::vector<OpenFile> files_;
  std::vector<OpenFile>
      trusted_;  // by nginx: the owner's keys.mdb, which may have a second name in history/, and peppers
  std::map<Inode, nlink_t> names_;
};

}  // namespace

uid_t require_user(const std::string& name, const std::string& workers) {
  const passwd* const entry = getpwnam(name.c_str());  // NOLINT(concurrency-mt-unsafe): there is one thread
  if (entry == nullptr) {
    throw Failure(
        fmt::format("there is no user \"{0}\" on this machine; make it with `adduser --system --no-create-home "
                    "--group {0}`, and put it into the group of nginx's workers with `adduser {0} {1}`",
                    name, workers));
  }
  return entry->pw_uid;
}

TakeOver take_over(const fs::path& directory, uid_t user, const std::vector<gid_t>& groups) {
  require_way_to(directory, user, groups);
  TakeOver result;
  result.is_new = make_directory(directory);
  Tree tree(directory);
  result.from = tree.owner();
  tree.close_to_owner();
  try {
    tree.refuse_replaced();
    tree.read();
    tree.refuse_linked(user);
  } catch (const Failure&) {
    tree.give_back();
    throw;
  }
  tree.give_to(user, result);
  return result;
}

}  // namespace keyloader
