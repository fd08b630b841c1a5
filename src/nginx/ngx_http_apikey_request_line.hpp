// Request lines as they may be shown: with `****` in place of keys.
// The line itself is never changed; a cleaned one is a copy in the request's pool.
#pragma once

#include "apikey/line_secrets.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

enum class Shown {
  nothing,  // `****`
  form,     // `ak_live_****` for a key of our form
};

// The line as it was sent, whatever r->request_line is by now. RETURNS: no data when there is none, or no memory.
[[nodiscard]] ngx_str_t sent_request_line(ngx_http_request_t* r) noexcept;

// `line` becomes a copy without the secrets, CR LF behind it as behind nginx's own; it stays the same when there are
// none. RETURNS: false without memory.
bool clean_line(ngx_pool_t* pool, ngx_str_t& line, const LineSecrets& secrets, Shown shown) noexcept;

// The line for $apikey_request, where the location takes keys from the URI; elsewhere `redacted` stays without data. To
// be called before the key is hidden. RETURNS: false without memory.
bool redact_request_line(ngx_http_request_t* r, const LocConf& conf, std::string_view key,
                         ngx_str_t& redacted) noexcept;

inline std::span<const std::string_view> names_in(const ngx_array_t& names) noexcept {
  return {static_cast<const std::string_view*>(names.elts), names.nelts};
}

}  // namespace apikey::nginx
