// From a path to a verified copy. What is verified is what is used: with memory=private the file is copied into a
// memfd that is sealed before the first byte of it is judged, so nothing that happens to the file matters afterwards.
#include "ngx_http_apikey_candidate.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstring>

#include "apikey/features.hpp"
#include "apikey/verify.hpp"
#include "ngx_http_apikey_fault.hpp"
#include "ngx_http_apikey_reserve.hpp"

namespace apikey::nginx {
namespace {

constexpr std::string_view kOpenFiles = "/proc/self/fd/";
constexpr std::size_t kCopyStep = std::size_t{1} << 20U;
constexpr int kSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

Status system_failure(StatusCode code, const char* text) noexcept { return {code, text, 0, 0, errno}; }

std::uint64_t nanoseconds(std::int64_t seconds, std::uint64_t ns) noexcept {
  return static_cast<std::uint64_t>(seconds) * kNsPerSecond + ns;
}

// Memory of this thread's own, unmapped at its end.
class Scratch {
 public:
  explicit Scratch(std::size_t bytes) noexcept : bytes_(bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory_ = memory == MAP_FAILED ? nullptr : memory;
  }
  ~Scratch() {
    if (memory_ != nullptr) {
      munmap(memory_, bytes_);
    }
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  [[nodiscard]] void* get() const noexcept { return memory_; }

 private:
  std::size_t bytes_;
  void* memory_;
};

class Descriptor {
 public:
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) {
      close(fd_);
    }
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const noexcept { return fd_; }
  int release() noexcept {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }

