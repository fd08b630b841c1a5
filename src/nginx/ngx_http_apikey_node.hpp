// Node memory as a configuration uses it: the file in the runtime directory with its tables. The master makes or adopts
// it while it configures, workers inherit the mapping; both masters of a binary upgrade use the same file, and a
// restart finds it again. What brings quotas over a reboot is in ngx_http_apikey_checkpoint.hpp. `nginx -t` and `nginx
// -s` neither look for the file nor make one.
//
// A file of another size or layout is replaced: what is known of it is carried over when nothing can fail any more
// (on_init_module), so that a configuration which is refused changes nothing.
#pragma once

#include <cstdint>

#include "apikey/node_memory.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"
#include "ngx_http_apikey_node_file.hpp"
#include "ngx_http_apikey_tables.hpp"

namespace apikey::nginx {

struct LegacyState;  // ngx_http_apikey_legacy.hpp

// In the cycle's pool, one per cycle.
struct Node {
  ngx_str_t zone_name;
  std::uint64_t zone_size;
  ngx_str_t path;  // of the state file, zero-terminated
  NodePlace place;
  NodeFile* file;  // null: none, as under `nginx -t`
  NodeTables tables;
  std::uint64_t configuration;  // number of this one; 0 until it is committed
  // Between preparing and committing:
  NodeFile* source;     // what the new file takes the place of; null: nothing
  LegacyState* legacy;  // what an earlier version left; null: nothing
  bool is_new;          // the file has no name yet
  bool replaces;        // something lies under its name
  bool is_running;      // processes of this nginx, or of the one it replaces, use `source`, or the file itself
};
static_assert(std::is_trivially_destructible_v<Node>);

// Called when the zone is set up. RETURNS: NGX_ERROR with a sentence in the log.
ngx_int_t prepare_node(ngx_cycle_t* cycle, MainConf& main, const ngx_str_t& zone_name, std::uint64_t zone_size,
                       ngx_log_t* log) noexcept;
// nginx's hook behind the last thing that can fail in a new configuration: puts a new file in its place.
ngx_int_t on_init_module(ngx_cycle_t* cycle) noexcept;

// Only valid in a worker.
const QuotaTable& quota_table(const MainConf& conf) noexcept;
const UsageTable& usage_table(const MainConf& conf) noexcept;

// Null-safe: under `nginx -t` there is nothing to speak of.
inline NodeHead* node_head(const MainConf& conf) noexcept {
  return conf.node == nullptr || conf.node->file == nullptr ? nullptr : &conf.node->file->memory.head();
}
// What others want of this nginx; attached to nothing when there is no inbox.
inline const Inbox& inbox_of(const MainConf& conf) noexcept { return conf.node->file->inbox; }
inline bool is_superseded(const Node& node) noexcept { return node.file->memory.is_superseded(); }

// The zone's name as part of a file's name: other characters than letters, digits, `_`, `.` and `-` become `_`.
// RETURNS: an empty text without memory.
ngx_str_t file_name_of(ngx_pool_t* pool, std::string_view zone_name) noexcept;

}  // namespace apikey::nginx
