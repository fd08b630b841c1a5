// How the processes of a node agree on the active snapshot: state in shared memory, changed by atomic operations only.
// One worker verifies (in a thread, see src/nginx/…_verifier), all others open its copy before their next decision.
//
//   claim()     a worker takes the right to verify one file; others may take over 1 s after its last heartbeat
//   adopt()     the verified file becomes the active one: one store of `change`, which every request reads
//   veto()      the file is sound, but needs what this nginx lacks: the active one stays, and no key passes that the
//               new file lacks, or has revoked, suspended or expired
//   refuse()    the file is not tried again under this configuration; why is kept, for everybody to read
//   holders     {pid, fd} of every worker that has a verified copy open; a worker that needs it opens
//               /proc/<pid>/fd/<fd> of any of them instead of verifying the file again
//
// The state lives in zeroed memory, 16-byte aligned; zeros are a valid empty state. Nothing in it is a pointer, and its
// layout is fixed: other versions of nginx's module and of keyloader read it. Any process may die or sleep at any
// instruction: what it held is taken over by time (claim) or found dead by its pid (holders), and what a sleeper still
// writes when it wakes reaches nobody.
//
//   offset size meaning
//        0   16 low: number of the latest change · high: attempt << 32 | pid of who verifies, pid 0: nobody
//       16    8 its last heartbeat, monotonic ms
//       24    8 zero
//       32   32 notices that were given, see Notice
//       64   64 zero
//      128 2560 two buffers of Adopted, 80 words; change n stands in buffer n % 2
//     2688 1024 the last refusal, 64 words
//     3712 4096 holders: low: pid << 32 | fd + 1, 0 free · high: change that made the copy active, or the veto
//     7808  384 zero
// A word of Adopted and of Refusal takes 16 bytes: its value and the attempt that wrote it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

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

// Bits of AdoptedFile::flags.
inline constexpr std::uint64_t kAdoptedHasCounters = 1;  // `added` and `removed` mean something
inline constexpr std::uint64_t kAdoptedIsMapped = 2;  // memory=mapped: the holders' fd is the file itself, else a memfd

// A file that was verified, and what it says of itself. 256 bytes, 152 of them used.
struct AdoptedFile {
  std::uint64_t change = 0;  // that made it active, or the veto: what its copies are known by; 0: there is none
  FileIdentity identity;
  SealHash seal{};
  RegistryId registry_id{};
  std::uint64_t generation = 0;
  std::uint64_t keys = 0;
  std::int64_t created = 0;
  std::uint64_t added = 0;
  std::uint64_t removed = 0;
  std::uint64_t configuration = 0;  // under which it was judged
  std::uint64_t flags = 0;
  std::array<std::uint64_t, 13> reserve{};

  [[nodiscard]] bool has(std::uint64_t flag) const noexcept { return (flags & flag) != 0; }
};
static_assert(sizeof(AdoptedFile) == 256);

// What nginx lacks to decide by a file: a digest method or a feature, as meta names it, cut off at the end.
struct Lack {
  std::array<char, 64> text{};  // zero-filled
  Lack() noexcept = default;
  explicit Lack(std::string_view name) noexcept;
  [[nodiscard]] std::string_view name() const noexcept;
};

// All that a worker has to know. 640 bytes.
struct Adopted {
  std::uint64_t change = 0;  // how many changes there have been; 0: nothing adopted yet
  // The registry this node follows, and the highest generation of it that was adopted, as active or as veto; also
  // without a change, from before the last start.
  std::uint64_t highest_generation = 0;
  RegistryId registry_id{};
  std::uint64_t since_us = 0;    // when the latest change was made, microseconds since 1970
  std::uint64_t take_overs = 0;  // how many of the changes needed a permission
  std::array<std::uint64_t, 2> reserve{};
  AdoptedFile active;  // what decides; may be none under a veto
  AdoptedFile veto;    // generation 0: none applies
  Lack lack;           // why `veto` is only that

