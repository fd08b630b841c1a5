// The index of a snapshot: one LMDB value (database `index`, key "1") that leads from a digest to its record, and
// from a row's number to the row, without walking B-trees. Built last, by `keyloader publish` and `snapshot seal`.
// The value is made so large that LMDB keeps it in overflow pages, where it begins 16 bytes into a page; so its
// buckets, 48 bytes further, begin on a cache line of the file. All offsets are file offsets, little-endian.
//
//   offset size meaning
//        0    8 magic "AKINDEX1"
//        8    8 nb: number of buckets, at least page size / 64
//       16    4 max_probe: how many buckets behind its home an entry may stand
//       20    4 zero
//       24   16 rows in `strings`, `scopes`, `plans`, `owners`: 4 bytes each
//       40    8 check: fold64 over bytes 0-39
//       48 64nb buckets
//        …    8 per row: file offset of the row of number first, first+1 … (first = 1; 0 in `scopes`), table by table
//
//   A bucket, 64 bytes:  0 8 check: fold64 over 8 bytes number of the bucket and bytes 8-63
//                        8 56 seven entries, filled from the front, 0 = empty
//   An entry:  bits 0-23 tag: bytes 8, 9, 10 of the digest · bits 24-63 file offset of the 32 digest bytes in their
//              leaf page; the record follows them
//   Home bucket of a digest: high 64 bits of (bytes 0-7 of the digest as a number × nb). Where it is full an entry
//   stands in the next one (after the last, the first). A search ends at a bucket with an empty entry or after
//   max_probe further ones.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "apikey/digest.hpp"
#include "apikey/rows.hpp"
#include "apikey/status.hpp"

namespace apikey {

inline constexpr std::size_t kIndexHeaderSize = 48;
inline constexpr std::size_t kBucketSize = 64;
inline constexpr std::size_t kEntriesPerBucket = 7;

using RowCounts = std::array<std::uint32_t, kTableCount>;  // by Table - 1

// For the builder: how many bytes the value takes, and filling it in.
[[nodiscard]] std::uint64_t index_bucket_count(std::uint64_t keys, std::size_t page_size) noexcept;
[[nodiscard]] std::size_t index_size(std::uint64_t buckets, const RowCounts& rows) noexcept;

class IndexBuilder {
 public:
  // REQUIRES: value.size() == index_size(buckets, rows). Clears it.
  IndexBuilder(std::span<std::byte> value, std::uint64_t buckets, const RowCounts& rows) noexcept;
  // RETURNS: false when the offset does not fit 40 bits or every bucket is full.
  [[nodiscard]] bool add_key(const Digest& digest, std::uint64_t offset) noexcept;
  [[nodiscard]] bool add_row(Table table, std::uint32_t number, std::uint64_t offset) noexcept;
  void finish() noexcept;  // writes header and checks; nothing may be added afterwards

 private:
  std::span<std::byte> value_;
  std::uint64_t buckets_;
  RowCounts rows_;
  std::uint32_t max_probe_ = 0;
};

// For the reader: a view of the index inside a whole file.
class Index {
 public:
  enum class Find : std::uint8_t { found, absent, damaged };

  Index() noexcept = default;
  // `file` is the whole snapshot, `offset`/`size` where the value stands in it.
  static Status open(std::span<const std::byte> file, std::uint64_t offset, std::uint64_t size, Index& index) noexcept;

  // On `found`, `record` is the kRecordSize bytes behind the digest; the caller checks them (decode_record).
  [[nodiscard]] Find find(const Digest& digest, std::span<const std::byte>& record) const noexcept;

  // RETURNS: false when there is no such row or its bytes do not check.
  [[nodiscard]] bool row(Table table, std::uint32_t number, std::span<const std::byte>& payload) const noexcept;

  // Goes through all buckets. RETURNS: false when one does not check.
  [[nodiscard]] bool count_entries(std::uint64_t& entries) const noexcept;

  [[nodiscard]] const RowCounts& row_counts() const noexcept { return rows_; }
  [[nodiscard]] std::uint64_t bucket_count() const noexcept { return buckets_; }

 private:
  Find look_at(std::uint64_t offset, const Digest& digest, std::span<const std::byte>& record) const noexcept;

  std::span<const std::byte> file_;
  const std::byte* bucket_ = nullptr;
  std::uint64_t buckets_ = 0;
  std::uint32_t max_probe_ = 0;
  RowCounts rows_{};
  std::array<const std::byte*, kTableCount> directory_{};
};

}  // namespace apikey
