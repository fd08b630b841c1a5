// Who is it, and may it pass: extraction once per request, a decision once per location.
// Called by _handler, _content and _vars.
#pragma once

#include "ngx_http_apikey_ctx.hpp"

namespace apikey::nginx {

// Extracts and hides. A location that reads other sources than the one before looks again, unless a key was found or
// the request refused; it hides what that one would have left. A subrequest begins with what its client request found.
// RETURNS: false without memory: the request must not go on.
bool extract(ngx_http_request_t* r, const LocConf& conf, RequestCtx& ctx) noexcept;

// Rows 2-8 without charging, once per location and request: for variables read before the access phase.
// RETURNS: null where apikey is off, and without memory.
const Verdict* peek(ngx_http_request_t* r) noexcept;

// The whole decision, in the ctx of the request or subrequest that it is made in; with charging for the access phase
// and apikey_verify, without it for apikey_whoami. Extracts when that has not been done. What was refused stays
// refused. RETURNS: null without memory.
const Verdict* decide_request(ngx_http_request_t* r, bool charges) noexcept;

// CLOCK_MONOTONIC: what buckets count in.
std::uint64_t monotonic_ns() noexcept;

// All limits that apply to this request where it was decided, to be looked at. RETURNS: false when nobody knows.
bool limits_here(const RequestCtx& ctx, std::span<LimitUse> uses, std::size_t& count) noexcept;

// Whose verdict holds where the request is now: the subrequest's, the client request's, or that of a question that was
// asked for it. Null: none does (yet).
RequestCtx* deciding_ctx(ngx_http_request_t* r) noexcept;
// The question (auth_request) that has refused the client request in an earlier pass; null: none.
RequestCtx* refused_question(ngx_http_request_t* r) noexcept;

// What $apikey_status shows now.
std::string_view current_status(ngx_http_request_t* r) noexcept;
Outcome current_outcome(ngx_http_request_t* r) noexcept;
// The time as limits count it.
Clocks read_clocks() noexcept;

// The verdict that variables show, and whose it is; null when there is none.
const Verdict* current_verdict(ngx_http_request_t* r, RequestCtx*& ctx) noexcept;

}  // namespace apikey::nginx