  [[nodiscard]] bool has_active() const noexcept { return active.change != 0; }
  [[nodiscard]] bool has_veto() const noexcept { return veto.change != 0; }
  // The file that was accepted last, also before the first change: what the next one is compared with.
  [[nodiscard]] const AdoptedFile& latest() const noexcept { return has_veto() ? veto : active; }
};
static_assert(sizeof(Adopted) == 640);

// For may_follow().
[[nodiscard]] InService in_service_of(const Adopted& adopted) noexcept;

enum class AdoptionResult : std::uint8_t {
  adopted,
  refused,
  damaged,
  not_trusted,
  unsupported,
  unreadable,
  failed,
  veto,
  taken_over,  // adopted by a permission, though may_follow() said no
};
inline constexpr std::size_t kAdoptionResultCount = 9;

// Why a file was not taken. 512 bytes, 120 of them and the sentence used.
struct Refusal {
  FileIdentity identity;
  SealHash seal{};           // zero: not known
  RegistryId registry_id{};  // zero: not known
  std::uint64_t generation = 0;
  std::uint64_t result = 0;  // AdoptionResult, as it was stored
  std::uint64_t configuration = 0;
  std::uint64_t wall_us = 0;
  std::array<std::uint64_t, 9> reserve{};
  std::array<char, 320> sentence{};  // what the log says of it, zero-filled

  [[nodiscard]] std::string_view text() const noexcept;
  void set_text(std::string_view text) noexcept;
};
static_assert(sizeof(Refusal) == 512);

// A refusal that settles a file until the configuration changes. The others (no memory, no descriptors, not readable)
// are tried again.
[[nodiscard]] constexpr bool is_final(AdoptionResult result) noexcept {
  return result != AdoptionResult::unreadable && result != AdoptionResult::failed;
}

// What the workers of a node say once, all together.
enum class Notice : std::uint8_t { peers_are_closed, reserved1, reserved2, reserved3 };
inline constexpr std::size_t kNoticeCount = 4;

class Adoption {
 public:
  // One acquire load: the number of the latest change. What every request compares with its worker's own.
  [[nodiscard]] std::uint64_t change() const noexcept { return state_.low(); }

  // A consistent copy of what is adopted. Never waits for a writer: reads again only when a change came between.
  // Before the first change: what seed() was given.
  [[nodiscard]] Adopted read() const noexcept;

  // What was adopted before this memory was made, as far as other memory or a checkpoint still knows it: the first file
  // has to be the latest of then, known by its seal, or to follow it. No change is made. Of `before` only registry,
  // highest generation and what it says of its latest file are used.
  // REQUIRES: zeroed memory that nobody else uses yet.
  void seed(const Adopted& before) noexcept;
  // The same with what this memory itself says, for an nginx that starts anew in it: nobody holds or verifies anything.
  // Killed at any instruction, the next start finds either what was there before or what this leaves.
  // REQUIRES: nobody else uses it.
  void begin_again() noexcept;

  // RETURNS: an attempt number (never 0) when this process may verify `identity` now; 0 when it is settled under this
  // configuration, or another process is at it with a fresh heartbeat.
  [[nodiscard]] std::uint64_t claim(const FileIdentity& identity, std::uint64_t configuration, std::uint32_t pid,
                                    std::uint64_t now_ms) noexcept;
  // For a file that was refused and has got a permission since.
  [[nodiscard]] std::uint64_t claim_again(std::uint32_t pid, std::uint64_t now_ms) noexcept;
  // RETURNS: false when somebody has taken over: give up.
  [[nodiscard]] bool heartbeat(std::uint64_t attempt, std::uint64_t now_ms) noexcept;
  // Somebody verifies, and gave a sign of life less than a second ago.
  [[nodiscard]] bool is_verifying(std::uint64_t now_ms) const noexcept;

