// What is counted in the shared zone, as it lies there: labels that get a number for good, counters by number, and
// histograms. Added to by every worker with relaxed atomics, read by the metrics handler.
// Zeros are a valid empty state. No label is unbounded: what finds no room is counted as "other".
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "apikey/fold64.hpp"

namespace apikey::nginx {

using Counter = std::atomic<std::uint64_t>;
static_assert(Counter::is_always_lock_free);

inline void add(Counter& counter, std::uint64_t n = 1) noexcept { counter.fetch_add(n, std::memory_order_relaxed); }
inline std::uint64_t value_of(const Counter& counter) noexcept { return counter.load(std::memory_order_relaxed); }

// Up to N texts of at most 8·Words bytes, each with a number below N that it keeps. A process may die anywhere in
// number(): the hash alone claims a place, and whoever comes next writes the same bytes again.
template <std::size_t N, std::size_t Words>
class LabelTable {
 public:
  static constexpr std::size_t kMaxLength = 8 * Words;

  // RETURNS: N for a text that is too long, or that found no room.
  [[nodiscard]] std::size_t number(std::string_view text) noexcept {
    if (text.size() > kMaxLength) {
      return N;
    }
    const std::uint64_t hash = fold64(std::as_bytes(std::span(text)));
    for (std::size_t i = 0; i < N; ++i) {
      Label& label = labels_[(hash + i) % N];
      std::uint64_t seen = label.hash.load(std::memory_order_relaxed);
      if (seen == 0 && label.hash.compare_exchange_strong(seen, hash, std::memory_order_relaxed)) {
        seen = hash;
      }
      if (seen == hash) {
        write(label, text);
        return static_cast<std::size_t>((hash + i) % N);
      }
    }
    return N;
  }

  // REQUIRES: out.size() >= kMaxLength. RETURNS: false when no text has that number.
  [[nodiscard]] bool text(std::size_t number, std::span<char> out, std::string_view& text) const noexcept {
    const Label& label = labels_[number];
    const std::uint64_t length = label.length_plus_one.load(std::memory_order_acquire);
    if (length == 0 || length > kMaxLength + 1) {
      return false;
    }
    for (std::size_t i = 0; i < Words; ++i) {
      const std::uint64_t word = label.words[i].load(std::memory_order_relaxed);
      std::memcpy(out.data() + 8 * i, &word, sizeof word);
    }
    text = {out.data(), static_cast<std::size_t>(length - 1)};
    return true;
  }

 private:
  struct Label {
    std::atomic<std::uint64_t> hash;  // 0: free
    std::atomic<std::uint64_t> length_plus_one;
    std::array<std::atomic<std::uint64_t>, Words> words;
  };

  static void write(Label& label, std::string_view text) noexcept {
    if (label.length_plus_one.load(std::memory_order_acquire) != 0) {
      return;
    }
    std::array<std::uint64_t, Words> words{};
    std::memcpy(words.data(), text.data(), text.size());
    for (std::size_t i = 0; i < Words; ++i) {
      label.words[i].store(words[i], std::memory_order_relaxed);
    }
    label.length_plus_one.store(text.size() + 1, std::memory_order_release);
  }

  std::array<Label, N> labels_;
};

// Durations in nanoseconds; bucket i counts those of at most bounds[i], the last one all others.
template <std::size_t N>
struct Histogram {
  std::array<Counter, N + 1> counts;
  Counter sum_ns;

  void observe(const std::array<std::uint64_t, N>& bounds_ns, std::uint64_t ns) noexcept {
    std::size_t i = 0;
    while (i < N && ns > bounds_ns[i]) {
      ++i;
    }
    add(counts[i]);
    add(sum_ns, ns);
  }
};

// A decision takes about a microsecond; an adoption milliseconds to seconds.
inline constexpr std::array<std::uint64_t, 10> kDecisionBoundsNs = {250,    500,    1'000,  2'500,   5'000,
                                                                    10'000, 25'000, 50'000, 100'000, 1'000'000};
inline constexpr std::array<std::uint64_t, 11> kAdoptionBoundsNs = {
    1'000'000,   2'500'000,   5'000'000,     10'000'000,    25'000'000,    50'000'000,
    100'000'000, 250'000'000, 1'000'000'000, 2'500'000'000, 10'000'000'000};

}  // namespace apikey::nginx
