// The process's place in the table of requests in flight. Called on the event loop of a worker only.
#include "ngx_http_apikey_flights.hpp"

#include "ngx_http_apikey_node.hpp"
#include "ngx_http_apikey_rows.hpp"
#include "ngx_http_apikey_thread.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr std::uint64_t kLookEveryMs = 900;  // less than the timer's second, so that no look is left out

void release(const MainConf& conf) noexcept {
  for (const bool is_client_chosen : {false, true}) {
    static_cast<void>(limit_tables(conf).flights_of(is_client_chosen).release_dead(own_holder(), is_holder_alive));
  }
}

}  // namespace

void start_flights(const MainConf& conf) noexcept {
  set_flight_holder(conf, own_holder());
  release(conf);
}

void release_dead_flights(const MainConf& conf) noexcept {
  std::atomic<std::uint64_t>& looked = node_head(conf)->dead_looked_ms;
  const std::uint64_t now = monotonic_ms();
  std::uint64_t last = looked.load();
  if (now - last >= kLookEveryMs && looked.compare_exchange_strong(last, now)) {
    release(conf);
  }
}

}  // namespace apikey::nginx
