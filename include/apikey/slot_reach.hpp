// Where a subject may stand in a table of slots: in one of four groups that its tag points to. Two subjects seldom
// share more than one of them, and newcomers go where there is room (claim_set.hpp), so that of a table of 50,000 slots
// 19 in 20 are in use before anybody finds none. A table of another size is filled from it by tags alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace apikey {

template <std::size_t kGroupSize, unsigned kTagBits>
class SlotReach {
 public:
  static constexpr std::size_t kGroups = 4;
  static constexpr std::size_t kReach = kGroups * kGroupSize;

  // REQUIRES: slot_count is a multiple of kGroupSize, and not 0.
  SlotReach(std::uint64_t tag, std::size_t slot_count) noexcept : groups_(slot_count / kGroupSize) {
    first_ = scale(tag << (64 - kTagBits), groups_);
    // Up to a quarter of the table at a time: so the four are different ones, if there are as many.
    step_ = 1 + scale(tag * 0x9e3779b97f4a7c15, std::max<std::size_t>(groups_ / kGroups, 1));
  }
  [[nodiscard]] std::size_t size() const noexcept { return std::min(kGroups, groups_) * kGroupSize; }
  // The number of the i-th slot.
  [[nodiscard]] std::size_t operator[](std::size_t i) const noexcept {
    const std::size_t group = first_ + i / kGroupSize * step_;  // < 2 · groups_
    return (group < groups_ ? group : group - groups_) * kGroupSize + i % kGroupSize;
  }

 private:
  static std::size_t scale(std::uint64_t fraction, std::size_t end) noexcept {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::size_t>(Wide{fraction} * end >> 64U);
  }
  std::size_t groups_;
  std::size_t first_;
  std::size_t step_;
};

}  // namespace apikey
