// The trailer page that seals a snapshot: one page behind LMDB's last, so that the file's length is exactly
// (last page + 1) · page size + page size. LMDB readers do not see it; any LMDB writer destroys it.
//
//   offset size meaning
//        0    8 magic "AKSEAL01"
//        8    4 format version, 1 or 2 (as in meta)
//       12    4 page size of the file
//       16    8 length of the file, this page included
//       24   32 SHA-256 of every byte before this page
//       56    8 generation (as in meta)
//       64   32 base: seal hash of the base, zeros in a complete file (as in meta)
//       96    4 number of signatures, 0-4
//      100   28 zero
//      128 96 each: 32 bytes id of the signing key (SHA-256 of its 32 public bytes, so never zeros), 64 bytes Ed25519
//               signature over bytes 0-95
//        …      zero up to the end of the page
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "apikey/meta.hpp"
#include "apikey/status.hpp"

namespace apikey {

inline constexpr std::size_t kMaxSignatures = 4;
inline constexpr std::size_t kSignedSealBytes = 96;

struct Signature {
  std::array<std::uint8_t, 32> key_id{};
  std::array<std::uint8_t, 64> bytes{};
};

struct Seal {
  std::uint32_t format = kFormatVersion;
  std::uint32_t page_size = 0;
  std::uint64_t length = 0;
  SealHash sha256{};
  std::uint64_t generation = 0;
  SealHash base{};
  std::uint32_t signature_count = 0;
  std::array<Signature, kMaxSignatures> signatures{};
};

// REQUIRES: page.size() == seal.page_size.
void encode_seal(const Seal& seal, std::span<std::byte> page) noexcept;

// Reads the trailer from the end of a whole file and checks everything but the hash: magic, version, lengths, zeros.
Status decode_seal(std::span<const std::byte> file, Seal& seal) noexcept;

}  // namespace apikey
