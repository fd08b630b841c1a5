// This process's row in node memory, which processes live, and the rows of the stores.
// A worker claims its row before the first request; from then on its byte of the file is locked until it ends. Whether
// another one lives is asked of its lock, never of its pid.
#pragma once

#include <cstdint>

#include "apikey/flight_table.hpp"
#include "apikey/node_rows.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"
#include "ngx_http_apikey_node.hpp"

namespace apikey::nginx {

// Gives every store of the configuration its row: the one it had, a free one, or that of the store out of use for
// longest. Called by the master when the configuration is committed.
void assign_stores(MainConf& main, Node& node) noexcept;

// From here on this process asks of that file who lives.
void use_rows_of(const NodeFile& file) noexcept;
// In any process that was forked: lets the master's lock end with the master.
void leave_master(const MainConf& main) noexcept;
// At a worker's start. Where all rows are taken it works without one, and says so.
void claim_row(ngx_cycle_t* cycle, const MainConf& main) noexcept;
void release_row() noexcept;
// Who holds what this process has in flight.
[[nodiscard]] FlightHolder own_holder() noexcept;
// From here on the row says that this worker only finishes its requests.
void say_draining() noexcept;
// What this worker has done about a change of a store. Nothing without a row.
void acknowledge(const StoreConf& store, const Ack& ack) noexcept;

// How many living workers, draining ones too, decide nothing because they cannot open what was adopted of this store.
[[nodiscard]] std::size_t count_fenced(const StoreConf& store) noexcept;

// Asks of other processes of this node only; whoever asks lives. No system call is made on the path of a request.
[[nodiscard]] bool is_worker_alive(std::uint32_t pid) noexcept;
[[nodiscard]] bool is_holder_alive(FlightHolder holder) noexcept;

}  // namespace apikey::nginx
