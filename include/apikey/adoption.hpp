// How the workers of a node agree on the snapshot in service: state in shared memory, changed by atomic operations
// only. One worker verifies (in a thread, see src/nginx/…_verifier), all change over at their next request.
//
//   claim()     a worker takes the right to verify one identity; others may take over 1 s after its last heartbeat
//   publish()   the verified snapshot becomes the one in service: one store of `change`, which every request reads
//   refuse()    this identity is not tried again; the reason is kept
//   holders     {pid, fd} of every worker that has the verified copy open; a worker started later opens
//               /proc/<pid>/fd/<fd> of any of them instead of verifying afresh
//
// The state lives in zeroed memory, 16-byte aligned; zeros are a valid empty state. Nothing in it is a pointer. Any
// process may die or sleep at any instruction: what it held is taken over by time (claim) or found dead by its pid
// (holders), and what a sleeper still writes when it wakes reaches nobody.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "apikey/meta.hpp"
#include "apikey/status.hpp"
#include "apikey/verify.hpp"
#include "apikey/wide_word.hpp"

namespace apikey {

inline constexpr std::size_t kMaxHolders = 256;  // workers of a node, old and new ones of a reload together
inline constexpr std::uint64_t kClaimTimeoutMs = 1000;

// What tells one state of a file from another. Zero size: none.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::uint64_t mtime_ns = 0;
  std::uint64_t ctime_ns = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

// What is in service, as a worker reads it.
struct Adopted {
  std::uint64_t change = 0;  // how many changes there have been; 0: nothing adopted yet
  FileIdentity identity;
  SealHash seal{};
  RegistryId registry_id{};
  std::uint64_t generation = 0;
  std::uint64_t highest_generation = 0;
  std::uint64_t keys = 0;
  std::int64_t created = 0;
  bool is_mapped = false;  // memory=mapped: the holders' fd is the file itself, else a sealed memfd
};

enum class AdoptionResult : std::uint8_t { adopted, refused, damaged, not_trusted, unsupported, unreadable, failed };
inline constexpr std::size_t kAdoptionResultCount = 7;

class Adoption {
 public:
  // One acquire load: the number of the latest change. What every request compares with its worker's own.
  [[nodiscard]] std::uint64_t change() const noexcept { return state_.low(); }

  // A consistent copy of what is in service. Never waits for a writer: reads again only when a change came between.
  // Before the first adoption: change 0, and what seed() was given.
  [[nodiscard]] Adopted read() const noexcept;

  // What was adopted before this memory was made, as far as a checkpoint or other memory still knows it: the first
  // snapshot has to be that one, or follow it. Of `before` only registry, highest generation and seal are used.
  // REQUIRES: zeroed memory that nobody else uses yet.
  void seed(const Adopted& before) noexcept;

  // RETURNS: an attempt number (never 0) when this process may verify `identity` now; 0 when it was refused before,
  // is in service already, or another process is at it with a fresh heartbeat.
  [[nodiscard]] std::uint64_t claim(const FileIdentity& identity, std::uint32_t pid, std::uint64_t now_ms) noexcept;
  // RETURNS: false when somebody has taken over: give up.
  [[nodiscard]] bool heartbeat(std::uint64_t attempt, std::uint64_t now_ms) noexcept;
  // Both end the claim. RETURNS: false when it had been taken over; then what is in service has not changed.
  // publish() also holds the new change for {pid, fd}. It sets `change` itself, and never lowers highest_generation.
  [[nodiscard]] bool publish(std::uint64_t attempt, const Adopted& adopted, std::uint32_t pid, int fd) noexcept;
  [[nodiscard]] bool refuse(std::uint64_t attempt, const FileIdentity& identity, AdoptionResult result) noexcept;
  // Ends the claim without a verdict on the file (the worker stops): the next one may begin at once.
  void abandon(std::uint64_t attempt) noexcept;
  // The last file that was refused, and why. RETURNS: false when there was none.
  [[nodiscard]] bool last_refusal(FileIdentity& identity, AdoptionResult& result) const noexcept;

  // Holders. A worker holds the copy of change `change` under its fd until it drops it.
  // RETURNS: false when the table is full (the worker works all the same, nobody can take it from there).
  bool hold(std::uint32_t pid, int fd, std::uint64_t change) noexcept;
  void drop(std::uint32_t pid, std::uint64_t change) noexcept;
  void drop_all(std::uint32_t pid) noexcept;
  struct Holder {
    std::uint32_t pid = 0;
    int fd = -1;
  };
  // The i-th holder of that change, in no order. RETURNS: false behind the last.
  [[nodiscard]] bool holder(std::size_t i, std::uint64_t change, Holder& holder) const noexcept;
  // Smallest and largest change held by a living process (for the skew metric is alive(pid) asked).
  [[nodiscard]] std::uint64_t oldest_held(bool (*is_alive)(std::uint32_t pid) noexcept) const noexcept;

 private:
  // A word of what is published. Carries the attempt that wrote it, so that a writer which was overtaken while it
  // slept cannot write over its successor's words.
  static constexpr std::size_t kAdoptedWords = sizeof(Adopted) / sizeof(std::uint64_t);
  static constexpr std::size_t kRefusedWords = sizeof(FileIdentity) / sizeof(std::uint64_t) + 1;

  [[nodiscard]] bool holds_claim(std::uint64_t attempt, WidePair& state) const noexcept;
  [[nodiscard]] bool is_settled(const FileIdentity& identity) const noexcept;
  [[nodiscard]] bool release(std::uint64_t attempt) noexcept;

  // low: change · high: attempt << 32 | pid of the claim, pid 0 when nobody verifies. One word, so that a publisher
  // whose claim was taken over cannot publish.
  WideWord state_;
  std::atomic<std::uint64_t> heartbeat_ms_{0};
  // Change n stands in buffer n % 2; the other one is where the next is prepared. low: value, high: attempt.
  std::array<std::array<WideWord, kAdoptedWords>, 2> adopted_;
  std::array<WideWord, kRefusedWords> refused_;  // identity and result
  std::array<WideWord, kMaxHolders> holders_;    // low: pid << 32 | fd + 1, 0 free · high: change
};

}  // namespace apikey
