// nginx's own redirects: `/dir` → `/dir/`, `return 301 https://$host$request_uri`, error_page 497, and the like.
#pragma once

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// To be called by the header filter, for the main request: takes keys out of the query of a Location that leads to the
// same host, unless `apikey_hide … redirects=keep`. An upstream's Location stays. RETURNS: false without memory.
bool clean_redirect(ngx_http_request_t* r) noexcept;

}  // namespace apikey::nginx
