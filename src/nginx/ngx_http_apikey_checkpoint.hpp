// The checkpoint on disk: written by the thread of one worker (ngx_http_apikey_saver.hpp), read by the master when
// there is no node memory. What stands in it is apikey/checkpoint.hpp's.
// Writing makes no call of nginx, so that a thread may do it.
#pragma once

#include "apikey/checkpoint.hpp"
#include "ngx_http_apikey_ngx.hpp"
#include "ngx_http_apikey_node.hpp"

namespace apikey::nginx {

enum class SaveStep : std::uint8_t {
  written,
  unchanged,  // what is on disk is this already
  yielded,    // another worker is at it, or has taken over
  open,       // from here on: what failed
  write,
  sync,
  rename,
};
struct SaveResult {
  SaveStep step = SaveStep::unchanged;
  int error = 0;
  [[nodiscard]] bool failed() const noexcept { return step >= SaveStep::open; }
};

struct SaveTime {
  std::uint64_t now_us = 0;  // when the caller began
  bool is_final = false;     // nobody counts any more
};

// Writes what lies in the state's memory, unless that is what was written last. Asks `carry_on` every 64 KiB.
SaveResult save_checkpoint(const CheckpointConf& conf, const Node& node, const SaveTime& time,
                           bool (*carry_on)() noexcept) noexcept;

// A checkpoint as read, for the master.
struct CheckpointFile {
  std::span<std::byte> bytes;
  Checkpoint checkpoint;  // views into `bytes`
};
// RETURNS: false when there is none, or none that is to be taken; the log has said so.
bool read_checkpoint(ngx_cycle_t* cycle, const MainConf& main, const Node& node, ngx_log_t* log,
                     CheckpointFile& file) noexcept;
// REQUIRES: the state's tables were laid out with the seed of the checkpoint.
void restore_checkpoint(const CheckpointFile& file, const Node& node, ngx_log_t* log) noexcept;
void release_checkpoint(CheckpointFile& file) noexcept;

}  // namespace apikey::nginx
