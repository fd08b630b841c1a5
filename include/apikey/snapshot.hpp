// One verified snapshot, open for look-ups. A worker opens it once (the only moment liblmdb allocates), answers
// requests from it without a lock or an allocation, and closes it when no request refers to it any more.
// Everything returned is a view into the mapping: valid until close().
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/digest.hpp"
#include "apikey/index.hpp"
#include "apikey/meta.hpp"
#include "apikey/record.hpp"
#include "apikey/rows.hpp"
#include "apikey/scope_set.hpp"
#include "apikey/status.hpp"

struct MDB_env;
struct MDB_txn;

namespace apikey {

enum class Lookup : std::uint8_t {
  index,  // one or two cache misses (default)
  btree,  // mdb_get: the reference, some 7 times as many instructions
};

// Whether the liblmdb that is loaded reads and writes our files: those of 0.9. RETURNS: failed, naming what is loaded.
Status check_lmdb() noexcept;

class Snapshot {
 public:
  enum class Find : std::uint8_t { found, absent, damaged };

  Snapshot() noexcept = default;
  ~Snapshot() { close(); }
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  // REQUIRES: `file` maps the whole of `fd` and passed verify_snapshot(); it stays mapped until close().
  // liblmdb opens the file once more as /proc/self/fd/<fd>, read-only and without a lock file. With Lookup::index
  // that second mapping is gone when open() returns.
  Status open(int fd, std::span<const std::byte> file, Lookup lookup) noexcept;
  void close() noexcept;
  [[nodiscard]] bool is_open() const noexcept { return !file_.empty(); }

  [[nodiscard]] const Meta& meta() const noexcept { return meta_; }
  [[nodiscard]] std::span<const std::byte> file() const noexcept { return file_; }
  [[nodiscard]] const RowCounts& row_counts() const noexcept { return index_.row_counts(); }

  // `damaged`: the bytes contradict themselves; nothing is known about the key.
  [[nodiscard]] Find find(const Digest& digest, Record& record) const noexcept;

  // The same, of no more than whether the key and its owner are good: also in a snapshot whose records and rows hold
  // what this build does not know.
  [[nodiscard]] Find find_life(const Digest& digest, Life& life, OwnerLife& owner) const noexcept;

  // RETURNS: false when there is no such row or it does not check. Number 0 (none) gives true and an empty result,
  // except for owners, which every record has.
  [[nodiscard]] bool string(std::uint32_t number, std::string_view& text) const noexcept;
  [[nodiscard]] bool bytes(std::uint32_t number, std::span<const std::byte>& bytes) const noexcept;
  [[nodiscard]] bool scopes(std::uint32_t number, ScopeSet& set) const noexcept;
  [[nodiscard]] bool plan(std::uint32_t number, PlanRow& plan) const noexcept;
  [[nodiscard]] bool owner(std::uint32_t number, OwnerRow& owner) const noexcept;

  // Every scope the registry knows (row 0 of `scopes`).
  [[nodiscard]] bool known_scopes(ScopeSet& set) const noexcept;

 private:
  Status open_with_lmdb(int fd, std::span<const std::byte> file, Lookup lookup) noexcept;
  void close_lmdb() noexcept;
  [[nodiscard]] Find find_bytes(const Digest& digest, std::span<const std::byte>& bytes) const noexcept;

  std::span<const std::byte> file_;
  Meta meta_;
  Index index_;
  MDB_env* env_ = nullptr;
  MDB_txn* txn_ = nullptr;
  unsigned keys_dbi_ = 0;
};

}  // namespace apikey
