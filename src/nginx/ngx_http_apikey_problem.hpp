// The body of a refusal: application/problem+json (RFC 9457), and the filters that put it, and the rate headers, into
// the answer of the main request.
// The filters are the only ones who send a body of ours for a refusal: an access handler that did so would go past
// error_page and `satisfy any`.
#pragma once

#include "ngx_http_apikey_decision.hpp"

namespace apikey::nginx {

// $request_id: `instance` in the body and request_id in our log line. RETURNS: empty without memory.
std::string_view request_id(ngx_http_request_t* r) noexcept;

// The body that belongs to the refusal in ctx. RETURNS: empty without memory.
ngx_str_t problem_body(ngx_http_request_t* r, const RequestCtx& ctx) noexcept;

}  // namespace apikey::nginx
