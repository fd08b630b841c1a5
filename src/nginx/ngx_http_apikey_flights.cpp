// The process's place in the table of requests in flight. Called on the event loop of a worker only.
#include "ngx_http_apikey_flights.hpp"

#include <signal.h>
#include <sys/random.h>

#include <cerrno>

#include "ngx_http_apikey_thread.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr std::uint64_t kLookEveryMs = 900;  // less than the timer's second, so that no look is left out

FlightHolder self;

bool is_alive(std::uint32_t pid) noexcept { return kill(static_cast<pid_t>(pid), 0) == 0 || errno != ESRCH; }

void release(const MainConf& conf) noexcept {
  for (const bool is_client_chosen : {false, true}) {
    static_cast<void>(limit_tables(conf).flights_of(is_client_chosen).release_dead(self, is_alive));
  }
}

}  // namespace

void start_flights(const MainConf& conf) noexcept {
  self.pid = static_cast<std::uint32_t>(ngx_pid);
  if (getrandom(&self.mark, sizeof self.mark, GRND_NONBLOCK) != static_cast<ssize_t>(sizeof self.mark)) {
    self.mark = static_cast<std::uint16_t>(monotonic_ms());
  }
  set_flight_holder(conf, self);
  release(conf);
}

void release_dead_flights(const MainConf& conf) noexcept {
  std::atomic<std::uint64_t>& looked = zone_root(conf).dead_looked_ms;
  const std::uint64_t now = monotonic_ms();
  std::uint64_t last = looked.load();
  if (now - last >= kLookEveryMs && looked.compare_exchange_strong(last, now)) {
    release(conf);
  }
}

}  // namespace apikey::nginx