  // These end the claim. RETURNS: false when it had been taken over; then nothing has changed.
  // adopt() and veto() also hold the copy for {pid, fd} under the new change, and set `change` of the file themselves.
  // The highest generation never falls, but when `is_take_over`.
  struct Holder {
    std::uint32_t pid = 0;
    int fd = -1;
  };
  [[nodiscard]] bool adopt(std::uint64_t attempt, const AdoptedFile& file, bool is_take_over, std::uint64_t wall_us,
                           Holder holder) noexcept;
  [[nodiscard]] bool veto(std::uint64_t attempt, const AdoptedFile& file, const Lack& lack, std::uint64_t wall_us,
                          Holder holder) noexcept;
  [[nodiscard]] bool refuse(std::uint64_t attempt, const Refusal& refusal) noexcept;
  // Ends the claim without a verdict on the file (the worker stops): the next one may begin at once.
  void abandon(std::uint64_t attempt) noexcept;

  // The file that was refused last, and why. RETURNS: false when there was none.
  [[nodiscard]] bool last_refusal(Refusal& refusal) const noexcept;
  // RETURNS: true when this very file was refused for good under this configuration.
  [[nodiscard]] bool is_refused(const FileIdentity& identity, std::uint64_t configuration) const noexcept;

  // Holders. A worker holds the copy that became active, or the veto, with `change` under its fd until it drops it.
  // RETURNS: false when the table is full (the worker works all the same, nobody can take it from there).
  bool hold(Holder holder, std::uint64_t change) noexcept;
  void drop(std::uint32_t pid, std::uint64_t change) noexcept;
  void drop_all(std::uint32_t pid) noexcept;
  // The i-th holder of that change, in no order. RETURNS: false behind the last.
  [[nodiscard]] bool holder(std::size_t i, std::uint64_t change, Holder& holder) const noexcept;
  // Smallest change held by a living process (is_alive(pid) is asked of each).
  [[nodiscard]] std::uint64_t oldest_held(bool (*is_alive)(std::uint32_t pid) noexcept) const noexcept;

  // True for the first to say this with that number; all others have heard it.
  [[nodiscard]] bool is_first_notice(Notice notice, std::uint64_t number) noexcept;

 private:
  // A word of what is published. Carries the attempt that wrote it, so that a writer which was overtaken while it
  // slept cannot write over its successor's words.
  static constexpr std::size_t kAdoptedWords = 80;
  static constexpr std::size_t kRefusedWords = 64;
  static_assert(sizeof(Adopted) == kAdoptedWords * sizeof(std::uint64_t));
  static_assert(sizeof(Refusal) == kRefusedWords * sizeof(std::uint64_t));

  [[nodiscard]] bool holds_claim(std::uint64_t attempt, WidePair& state) const noexcept;
  [[nodiscard]] bool is_settled(const FileIdentity& identity, std::uint64_t configuration) const noexcept;
  [[nodiscard]] std::uint64_t take_claim(std::uint32_t pid, std::uint64_t now_ms) noexcept;
  [[nodiscard]] bool publish(std::uint64_t attempt, const WidePair& state, const Adopted& next, Holder holder) noexcept;
  [[nodiscard]] bool release(std::uint64_t attempt) noexcept;

  // One word, so that a publisher whose claim was taken over cannot publish.
  WideWord state_;
  std::atomic<std::uint64_t> heartbeat_ms_{0};
  [[maybe_unused]] std::uint64_t zero_{0};
  std::array<std::atomic<std::uint64_t>, kNoticeCount> notices_{};
  [[maybe_unused]] std::array<std::uint64_t, 8> reserve_before_adopted_{};
  // Change n stands in buffer n % 2, what is known from before in buffer 0; the other one is where the next is
  // prepared.
  std::array<std::array<WideWord, kAdoptedWords>, 2> adopted_;
  std::array<WideWord, kRefusedWords> refused_;
  std::array<WideWord, kMaxHolders> holders_;
  [[maybe_unused]] std::array<std::uint64_t, 48> reserve_{};
};
static_assert(sizeof(Adoption) == 8192);

}  // namespace apikey
