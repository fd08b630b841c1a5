// Sixteen bytes that change at once: two words under one compare-and-swap (cmpxchg16b), in memory shared by processes.
// Used by the bucket table (one slot) and by adoption (state and claim). Each half can be loaded by itself; the two
// loads are not one, so whoever acts on both confirms them with a compare-and-swap.
// Never std::atomic of 16 bytes: it hides a lock of the process, which other processes do not see.
#pragma once

#include <atomic>
#include <cstdint>

namespace apikey {

struct WidePair {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend constexpr bool operator==(const WidePair&, const WidePair&) = default;
};

class alignas(16) WideWord {
 public:
  [[nodiscard]] std::uint64_t low() const noexcept { return low_.load(std::memory_order_acquire); }
  [[nodiscard]] std::uint64_t high() const noexcept { return high_.load(std::memory_order_acquire); }
  // May be torn: low and high of two different moments.
  [[nodiscard]] WidePair peek() const noexcept {
    const std::uint64_t low_half = low();
    return {low_half, high()};
  }
  // RETURNS: true when the word was `expected` and now is `desired`. A full barrier.
  bool swap(const WidePair& expected, const WidePair& desired) noexcept {
    return __sync_bool_compare_and_swap(reinterpret_cast<Bits*>(this), bits(expected), bits(desired));
  }
  // Whatever it was.
  void set(const WidePair& desired) noexcept {
    while (!swap(peek(), desired)) {
    }
  }

 private:
  __extension__ using Bits __attribute__((may_alias)) = unsigned __int128;
  static Bits bits(const WidePair& pair) noexcept { return static_cast<Bits>(pair.high) << 64U | pair.low; }

  std::atomic<std::uint64_t> low_{0};
  std::atomic<std::uint64_t> high_{0};
};
static_assert(sizeof(WideWord) == 16);
static_assert(alignof(WideWord) == 16);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace apikey
