// The variables $apikey_*. Never taken from the client; empty unless authenticated.
#pragma once

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

ngx_int_t add_variables(ngx_conf_t* cf) noexcept;

}  // namespace apikey::nginx
