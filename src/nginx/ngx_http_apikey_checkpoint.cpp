// Writing a checkpoint so that at any instruction the old or the new one is there: a file beside it, fsync, rename,
// fsync of the directory. And reading it with all suspicion: it lies in a directory of the workers' user.
#include "ngx_http_apikey_checkpoint.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ngx_http_apikey_thread.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kChunk = std::size_t{64} << 10U;
constexpr std::uint64_t kMaxFileSize = std::uint64_t{4} << 30U;

// Closes itself.
class File {
 public:
  File(const ngx_str_t& path, int flags) noexcept
      : fd_(open(text_of(path.data), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, S_IRUSR | S_IWUSR)) {}
  ~File() {
    if (fd_ >= 0) {
      close(fd_);
    }
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  [[nodiscard]] int fd() const noexcept { return fd_; }

 private:
  int fd_;
};

bool write_all(int fd, std::span<const std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno != EINTR) {
      return false;
    }
    bytes = bytes.subspan(n < 0 ? 0 : static_cast<std::size_t>(n));
  }
  return true;
}

std::array<std::byte, kChunk> chunk;

// Takes rows, checks them together, and writes them into a file if there is one. One at a time: of the saving thread.
class Body {
 public:
  Body(int fd, bool (*carry_on)() noexcept) noexcept : fd_(fd), carry_on_(carry_on) {}

  // REQUIRES: the row is a whole number of words, and shorter than a chunk.
  template <typename Row>
  void put(const Row& row) noexcept {
    static_assert(sizeof(Row) % 8 == 0 && sizeof(Row) < kChunk);
    if (used_ + sizeof row > kChunk) {
      flush();
    }
    std::memcpy(chunk.data() + used_, &row, sizeof row);
    used_ += sizeof row;
  }

  // RETURNS: false when writing failed (errno is in error()), or the caller is not to carry on (error() is 0).
  bool finish() noexcept {
    flush();
    return is_going_on_;
  }
  [[nodiscard]] std::uint64_t check() const noexcept { return fold_.value(); }
  [[nodiscard]] int error() const noexcept { return error_; }

 private:
  void flush() noexcept {
    const std::span<const std::byte> bytes = std::span(chunk).first(used_);
    used_ = 0;
    fold_.bytes(bytes);
    if (is_going_on_ && fd_ >= 0 && !write_all(fd_, bytes)) {
      error_ = errno;
      is_going_on_ = false;
    }
    is_going_on_ = is_going_on_ && carry_on_();
  }

  int fd_;
  bool (*carry_on_)() noexcept;
  Fold64 fold_{0};
  std::size_t used_ = 0;
  int error_ = 0;
  bool is_going_on_ = true;
};

// All rows of all tables into `body`. RETURNS: as Body::finish().
bool put_rows(const Node& node, Body& body, CheckpointHead& head) noexcept {
  const QuotaTable& quotas = node.tables.quotas;
  const UsageTable& usage = node.tables.usage;
  QuotaTable::Saved quota;
  head.quotas.rows = 0;
  for (std::size_t i = 0; i < quotas.size(); ++i) {
    if (quotas.save(i, quota)) {
      body.put(quota);
      ++head.quotas.rows;
    }
  }
  body.put(usage.head());
  UsageRow row;
  head.usage.rows = 0;
  for (std::size_t i = 0; i < usage.size(); ++i) {
    if (usage.save(i, row)) {
      body.put(row);
      ++head.usage.rows;
    }
  }
  head.stores.rows = 0;
  for (std::size_t i = 0; i < node.file->memory.store_count(); ++i) {
    const StoreRow& store = node.file->memory.store_row(i);
    const Adopted adopted = store.adoption.read();
    if (store.key.load() != 0 && adopted.highest_generation != 0) {
      body.put(SavedStore{store.key.load(), adopted.registry_id, adopted.highest_generation, adopted.latest().seal});
      ++head.stores.rows;
    }
  }
  const bool is_whole = body.finish();
  head.body_check = body.check();
  return is_whole;
}

std::uint64_t mtime_ns(const struct stat& found) noexcept {
  return static_cast<std::uint64_t>(found.st_mtim.tv_sec) * kNsPerSecond +
         static_cast<std::uint64_t>(found.st_mtim.tv_nsec);
}

