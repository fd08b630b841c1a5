// Removes the credential from the request, so that nothing behind the preaccess phase (log lines, upstream,
// subrequests) sees it: from the header list, cookies, arguments and the request line. Called by _handler once the
// digest is taken.
#pragma once

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

struct RequestCtx;

// Removes what the sources of `conf` hold, from `r` and its parents up to the main request; what is somebody else's (a
// JWT, a session cookie) stays. nginx's variables for these places show a pseudonym from then on. Harmless when
// repeated. RETURNS: NGX_OK, or NGX_ERROR without memory: then some of it is still there, and the request must not go
// on.
ngx_int_t hide_credential(ngx_http_request_t* r, RequestCtx& ctx, const LocConf& conf) noexcept;

}  // namespace apikey::nginx
