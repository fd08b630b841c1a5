// One key as it stands in a snapshot: the value of database `keys` under its 32-byte digest. Version 1, 96 bytes.
// Written by keyloader, read in place by the module. All integers little-endian, no alignment is assumed.
// Byte map (also in docs/snapshot-format.md):
//
//   offset size meaning
//        0    1 version = 1
//        1    1 flags: 1 revoked, 2 suspended, 4 TLS required; the others are zero
//        2    2 size of the record = 96
//        4    4 environment: number of a row in `strings` (never 0)
//        8    4 owner: number of a row in `owners` (never 0)
//       12    4 plan: number of a row in `plans`, 0 = none (unlimited)
//       16    4 scope set: number of a row in `scopes`, 0 = holds no scope
//       20    4 name: row in `strings`, 0 = none
//       24    4 meta: row in `strings` holding a JSON object of strings, 0 = none
//       28    4 bindings: row in `strings` (binding.hpp), 0 = none
//       32    4 own limits: row in `strings` holding a limit list (rows.hpp), 0 = none
//       36   13 id
//       49   13 family id
//       62    2 zero
//       64    8 not before: seconds since 1970, 0 = from ever
//       72    8 expires: seconds since 1970, 0 = never; the key is good while now < expires
//       80    8 suspended until: seconds since 1970, 0 = until resumed; only with flag 2
//       88    8 check: fold64 over the digest (32 bytes) and bytes 0-87
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "apikey/digest.hpp"
#include "apikey/key_id.hpp"
#include "apikey/units.hpp"

namespace apikey {

inline constexpr std::size_t kRecordSize = 96;
inline constexpr std::uint8_t kRecordVersion = 1;

enum RecordFlag : std::uint8_t {
  kFlagRevoked = 1,
  kFlagSuspended = 2,
  kFlagRequireTls = 4,
};

struct Record {
  std::uint8_t flags = 0;
  std::uint32_t env = 0;
  std::uint32_t owner = 0;
  std::uint32_t plan = 0;
  std::uint32_t scopes = 0;
  std::uint32_t name = 0;
  std::uint32_t meta = 0;
  std::uint32_t bindings = 0;
  std::uint32_t limits = 0;
  KeyId id;
  KeyId family;
  UnixSec not_before;
  UnixSec expires;
  UnixSec suspended_until;
};

// REQUIRES: out.size() == kRecordSize.
void encode_record(const Digest& digest, const Record& record, std::span<std::byte> out) noexcept;

// What says whether a key is good, and no more: for a snapshot that may use flags and fields this build does not know.
// These bytes mean the same in every version. RETURNS: false when size or check are wrong.
struct Life {
  bool is_revoked = false;
  bool is_suspended = false;
  UnixSec suspended_until;
  UnixSec not_before;
  UnixSec expires;
  std::uint32_t owner = 0;
};
[[nodiscard]] bool decode_life(const Digest& digest, std::span<const std::byte> bytes, Life& life) noexcept;

// RETURNS: false when size, version or check are wrong or a must-be-zero bit is set: the store is damaged,
// which never means that the key is bad.
[[nodiscard]] bool decode_record(const Digest& digest, std::span<const std::byte> bytes, Record& record) noexcept;

}  // namespace apikey
