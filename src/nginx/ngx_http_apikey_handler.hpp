// The phases: preaccess (extract and hide), access (decide and charge), log (count).
#pragma once

#include "ngx_http_apikey_decision.hpp"

namespace apikey::nginx {

ngx_int_t on_preaccess(ngx_http_request_t* r) noexcept;
ngx_int_t on_access(ngx_http_request_t* r) noexcept;
ngx_int_t on_log(ngx_http_request_t* r) noexcept;

// Registers the three, and that of the post-read phase where it is needed, in the order docs/design.md gives.
ngx_int_t install_handlers(ngx_conf_t* cf) noexcept;

}  // namespace apikey::nginx
