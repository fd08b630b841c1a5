// The system calls behind node files. All names are looked up in the directory that was judged, by its descriptor; no
// link is followed; nothing that lies there can make nginx stop.
#include "ngx_http_apikey_node_file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "apikey/node_locks.hpp"

namespace apikey::nginx {
namespace {

constexpr mode_t kStateMode = S_IRUSR | S_IWUSR | S_IRGRP;
constexpr mode_t kInboxMode = S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP;
constexpr int kSafely = O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
constexpr std::size_t kMaxFileSize = std::size_t{1} << 40U;

using Name = std::array<u_char, kMaxNodeName>;

const char* chars(const Name& name) noexcept { return text_of(name.data()); }

void close_fd(int& fd) noexcept {
  if (fd >= 0) {
    close(std::exchange(fd, -1));
  }
}

void unmap(std::span<std::byte>& mapping) noexcept {
  if (!mapping.empty()) {
    munmap(mapping.data(), mapping.size());
    mapping = {};
  }
}

std::span<std::byte> map(int fd, std::size_t size) noexcept {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return memory == MAP_FAILED ? std::span<std::byte>() : std::span(static_cast<std::byte*>(memory), size);
}

// By the descriptor: the name may lead elsewhere by now, or there may be none.
int open_again(int fd, int flags) noexcept {
  std::array<u_char, 32> path;
  *ngx_snprintf(path.data(), path.size() - 1, "/proc/self/fd/%d", fd) = '\0';
  return open(text_of(path.data()), flags | O_CLOEXEC);
}

bool is_plain_file_of_ours(const struct stat& found, mode_t allowed) noexcept {
  return S_ISREG(found.st_mode) && found.st_uid == geteuid() && found.st_nlink == 1 &&
         (found.st_mode & 07777U & ~allowed) == 0;
}

// Has this process the file open already? Then it was opened by another copy of this module, before a reload.
bool is_open_here(const struct stat& wanted, int but) noexcept {
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) {
    return false;
  }
  bool is_found = false;
  while (const dirent* entry = readdir(directory)) {
    int fd = -1;
    const char* end = entry->d_name + std::strlen(entry->d_name);
    struct stat found {};
    if (std::from_chars(entry->d_name, end, fd).ec == std::errc{} && fd != but && fstat(fd, &found) == 0) {
      is_found = is_found || (found.st_dev == wanted.st_dev && found.st_ino == wanted.st_ino);
    }
  }
  closedir(directory);
  return is_found;
}

// The descriptors that stay: they cannot write, and hold or ask for locks.
bool keep_descriptors(int fd, NodeFile& file) noexcept {
  file.lock_fd = open_again(fd, O_RDONLY);
  file.row_fd = open_again(fd, O_RDONLY);
  const bool is_shared = file.lock_fd >= 0 && file.row_fd >= 0 && share_master_lock(file.lock_fd);
  drop_master_lock(fd);
  return is_shared;
}

void let_go(NodeFile& file) noexcept {
  close_fd(file.lock_fd);
  close_fd(file.row_fd);
  unmap(file.mapping);
  unmap(file.inbox_mapping);
  file.memory = {};
  file.inbox = {};
}

// REQUIRES: fd is open for writing. Ours, or of the one we replace, or not to be had.
Claim claim_lock(int fd, const struct stat& found, std::string_view parent, const NodeFile& file) noexcept {
  if (claim_master_lock(fd) != LockState::held) {
    return Claim::claimed;  // where locks are not to be had there is nobody to be told from
  }
  const InstanceText instance = instance_text(file.memory.instance());
  const bool is_inherited =
      ngx_inherited != 0 && file.memory.is_attached() && parent == std::string_view(instance.data(), instance.size());
  return is_inherited || is_open_here(found, fd) ? Claim::shared : Claim::taken;
}

// Allocates every page now: one that is missing later would kill a worker.
int allocate(int fd, std::size_t size) noexcept {
  int error = 0;
  do {
    error = posix_fallocate(fd, 0, static_cast<off_t>(size));
  } while (error == EINTR);
  return error;
}

void give_to_group(int fd, mode_t mode, gid_t group) noexcept {
  static_cast<void>(fchown(fd, static_cast<uid_t>(-1), group) != 0);
  static_cast<void>(fchmod(fd, mode));
}

// A name that no other master uses, for what is not finished.
void temporary_name(const NodePlace& place, Name& name) noexcept {
  std::array<u_char, 32> suffix;
  *ngx_snprintf(suffix.data(), suffix.size() - 1, ".%P.new", ngx_getpid()) = '\0';
  node_name(place, 1, text_of(suffix.data()), name);
}

int open_new(const NodePlace& place) noexcept {
  const int fd = openat(place.directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (fd >= 0) {
    const int again = open_again(fd, O_RDONLY);  // /proc may be missing, and then it could not get its name
    if (again >= 0) {
      close(again);
      return fd;
    }
    close(fd);
  }
  Name name;
  temporary_name(place, name);
  static_cast<void>(unlinkat(place.directory, chars(name), 0));
  return openat(place.directory, chars(name), O_CREAT | O_EXCL | O_RDWR | kSafely, S_IRUSR | S_IWUSR);
}

// Makes sure that the file has its temporary name.
int name_temporarily(const NodePlace& place, const NodeFile& file, const Name& temporary) noexcept {
  struct stat found {};
  if (fstatat(place.directory, chars(temporary), &found, AT_SYMLINK_NOFOLLOW) == 0) {
    if (found.st_dev == file.device && found.st_ino == file.inode) {
      return 0;
    }
    static_cast<void>(unlinkat(place.directory, chars(temporary), 0));
  }
  std::array<u_char, 32> own;
  *ngx_snprintf(own.data(), own.size() - 1, "/proc/self/fd/%d", file.row_fd) = '\0';
  return linkat(AT_FDCWD, text_of(own.data()), place.directory, chars(temporary), AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
}

constexpr std::string_view kStateSuffix = ".state";

void kept_prefix(const NodePlace& place, Name& name) noexcept { node_name(place, 1, "", name); }

// Is it still of use to anybody?
bool is_in_use(const NodePlace& place, const char* name) noexcept {
  NodeFile file;
  struct stat found {};
  const int fd = openat(place.directory, name, O_RDONLY | kSafely);
  if (fd < 0 || fstat(fd, &found) != 0 || !S_ISREG(found.st_mode)) {
    close_fd(file.row_fd = fd);
    return true;  // it is not what this code has made
  }
  file.row_fd = fd;
  const std::size_t rows = kMaxNodeWorkers;
  bool is_held = false;
  for (std::size_t row = 0; row < rows && !is_held; ++row) {
    is_held = worker_lock(fd, row) != LockState::free;
  }
  close_fd(file.row_fd);
  return is_held;
}

bool map_inbox(int fd, NodeFile& file) noexcept {
  struct stat found {};
  if (fstat(fd, &found) != 0 || !is_plain_file_of_ours(found, kInboxMode) ||
      found.st_size != static_cast<off_t>(kInboxSize)) {
    return false;
  }
  file.inbox_mapping = map(fd, kInboxSize);
  if (!file.inbox_mapping.empty() && attach_inbox(file.inbox_mapping, file.memory.instance(), file.inbox).ok()) {
    return true;
  }
  unmap(file.inbox_mapping);
  return false;
}

}  // namespace

InstanceText instance_text(const NodeInstance& instance) noexcept {
  InstanceText text;
  std::array<std::uint8_t, sizeof instance> bytes;
  std::memcpy(bytes.data(), instance.data(), bytes.size());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    text[2 * i] = "0123456789abcdef"[bytes[i] >> 4U];
    text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 0xfU];
  }
  return text;
}

