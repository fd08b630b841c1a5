// Overwriting what a client wrote, where it stands: only in memory of this request. A value may just as well be a text
// of the configuration (another module has set the header), which all requests share.
#pragma once

#include "ngx_http_apikey_ngx.hpp"
#include "ngx_http_apikey_pseudonym.hpp"

namespace apikey::nginx {

// True when all of `text` lies in a buffer of the request's head or in its pool.
[[nodiscard]] bool is_own_memory(ngx_http_request_t* r, std::string_view text) noexcept;

// Fills `text` with the pseudonym and asterisks: whoever kept a pointer to it, as `set $x $http_x_api_key` does, still
// tells clients apart. Nothing happens when it is not the request's.
void overwrite(ngx_http_request_t* r, std::string_view text, Pseudonym pseudonym) noexcept;

}  // namespace apikey::nginx
