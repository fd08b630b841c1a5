// What a worker's threads share: how they are started, and the clocks they read.
// A thread calls nothing of nginx: no log, no pool, no timer.
#pragma once

#include <pthread.h>

#include <cstdint>

namespace apikey::nginx {

// With all signals blocked but faults. RETURNS: 0 or an error number.
int start_thread(pthread_t& thread, void* (*run)(void*)) noexcept;

std::uint64_t monotonic_ms() noexcept;
std::uint64_t wall_us() noexcept;  // since 1970

}  // namespace apikey::nginx
