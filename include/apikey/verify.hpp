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

// What a node has: its active snapshot, and the highest generation that it ever adopted.
struct InService {
  RegistryId registry_id{};
  std::uint64_t generation = 0;  // the highest ever adopted; 0: none yet
  std::uint64_t keys = 0;        // of the active snapshot, as are the next three
  bool has_counters = false;     // it carries `added` and `removed`
  std::uint64_t added = 0;
  std::uint64_t removed = 0;
};

[[nodiscard]] InService in_service_of(const Meta& meta) noexcept;

// Promise 10: may `next` follow what is active? `min_keep_percent` 0-100. Where both carry counters, a chain of
// intended additions and removals is accepted however many steps were missed, and a counter that fell shows a copy of
// the registry that has gone its own way. REQUIRES: `next` has passed check_meta(). RETURNS: refused with a sentence
// for another registry, a generation that is not higher, another history, too few keys.
Status may_follow(const InService& current, const Meta& next, unsigned min_keep_percent) noexcept;

}  // namespace apikey
