// What stands where in a page of liblmdb 0.9 (64-bit, little-endian), and reading one node of it within its bounds.
// Used by pages.cpp only. Must not believe a length: a node that reaches out of its page is none.
//
// Source: MDB_page, MDB_node, MDB_meta, MDB_db in mdb.c.
//   page     0 8 its number · 10 2 flags · 12 2 lower · 14 2 upper (overflow: 12 4 number of pages) · 16 2-byte offsets
//            of nodes up to lower; nodes between upper and the end of the page
//   node     0 4 size of the data (branch: low 32 bits of the child's number) · 4 2 flags (branch: high 16 bits)
//            · 6 2 size of the key · 8 key · data, or with flag 1 the 8-byte number of an overflow page
//   meta     page 0 and 1, from byte 16: 0 4 magic · 4 4 version · 24 48 free list · 72 48 main database ·
//            120 8 last page · 128 8 transaction; the page size stands in the first 4 bytes of the free list
//   database 4 2 flags · 6 2 depth · 8 8 branch, 16 8 leaf, 24 8 overflow pages · 32 8 entries · 40 8 root
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "apikey/little_endian.hpp"

namespace apikey::lmdb {

inline constexpr std::uint32_t kMagic = 0xbeefc0de;
inline constexpr std::uint32_t kDataVersion = 1;
inline constexpr std::size_t kPageHeader = 16;
inline constexpr std::size_t kMetaEnd = kPageHeader + 136;
inline constexpr std::uint64_t kNoPage = ~std::uint64_t{0};
inline constexpr std::size_t kNodeHeader = 8;
inline constexpr std::size_t kMaxKey = 511;
inline constexpr std::size_t kDatabaseSize = 48;

inline constexpr unsigned kBranchPage = 1;
inline constexpr unsigned kLeafPage = 2;
inline constexpr unsigned kOverflowPage = 4;
inline constexpr unsigned kMetaPage = 8;

inline constexpr unsigned kBigNode = 1;
inline constexpr unsigned kDatabaseNode = 2;

inline constexpr unsigned kIntegerKeys = 8;  // flag of the free list

struct Database {
  std::uint16_t flags = 0;
  std::uint16_t depth = 0;
  std::uint64_t branch_pages = 0;
  std::uint64_t leaf_pages = 0;
  std::uint64_t overflow_pages = 0;
  std::uint64_t entries = 0;
  std::uint64_t root = kNoPage;
};

struct Node {
  std::span<const std::byte> key;
  std::uint64_t child = 0;  // branch
  unsigned flags = 0;       // leaf
  std::uint32_t data_size = 0;
  std::size_t data_at = 0;  // in the page
};

[[nodiscard]] inline Database read_database(std::span<const std::byte> at) noexcept {
  return {load_le<std::uint16_t>(at, 4),  load_le<std::uint16_t>(at, 6),  load_le<std::uint64_t>(at, 8),
          load_le<std::uint64_t>(at, 16), load_le<std::uint64_t>(at, 24), load_le<std::uint64_t>(at, 32),
          load_le<std::uint64_t>(at, 40)};
}

// RETURNS: false when the page's own lengths contradict each other.
[[nodiscard]] inline bool node_count(std::span<const std::byte> page, std::size_t& count) noexcept {
  const std::size_t lower = load_le<std::uint16_t>(page, 12);
  const std::size_t upper = load_le<std::uint16_t>(page, 14);
  if (lower < kPageHeader || lower % 2 != 0 || upper < lower || upper > page.size()) return false;
  count = (lower - kPageHeader) / 2;
  return true;
}

[[nodiscard]] inline bool read_node(std::span<const std::byte> page, std::size_t i, bool is_branch,
                                    Node& node) noexcept {
  const std::size_t at = load_le<std::uint16_t>(page, kPageHeader + 2 * i);
  const std::size_t upper = load_le<std::uint16_t>(page, 14);
  if (at < upper || at % 2 != 0 || at > page.size() - kNodeHeader) return false;
  const auto low = load_le<std::uint32_t>(page, at);
  const auto middle = load_le<std::uint16_t>(page, at + 4);
  const std::size_t key_size = load_le<std::uint16_t>(page, at + 6);
  const std::size_t room = page.size() - at - kNodeHeader;
  if (key_size > kMaxKey || key_size > room) return false;
  node.key = page.subspan(at + kNodeHeader, key_size);
  node.data_at = at + kNodeHeader + key_size;
  if (is_branch) {
    node.child = low | std::uint64_t{middle} << 32;
    return true;
  }
  node.flags = middle;
  node.data_size = low;
  const std::size_t in_page = (node.flags & kBigNode) != 0 ? 8 : low;
  return key_size > 0 && in_page <= room - key_size;
}

}  // namespace apikey::lmdb