// Is what lies on disk what was written last, and would it be written again?
bool is_on_disk(const CheckpointConf& conf, const NodeHead& header, const CheckpointHead& head) noexcept {
  struct stat found {};
  return header.saved[0].load() == head.body_check && lstat(text_of(conf.path.data), &found) == 0 &&
         found.st_ino == header.saved[1].load() && mtime_ns(found) == header.saved[2].load();
}

void remember(const struct stat& written, const CheckpointHead& head, NodeHead& header) noexcept {
  // The next one is to be written even if nothing changes until then: it is not final any more.
  header.saved[0].store(head.is_final ? 0 : head.body_check);
  header.saved[1].store(written.st_ino);
  header.saved[2].store(mtime_ns(written));
}

// The file beside it is of one writer at a time, told by a lock on it: one that was overtaken while its disk stood
// still may wake up. RETURNS: 0, or why it cannot be had; EAGAIN: another writer has it.
int own(int fd, const ngx_str_t& path) noexcept {
  struct stat opened {};
  struct stat named {};
  if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0 || fstat(fd, &opened) != 0) {
    return errno;
  }
  if (lstat(text_of(path.data), &named) != 0 || named.st_ino != opened.st_ino || named.st_dev != opened.st_dev) {
    return EAGAIN;
  }
  const bool is_ours = S_ISREG(opened.st_mode) && opened.st_uid == geteuid() && opened.st_nlink == 1;
  return !is_ours || fchmod(fd, S_IRUSR | S_IWUSR) != 0 || ftruncate(fd, 0) != 0 ? EPERM : 0;
}

// What a master that was killed in its last save left there; the directory is ours, so it can go.
void remove_foreign(const ngx_str_t& path) noexcept {
  struct stat found {};
  if (lstat(text_of(path.data), &found) == 0 && found.st_uid != geteuid()) {
    static_cast<void>(unlink(text_of(path.data)));
  }
}

bool write_head(int fd, const CheckpointHead& head) noexcept {
  std::array<std::byte, kCheckpointHeadSize> bytes;
  encode_checkpoint_head(head, bytes);
  return lseek(fd, 0, SEEK_SET) == 0 && write_all(fd, bytes);
}

// The steps that make it the checkpoint. RETURNS: what failed, or `written`.
SaveResult put_in_place(const CheckpointConf& conf, int fd, const CheckpointHead& head, NodeHead& header) noexcept {
  struct stat written {};
  if (fsync(fd) != 0 || fstat(fd, &written) != 0) {
    return {SaveStep::sync, errno};
  }
  // Also when another worker has taken over meanwhile: until the lock goes it cannot have written a newer one.
  if (rename(text_of(conf.next.data), text_of(conf.path.data)) != 0) {
    return {SaveStep::rename, errno};
  }
  remember(written, head, header);
  const File directory(conf.directory, O_RDONLY | O_DIRECTORY);
  return directory.fd() < 0 || fsync(directory.fd()) != 0 ? SaveResult{SaveStep::sync, errno}
                                                          : SaveResult{SaveStep::written, 0};
}

// May the master believe what lies there? Root, whoever starts nginx, or the workers may have written it.
bool is_trusted(const struct stat& found, const ngx_core_conf_t& core) noexcept {
  return S_ISREG(found.st_mode) && (found.st_mode & (S_IWGRP | S_IWOTH)) == 0 &&
         (found.st_uid == 0 || found.st_uid == geteuid() || found.st_uid == core.user);
}

std::span<std::byte> read_file(int fd, std::uint64_t size) noexcept {
  void* memory =
      mmap(nullptr, std::max<std::size_t>(size, 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return {};
  }
  const std::span<std::byte> bytes(static_cast<std::byte*>(memory), size);
  std::size_t at = 0;
  while (at < size) {
    const ssize_t n = read(fd, bytes.data() + at, size - at);
    if (n <= 0) {
      break;  // shorter than it was: it will not check
    }
    at += static_cast<std::size_t>(n);
  }
  return bytes;
}

void refuse(const MainConf& main, const Node& node, ngx_log_t* log, int error, std::string_view why) noexcept {
  ngx_log_error(NGX_LOG_WARN, log, error, "apikey_zone \"%V\": the checkpoint %V is not taken: %*s; quotas begin anew",
                &node.zone_name, &main.checkpoint.path, why.size(), why.data());
}

}  // namespace

