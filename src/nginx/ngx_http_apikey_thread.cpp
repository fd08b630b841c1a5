// Starting and ending a worker's threads. Called on the event loop by the verifier and the saver.
#include "ngx_http_apikey_thread.hpp"

#include <signal.h>
#include <unistd.h>

#include <ctime>
#include <initializer_list>

#include "apikey/units.hpp"

namespace apikey::nginx {
namespace {

std::uint64_t read_ns(clockid_t clock) noexcept {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<std::uint64_t>(now.tv_nsec);
}

constexpr ngx_msec_t kStep = 2;

// The first handler of the cycle's pool: nothing in it has been released yet.
void leave(void*) noexcept {
  if (ngx_process == NGX_PROCESS_WORKER) {
    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0, "exit");  // as nginx would, after this
  }
  _exit(0);
}

}  // namespace

int start_thread(pthread_t& thread, void* (*run)(void*)) noexcept {
  // Signals are for nginx's own thread. Faults stay with whoever makes them.
  sigset_t blocked;
  sigset_t before;
  sigfillset(&blocked);
  for (const int fault : {SIGBUS, SIGSEGV, SIGFPE, SIGILL}) {
    sigdelset(&blocked, fault);
  }
  pthread_sigmask(SIG_SETMASK, &blocked, &before);
  const int error = pthread_create(&thread, nullptr, run, nullptr);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return error;
}

bool join_within(pthread_t thread, const std::atomic<bool>& is_done, ngx_msec_t timeout) noexcept {
  for (ngx_msec_t waited = 0; !is_done.load(std::memory_order_acquire); waited += kStep) {
    if (waited >= timeout) {
      return false;
    }
    ngx_msleep(kStep);
  }
  pthread_join(thread, nullptr);
  return true;
}

void leave_with_thread(ngx_cycle_t* cycle) noexcept {
  ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(cycle->pool, 0);
  if (cleanup == nullptr) {
    _exit(0);
  }
  cleanup->handler = leave;
}

std::uint64_t monotonic_ms() noexcept { return read_ns(CLOCK_MONOTONIC) / 1'000'000; }
std::uint64_t wall_us() noexcept { return read_ns(CLOCK_REALTIME) / 1000; }

}  // namespace apikey::nginx
