// Usage for billing: counting each client request for its key, and the content handler apikey_usage, by which keyloader
// collects the counts over a unix socket and says which hours nginx may forget.
#pragma once

#include "ngx_http_apikey_ctx.hpp"

namespace apikey::nginx {

// Counts a request that has ended and whose key was recognised. Called once, in the log phase, behind settling.
void count_usage(ngx_http_request_t* r, const RequestCtx& ctx) noexcept;

// Frees the hours that keyloader has asked for in the inbox. Called at every look of a worker.
void forget_collected_usage(const MainConf& main) noexcept;

// GET [?from=<slot>]: a part of the table. POST ?acknowledge=<instance>:<begin of the hour>: frees what was collected.
ngx_int_t on_usage(ngx_http_request_t* r) noexcept;

}  // namespace apikey::nginx
