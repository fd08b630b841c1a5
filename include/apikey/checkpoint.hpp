// The file that brings quotas, usage and the highest generation of each store over a power cut: a copy of what is in
// use, written every 2 s by a thread of one worker and read by the master when there is no node memory.
// The bytes only: no file is opened here, no clock is read. What is read is any bytes whatever until it checks.
//
//   offset size meaning
//        0    8 magic "AKSTATE1"
//        8    4 format version = 2
//       12    4 flags: 1 final, nothing was counted after it (nginx ended in order)
//       16    8 the moment whose state this is at least, microseconds since 1970
//       24   16 seed of the quotas' subjects (QuotaTable::seed)
//       40   24 quotas: 8 layout (QuotaTable::kLayout) · 8 bytes per row = 24 · 8 rows
//       64   24 head of usage: 8 layout (UsageTable::kLayout) · 8 bytes = 312 · 8 rows = 1
//       88   24 usage: 8 layout (UsageTable::kLayout) · 8 bytes per row = 216 · 8 rows
//      112   24 stores: 8 layout = 1 · 8 bytes per row = 64 · 8 rows
//      136    8 check of the body: Fold64(0) over its words
//      144    8 zero
//      152    8 fold64 over bytes 0-151
//      160    … body: the quotas' rows (QuotaTable::Saved), UsageHead, the rows of usage (UsageRow), those of the
//      stores
// Format 1, which is still read, has no stores: the two checks stand at 112 and 120, the body begins at 128.
// The file is exactly that long. The checks find accidents: who may write the file may write what he likes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "apikey/fold64.hpp"
#include "apikey/meta.hpp"
#include "apikey/quota_table.hpp"
#include "apikey/seal.hpp"
#include "apikey/siphash.hpp"
#include "apikey/status.hpp"
#include "apikey/usage_table.hpp"

namespace apikey {

inline constexpr std::size_t kCheckpointHeadSize = 160;
inline constexpr std::uint32_t kCheckpointFormat = 2;
static_assert(sizeof(QuotaTable::Saved) == 24 && sizeof(UsageHead) == 312 && sizeof(UsageRow) == 216);

// What has to be known of a store so that an older snapshot of it is never taken again.
struct SavedStore {
  static constexpr std::uint64_t kLayout = 1;
  std::uint64_t key = 0;  // StoreRow::key
  RegistryId registry_id{};
  std::uint64_t highest_generation = 0;
  SealHash seal{};  // of the one adopted last
};
static_assert(sizeof(SavedStore) == 64);

// What the rows of one kind are, and how many.
struct CheckpointSection {
  std::uint64_t layout = 0;
  std::uint64_t row_size = 0;
  std::uint64_t rows = 0;
  friend bool operator==(const CheckpointSection&, const CheckpointSection&) = default;
};

struct CheckpointHead {
  bool is_final = false;
  std::uint64_t written_us = 0;
  SipKey seed{};
  CheckpointSection quotas{QuotaTable::kLayout, sizeof(QuotaTable::Saved), 0};
  CheckpointSection usage_head{UsageTable::kLayout, sizeof(UsageHead), 1};
  CheckpointSection usage{UsageTable::kLayout, sizeof(UsageRow), 0};
  CheckpointSection stores{SavedStore::kLayout, sizeof(SavedStore), 0};
  std::uint64_t body_check = 0;
};

// REQUIRES: out.size() == kCheckpointHeadSize.
void encode_checkpoint_head(const CheckpointHead& head, std::span<std::byte> out) noexcept;

// A whole file that checks: its head and the rows as they lie in it.
struct Checkpoint {
  CheckpointHead head;
  std::span<const std::byte> quotas;  // rows · row_size bytes
  std::span<const std::byte> usage_head;
  std::span<const std::byte> usage;
  std::span<const std::byte> stores;  // empty in format 1
};

// RETURNS: damaged, or unsupported for another format or rows of another layout; then `checkpoint` is not changed.
Status decode_checkpoint(std::span<const std::byte> file, Checkpoint& checkpoint) noexcept;

}  // namespace apikey
