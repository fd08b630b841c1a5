// Whether the zone has room for the keys of a snapshot.
#pragma once

#include "ngx_http_apikey_store.hpp"

namespace apikey::nginx {

// One [warn] of all workers together for each change of snapshot whose keys cannot fit.
void warn_if_crowded(const StoreConf& store, const Loaded& loaded, ngx_log_t* log) noexcept;

}  // namespace apikey::nginx
