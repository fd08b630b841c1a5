// The unix sockets of servers that we answer in (apikey_usage, apikey_metrics, apikey_verify, apikey_whoami): what a
// killed nginx left of them is removed before nginx binds, or it would not start again.
#pragma once

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// The server that is being merged has a location that we answer in. RETURNS: false without memory.
[[nodiscard]] bool note_answering(ngx_conf_t* cf, MainConf& main) noexcept;
// When all servers are read. RETURNS: false without memory.
[[nodiscard]] bool find_own_sockets(ngx_conf_t* cf, MainConf& main) noexcept;
// Called by the master between configuring and binding. Does nothing under `nginx -t`, in a reload and in an upgrade,
// and to a socket that answers or belongs to another user.
void remove_stale_sockets(const ngx_cycle_t& cycle, const MainConf& main) noexcept;

}  // namespace apikey::nginx
