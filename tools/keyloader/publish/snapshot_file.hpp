// A snapshot file mapped for reading: verified as a worker verifies it, open for look-ups, and to be gone through.
// Called by `snapshot show|verify|rollback|install`, by publish (to compare with what is in service), and by tests.
// Writes nothing, not even a lock file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>

#include "apikey/digest.hpp"
#include "apikey/record.hpp"
#include "apikey/snapshot.hpp"
#include "apikey/status.hpp"
#include "apikey/verify.hpp"

namespace apikey::publish {

// A whole regular file, mapped read-only. Not a symbolic link's target only: links are followed.
class MappedFile {
 public:
  MappedFile() noexcept = default;
  ~MappedFile() { close(); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // RETURNS: absent when there is no such file, unreadable with errno, damaged for one that is empty.
  Status open(const std::filesystem::path& path) noexcept;
  void close() noexcept;
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
  [[nodiscard]] int fd() const noexcept { return fd_; }

 private:
  int fd_ = -1;
  std::span<const std::byte> bytes_;
};

class SnapshotFile {
 public:
  // Maps, verifies everything, opens. RETURNS: what is wrong, as a sentence.
  Status open(const std::filesystem::path& path, Lookup lookup = Lookup::index);

  [[nodiscard]] const Snapshot& snapshot() const noexcept { return snapshot_; }
  [[nodiscard]] const Seal& seal() const noexcept { return verified_.seal; }
  [[nodiscard]] const Meta& meta() const noexcept { return verified_.meta; }  // LIFETIME: this object's
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return file_.bytes(); }

  // All keys in ascending order of their digests; `visit` returning false ends it.
  Status for_each_key(const std::function<bool(const Digest&, const Record&)>& visit) const;

 private:
  MappedFile file_;  // declared first: unmapped last
  Snapshot snapshot_;
  Verified verified_;
};

// Maps and verifies, nothing else. `summary.meta` holds no views afterwards (builder, digests and features are empty).
Status verify_file(const std::filesystem::path& path, Verified& summary);

}  // namespace apikey::publish
