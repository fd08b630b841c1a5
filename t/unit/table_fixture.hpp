// What the tests of tables in shared memory have in common: memory of the right alignment, numbers that look random,
// and eight threads. Included by tests only.
#pragma once

#include <array>
#include <atomic>
#include <barrier>
#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

#include "apikey/units.hpp"

namespace apikey {

// Deterministic, so that a failure can be repeated.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15) {}
  std::uint64_t operator()() {
    state_ ^= state_ << 13U;
    state_ ^= state_ >> 7U;
    state_ ^= state_ << 17U;
    return state_;
  }
  // 0 … end - 1
  std::uint64_t below(std::uint64_t end) { return (*this)() % end; }
  bool once_in(std::uint64_t n) { return below(n) == 0; }

 private:
  std::uint64_t state_;
};

class AlignedMemory {
 public:
  explicit AlignedMemory(std::size_t size) : lines_((size + sizeof(Line) - 1) / sizeof(Line)), size_(size) {}
  std::span<std::byte> bytes() { return std::as_writable_bytes(std::span(lines_)).first(size_); }

 private:
  struct alignas(128) Line {
    std::array<std::byte, 128> bytes{};
  };
  std::vector<Line> lines_;
  std::size_t size_;
};

// The clock of a table of buckets in tests: the latest time that any request was given, as on a machine.
class TestClock {
 public:
  static void reset() { latest_ns_ = 0; }
  static MonoNs now() noexcept { return {latest_ns_.load()}; }
  // RETURNS: `now`, from which on the clock says that at least.
  static MonoNs reach(std::uint64_t now) {
    std::uint64_t latest = latest_ns_;
    while (latest < now && !latest_ns_.compare_exchange_weak(latest, now)) {
    }
    return {now};
  }

 private:
  inline static std::atomic<std::uint64_t> latest_ns_{0};
};

inline constexpr std::size_t kThreads = 8;

// All of them begin when the last one is there.
template <class Function>
void in_threads(Function function) {
  std::barrier gate(kThreads);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&function, &gate, i] {
      gate.arrive_and_wait();
      function(i);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace apikey