 private:
  int fd_;
};

// Where connections have used up all descriptors, a snapshot is what the reserve is for.
template <typename F>
int with_reserve(F&& make) noexcept {
  const int fd = make();
  if (fd >= 0 || errno != EMFILE) {
    return fd;
  }
  spend_reserve();
  return make();
}

FileIdentity identity_of(const struct stat& file) noexcept {
  return {.device = file.st_dev,
          .inode = file.st_ino,
          .size = static_cast<std::uint64_t>(file.st_size),
          .mtime_ns = nanoseconds(file.st_mtim.tv_sec, static_cast<std::uint64_t>(file.st_mtim.tv_nsec)),
          .ctime_ns = nanoseconds(file.st_ctim.tv_sec, static_cast<std::uint64_t>(file.st_ctim.tv_nsec))};
}

// The owner of the directory the open file lies in, wherever symbolic links led.
Status directory_owner(int fd, uid_t& owner) noexcept {
  std::array<char, 32> link{};
  char* digits = std::copy(kOpenFiles.begin(), kOpenFiles.end(), link.data());
  std::to_chars(digits, link.data() + link.size() - 1, fd);
  std::array<char, PATH_MAX> path;
  const ssize_t length = readlink(link.data(), path.data(), path.size() - 1);
  if (length <= 0 || path.front() != '/') {
    return system_failure(StatusCode::unreadable, "the directory it lies in cannot be found (is /proc mounted?)");
  }
  path[static_cast<std::size_t>(length)] = '\0';
  char* slash = std::strrchr(path.data(), '/');
  *(slash == path.data() ? slash + 1 : slash) = '\0';
  struct stat directory;
  if (stat(path.data(), &directory) != 0) {
    return system_failure(StatusCode::unreadable, "the directory it lies in cannot be looked at");
  }
  owner = directory.st_uid;
  return {};
}

// Only who administers the node may say which keys are good.
Status check_trust(int fd, const struct stat& file, uid_t worker_user) noexcept {
  if (!S_ISREG(file.st_mode)) {
    return {StatusCode::not_trusted, "it is not a regular file"};
  }
  if ((file.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return {StatusCode::not_trusted, "group or others may write it; take that away with chmod go-w"};
  }
  uid_t owner = 0;
  const Status found = file.st_uid == 0 ? Status{} : directory_owner(fd, owner);
  if (!found.ok()) {
    return found;
  }
  if (file.st_uid != owner) {
    return {StatusCode::not_trusted,
            "its owner (uid {0}) is neither root nor the owner of its directory (uid {1}); change it with chown",
            file.st_uid, owner};
  }
  if (worker_user != 0 && file.st_uid == worker_user && (file.st_mode & S_IWUSR) != 0) {
    return {StatusCode::not_trusted,
            "the workers' user (uid {0}) may write it; let root own it, or take that away with chmod a-w", worker_user};
  }
  return {};
}

Status copy_into(int from, int to, const Candidate& candidate) noexcept {
  const Scratch buffer(kCopyStep);
  if (buffer.get() == nullptr) {
    return system_failure(StatusCode::failed, "there is no memory to copy it");
  }
  std::uint64_t left = candidate.file.identity.size;
  while (left > 0) {
    if (!candidate.carry_on(candidate.context)) {
      return {StatusCode::failed, "the verification was stopped"};
    }
    const ssize_t got = read(from, buffer.get(), std::min<std::uint64_t>(left, kCopyStep));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return system_failure(StatusCode::unreadable, "it cannot be read");
    }
    if (got == 0) {
      return {StatusCode::damaged, "it became shorter while it was read; publish with rename"};
    }
    for (ssize_t done = 0; done < got;) {
      const ssize_t put = write(to, static_cast<char*>(buffer.get()) + done, static_cast<std::size_t>(got - done));
      if (put < 0) {
        return system_failure(StatusCode::failed,
                              "there is no memory for a copy of it ({0} bytes); memory=mapped needs none");
      }
      done += put;
    }
    left -= static_cast<std::uint64_t>(got);
  }
  return {};
}

// RETURNS: the descriptor whose mapping is verified and used: of a sealed copy, or of the file itself.
Status make_copy(Descriptor& file, Candidate& candidate) noexcept {
  if (candidate.store->is_mapped) {
    candidate.copy.fd = file.release();
    return {};
  }
  Descriptor memory(with_reserve([] { return memfd_create("apikey-snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING); }));
  if (memory.get() < 0) {
    return system_failure(StatusCode::failed, "memfd_create() failed");
  }
  Status copied = copy_into(file.get(), memory.get(), candidate);
  copied.a = candidate.file.identity.size;
  if (!copied.ok()) {
    return copied;
  }
  if (fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0) {
    return system_failure(StatusCode::failed, "its copy cannot be sealed");
  }
  candidate.copy.fd = memory.release();
  return {};
}

Status map_copy(Candidate& candidate) noexcept {
  Copy& copy = candidate.copy;
  // Kernels before 6.7 refuse MAP_SHARED of a write-sealed memfd through the descriptor that wrote it. Nobody can
  // change it any more, so a private mapping shows the same pages.
  const int sharing = candidate.store->is_mapped ? MAP_SHARED : MAP_PRIVATE;
  void* memory = mmap(nullptr, candidate.file.identity.size, PROT_READ, sharing, copy.fd, 0);
  if (memory == MAP_FAILED) {
    return system_failure(StatusCode::failed, "it cannot be mapped");
  }
  copy.mapping = {static_cast<const std::byte*>(memory), candidate.file.identity.size};
  if (candidate.store->is_mapped) {
    copy.is_mapped_file = guard(copy.mapping);
    if (!copy.is_mapped_file) {
      return {StatusCode::failed, "its mapping cannot be guarded"};
    }
  }
  return {};
}

// The first thing the file needs and this store does not have.
Lack find_lack(const StoreConf& store, const Meta& meta) noexcept {
  for (std::size_t i = 0; i < meta.feature_count; ++i) {
    if (!is_known_feature(meta.features[i])) {
      return Lack(meta.features[i]);
    }
  }
  for (std::size_t i = 0; i < meta.digest_count; ++i) {
    if (find_method(store, meta.digests[i]) == kMaxConfiguredMethods) {
      return Lack(meta.digests[i]);
    }
  }
  return Lack();
}

// Another registry, another history or a lower generation is taken by a permission for this very file, if nginx can
// decide by it: as a veto it would lock everybody out.
Status check_order(Candidate& candidate, const Meta& meta) noexcept {
  const Adopted adopted = candidate.adoption->read();
  if (adopted.latest().seal == candidate.file.seal) {  // also after a restart, when nothing is open yet
    return {};
  }
  const Status status =
      may_follow(in_service_of(adopted), meta, static_cast<unsigned>(candidate.store->min_keep_percent));
  candidate.needs_permission =
      !status.ok() && candidate.lack.name().empty() && candidate.is_permitted(*candidate.store, candidate.file);
  return candidate.needs_permission ? Status{} : status;
}

Status check_content(Candidate& candidate) noexcept {
  const std::span<const std::byte> bytes = candidate.copy.mapping;
  const std::size_t words = verify_scratch_words(bytes.size());
  const Scratch scratch(words * sizeof(std::uint64_t));
  if (scratch.get() == nullptr) {
    return system_failure(StatusCode::failed, "there is no memory to verify it");
  }
  Verified verified;
  const Status status = verify_snapshot(bytes, {static_cast<std::uint64_t*>(scratch.get()), words},
                                        {candidate.context, candidate.carry_on}, verified);
  if (!status.ok()) {
    return status;
  }
  const Meta& meta = verified.meta;
  AdoptedFile& file = candidate.file;
  file.seal = verified.seal.sha256;
  file.registry_id = meta.registry_id;
  file.generation = meta.generation;
  file.keys = meta.keys;
  file.created = meta.created.value;
  file.added = meta.added;
  file.removed = meta.removed;
  file.configuration = candidate.configuration;
  candidate.audit_seq = meta.audit_seq;
  candidate.audit_head = meta.audit_head;
  file.flags = meta.has_added ? kAdoptedHasCounters : std::uint64_t{0};
  file.flags |= candidate.store->is_mapped ? kAdoptedIsMapped : std::uint64_t{0};
  candidate.lack = find_lack(*candidate.store, meta);
  return candidate.is_for_copy ? Status{} : check_order(candidate, meta);
}

Status try_to_adopt(Candidate& candidate) noexcept {
  const auto* path = static_cast<const char*>(static_cast<const void*>(candidate.store->path.data));
  Descriptor file(with_reserve([&] { return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); }));
  struct stat found;
  if (file.get() < 0 || fstat(file.get(), &found) != 0) {
    return system_failure(StatusCode::unreadable, "it cannot be opened");
  }
  candidate.file.identity = identity_of(found);
  Status status = check_trust(file.get(), found, candidate.worker_user);
  if (status.ok() && found.st_size == 0) {
    status = {StatusCode::damaged, "it is empty"};
  }
  if (status.ok()) {
    status = make_copy(file, candidate);
  }
  if (status.ok()) {
    status = map_copy(candidate);
  }
  if (status.ok()) {
    status = check_content(candidate);
  }
  // A file that is used in place has to be the same after it was verified.
  if (status.ok() && candidate.store->is_mapped &&
      (fstat(candidate.copy.fd, &found) != 0 || !is_same_content(identity_of(found), candidate.file.identity))) {
    status = {StatusCode::damaged, "it was changed while it was verified; publish with rename"};
  }
  return status;
}

}  // namespace

FileState look_at(const char* path) noexcept {
  FileState state;
  struct statx found = {};
  if (statx(AT_FDCWD, path, 0, STATX_BASIC_STATS | STATX_BTIME, &found) != 0) {
    state.error = errno;
    return state;
  }
  state.identity = {.device = makedev(found.stx_dev_major, found.stx_dev_minor),
                    .inode = found.stx_ino,
                    .size = found.stx_size,
                    .mtime_ns = nanoseconds(found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
                    .ctime_ns = nanoseconds(found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec)};
  state.is_empty = S_ISREG(found.stx_mode) && found.stx_size == 0;
  if ((found.stx_mask & STATX_BTIME) != 0) {
    state.birth_ns = nanoseconds(found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
  }
  return state;
}

bool is_same_content(const FileIdentity& a, const FileIdentity& b) noexcept {
  return a.device == b.device && a.inode == b.inode && a.size == b.size && a.mtime_ns == b.mtime_ns;
}

void examine(Candidate& candidate) noexcept {
  candidate.status = try_to_adopt(candidate);
  if (!candidate.status.ok()) {
    release_copy(candidate.copy);
  }
}

AdoptionResult result_of(const Status& status) noexcept {
  switch (status.code) {
    case StatusCode::ok:
      return AdoptionResult::adopted;
    case StatusCode::refused:
      return AdoptionResult::refused;
    case StatusCode::bad_value:
    case StatusCode::damaged:
      return AdoptionResult::damaged;
    case StatusCode::not_trusted:
      return AdoptionResult::not_trusted;
    case StatusCode::unsupported:
      return AdoptionResult::unsupported;
    case StatusCode::absent:
    case StatusCode::unreadable:
      return AdoptionResult::unreadable;
    case StatusCode::failed:
      return AdoptionResult::failed;
  }
  return AdoptionResult::failed;
}

}  // namespace apikey::nginx
