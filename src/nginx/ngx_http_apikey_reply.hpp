// Verdict → status, challenge, headers, body: the only such mapping. Installs the header and body filter that add rate
// headers and replace nginx's error page by application/problem+json where ours is the refusal.
#pragma once

#include "ngx_http_apikey_handler.hpp"

namespace apikey::nginx {

// Sets WWW-Authenticate, Retry-After, Cache-Control for a refusal and logs it.
// RETURNS: the HTTP status (401, 403, 429, 503), or NGX_OK / NGX_DECLINED for one that lets pass.
ngx_int_t reply(ngx_http_request_t* r, RequestCtx& ctx) noexcept;

ngx_int_t install_filters(ngx_conf_t* cf) noexcept;

}  // namespace apikey::nginx
