// The meta data of a key: what `keyloader key create --meta k=v` attached.
// Called by the variables $apikey_meta_<name>.
#pragma once

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// The value of a member of a JSON object of strings, its escapes resolved; '-' and '.' in its name match '_', letters
// of either case match, as variable names know neither. RETURNS: false when it is not there (or no memory).
bool find_meta(ngx_pool_t* pool, std::string_view meta, std::string_view name, ngx_str_t& value) noexcept;

}  // namespace apikey::nginx
