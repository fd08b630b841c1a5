// Requests that end before the preaccess phase, where keys are hidden: refused while nginx reads them, by their size,
// by a `return`, answered with a redirect. nginx logs them all the same.
#pragma once

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// Post-read phase: r->request_line becomes a copy without the keys of this port. Changes what is logged, nothing else.
ngx_int_t on_post_read(ngx_http_request_t* r) noexcept;

// To be called first in the log phase, for the main request: hides what the request still holds, if it has ended before
// `preaccess`, our handler of that phase, was called.
void hide_at_end(ngx_http_request_t* r, ngx_http_handler_pt preaccess) noexcept;

}  // namespace apikey::nginx
