// Editing of the query inside of a longer text: the arguments themselves, a URI, a request line.
// Called by _hide to cut a key out of what nginx logs and forwards, and by _request to redact it.
#pragma once

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

enum class QueryEdit {
  cut,     // the pairs of that name are left out, and the '?' when nothing else is left
  redact,  // their values become `ak_live_****`
};

// The query of a URI or of a request line (`GET /a?b=c HTTP/1.1`): behind the first '?'; empty when there is none.
[[nodiscard]] std::string_view query_of_uri(std::string_view uri) noexcept;
[[nodiscard]] std::string_view query_of_request_line(std::string_view line) noexcept;

// Edits every pair of `name` in `query`, which is a part of `text`. `text` becomes one in new memory; it stays the same
// when there is no such pair. RETURNS: false without memory.
bool edit_query(ngx_pool_t* pool, ngx_str_t& text, std::string_view query, std::string_view name,
                QueryEdit edit) noexcept;

// Overwrites the values of `name` where they stand. `query` is a part of `text`, memory of the client's request.
void overwrite_values(const ngx_str_t& text, std::string_view query, std::string_view name) noexcept;

}  // namespace apikey::nginx
