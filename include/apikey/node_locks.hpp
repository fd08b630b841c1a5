// Who lives: locks on bytes of the state file. Pids are for show only: across pid namespaces they name strangers.
//
//   byte 0      an OFD read lock of the master. It belongs to the open file, so it outlives the fork of daemon();
//   workers
//               close that descriptor before they do anything else.
//   byte 1 + i  a POSIX read lock of the process that owns worker row i, through a descriptor (O_RDONLY | O_CLOEXEC)
//   that
//               it never closes while it lives.
// INVARIANT: a process that holds a POSIX lock closes no descriptor of the same file: that would end all its locks.
// Asking works on a read-only descriptor and never waits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "apikey/node_memory.hpp"

namespace apikey {

enum class LockState : std::uint8_t {
  free,
  held,
  unknown,  // the file system or the system says no; `errno` says why
};

// Takes byte 0 for a master, if nobody has it. REQUIRES: the descriptor is open for writing. Two that try at once do
// not both succeed. The lock is shared from then on, so that share_master_lock() works on another descriptor.
[[nodiscard]] LockState claim_master_lock(int fd) noexcept;  // free: it is the caller's now
[[nodiscard]] bool share_master_lock(int fd) noexcept;       // beside others that have it
// A mapping keeps the open file it was made of, and so its lock, even when the descriptor is closed: a descriptor that
// is mapped gives the lock back before.
void drop_master_lock(int fd) noexcept;

// Whether another process (or, of byte 0, another open file) holds it.
[[nodiscard]] LockState master_lock(int fd) noexcept;
[[nodiscard]] LockState worker_lock(int fd, std::size_t row) noexcept;

inline constexpr std::size_t kNoWorkerRow = SIZE_MAX;
// Finds a row that nobody has and makes it the caller's. RETURNS: its number, its ticket in `ticket`; kNoWorkerRow when
// all are taken.
[[nodiscard]] std::size_t claim_worker_row(int fd, const NodeMemory& node, const WorkerStart& start,
                                           std::uint64_t& ticket) noexcept;
void release_worker_row(int fd, std::size_t row) noexcept;

}  // namespace apikey
