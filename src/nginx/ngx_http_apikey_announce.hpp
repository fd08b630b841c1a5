// Tells keyloader where node memory lies: `<store directory>/nodes/<id>.json`, written by the master when it may. A
// convenience: keyloader looks in the usual runtime directories too, and believes nothing that stands there.
#pragma once

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"
#include "ngx_http_apikey_node.hpp"

namespace apikey::nginx {

// Never fails: a directory that cannot be written is passed over.
void announce_node(ngx_cycle_t* cycle, const MainConf& main, const Node& node) noexcept;

}  // namespace apikey::nginx
