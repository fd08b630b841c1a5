// The files of node memory in the runtime directory: finding, locking, making, naming and letting go of them. What
// stands in them is node_memory.hpp's; what nginx does with it is in ngx_http_apikey_node.cpp.
//
// INVARIANT: a file belongs to the master whose lock is on it. Another one that is not its child gets a name of its
// own. A mapping is released when the last configuration that uses it ends; workers keep what they inherited.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>

#include "apikey/node_inbox.hpp"
#include "apikey/node_memory.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// One open file, shared by all configurations of this process that use it.
struct NodeFile {
  ngx_uint_t users = 0;   // configurations
  ngx_uint_t number = 1;  // of its name: 1 <id>, 2 <id>-2, …
  dev_t device = 0;
  ino_t inode = 0;
  int lock_fd = -1;  // holds the master's lock; closed in workers
  int row_fd = -1;   // for the locks of rows, and for asking; never closed while a row is held
  std::span<std::byte> mapping;
  NodeMemory memory;
  std::span<std::byte> inbox_mapping;
  Inbox inbox;
  bool has_name = false;
};

NodeFile* new_node_file(ngx_log_t* log) noexcept;
void release_node_file(NodeFile* file) noexcept;  // one user less; null-safe

// Where files lie and what they are called.
struct NodePlace {
  int directory = -1;
  ngx_str_t path{};  // of the directory
  ngx_str_t id{};    // <zone>-<hash of nginx's pid path>, without a number
  gid_t group = 0;
  bool is_private = false;  // nobody else may enter the directory
};
inline constexpr ngx_uint_t kMaxNodeNumber = 32;
inline constexpr std::size_t kMaxNodeName = 256;

// `<id>[-<number>]<suffix>` into `out`, zero-terminated.
void node_name(const NodePlace& place, ngx_uint_t number, const char* suffix, std::span<u_char> out) noexcept;

// What lies under a name.
enum class Claim : std::uint8_t {
  nothing,   // there is no file
  not_ours,  // a link, a directory, a file of somebody else: it is not opened for anything
  claimed,   // no master has it: `file` is open, mapped and locked
  shared,    // the master that this one replaces has it, or this very process: `file` is open, mapped and locked
  taken,     // another master has it
};
// Opens the file of that number. `parent`: the instance that the process which started this one handed down, as 32 hex
// digits; empty: none.
Claim claim_node_file(const NodePlace& place, ngx_uint_t number, std::string_view parent, NodeFile& file) noexcept;

// A file without its name, of that many bytes, all of them allocated, mapped and locked by this master.
// RETURNS: 0 or errno.
int make_node_file(const NodePlace& place, std::size_t size, NodeFile& file) noexcept;
// Where a file without a name is not to be had it has a temporary one: removes it, when the file is not to be used.
void remove_unnamed_file(const NodePlace& place) noexcept;
// Gives it its name. `replaces`: what lies under that name is replaced; else the first number from file.number on that
// nobody has taken is used. RETURNS: 0 or errno.
int name_node_file(const NodePlace& place, bool replaces, NodeFile& file) noexcept;
// Keeps a file that is about to be replaced, for as long as workers use it: `<id>[-<number>]~<instance>.state`.
void keep_replaced_file(const NodePlace& place, const NodeFile& file) noexcept;
// Removes those kept that nobody uses any more.
void remove_kept_files(const NodePlace& place) noexcept;

// Adopts the inbox of that number if it belongs to the file, else makes one. Without one nothing is permitted.
void open_inbox(const NodePlace& place, NodeFile& file) noexcept;

// True when some process holds a row of the file.
[[nodiscard]] bool has_living_workers(const NodeFile& file) noexcept;

// Sixteen bytes as 32 hex digits.
using InstanceText = std::array<char, 32>;
[[nodiscard]] InstanceText instance_text(const NodeInstance& instance) noexcept;

}  // namespace apikey::nginx