NodeFile* new_node_file(ngx_log_t* log) noexcept {
  void* memory = ngx_alloc(sizeof(NodeFile), log);
  if (memory == nullptr) {
    return nullptr;
  }
  auto* file = ::new (memory) NodeFile{};
  file->users = 1;
  return file;
}

void release_node_file(NodeFile* file) noexcept {
  if (file == nullptr || --file->users != 0) {
    return;
  }
  let_go(*file);
  ngx_free(file);
}

void node_name(const NodePlace& place, ngx_uint_t number, const char* suffix, std::span<u_char> out) noexcept {
  u_char* end = out.data() + out.size() - 1;
  u_char* at = number == 1 ? ngx_slprintf(out.data(), end, "%V%s", &place.id, suffix)
                           : ngx_slprintf(out.data(), end, "%V-%ui%s", &place.id, number, suffix);
  *at = '\0';
}

Claim claim_node_file(const NodePlace& place, ngx_uint_t number, std::string_view parent, NodeFile& file) noexcept {
  Name name;
  node_name(place, number, ".state", name);
  const int fd = openat(place.directory, chars(name), O_RDWR | kSafely);
  if (fd < 0) {
    return errno == ENOENT ? Claim::nothing : Claim::not_ours;
  }
  struct stat found {};
  if (fstat(fd, &found) != 0 || !is_plain_file_of_ours(found, kStateMode)) {
    close(fd);
    return Claim::not_ours;
  }
  file.number = number;
  file.device = found.st_dev;
  file.inode = found.st_ino;
  file.has_name = true;
  const auto size = static_cast<std::size_t>(std::max<off_t>(found.st_size, 0));
  if (size != 0 && size < kMaxFileSize) {
    file.mapping = map(fd, size);
    static_cast<void>(attach_node(file.mapping, file.memory));
  }
  Claim claim = claim_lock(fd, found, parent, file);
  // Somebody may have put another file in its place between opening and locking it.
  struct stat named {};
  const bool is_named = fstatat(place.directory, chars(name), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
                        named.st_dev == found.st_dev && named.st_ino == found.st_ino;
  if (claim != Claim::taken && (!is_named || !keep_descriptors(fd, file))) {
    claim = Claim::taken;
  }
  close(fd);
  if (claim == Claim::taken) {
    let_go(file);
  }
  return claim;
}

int make_node_file(const NodePlace& place, std::size_t size, NodeFile& file) noexcept {
  int fd = open_new(place);
  struct stat found {};
  int error = fd < 0 || fstat(fd, &found) != 0 ? errno : allocate(fd, size);
  if (error == 0) {
    file.device = found.st_dev;
    file.inode = found.st_ino;
    give_to_group(fd, kStateMode, place.group);
    file.mapping = map(fd, size);
    static_cast<void>(claim_master_lock(fd));
    error = file.mapping.empty() || !keep_descriptors(fd, file) ? errno : 0;
  }
  if (error != 0) {
    let_go(file);
    remove_unnamed_file(place);
  }
  close_fd(fd);
  return error;
}

void remove_unnamed_file(const NodePlace& place) noexcept {
  Name name;
  temporary_name(place, name);
  static_cast<void>(unlinkat(place.directory, chars(name), 0));
}

int name_node_file(const NodePlace& place, bool replaces, NodeFile& file) noexcept {
  Name temporary;
  temporary_name(place, temporary);
  if (const int error = name_temporarily(place, file, temporary); error != 0) {
    return error;
  }
  Name name;
  int error = 0;
  do {
    node_name(place, file.number, ".state", name);
    const bool is_done = replaces ? renameat(place.directory, chars(temporary), place.directory, chars(name)) == 0
                                  : linkat(place.directory, chars(temporary), place.directory, chars(name), 0) == 0;
    error = is_done ? 0 : errno;
  } while (error == EEXIST && !replaces && ++file.number <= kMaxNodeNumber);
  static_cast<void>(unlinkat(place.directory, chars(temporary), 0));
  file.has_name = error == 0;
  return error;
}

void keep_replaced_file(const NodePlace& place, const NodeFile& file) noexcept {
  Name name;
  Name kept;
  node_name(place, file.number, ".state", name);
  struct stat found {};
  if (fstatat(place.directory, chars(name), &found, AT_SYMLINK_NOFOLLOW) != 0 || found.st_dev != file.device ||
      found.st_ino != file.inode) {
    return;
  }
  const InstanceText instance = instance_text(file.memory.instance());
  std::array<u_char, 24> suffix;
  *ngx_snprintf(suffix.data(), suffix.size() - 1, "~%*s.state", std::size_t{8}, instance.data()) = '\0';
  node_name(place, file.number, text_of(suffix.data()), kept);
  static_cast<void>(linkat(place.directory, chars(name), place.directory, chars(kept), 0) != 0);
}

void remove_kept_files(const NodePlace& place) noexcept {
  const int fd = openat(place.directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* directory = fd < 0 ? nullptr : fdopendir(fd);
  if (directory == nullptr) {
    return;
  }
  Name prefix;
  kept_prefix(place, prefix);
  while (const dirent* entry = readdir(directory)) {
    const std::string_view name(entry->d_name);
    if (name.starts_with(chars(prefix)) && name.find('~') != std::string_view::npos && name.ends_with(kStateSuffix) &&
        !is_in_use(place, entry->d_name)) {
      static_cast<void>(unlinkat(place.directory, entry->d_name, 0));
    }
  }
  closedir(directory);
}

void open_inbox(const NodePlace& place, NodeFile& file) noexcept {
  Name name;
  node_name(place, file.number, ".inbox", name);
  int fd = openat(place.directory, chars(name), O_RDWR | kSafely);
  const bool is_found = fd >= 0 && map_inbox(fd, file);
  close_fd(fd);
  if (is_found) {
    return;
  }
  Name temporary;
  temporary_name(place, temporary);
  static_cast<void>(unlinkat(place.directory, chars(temporary), 0));
  fd = openat(place.directory, chars(temporary), O_CREAT | O_EXCL | O_RDWR | kSafely, S_IRUSR | S_IWUSR);
  if (fd < 0) {
    return;
  }
  bool is_made = allocate(fd, kInboxSize) == 0;
  file.inbox_mapping = is_made ? map(fd, kInboxSize) : std::span<std::byte>();
  is_made = !file.inbox_mapping.empty() && format_inbox(file.inbox_mapping, file.memory.instance(), file.inbox).ok();
  give_to_group(fd, kInboxMode, place.group);
  if (!is_made || renameat(place.directory, chars(temporary), place.directory, chars(name)) != 0) {
    static_cast<void>(unlinkat(place.directory, chars(temporary), 0));
    unmap(file.inbox_mapping);
    file.inbox = {};
  }
  close(fd);
}

bool has_living_workers(const NodeFile& file) noexcept {
  for (std::size_t row = 0; row < file.memory.worker_count(); ++row) {
    if (worker_lock(file.row_fd, row) == LockState::held) {
      return true;
    }
  }
  return false;
}

}  // namespace apikey::nginx
