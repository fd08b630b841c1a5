// Database `meta` of a snapshot: ASCII names → ASCII values, so that `mdb_dump -p` shows what a file is.
//
//   format          "1" or "2"; the seal says the same
//   registry_id     32 hex digits: which registry this comes from
//   generation      decimal, 1 and up; only ever grows per registry
//   created         decimal seconds since 1970
//   builder         free text, e.g. "keyloader 0.1.0"
//   keys            decimal: entries of database `keys`
//   digests         1-4 method names separated by a space, in the order they are tried: "sha256", "hmac-sha256:2026"
//   allow_shrink    "1" when fewer keys than before are meant; else absent
//   rolled_back_to  decimal generation whose content this is; else absent
//   added, removed  decimal: how many keys were ever added to this registry's snapshots, and ever removed from them.
//                   Both or neither; they only grow, and added - removed = keys
//   requires        names of features, separated by a space, that a reader must know to decide rightly; else absent
//   base            64 hex digits: seal hash of the base this head belongs to; absent in a complete file
// From format 2 on, each of them optional; in a file of format 1 they mean nothing:
//   hash_seed       32 hex digits, not all zero: random bytes of the registry, the same in all its snapshots
//   name            what people call the registry's store, 1-32 of a-z 0-9 _ -
//   audit_seq       decimal from 1: number of the newest entry of the registry's audit …
//   audit_head      … and its hash, 64 hex digits. Both or neither
// Other names are ignored, so that later builders may add some.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/status.hpp"
#include "apikey/units.hpp"

namespace apikey {

inline constexpr std::uint32_t kOldestFormat = 1;    // that this build reads
inline constexpr std::uint32_t kFormatVersion = 2;   // the newest, which it writes where nobody needs an older one
inline constexpr std::size_t kMaxDigestMethods = 4;  // in one snapshot

using RegistryId = std::array<std::uint8_t, 16>;
using SealHash = std::array<std::uint8_t, 32>;
using HashSeed = std::array<std::uint8_t, 16>;
using AuditHash = std::array<std::uint8_t, 32>;

inline constexpr std::size_t kMaxFeatures = 16;  // that one snapshot requires

// The views point into the snapshot's bytes.
struct Meta {
  std::uint32_t format = 0;  // 0: not said
  RegistryId registry_id{};
  std::uint64_t generation = 0;
  UnixSec created;
  std::string_view builder;
  bool has_keys = false;  // 0 keys are legal, saying nothing is not
  std::uint64_t keys = 0;
  std::array<std::string_view, kMaxDigestMethods> digests{};
  std::size_t digest_count = 0;
  bool allow_shrink = false;
  std::uint64_t rolled_back_to = 0;  // 0: not a rollback
  bool has_added = false;            // in a checked Meta the same as has_removed
  bool has_removed = false;
  std::uint64_t added = 0;
  std::uint64_t removed = 0;
  std::array<std::string_view, kMaxFeatures> features{};  // of `requires`; the reader knows which it understands
  std::size_t feature_count = 0;
  bool has_base = false;
  SealHash base{};
  HashSeed hash_seed{};         // zero: not said
  std::string_view name;        // empty: not said
  std::uint64_t audit_seq = 0;  // 0: not said
  bool has_audit_head = false;  // in a checked Meta the same as audit_seq != 0
  AuditHash audit_head{};
  const char* wrong_in_format_2 = nullptr;  // what is wrong with a name of format 2; of format 1 it is ignored
};

// Takes one name and value; unknown names are ok and ignored.
// RETURNS: damaged for a value that does not parse, unsupported for another format version.
Status set_meta(Meta& meta, std::string_view name, std::string_view value) noexcept;

// Called after the last name: damaged when one that is required was not there, or when two contradict each other.
// Forgets what the format does not have.
Status check_meta(Meta& meta) noexcept;

[[nodiscard]] bool is_store_name(std::string_view text) noexcept;

// Lower-case hex both ways. REQUIRES: out.size() == 2 * bytes.size().
void to_hex(std::span<const std::uint8_t> bytes, std::span<char> out) noexcept;
[[nodiscard]] bool from_hex(std::string_view text, std::span<std::uint8_t> bytes) noexcept;

}  // namespace apikey
