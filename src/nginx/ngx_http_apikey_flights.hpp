// Requests in flight, as this process takes part in them: who it is, and whom it finds dead.
// The tables themselves are those of limit_tables() in ngx_http_apikey_zone.hpp, who enters there is its holder.
#pragma once

#include "apikey/flight_table.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// At a worker's start: lets go of what killed workers held.
void start_flights(const MainConf& conf) noexcept;
// Once a second in every worker; one of them does it for all.
void release_dead_flights(const MainConf& conf) noexcept;

}  // namespace apikey::nginx
