// What every key has used, by hour, until keyloader has collected it: a fixed table over memory of the caller's, shared
// by processes, without a lock. Counted in once per client request; never evicted, only acknowledged.
//
// A tag of 8 bytes says what a slot is for; all slots' tags stand together. 0: free.
//   bits 0-23 hour, counted from 1970 · bits 24-25 state: 1 being claimed, 2 counting, 3 restored · bits 26-63 hash
// A slot:
//   0  8 row id · 8 16 owner id · 24 13 key id, 3 zero · 40 8 for each counter
// Whoever claims a slot fills it before he says `counting`; nobody else writes to it until then, and if he dies it
// stays unused until its hour is acknowledged. Freeing is one compare-and-swap. So a process may die at any
// instruction: at most the request it was counting is counted in part. Two slots may stand for one key and hour;
// readers add them up. What finds no room within kReach slots is counted in one of kOverflowSlots slots without key and
// owner. A restored slot (from a checkpoint, from a table of another size) is read but not counted in any more: what
// was collected of it before is not counted twice, whatever happened since it was saved.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "apikey/key_id.hpp"
#include "apikey/siphash.hpp"
#include "apikey/status.hpp"
#include "apikey/units.hpp"
#include "apikey/verdict.hpp"

namespace apikey {

inline constexpr std::int64_t kUsageHour = 3600;  // seconds
// An hour is handed out for good this long after its end: no clock of a worker is in it any more.
inline constexpr std::int64_t kUsageSettling = 600;  // seconds

// The refusals of a recognised key, each with a counter of its own.
inline constexpr std::array kUsageRefusals = {
    Outcome::unavailable,  Outcome::revoked,      Outcome::suspended,         Outcome::not_yet_valid,
    Outcome::expired,      Outcome::throttled,    Outcome::wrong_environment, Outcome::wrong_address,
    Outcome::tls_required, Outcome::wrong_origin, Outcome::wrong_method,      Outcome::wrong_host,
    Outcome::scope,        Outcome::rate_limited, Outcome::quota_exceeded,    Outcome::concurrency_limited};

// By name; behind them the refusals in their order.
enum UsageCounter : std::size_t { kUsageAdmitted, kUsageCost, kUsageRefunded, kUsageBytes, kUsageUpstreamUs };
inline constexpr std::size_t kUsageNamedCounters = 5;
inline constexpr std::size_t kUsageCounters = kUsageNamedCounters + kUsageRefusals.size();

using UsageOwner = std::array<std::uint8_t, 16>;
using UsageInstance = std::array<std::uint8_t, 16>;

// One request that has ended.
struct UsageEvent {
  KeyId key;
  UsageOwner owner{};
  Outcome outcome = Outcome::ok;  // ok: admitted; one of kUsageRefusals: refused; others are not counted
  std::uint64_t cost = 0;         // what was charged in the end, before a refund
  std::uint64_t refunded = 0;
  std::uint64_t bytes = 0;
  std::uint64_t upstream_us = 0;
};

// What is new about a new table: random, and the time.
struct UsageOrigin {
  UsageInstance instance{};
  std::uint32_t incarnation = 0;
  UnixSec created;
};

// Counts between the two times may be missing: they were made after a checkpoint that is all that was left.
struct UsageGap {
  std::int64_t from = 0;  // seconds since 1970
  std::int64_t to = 0;
};
inline constexpr std::size_t kMaxUsageGaps = 16;

// What a table is, apart from its rows. No padding: it may be written to a file as it is.
struct UsageHead {
  UsageInstance instance{};        // the same for as long as counts are carried over
  std::int64_t created = 0;        // when its first table was made, seconds since 1970
  std::uint64_t acknowledged = 0;  // the last hour that has been handed out for good; 0: none
  std::uint64_t overflows = 0;     // requests that were counted without their key
  std::uint64_t unplaced = 0;      // of these, requests of which not even the hour is known
  std::uint64_t gap_count = 0;
  std::array<UsageGap, kMaxUsageGaps> gaps{};
};
static_assert(sizeof(UsageHead) == 56 + 16 * kMaxUsageGaps);

// The counts of one slot. `row` with the instance names it for ever. No padding, as above.
struct UsageRow {
  std::uint64_t row = 0;
  UsageOwner owner{};
  KeyId key;  // zeros: of requests for whose key there was no room
  std::array<std::uint8_t, 3> zero{};
  std::uint64_t hour = 0;  // since 1970
  std::array<std::uint64_t, kUsageCounters> counters{};
};
static_assert(sizeof(UsageRow) == 48 + 8 * kUsageCounters);

class UsageTable {
 public:
  static constexpr std::size_t kReach = 256;
  static constexpr std::size_t kOverflowSlots = 64;
  static constexpr std::uint64_t kLayout = 1;

  UsageTable() noexcept = default;  // attached to nothing: nothing is counted

  [[nodiscard]] static std::size_t bytes_for(std::size_t slots) noexcept;  // header and overflow slots included
  // As format() and attach() of QuotaTable. The memory is 64-byte aligned.
  static Status format(std::span<std::byte> memory, const SipKey& seed, const UsageOrigin& origin,
                       UsageTable& table) noexcept;
  static Status attach(std::span<std::byte> memory, UsageTable& table) noexcept;

  // Counts in the hour of `now`, or in the first that is not acknowledged.
  void count(const UsageEvent& event, UnixSec now) const noexcept;

  // The slots of all hours up to this one are free. RETURNS: false when it ended less than kUsageSettling ago; then
  // nothing is done. May be repeated, by several at once, and after one that died in it.
  bool acknowledge(std::uint64_t hour, UnixSec now) const noexcept;

  struct Usage {
    std::uint64_t slots = 0;
    std::uint64_t used = 0;
    std::uint64_t overflows = 0;
  };
  [[nodiscard]] Usage usage() const noexcept;  // reads all tags

  // For collecting, for checkpoints and for tables of another size. All rows together are not of one moment, but each
  // counter only grows.
  [[nodiscard]] UsageHead head() const noexcept;
  [[nodiscard]] std::size_t size() const noexcept;                          // slots, overflow slots included
  [[nodiscard]] bool save(std::size_t slot, UsageRow& row) const noexcept;  // false: nothing to save there
  // Into a table that nobody counts in yet: first the head, then the rows. `gap`: the time of the checkpoint and now;
  // from == to: nothing was lost. A row without room leaves a gap of its hour. RETURNS: false for such a row.
  void restore(const UsageHead& head, UsageGap gap) const noexcept;
  bool restore(const UsageRow& row) const noexcept;

 private:
  struct Header;
  struct Slot;
  struct Name;
  using Tag = std::atomic<std::uint64_t>;
  struct Run {  // the slots one name may stand in: `count` of them from `first` on, `home` being tried first
    std::size_t first = 0;
    std::size_t count = 0;
    std::size_t home = 0;
  };
  [[nodiscard]] Run run_of(std::uint64_t hash) const noexcept;
  [[nodiscard]] Run overflow_run() const noexcept;
  [[nodiscard]] Slot* seat(const Name& name, std::uint64_t live_tag, const Run& run) const noexcept;
  [[nodiscard]] Slot* claim(const Name& name, std::uint64_t live_tag, std::size_t index) const noexcept;
  void add_gap(UsageGap gap) const noexcept;

  Header* header_ = nullptr;
  Slot* slots_ = nullptr;
  Tag* tags_ = nullptr;
  std::uint64_t slot_count_ = 0;  // checked once: whoever else can write the memory can change the header's
};

}  // namespace apikey
