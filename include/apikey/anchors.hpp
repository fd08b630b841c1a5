// The region `anchors` of node memory: which ends of the audit this node has seen. A snapshot says the number and the
// hash of the newest audit entry; whoever rewrites a registry's audit later cannot rewrite what nodes remember of it.
//
// The region, version 1:
//   offset size meaning
//        0    8 how many were ever written: number n stands in row (n - 1) % 1000
//        8   56 zero
//       64    … 1000 rows of 128 bytes
// A row:
//   offset size meaning
//        0    8 number, from 1; 0: nothing was ever written here
//        8    8 key of the store's row
//       16    8 generation
//       24    8 number of the audit entry
//       32    8 when it was adopted, microseconds since 1970
//       40   16 registry id
//       56   32 hash of the audit entry
//       88    8 Fold64 of the 88 bytes before
//       96   32 zero
//
// INVARIANT: a row is written by the process that adopted the snapshot. Several may write at a time, and a reader
// copies a row before it checks the copy: what is being written, or is anything else than a row, does not check.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "apikey/meta.hpp"

namespace apikey {

inline constexpr std::uint32_t kAnchorsVersion = 1;
inline constexpr std::size_t kMaxAnchors = 1000;
inline constexpr std::size_t kAnchorsHeaderSize = 64;
inline constexpr std::size_t kAnchorRowSize = 128;
inline constexpr std::size_t kAnchorsSize = kAnchorsHeaderSize + kMaxAnchors * kAnchorRowSize;

struct Anchor {
  std::uint64_t number = 0;  // of the row: later ones have higher numbers
  std::uint64_t store = 0;   // key of its row in node memory
  std::uint64_t generation = 0;
  std::uint64_t audit_seq = 0;
  std::uint64_t adopted_us = 0;  // microseconds since 1970
  RegistryId registry_id{};
  AuditHash audit_head{};
};

// Keeps it in a region of kAnchorsSize bytes, 8-aligned; the oldest goes. One that is there already, whatever its
// number and time, is not kept again. The number is given here. Nothing happens in a region of another size.
void keep_anchor(std::span<std::byte> region, const Anchor& anchor) noexcept;

// The i-th row, oldest first, of a region that others may be writing. REQUIRES: i < kMaxAnchors.
// RETURNS: false where there is none, or where it does not check.
[[nodiscard]] bool read_anchor(std::span<const std::byte> region, std::size_t i, Anchor& anchor) noexcept;

// Those that check, into a region that nobody uses yet.
void carry_anchors(std::span<const std::byte> from, std::span<std::byte> to) noexcept;

}  // namespace apikey
