// What outlives every process of nginx: quotas and usage counters, in one file of /dev/shm that all workers share.
// The master makes or adopts it while it configures, workers inherit the mapping; both masters of a binary upgrade map
// the same file, and a restart finds it again. What brings it over a reboot is in ngx_http_apikey_checkpoint.hpp.
// `nginx -t` and `nginx -s` neither look for the file nor make one.
//
// A file of another size is replaced: its entries are carried over when nothing can fail any more (on_init_module), so
// that a configuration which is refused changes nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "apikey/wide_word.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"
#include "ngx_http_apikey_tables.hpp"

namespace apikey::nginx {

inline constexpr std::uint64_t kStateLayout = 1;  // part of the file's name; changes with any change of what lies in it
inline constexpr std::size_t kStateHeaderSize = 4096;

using StateInstance = std::array<std::uint64_t, 2>;

// The first page of the file; behind it lie the tables.
struct StateHeader {
  std::uint64_t magic;           // written last
  std::uint64_t layout;          // of everything in the file, see _state.cpp
  std::uint64_t size;            // of the file
  StateInstance instance;        // random: which file this is
  std::array<char, 40> boot_id;  // of the boot it was made in: for people, nothing depends on it
  // Set when another file has taken its place: what lies here is not to be saved any more.
  std::atomic<std::uint64_t> is_superseded;
  // Of the thread that writes checkpoints, whichever worker has it.
  WideWord writer;                           // low: attempt << 32 | pid, 0 none · high: heartbeat, monotonic ms
  std::atomic<std::uint64_t> checkpoint_us;  // the moment up to which everything is in the checkpoint; 0: never
  std::atomic<std::uint64_t> checkpoint_errors;
  std::atomic<std::uint64_t> complaint;             // what was complained of last, so that it is said once
  std::array<std::atomic<std::uint64_t>, 3> saved;  // check, inode and mtime in ns of the checkpoint as it was written
};
static_assert(std::is_standard_layout_v<StateHeader> && std::is_trivially_destructible_v<StateHeader>);
static_assert(sizeof(StateHeader) <= kStateHeaderSize);

// What a configuration knows of it: in the cycle's pool, one per cycle.
struct State {
  ngx_str_t zone_name;
  ngx_str_t path;               // zero-terminated
  std::span<std::byte> memory;  // empty: none, as under `nginx -t`
  StateHeader* header;          // null: none
  StateTables tables;
  // Between preparing and committing:
  int new_fd;                   // of a file that has no name yet; -1: the file was adopted
  std::span<std::byte> source;  // mapping of the file that it takes the place of, when that was not adopted
  const State* running;         // of the configuration that it takes the place of
};
static_assert(std::is_trivially_destructible_v<State>);

// Called when the zone is laid out or taken over. RETURNS: NGX_ERROR with a sentence in the log.
ngx_int_t prepare_state(ngx_cycle_t* cycle, MainConf& main, const ngx_shm_zone_t& zone, const State* running) noexcept;
// nginx's hook behind the last thing that can fail in a new configuration: puts a new file in its place.
ngx_int_t on_init_module(ngx_cycle_t* cycle) noexcept;

// Only valid in a worker.
const QuotaTable& quota_table(const MainConf& conf) noexcept;
const UsageTable& usage_table(const MainConf& conf) noexcept;

// Null-safe: under `nginx -t` there is nothing to speak of.
inline StateHeader* state_header(const MainConf& conf) noexcept {
  return conf.state == nullptr ? nullptr : conf.state->header;
}

// The zone's name as part of a file's name: other characters than letters, digits, `_`, `.` and `-` become `_`.
// RETURNS: an empty text without memory.
ngx_str_t file_name_of(ngx_pool_t* pool, std::string_view zone_name) noexcept;

}  // namespace apikey::nginx
