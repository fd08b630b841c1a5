// Notices that the wall clock was set. Called by a worker's timer, once a second.
#pragma once

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// Says it once, by all workers together, for each time the wall clock and the monotonic clock have moved apart by more
// than 5 s.
void watch_clocks(const MainConf& main, ngx_log_t* log) noexcept;

}  // namespace apikey::nginx
