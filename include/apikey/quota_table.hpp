// A fixed table of quotas over memory of the caller's, shared by processes, without a lock. Unlike a bucket
// (bucket_table.hpp) a quota is never evicted: it keeps its slot until its window is over, and where no slot is free
// the answer is `full`, never "unlimited".
//
// A slot is 16 bytes (quota_slot.hpp), changed by one compare-and-swap. How a quota gets one, and why it never stands
// in two: claim_set.hpp. A slot whose window has been over for kClockTolerance, or whose rolling quota is whole again,
// is free for others. A quota stands in one of kReach slots from where its tag points, so that a table of another size
// can take it over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/quota_window.hpp"
#include "apikey/siphash.hpp"
#include "apikey/status.hpp"
#include "apikey/units.hpp"

namespace apikey {

inline constexpr std::uint64_t kMaxQuotaAmount = 1'000'000'000'000;  // 10^12
inline constexpr std::uint64_t kMaxRollingPeriodNs = 366ULL * 86'400 * kNsPerSecond;
inline constexpr std::int64_t kRollingEpoch = 1'577'836'800;  // 2020-01-01

// One quota of one subject, and what to do with it.
struct QuotaOrder {
  std::uint64_t subject = 0;    // QuotaTable::subject()
  std::uint64_t amount = 0;     // per window or period, grants included
  std::uint64_t period_ns = 0;  // rolling; 0: calendar
  // Calendar: the window of `now`, begun anew by a reset: begun_anew() of quota_window.hpp. Rolling: begin = when it
  // was last reset, 0 for never; what was used before that is forgotten, once that moment has come.
  Window window;
  std::uint64_t cost = 1;
  // Rolling: how much of the amount is a grant. It makes the bucket larger and not faster, so it is there at once,
  // whatever is owed.
  std::uint64_t granted = 0;
  // give_back() of a rolling quota: QuotaResult::taken_us of the take. What has recovered since is not given back, see
  // try_give_back() in bucket_set.hpp: at most taken_us - now.
  std::uint64_t taken_us = 0;
};

struct QuotaResult {
  enum class Status : std::uint8_t { admitted, refused, full };
  Status status = Status::full;
  std::uint64_t remaining = 0;       // after this
  std::uint64_t reset_ns = 0;        // until the window ends, or the rolling quota is whole again
  std::uint64_t retry_after_ns = 0;  // until this cost would be admitted; 0 when it was, UINT64_MAX for never
  std::uint64_t taken_us = 0;        // rolling: the arrival time that a take left behind, in the unit of the slot
};

// Wall clock. Microseconds since 1970; workers may differ by kClockTolerance: one that is behind counts in the window
// that has begun for the others. Set back by more, what was used stays, in the window of the corrected clock.
struct WallUs {
  std::uint64_t value = 0;
};
inline constexpr std::int64_t kClockTolerance = 10;  // seconds

class QuotaTable {
 public:
  static constexpr std::size_t kReach = 64;
  static constexpr std::uint64_t kLayout = 1;

  QuotaTable() noexcept = default;  // attached to nothing: everything is `full`

  [[nodiscard]] static std::size_t bytes_for(std::size_t slots) noexcept;  // header included
  // As format() and attach() of BucketTable. The memory is 64-byte aligned.
  static Status format(std::span<std::byte> memory, const SipKey& seed, QuotaTable& table) noexcept;
  static Status attach(std::span<std::byte> memory, QuotaTable& table) noexcept;

  [[nodiscard]] std::uint64_t subject(std::string_view limit_name, std::span<const std::uint8_t> id) const noexcept;
  [[nodiscard]] SipKey seed() const noexcept;

  // A cost of 0 only looks. A refusal changes nothing but may begin a window.
  [[nodiscard]] QuotaResult take(const QuotaOrder& order, WallUs now) const noexcept;
  [[nodiscard]] QuotaResult look(const QuotaOrder& order, WallUs now) const noexcept;
  // Adds cost whatever is left: what was used is known only afterwards. RETURNS: false when no slot is free. What was
  // used in a window that is over by then counts in the one that runs.
  bool charge(const QuotaOrder& order, WallUs now) const noexcept;
  // Gives back what a take or charge of the same order has taken; nothing when its window is over. (Nor when the
  // worker's clock was behind at the change of a window, so that it was counted in the next one already.)
  void give_back(const QuotaOrder& order, WallUs now) const noexcept;

  struct Usage {
    std::uint64_t slots = 0;
    std::uint64_t used = 0;  // of windows that are not over
  };
  [[nodiscard]] Usage usage(WallUs now) const noexcept;  // reads the whole table

  // For checkpoints and for tables of another size: the slots in use, as they are, none of them torn or tentative.
  struct Saved {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    std::uint64_t expires = 0;
  };
  [[nodiscard]] std::size_t size() const noexcept;                         // slots
  [[nodiscard]] bool save(std::size_t slot, Saved& saved) const noexcept;  // false: nothing to save there
  // Puts a quota back that this table does not have. RETURNS: false when it has no room.
  bool restore(const Saved& saved) const noexcept;

 private:
  struct Header;
  struct Slot;
  [[nodiscard]] static std::uint64_t slots_in(std::size_t bytes) noexcept;
  Header* header_ = nullptr;
  Slot* slots_ = nullptr;
};

}  // namespace apikey
