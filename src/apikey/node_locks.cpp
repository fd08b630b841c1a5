// The fcntl calls behind node_locks.hpp.
#include "apikey/node_locks.hpp"

#include <fcntl.h>

#include <cerrno>

namespace apikey {
namespace {

struct flock make_lock(short type, std::size_t byte) noexcept {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(byte);
  lock.l_len = 1;
  return lock;
}

// A row may look held while others collide at it, so it is looked at more than once before all count as taken.
constexpr std::size_t kClaimRounds = 8;

constexpr std::size_t byte_of(std::size_t row) noexcept { return 1 + row; }

bool set_lock(int fd, int command, short type, std::size_t byte) noexcept {
  struct flock lock = make_lock(type, byte);
  return fcntl(fd, command, &lock) == 0;
}

// Would a writer have to wait for somebody else?
LockState ask(int fd, int command, std::size_t byte) noexcept {
  struct flock lock = make_lock(F_WRLCK, byte);
  if (fcntl(fd, command, &lock) != 0) {
    return LockState::unknown;
  }
  return lock.l_type == F_UNLCK ? LockState::free : LockState::held;
}

}  // namespace

LockState claim_master_lock(int fd) noexcept {
  if (set_lock(fd, F_OFD_SETLK, F_WRLCK, 0)) {
    return set_lock(fd, F_OFD_SETLK, F_RDLCK, 0) ? LockState::free : LockState::unknown;
  }
  return errno == EAGAIN || errno == EACCES ? LockState::held : LockState::unknown;
}

bool share_master_lock(int fd) noexcept { return set_lock(fd, F_OFD_SETLK, F_RDLCK, 0); }

void drop_master_lock(int fd) noexcept { static_cast<void>(set_lock(fd, F_OFD_SETLK, F_UNLCK, 0)); }

LockState master_lock(int fd) noexcept { return ask(fd, F_OFD_GETLK, 0); }

LockState worker_lock(int fd, std::size_t row) noexcept { return ask(fd, F_GETLK, byte_of(row)); }

std::size_t claim_worker_row(int fd, const NodeMemory& node, const WorkerStart& start, std::uint64_t& ticket) noexcept {
  const std::size_t count = node.worker_count();
  std::size_t row = 0;
  for (std::size_t tries = 0; tries < kClaimRounds * count; ++tries) {
    if (worker_lock(fd, row) != LockState::free || !set_lock(fd, F_SETLK, F_RDLCK, byte_of(row))) {
      row = (row + 1) % count;
      continue;
    }
    if (worker_lock(fd, row) == LockState::free) {
      ticket = begin_worker_row(node.worker_row(row), start);
      return row;
    }
    // Another one has locked it at the same moment, and both see that. They go on at different rows: in step they would
    // meet at each.
    release_worker_row(fd, row);
    row = (row + 1 + start.pid % count) % count;
  }
  return kNoWorkerRow;
}

void release_worker_row(int fd, std::size_t row) noexcept {
  static_cast<void>(set_lock(fd, F_SETLK, F_UNLCK, byte_of(row)));
}

}  // namespace apikey
