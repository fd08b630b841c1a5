// The runtime directory, in which node memory lies: one of our own, so that nobody else can take a name in it first.
//
//   runtime=<dir>            what the operator says, if it belongs to the user who starts nginx
//   /run/apikey              if it is or can be made ours, and is memory (tmpfs)
//   /dev/shm/apikey-<uid>    0700, ours or nobody's
// Called by the master while it configures. `nginx -t` only looks.
#pragma once

#include <sys/types.h>

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// Where it would be. Changes nothing. The path is zero-terminated; empty without memory.
ngx_str_t choose_runtime_dir(ngx_pool_t* pool, const MainConf& main) noexcept;

// Opens it, and makes it if it is not there. RETURNS: a descriptor, or -1 with a sentence in the log.
int open_runtime_dir(ngx_pool_t* pool, const MainConf& main, ngx_log_t* log, ngx_str_t& path) noexcept;

// The group that may read node memory: that of the first store's directory when root starts nginx, else one's own.
gid_t node_group(ngx_pool_t* pool, const MainConf& main) noexcept;

// The directory a path lies in, zero-terminated. RETURNS: empty without memory.
ngx_str_t directory_of(ngx_pool_t* pool, const ngx_str_t& path) noexcept;

}  // namespace apikey::nginx
