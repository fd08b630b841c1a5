// Changing the owner of everything in a node's directory while its owner may be against it. See take_over.hpp.
// INVARIANT: no path is looked up twice. What is changed is the open file that was looked at.
#include "take_over.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <dirent.h>
#include <array>
#include <cerrno>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "data_dir.hpp"
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

Inode inode_of(const OpenFile& file) { return {file.found.st_dev, file.found.st_ino}; }

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
      struct stat found {};
      if (fstatat(top_fd(), name, &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(found.st_mode)) {
        directories_.push_back(open_at(top_fd(), root / name, kDirectory));
      }
    }
    struct stat found {};
    if (fstatat(top_fd(), kSnapshot, &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(found.st_mode) &&
        found.st_uid == owner()) {
      snapshot_ = open_at(top_fd(), root / kSnapshot, O_PATH);
    }
  }

  [[nodiscard]] uid_t owner() const { return directories_.front().found.st_uid; }

  // From now on nobody but root can give a file in there another name. nginx takes a snapshot of root's or of the owner
  // of its directory, so it is root's before the directory is, and until the directory is the new owner's.
  void close_to_owner() const {
    if (snapshot_) {
      give(*snapshot_, 0);
    }
    for (const OpenFile& directory : directories_) {
      give(directory, 0);
    }
  }

  void give_back() const {
    for (const OpenFile& directory : directories_) {
      give(directory, directory.found.st_uid);
    }
    if (snapshot_) {
      give(*snapshot_, snapshot_->found.st_uid);
    }
  }

  // REQUIRES: close_to_owner().
  void read() {
    for (const OpenFile& directory : directories_) {
      const std::unique_ptr<DIR, CloseDir> list(fdopendir(dup(directory.fd.get())));
      if (list == nullptr) {
        fail_errno("read", directory.path);
      }
      while (const dirent* entry = readdir(list.get())) {  // NOLINT(concurrency-mt-unsafe): there is one thread
        OpenFile file = open_at(directory.fd.get(), directory.path / entry->d_name, O_PATH);
        if (S_ISREG(file.found.st_mode)) {
          ++names_[inode_of(file)];
          files_.push_back(std::move(file));
        }
      }
    }
  }

  void refuse_others(uid_t user) const {
    for (const OpenFile& file : files_) {
      const bool is_snapshot = snapshot_ && inode_of(file) == inode_of(*snapshot_);
      const bool is_expected = is_snapshot || file.found.st_uid == owner() || file.found.st_uid == user;
      if (!is_expected && file.found.st_nlink > names_.at(inode_of(file))) {
        throw Failure(fmt::format(
            "{} belongs to {} and has another name outside of the directory, so it is not given to {}: a hard link may "
            "have been put there. Remove it, and run this again; nothing was changed",
            file.path.string(), user_name(file.found.st_uid), user_name(user)));
      }
    }
  }

  // RETURNS: how many belonged to somebody else.
  std::size_t give_to(uid_t user) const {
    std::size_t given = 0;
    const auto hand_over = [&](const OpenFile& file) {
      give(file, user);
      given += file.found.st_uid != user ? 1U : 0U;
    };
    for (const OpenFile& file : files_) {
      if (!snapshot_ || inode_of(file) != inode_of(*snapshot_)) {
        hand_over(file);
      }
    }
    for (const OpenFile& directory : directories_) {
      hand_over(directory);
    }
    if (snapshot_) {
      hand_over(*snapshot_);
    }
    return given;
  }

 private:
  static constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

  [[nodiscard]] int top_fd() const { return directories_.front().fd.get(); }

  std::vector<OpenFile> directories_;  // the first is the node's own
  std::vector<OpenFile> files_;
  std::optional<OpenFile> snapshot_;  // the owner's keys.mdb, which may have a second name in history/
  std::map<Inode, nlink_t> names_;
};

}  // namespace

uid_t require_user(const std::string& name) {
  const passwd* const entry = getpwnam(name.c_str());  // NOLINT(concurrency-mt-unsafe): there is one thread
  if (entry == nullptr) {
    throw Failure(
        fmt::format("there is no user \"{0}\" on this machine; make it with `adduser --system --no-create-home "
                    "--group {0}`, and give --group the group nginx's workers run as",
                    name));
  }
  return entry->pw_uid;
}

TakeOver take_over(const fs::path& directory, uid_t user) {
  TakeOver result;
  result.is_new = make_directory(directory);
  Tree tree(directory);
  result.from = tree.owner();
  tree.close_to_owner();
  try {
    tree.read();
    tree.refuse_others(user);
  } catch (const Failure&) {
    tree.give_back();
    throw;
  }
  result.given = tree.give_to(user);
  return result;
}

}  // namespace keyloader
