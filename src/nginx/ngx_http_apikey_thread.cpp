// Starting a worker's thread. Called on the event loop by the verifier and the saver.
#include "ngx_http_apikey_thread.hpp"

#include <signal.h>

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

std::uint64_t monotonic_ms() noexcept { return read_ns(CLOCK_MONOTONIC) / 1'000'000; }
std::uint64_t wall_us() noexcept { return read_ns(CLOCK_REALTIME) / 1000; }

}  // namespace apikey::nginx
