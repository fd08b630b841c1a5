// Who is it, and may it pass: extraction once per request, a decision once per location.
// Called by _handler, _content and _vars.
#pragma once

#include "ngx_http_apikey_ctx.hpp"

namespace apikey::nginx {

// Extracts and hides. A location that reads other sources than the one before looks again, unless a key was found; it
// hides what that one would have left. RETURNS: false without memory: the request must not go on.
bool extract(ngx_http_request_t* r, const LocConf& conf, RequestCtx& ctx) noexcept;

// Rows 2-8 without charging, once per location and request: for variables read before the access phase.
// RETURNS: null where apikey is off, and without memory.
const Verdict* peek(ngx_http_request_t* r) noexcept;

// The whole decision; with charging for the access phase and apikey_verify, without it for apikey_whoami. Extracts when
// that has not been done. RETURNS: null without memory.
const Verdict* decide_request(ngx_http_request_t* r, bool charges) noexcept;

// CLOCK_MONOTONIC: what buckets count in.
std::uint64_t monotonic_ns() noexcept;

// All limits that apply to this request where it was decided, to be looked at. RETURNS: false when nobody knows.
bool limits_here(ngx_http_request_t* r, const RequestCtx& ctx, std::span<LimitUse> uses, std::size_t& count) noexcept;

// What $apikey_status shows now.
std::string_view current_status(ngx_http_request_t* r) noexcept;
Outcome current_outcome(ngx_http_request_t* r) noexcept;
// The time as limits count it.
Clocks read_clocks() noexcept;

// The verdict that variables show; null when there is none.
const Verdict* current_verdict(ngx_http_request_t* r) noexcept;

}  // namespace apikey::nginx
