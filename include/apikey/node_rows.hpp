// The rows of node memory that every keyloader can read, whatever module wrote them: what an nginx knows of each store,
// and which of its workers has opened what. Rows only ever grow at their end.
//
// INVARIANT: a row has one writer at a time for each part: the master gives a store its row, who holds the claim of its
// Adoption writes that, and a worker writes only the row whose byte it has locked (node_locks.hpp).
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "apikey/adoption.hpp"
#include "apikey/meta.hpp"
#include "apikey/wide_word.hpp"

namespace apikey {

inline constexpr std::size_t kNodeStores = 32;
inline constexpr std::size_t kStorePathSize = 1024;
inline constexpr std::size_t kStoreNameSize = 64;
inline constexpr std::size_t kStoreWordsSize = 256;

// What all processes of a node know of one store.
//   offset size meaning
//        0    8 key: hash of path and name, 0 free
//        8    8 number of the latest configuration that named this store
//       16    8 number of the latest configuration whose workers have started
//       24    8 zero
//       32    8 complaint · 40 8 stale change · 48 8 crowded change: what all workers together have said once
//       56   72 zero
//      128 1024 path, zero-filled
//     1152   64 name, zero-filled
//     1216  256 names of the digest methods that the latest configuration can decide by, separated by spaces
//     1472  256 words of `requires` that it knows, likewise
//     1728    8 min_keep of the latest configuration, percent + 1; 0: a module that did not say it
//     1736    8 newest snapshot format that it reads; 0: a module that did not say it reads format 1 only
//     1744  304 zero
//     2048    … Adoption
struct alignas(64) StoreRow {
  std::atomic<std::uint64_t> key;
  std::atomic<std::uint64_t> last_configuration;
  std::atomic<std::uint64_t> active_configuration;
  std::uint64_t reserved_after_configurations;
  std::atomic<std::uint64_t> complaint;
  std::atomic<std::uint64_t> stale_change;
  std::atomic<std::uint64_t> crowded_change;
  std::array<std::uint64_t, 9> reserved;
  std::array<char, kStorePathSize> path;
  std::array<char, kStoreNameSize> name;
  std::array<char, kStoreWordsSize> methods;
  std::array<char, kStoreWordsSize> features;
  std::atomic<std::uint64_t> min_keep;
  std::atomic<std::uint64_t> newest_format;
  std::array<std::uint64_t, 38> reserved_before_adoption;
  Adoption adoption;
};
static_assert(std::is_standard_layout_v<StoreRow> && std::is_trivially_destructible_v<StoreRow>);
static_assert(offsetof(StoreRow, path) == 128 && offsetof(StoreRow, name) == 1152);
static_assert(offsetof(StoreRow, methods) == 1216 && offsetof(StoreRow, min_keep) == 1728);
static_assert(offsetof(StoreRow, newest_format) == 1736);
static_assert(offsetof(StoreRow, adoption) == 2048);

// REQUIRES: nobody else uses the row: its key is not set yet.
void name_store_row(StoreRow& row, std::string_view path, std::string_view name) noexcept;
// What the latest configuration can read. Where words do not fit a last one, `+`, says that there are more.
void set_abilities(StoreRow& row, std::string_view methods, std::string_view features) noexcept;
void set_newest_format(StoreRow& row, std::uint32_t format) noexcept;
void set_min_keep(StoreRow& row, std::uint64_t percent) noexcept;

[[nodiscard]] inline std::string_view node_text(std::span<const char> text) noexcept {
  return {text.data(), static_cast<std::size_t>(std::find(text.begin(), text.end(), '\0') - text.begin())};
}

// What a reader sees of a store row: a private copy.
struct StoreReport {
  std::uint64_t key = 0;
  std::uint64_t last_configuration = 0;
  std::uint64_t active_configuration = 0;
  std::array<char, kStorePathSize> path_text{};
  std::array<char, kStoreNameSize> name_text{};
  std::array<char, kStoreWordsSize> methods_text{};
  std::array<char, kStoreWordsSize> features_text{};
  std::optional<std::uint64_t> min_keep{};  // percent
  std::uint32_t newest_format = 1;
  Adopted adopted;
  // Nobody writes to it, so whatever it says it says at once.
  alignas(Adoption) std::array<std::byte, sizeof(Adoption)> adoption_copy{};

