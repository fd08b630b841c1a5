// The file that versions before node memory kept in /dev/shm, apikey-<zone>-<hash>.v1: its quotas and usage are taken
// over once, and then it is removed. Only a file of the user who starts nginx that nobody else may open is looked at;
// any other one lies there for nothing.
#pragma once

#include "ngx_http_apikey_ngx.hpp"
#include "ngx_http_apikey_tables.hpp"

namespace apikey::nginx {

struct LegacyState {
  ngx_str_t path;
  std::span<std::byte> memory;
  SavedTables tables;
};

// `id`: as NodePlace::id. RETURNS: null when there is none that can be used. Unmapped at the end of the pool.
LegacyState* find_legacy_state(ngx_pool_t* pool, const ngx_str_t& id) noexcept;
// After it was taken over. Workers of an earlier version that still use it save it no more.
void remove_legacy_state(const LegacyState& legacy) noexcept;

}  // namespace apikey::nginx
