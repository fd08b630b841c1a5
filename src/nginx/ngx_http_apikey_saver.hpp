// The thread that writes a checkpoint every 2 s: of one worker for all of the node, taken over within 2 s when that
// worker is killed. Started, watched and ended by the worker's event loop (_worker.cpp).
#pragma once

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

void start_saver(ngx_cycle_t* cycle, MainConf& main) noexcept;
// Once a second: begins where nobody saves, says what went wrong. A worker that shuts down saves at once, as it may be
// killed before its requests have ended, and leaves it to others; where there are none, again whenever it is due.
void tick_saver() noexcept;
// At the worker's end: a last checkpoint, unless a worker that goes on will write one. Joins the thread. `ending`: the
// cycle of a process that ends, which a disk that hangs does not keep from ending; null where the process goes on.
void stop_saver(ngx_cycle_t* ending) noexcept;
// When all workers have ended: a last checkpoint that says so, unless the master of an upgrade goes on.
void on_exit_master(ngx_cycle_t* cycle) noexcept;

}  // namespace apikey::nginx
