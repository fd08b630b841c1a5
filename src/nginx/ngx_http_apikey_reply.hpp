// Verdict → status, challenge, headers, log line: the only such mapping. The body of a refusal is _problem's.
// Called by the access handler and by the content handlers that decide.
#pragma once

#include "ngx_http_apikey_decision.hpp"

namespace apikey::nginx {

// The HTTP status of a refusal: 401, 403, 429 or 503. NGX_OK for what lets pass as if a key had been shown,
// NGX_DECLINED for what has no say (`anonymous`: under `satisfy any` somebody else has to let the request in).
[[nodiscard]] ngx_int_t status_of(Outcome outcome) noexcept;

// Sets WWW-Authenticate, Retry-After, Cache-Control for a refusal and logs it.
// RETURNS: status_of() the verdict, or 500 without memory.
ngx_int_t reply(ngx_http_request_t* r, RequestCtx& ctx) noexcept;

// A refusal of an earlier pass, in a later one: its headers are there already. RETURNS: its status.
ngx_int_t repeat(ngx_http_request_t* r, RequestCtx& ctx) noexcept;

// Nanoseconds as whole seconds, rounded up.
[[nodiscard]] std::int64_t whole_seconds(std::uint64_t ns) noexcept;

// Adds a line to the answer's header. RETURNS: null without memory.
ngx_table_elt_t* add_header(ngx_http_request_t* r, std::string_view name, ngx_str_t value) noexcept;

// The filters that add rate headers and the body of a refusal (_filter).
ngx_int_t install_filters(ngx_conf_t* cf) noexcept;

// A whole answer of a content handler: not to be stored, in one piece. LIFETIME: `body` is the request pool's.
ngx_int_t send_text(ngx_http_request_t* r, ngx_uint_t status, std::string_view type, ngx_str_t body) noexcept;

}  // namespace apikey::nginx
