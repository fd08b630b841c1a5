// What nginx knows of a request, in the core's terms: the credential it carries (and hiding it), and the facts that
// bindings are checked against. Called in the preaccess phase, before anything can log or forward the credential.
#pragma once

#include "apikey/authenticator.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// Reads every configured source, computes the digests, and with apikey_hide removes the credential from header list,
// arguments, request line. Buffers of ours are wiped. `redacted_request` (in the request's pool) is the request line
// with the key redacted, for $apikey_request. RETURNS: NGX_OK, or NGX_ERROR without memory.
ngx_int_t extract_credential(ngx_http_request_t* r, const LocConf& conf, const MainConf& main, Credential& credential,
                             ngx_str_t& redacted_request) noexcept;

[[nodiscard]] RequestFacts request_facts(ngx_http_request_t* r) noexcept;
[[nodiscard]] bool is_cors_preflight(ngx_http_request_t* r) noexcept;

// First header of that (lower-case) name in the request; null when there is none.
ngx_table_elt_t* find_header(ngx_http_request_t* r, std::string_view name) noexcept;

}  // namespace apikey::nginx
