// Measuring one step: user instructions and cycles per call as the processor counts them, and time.
// Included by the programs of this folder. Where the processor's counters cannot be read (a container, a virtual
// machine, perf_event_paranoid) it prints the time alone; t/bench/count_instructions.py counts there with callgrind.
#pragma once

#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>

namespace apikey::bench {

// One counter of this process, user space only.
class Counter {
 public:
  explicit Counter(std::uint64_t event) {
    perf_event_attr attributes{};
    attributes.type = PERF_TYPE_HARDWARE;
    attributes.size = sizeof attributes;
    attributes.config = event;
    attributes.exclude_kernel = 1;
    attributes.exclude_hv = 1;
    fd_ = static_cast<int>(::syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
  }
  ~Counter() {
    if (fd_ >= 0) {
      (void)::close(fd_);
    }
  }
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;
  [[nodiscard]] bool works() const { return fd_ >= 0; }
  [[nodiscard]] std::uint64_t read() const {
    std::uint64_t value = 0;
    return fd_ >= 0 && ::read(fd_, &value, sizeof value) == sizeof value ? value : 0;
  }

 private:
  int fd_ = -1;
};

struct Counters {
  Counter instructions{PERF_COUNT_HW_INSTRUCTIONS};
  Counter cycles{PERF_COUNT_HW_CPU_CYCLES};
};

inline void say_what_is_counted(const Counters& counters) {
  if (!counters.instructions.works()) {
    std::puts("The processor's counters cannot be read here (kernel.perf_event_paranoid?): time only.");
  }
}

// Calls `function(i)` so many times. What it returns is summed up, so that nothing is optimised away.
template <class Function>
void repeat(std::uint64_t rounds, Function& function) {
  volatile std::uint64_t sink = 0;
  for (std::uint64_t i = 0; i < rounds; ++i) {
    sink = sink + function(i);
  }
}

template <class Function>
void measure(const Counters& counters, const char* name, Function function) {
  constexpr std::uint64_t rounds = 300'000;
  repeat(rounds / 10, function);
  const std::uint64_t instructions = counters.instructions.read();
  const std::uint64_t cycles = counters.cycles.read();
  const auto begin = std::chrono::steady_clock::now();
  repeat(rounds, function);
  const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - begin;
  const auto per_call = [](std::uint64_t total) { return static_cast<double>(total) / rounds; };
  std::printf("%-44s", name);
  if (counters.instructions.works()) {
    std::printf(" %8.0f instructions", per_call(counters.instructions.read() - instructions));
  }
  if (counters.cycles.works()) {
    std::printf(" %8.0f cycles", per_call(counters.cycles.read() - cycles));
  }
  std::printf(" %8.1f ns\n", time.count() / rounds);
}

}  // namespace apikey::bench
