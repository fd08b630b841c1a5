// Scopes that the configuration asks for and that no key can have: a typing error in either, found before a customer
// does.
#pragma once

#include "ngx_http_apikey_store.hpp"

namespace apikey::nginx {

// One warning for each list of scopes that names such a one. Says it once per configuration, when its first snapshot is
// in service, and in one worker only.
void name_unknown_scopes(const StoreConf& store, const Snapshot& snapshot, ngx_log_t* log) noexcept;

}  // namespace apikey::nginx
