// What the tests of tables in shared memory have in common: memory of the right alignment, numbers that look random,
// and eight threads. Included by tests only.
#pragma once

#include <array>
#include <barrier>
#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

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