SaveResult save_checkpoint(const CheckpointConf& conf, const Node& node, const SaveTime& time,
                           bool (*carry_on)() noexcept) noexcept {
  NodeHead& header = node.file->memory.head();
  CheckpointHead head;
  Body measured(-1, carry_on);
  if (!put_rows(node, measured, head)) {
    return {SaveStep::yielded, 0};
  }
  if (!time.is_final && is_on_disk(conf, header, head)) {
    return {SaveStep::unchanged, 0};
  }
  head.is_final = time.is_final;
  head.written_us = time.now_us;
  head.seed = node.tables.quotas.seed();
  remove_foreign(conf.next);
  const File next(conf.next, O_RDWR | O_CREAT);
  const int error = own(next.fd(), conf.next);
  if (error != 0) {
    return error == EAGAIN ? SaveResult{SaveStep::yielded, 0} : SaveResult{SaveStep::open, error};
  }
  Body body(next.fd(), carry_on);
  SaveResult result;
  if (lseek(next.fd(), kCheckpointHeadSize, SEEK_SET) < 0 || !put_rows(node, body, head)) {
    result = body.error() == 0 ? SaveResult{SaveStep::yielded, 0} : SaveResult{SaveStep::write, body.error()};
  } else if (!write_head(next.fd(), head)) {
    result = {SaveStep::write, errno};
  } else {
    result = put_in_place(conf, next.fd(), head, header);
  }
  if (result.step != SaveStep::written) {
    static_cast<void>(unlink(text_of(conf.next.data)));  // gives a full disk its room back
  }
  return result;
}

bool read_checkpoint(ngx_cycle_t* cycle, const MainConf& main, const Node& node, ngx_log_t* log,
                     CheckpointFile& file) noexcept {
  if (main.checkpoint.path.len == 0) {
    return false;
  }
  const auto& core = *static_cast<ngx_core_conf_t*>(static_cast<void*>(ngx_get_conf(cycle->conf_ctx, ngx_core_module)));
  const File opened(main.checkpoint.path, O_RDONLY);
  struct stat found {};
  if (opened.fd() < 0 || fstat(opened.fd(), &found) != 0) {
    if (errno != ENOENT) {
      refuse(main, node, log, errno, "it cannot be opened");
    }
    return false;
  }
  if (!is_trusted(found, core)) {
    refuse(main, node, log, 0, "it has to be a plain file that root or the workers' user owns and alone may write");
    return false;
  }
  const auto size = static_cast<std::uint64_t>(found.st_size);
  file.bytes = size > kMaxFileSize ? std::span<std::byte>() : read_file(opened.fd(), size);
  std::array<char, 256> buffer;
  const Status status = decode_checkpoint(file.bytes, file.checkpoint);
  if (!status.ok()) {
    refuse(main, node, log, 0, describe(status, buffer));
  }
  return status.ok();
}

void restore_checkpoint(const CheckpointFile& file, const Node& node, ngx_log_t* log) noexcept {
  const CheckpointHead& head = file.checkpoint.head;
  const std::uint64_t now = std::max(wall_us(), head.written_us);
  const auto from = static_cast<std::int64_t>(head.written_us / 1'000'000);
  const auto to = static_cast<std::int64_t>(now / 1'000'000) + 1;
  const Carried carried = carry_over(file.checkpoint, {from, head.is_final ? from : to}, node.tables);
  node.file->memory.head().checkpoint_us.store(head.written_us);
  const ngx_uint_t level = carried.lost == 0 ? NGX_LOG_NOTICE : NGX_LOG_WARN;
  ngx_log_error(
      level, log, 0,
      "apikey_zone \"%V\": %uL quotas and %uL rows of usage were restored from a checkpoint %uL s old, %uL found "
      "no room%s",
      &node.zone_name, carried.quotas, carried.usage, (now - head.written_us) / 1'000'000, carried.lost,
      head.is_final ? "" : "; what was used after it is lost");
}

void release_checkpoint(CheckpointFile& file) noexcept {
  if (!file.bytes.empty()) {
    munmap(file.bytes.data(), file.bytes.size());
    file = {};
  }
}

}  // namespace apikey::nginx
