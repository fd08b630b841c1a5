// Editing of the query inside of a longer text: the arguments themselves, a URI, a request line.
// Called by _hide and _redirect to cut a key out of what nginx logs, forwards and answers.
#pragma once

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// The query of a URI or of a request line (`GET /a?b=c HTTP/1.1`): behind the first '?'; empty when there is none.
[[nodiscard]] std::string_view query_of_uri(std::string_view uri) noexcept;
[[nodiscard]] std::string_view query_of_request_line(std::string_view line) noexcept;

// Leaves out every pair of `name` in `query`, which is a part of `text`, and the '?' when nothing else is left. `text`
// becomes one in new memory, with CR LF behind it as behind a request line; it stays the same when there is no such
// pair. RETURNS: false without memory.
bool cut_query(ngx_pool_t* pool, ngx_str_t& text, std::string_view query, std::string_view name) noexcept;

}  // namespace apikey::nginx
