// The content handler apikey_metrics: Prometheus text exposition format 0.0.4.
#pragma once

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

ngx_int_t on_metrics(ngx_http_request_t* r) noexcept;

}  // namespace apikey::nginx
