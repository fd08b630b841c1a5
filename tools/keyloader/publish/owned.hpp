// Things of the operating system and of liblmdb that are given back when their owner goes, and the failures they
// come with. Used inside publish/ only. Must not hide an error: every one becomes a Status.
#pragma once

#include <lmdb.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "apikey/status.hpp"

namespace apikey::publish {

class OwnedFd {
 public:
  explicit OwnedFd(int fd = -1) noexcept : fd_(fd) {}
  ~OwnedFd() { reset(); }
  OwnedFd(const OwnedFd&) = delete;
  OwnedFd& operator=(const OwnedFd&) = delete;

  void reset(int fd = -1) noexcept {
    if (fd_ >= 0) (void)::close(fd_);
    fd_ = fd;
  }
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] bool is_open() const noexcept { return fd_ >= 0; }

 private:
  int fd_;
};

struct EnvCloser {
  void operator()(MDB_env* env) const noexcept { mdb_env_close(env); }
};
struct TxnAborter {
  void operator()(MDB_txn* txn) const noexcept { mdb_txn_abort(txn); }
};
using OwnedEnv = std::unique_ptr<MDB_env, EnvCloser>;
using OwnedTxn = std::unique_ptr<MDB_txn, TxnAborter>;

// The operating system said no, just now.
inline Status os_failure(const char* text) noexcept { return {StatusCode::unreadable, text, 0, 0, errno}; }

// liblmdb said no: positive results are errno, negative ones its own.
inline Status lmdb_failure(const char* text, int result) noexcept {
  if (result > 0) return {StatusCode::unreadable, text, 0, 0, result};
  return {StatusCode::failed, text, static_cast<std::uint64_t>(-static_cast<std::int64_t>(result))};
}

// A private file nobody else has open, for writing: no lock file, no syncing (swap_in() syncs once, at the end).
Status open_private_env(const char* path, std::size_t map_size, OwnedEnv& env);
Status begin_write(MDB_env* env, OwnedTxn& txn);
Status commit(OwnedTxn& txn);

}  // namespace apikey::publish
