// Notices at once that something has changed where a store's path leads: inotify on the directory of the file and of
// every symbolic link on its path; where a directory does not exist yet, on the nearest one that does.
// Only a hint: the worker's timer looks as well, so every failure here costs at most a second.
#pragma once

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// `on_change` is called on the event loop when a watched name has changed.
void start_watch(ngx_cycle_t* cycle, void (*on_change)() noexcept) noexcept;
// Follows the paths of all stores anew; to be called after each change, and by the timer.
void arm_watch(const MainConf& main) noexcept;
void stop_watch() noexcept;

}  // namespace apikey::nginx
