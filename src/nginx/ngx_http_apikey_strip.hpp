// Taking away what a request must not carry on: a part that a metered answer cannot be cut to, and what would make more
// of a CORS preflight than a question.
// Called in the preaccess and in the access phase. Values are left as they are; only the lines go.
#pragma once

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// Range and If-Range leave the client request. RETURNS: false without memory.
bool ask_for_whole(ngx_http_request_t* r) noexcept;

// The body and whatever names another method leave the client request. RETURNS: false without memory.
bool strip_preflight(ngx_http_request_t* r) noexcept;

}  // namespace apikey::nginx
