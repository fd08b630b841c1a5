// What a worker's threads share: how they are started, and the clocks they read.
// A thread calls nothing of nginx: no log, no pool, no timer.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// With all signals blocked but faults. RETURNS: 0 or an error number.
int start_thread(pthread_t& thread, void* (*run)(void*)) noexcept;
// Joins a thread that sets `is_done` as the last thing it does. RETURNS: false when it has not done so in time: then it
// hangs in the system, and this process has to end by leave_with_thread().
[[nodiscard]] bool join_within(pthread_t thread, const std::atomic<bool>& is_done, ngx_msec_t timeout) noexcept;
// Of a worker that ends while a thread of it hangs, as in a read() from a file system that does not answer: exit()
// would take down libcrypto and this module under it. The process ends without that, as soon as every module of nginx
// has had its turn.
void leave_with_thread(ngx_cycle_t* cycle) noexcept;

std::uint64_t monotonic_ms() noexcept;
std::uint64_t wall_us() noexcept;  // since 1970

}  // namespace apikey::nginx
