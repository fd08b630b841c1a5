// What a cache must not keep because we have hidden what it would tell answers apart by.
#pragma once

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// To be called by the header filter, for subrequests too: an answer whose Vary names a place in which this request's
// key was hidden is not stored.
void forbid_storing(ngx_http_request_t* r) noexcept;

}  // namespace apikey::nginx
