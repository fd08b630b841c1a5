// Everything that is checked of a snapshot before a worker or keyloader believes it: seal, SHA-256, pages, meta,
// every record and row, and that index and B-tree agree.
// Called in a thread of one worker per node, and by keyloader. Reads only `file`; safe on any bytes whatever.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "apikey/meta.hpp"
#include "apikey/seal.hpp"
#include "apikey/status.hpp"

namespace apikey {

// Asked every MiB at most; `carry_on` returning false ends the verification with StatusCode::failed.
struct VerifyControl {
  void* context = nullptr;
  bool (*carry_on)(void* context) noexcept = nullptr;
};

struct Verified {
  Seal seal;
  Meta meta;  // views into `file`
};

// Scratch a file of this length may need, in 8-byte words (one bit a page of 4 KiB).
[[nodiscard]] std::size_t verify_scratch_words(std::size_t file_length) noexcept;

// REQUIRES: scratch.size() >= verify_scratch_words(file.size()). A head that names a base is `unsupported`.
Status verify_snapshot(std::span<const std::byte> file, std::span<std::uint64_t> scratch, const VerifyControl& control,
                       Verified& verified) noexcept;

// The same for a file without seal and index, as another LMDB writer leaves it: pages, meta, records, rows, references.
// What `keyloader snapshot seal` runs before it adds index and seal.
Status verify_unsealed(std::span<const std::byte> file, std::span<std::uint64_t> scratch, const VerifyControl& control,
                       Meta& meta) noexcept;

// Promise 10: may `next` follow what is in service? `min_keep_percent` 0-100.
// RETURNS: refused with a sentence for another registry, a generation that is not higher, too few keys.
struct InService {
  RegistryId registry_id{};
  std::uint64_t generation = 0;  // the highest ever adopted
  std::uint64_t keys = 0;        // of the snapshot in service; 0 = none
};
Status may_follow(const InService& current, const Meta& next, unsigned min_keep_percent) noexcept;

}  // namespace apikey