  // Up to the first zero. Any bytes whatever.
  [[nodiscard]] std::string_view path() const noexcept { return node_text(path_text); }
  [[nodiscard]] std::string_view name() const noexcept { return node_text(name_text); }
  [[nodiscard]] std::string_view methods() const noexcept { return node_text(methods_text); }
  [[nodiscard]] std::string_view features() const noexcept { return node_text(features_text); }
  [[nodiscard]] const Adoption& adoption() const noexcept;
};

// How far a worker is with a store.
enum class AckState : std::uint8_t {
  none = 0,       // its configuration has no such store, or it has not looked yet
  open = 1,       // it decides with this generation
  fenced = 2,     // it could not open it, and answers 503 where it would have to decide
  vetoed = 3,     // it decides with an older one, under the veto of this one
  unchecked = 4,  // it could not open it, and lets its requests pass unchecked (on_error=allow)
};

struct Ack {
  std::uint64_t generation = 0;
  std::uint64_t change = 0;  // Adopted::change, the low 56 bits
  AckState state = AckState::none;
};

inline constexpr std::uint64_t kDrainingFlag = 1;  // it finishes its requests and takes no new ones
inline constexpr std::uint64_t kSingleFlag = 2;    // the one process of `master_process off`

// A process that decides. Its byte in the file is locked for as long as it lives.
//   offset size meaning
//        0   16 owner: low pid (for show: in whatever pid namespace it lives), high ticket
//       16    8 number of its configuration · 24 8 started, microseconds since 1970 · 32 8 flags
//       40   88 zero
//      128  512 acknowledgements, one per store row: low generation, high change << 8 | state
//      640   64 zero
struct alignas(64) WorkerRow {
  WideWord owner;
  std::atomic<std::uint64_t> configuration;
  std::atomic<std::uint64_t> started_us;
  std::atomic<std::uint64_t> flags;
  std::array<std::uint64_t, 11> reserved;
  std::array<WideWord, kNodeStores> acks;
  std::array<std::uint64_t, 8> reserved_at_end;
};
static_assert(std::is_standard_layout_v<WorkerRow> && std::is_trivially_destructible_v<WorkerRow>);
static_assert(offsetof(WorkerRow, acks) == 128 && sizeof(WorkerRow) == 704);

struct WorkerStart {
  std::uint32_t pid = 0;
  std::uint64_t configuration = 0;
  std::uint64_t started_us = 0;
  std::uint64_t flags = 0;
};
// Makes the row the caller's: a new ticket, no acknowledgement. REQUIRES: the caller alone has its byte locked.
// RETURNS: the ticket, which no earlier owner of this row had.
std::uint64_t begin_worker_row(WorkerRow& row, const WorkerStart& start) noexcept;
// REQUIRES: the row is the caller's, store < kNodeStores.
void acknowledge(WorkerRow& row, std::size_t store, const Ack& ack) noexcept;

struct WorkerReport {
  std::uint64_t pid = 0;
  std::uint64_t ticket = 0;  // 0: nobody ever had this row
  std::uint64_t configuration = 0;
  std::uint64_t started_us = 0;
  std::uint64_t flags = 0;
  std::array<Ack, kNodeStores> acks;
};

// From a copy of `row_size` bytes of a row, which may be shorter or longer than what this build writes: what is missing
// is zero. `out` keeps what it had when they return false: the row is being changed all the time.
[[nodiscard]] bool read_store_row(const std::byte* row, std::size_t row_size, StoreReport& out) noexcept;
void read_worker_row(const std::byte* row, std::size_t row_size, WorkerReport& out) noexcept;

}  // namespace apikey
