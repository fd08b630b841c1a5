// Content handlers that answer for a key: apikey_verify (204 with identity headers, or the refusal: the target of
// auth_request and forward-auth) and apikey_whoami (JSON: the presented key's own id, scopes, expiry, limits).
#pragma once

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

ngx_int_t on_verify(ngx_http_request_t* r) noexcept;
ngx_int_t on_whoami(ngx_http_request_t* r) noexcept;

}  // namespace apikey::nginx
