// A worker's life: opens what is adopted after the fork, watches for new snapshots, switches to them, closes old ones.
// Never fails a worker for its data: init_process returns NGX_OK whatever the snapshot is.
#pragma once

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

ngx_int_t on_init_process(ngx_cycle_t* cycle) noexcept;
void on_exit_process(ngx_cycle_t* cycle) noexcept;

}  // namespace apikey::nginx
