// A fixed table of token buckets over memory of the caller's, shared by processes, without a lock.
//
// A set is 128 bytes: one word of the set and seven slots of 16 bytes. A subject may stand in one set only.
//   set   word 0  the set's floor: the latest arrival time of a live bucket that had to make room
//         word 1  bits 8-63 the second floor, of overdrawn buckets that had to make room, in units of 256 ns, rounded
//         up
//                 · bits 0-7 number of the latest claim
//   slot  word 0  bits 0-47 tag of (limit, subject), 0 = free · bits 48-63 interval last used (bucket.hpp), or, of a
//                 tentative slot, the mark of its claim
//         word 1  bit 63 tentative · bit 62 overdrawn · bits 0-61 theoretical arrival time in ns of CLOCK_MONOTONIC
// A slot is changed only by one 16-byte compare-and-swap. How, and why nobody is ever admitted beyond a limit though
// buckets come and go: bucket_set.hpp. That code itself is searched for over-admission through all its interleavings
// in t/unit/test_bucket_interleavings.cpp.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/bucket.hpp"
#include "apikey/siphash.hpp"
#include "apikey/status.hpp"
#include "apikey/units.hpp"

namespace apikey {

// One limit as it applies to one subject.
struct BucketUse {
  std::uint64_t subject = 0;  // BucketTable::subject()
  RateLimit limit;
  bool may_overdraw = false;  // this limit is charged after the fact too, see BucketTable::charge()
};

class BucketTable {
 public:
  static constexpr std::size_t kSlotsPerSet = 7;
  static constexpr std::uint64_t kLayout = 3;  // changes with any change of layout or meaning

  // Tells the time on the clock that `now` of the functions below is read from, as it is at that moment.
  using Clock = MonoNs (*)() noexcept;

  BucketTable() noexcept = default;  // attached to nothing

  [[nodiscard]] static std::size_t bytes_for(std::size_t slots) noexcept;  // header included

  // Lays an empty table over `memory` (128-byte aligned). As many sets as fit.
  static Status format(std::span<std::byte> memory, const SipKey& seed, Clock clock, BucketTable& table) noexcept;
  // Attaches to a live one, changing nothing. RETURNS: unsupported for another layout or size.
  static Status attach(std::span<std::byte> memory, Clock clock, BucketTable& table) noexcept;

  // 64 bits that stand for (limit name, id of the key family or owner): high bits choose the set, the low 48 are the
  // tag.
  [[nodiscard]] std::uint64_t subject(std::string_view limit_name, std::span<const std::uint8_t> id) const noexcept;

  // Never waits: where a slot is fought over for too long the answer is a refusal for 100 ms. A cost of 0 only looks.
  [[nodiscard]] BucketResult take(const BucketUse& use, std::uint64_t cost, MonoNs now) const noexcept;
  // What a take would give, without taking.
  [[nodiscard]] BucketResult look(const BucketUse& use, std::uint64_t cost, MonoNs now) const noexcept;
  // The same, but a subject that has no bucket here owes nothing, whatever stands in the floors: for what must not be
  // held against somebody because others have filled the table.
  [[nodiscard]] BucketResult look_at_own(const BucketUse& use, std::uint64_t cost, MonoNs now) const noexcept;
  // Takes what was used already, whatever is left.
  void charge(const BucketUse& use, std::uint64_t cost, MonoNs now) const noexcept;
  // Gives back what was taken, or a part of it. `taken_ns`: the arrival time which that take left behind.
  void give_back(const BucketUse& use, std::uint64_t cost, std::uint64_t taken_ns, MonoNs now) const noexcept;

  struct Usage {
    std::uint64_t slots = 0;
    std::uint64_t used = 0;              // not idle at `now`
    std::uint64_t forced_evictions = 0;  // live buckets that had to make room
  };
  [[nodiscard]] Usage usage(MonoNs now) const noexcept;  // reads the whole table: for metrics, not per request

 private:
  struct Header;
  struct Set;
  [[nodiscard]] Set& set_of(std::uint64_t subject) const noexcept;

  Header* header_ = nullptr;
  Set* sets_ = nullptr;
  Clock clock_ = nullptr;
};

}  // namespace apikey
