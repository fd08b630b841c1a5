// The directory a node's snapshots live in: keys.mdb, history/, and the lock that lets one publisher in at a time.
// Called by `publish`, `snapshot install`, `snapshot rollback`, `snapshot list`.
// keys.mdb is only ever replaced by rename: a crash at any instruction leaves the old file or the new one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "apikey/seal.hpp"
#include "apikey/status.hpp"

namespace apikey::publish {

inline constexpr std::size_t kHistoryKeep = 5;

// flock on <directory>/publish.lock (0600). Held by whoever builds or installs into the directory; ends with the
// process. Taking it removes temporary files (keys.mdb.new.*) that a killed publisher left.
class PublishLock {
 public:
  PublishLock() noexcept = default;
  ~PublishLock();
  PublishLock(const PublishLock&) = delete;
  PublishLock& operator=(const PublishLock&) = delete;

  // Waits at most `timeout_ms` for another publisher. RETURNS: refused after that, unreadable with errno.
  Status acquire(const std::filesystem::path& directory, unsigned timeout_ms = 60'000);

 private:
  int fd_ = -1;
};

// A new file `<directory>/keys.mdb.new.XXXXXX`, 0640, for an installer to fill. RETURNS: unreadable with errno.
Status make_temporary(const std::filesystem::path& directory, std::filesystem::path& path, int& fd);

// The same as `<final_name>.new.XXXXXX`.
Status make_temporary_beside(const std::filesystem::path& final_name, std::filesystem::path& path, int& fd);

Status sync_directory(const std::filesystem::path& directory);

// REQUIRES: the lock is held; `temporary` is a verified snapshot in `directory` made by SnapshotWriter, seal_file or
// make_temporary. Syncs it, links it into history as <generation, 10 digits>-<first 8 hex digits of the seal>.mdb,
// renames it to keys.mdb, syncs the directories, then removes all but the newest `keep` of history (never what
// keys.mdb is). On failure the old keys.mdb stands and `temporary` is still there.
Status swap_in(const std::filesystem::path& temporary, const std::filesystem::path& directory, const Seal& seal,
               std::size_t keep = kHistoryKeep);

struct HistoryEntry {
  std::filesystem::path path;
  std::uint64_t generation = 0;
  std::string seal_prefix;     // 8 hex digits
  bool is_in_service = false;  // the same file as keys.mdb
};

// Newest first; names only, nothing is verified. No directory: an empty list.
std::vector<HistoryEntry> list_history(const std::filesystem::path& directory);

}  // namespace apikey::publish
