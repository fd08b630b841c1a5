// Node memory: the file in which the processes of one nginx keep what they know together, and from which keyloader
// reads what is so. Its first page is a preamble that never changes, so that every version finds in it what the others
// wrote; behind it lie regions, each with a kind and a version of its own.
//
//   offset size meaning
//        0    8 magic "AKNODE01", written last
//        8    4 version of the preamble = 1
//       12    4 number of regions, at most 64
//       16    8 size of the file
//       24   16 instance: random, which file this is
//       40    8 layout: Fold64 over all regions' kinds, versions and sizes
//       48    8 pid of the master that made or adopted it last
//       56    8 when it was made, microseconds since 1970
//       64   64 boot id as text, zero-filled; all zero: unknown
//      128   64 version of the module, text
//      192   64 version of nginx, text
//      256    8 number of configurations loaded
//      264    8 1: another file has taken its place; only workers that finish their requests still use this one
//     1024 2048 regions: 4 kind · 4 version · 8 offset · 8 size · 8 zero
// The regions `stores` and `workers` begin with 4 size of a row · 4 rows · 56 zero; the rows follow.
//
// INVARIANT: what is read here may have been written by anybody who runs as the workers' user. The preamble is copied
// once and checked; offsets and sizes are used only from that copy, within the bytes that are mapped.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/node_rows.hpp"
#include "apikey/siphash.hpp"
#include "apikey/status.hpp"
#include "apikey/wide_word.hpp"

namespace apikey {

inline constexpr std::size_t kNodePreambleSize = 4096;
inline constexpr std::size_t kNodeRegionAlignment = 4096;
inline constexpr std::size_t kMaxNodeRegions = 64;
inline constexpr std::size_t kNodeRowsHeaderSize = 64;
inline constexpr std::size_t kMaxNodeWorkers = 4096;
inline constexpr std::uint32_t kNodePreambleVersion = 1;

enum class NodeRegion : std::uint32_t {
  head = 1,
  stores = 2,
  workers = 3,
  buckets = 4,  // of key families and owners
  flights = 5,  // their requests in flight
  quotas = 6,
  usage = 7,
  counters = 8,
  policies = 9,
  texts = 10,
  client_buckets = 11,  // of subjects that clients choose
  client_flights = 12,
  anchors = 13,
};

using NodeInstance = std::array<std::uint64_t, 2>;
using NodeText = std::array<char, 64>;

// The region `head`, version 1.
struct NodeHead {
  static constexpr std::uint32_t kVersion = 1;

  SipKey seed;  // of all tables of this node
  // Of the thread that writes checkpoints, whichever worker has it.
  WideWord saver;                            // low: attempt << 32 | pid, 0 none · high: heartbeat, monotonic ms
  std::atomic<std::uint64_t> checkpoint_us;  // the moment up to which everything is in the checkpoint; 0: never
  std::atomic<std::uint64_t> checkpoint_errors;
  std::atomic<std::uint64_t> complaint;             // what was complained of last, so that it is said once
  std::array<std::atomic<std::uint64_t>, 3> saved;  // check, inode and mtime in ns of the checkpoint as it was written
  std::atomic<std::uint64_t> dead_looked_ms;        // when a worker last looked for dead ones, monotonic
  // The two clocks at one moment, when a master last made or adopted the file.
  std::atomic<std::uint64_t> wall_us;
  std::atomic<std::uint64_t> monotonic_us;
  std::atomic<std::int64_t> clock_offset_us;  // wall clock less monotonic, when last looked at or spoken of; 0: not yet
  std::array<std::uint64_t, 18> reserved;
};
static_assert(std::is_standard_layout_v<NodeHead> && std::is_trivially_destructible_v<NodeHead>);
static_assert(sizeof(NodeHead) == 256);

struct NodeRegionSpec {
  NodeRegion kind{};
  std::uint32_t version = 0;
  std::uint64_t size = 0;
};

// RETURNS: bytes of a region with that many rows.
constexpr std::uint64_t node_rows_size(std::size_t row_size, std::size_t rows) noexcept {
  return kNodeRowsHeaderSize + std::uint64_t{row_size} * rows;
}
// The rows whose size and number the region's own header says.
inline constexpr std::uint32_t kStoreRowsVersion = 1;
inline constexpr std::uint32_t kWorkerRowsVersion = 1;

// A file that is to be made. `regions` has at most kMaxNodeRegions of different kinds, `stores` and `workers` of
// node_rows_size() among them.
struct NodeSpec {
  std::span<const NodeRegionSpec> regions;
  NodeInstance instance{};
  std::uint64_t created_us = 0;
  std::string_view boot_id{};  // empty: unknown
  std::string_view module_version{};
  std::string_view server_version{};
};

[[nodiscard]] std::uint64_t node_size(std::span<const NodeRegionSpec> regions) noexcept;  // bytes of the file
[[nodiscard]] std::uint64_t node_layout(std::span<const NodeRegionSpec> regions) noexcept;

struct NodePreamble {
  std::atomic<std::uint64_t> magic;
  std::uint32_t version;
  std::uint32_t region_count;
  std::uint64_t size;
  NodeInstance instance;
  std::uint64_t layout;
  std::atomic<std::uint64_t> master_pid;
  std::uint64_t created_us;
  NodeText boot_id;
  NodeText module_version;
  NodeText server_version;
  std::atomic<std::uint64_t> configurations;
  std::atomic<std::uint64_t> is_superseded;
  std::array<std::uint64_t, 94> reserved;
  struct Region {
    std::uint32_t kind;
    std::uint32_t version;
    std::uint64_t offset;
    std::uint64_t size;
    std::uint64_t reserved;
  };
  std::array<Region, kMaxNodeRegions> regions;
  std::array<std::uint64_t, 128> reserved_at_end;
};
static_assert(std::is_standard_layout_v<NodePreamble> && sizeof(NodePreamble) == kNodePreambleSize);
static_assert(offsetof(NodePreamble, instance) == 24 && offsetof(NodePreamble, boot_id) == 64);
static_assert(offsetof(NodePreamble, configurations) == 256 && offsetof(NodePreamble, regions) == 1024);

// A view of a mapped file. The memory has to stay mapped while it is used; a reader may map it read-only, and then
// calls nothing that returns a reference.
class NodeMemory {
 public:
  NodeMemory() noexcept = default;  // attached to nothing: there is no region, there are no rows

  [[nodiscard]] bool is_attached() const noexcept { return !memory_.empty(); }
  [[nodiscard]] std::uint64_t size() const noexcept { return memory_.size(); }
  [[nodiscard]] const NodeInstance& instance() const noexcept { return instance_; }
  [[nodiscard]] std::uint64_t created_us() const noexcept { return created_us_; }
  // As they stood when it was attached, up to the first zero. Any bytes whatever.
  [[nodiscard]] std::string_view boot_id() const noexcept { return text_of(boot_id_); }
  [[nodiscard]] std::string_view module_version() const noexcept { return text_of(module_version_); }
  [[nodiscard]] std::string_view server_version() const noexcept { return text_of(server_version_); }
  [[nodiscard]] std::uint64_t master_pid() const noexcept;
  [[nodiscard]] std::uint64_t configurations() const noexcept;
  [[nodiscard]] bool is_superseded() const noexcept;

  // RETURNS: false when the file does not consist of exactly these regions at the places where format_node() puts them.
  [[nodiscard]] bool consists_of(std::span<const NodeRegionSpec> regions) const noexcept;
  // RETURNS: an empty span when it has no region of that kind and version.
  [[nodiscard]] std::span<std::byte> region(NodeRegion kind, std::uint32_t version) const noexcept;
  // The i-th region as the file lists it, known or not. RETURNS: false behind the last.
  [[nodiscard]] bool region_at(std::size_t i, NodeRegionSpec& found) const noexcept;

  [[nodiscard]] std::size_t store_count() const noexcept { return stores_.count; }
  [[nodiscard]] std::size_t worker_count() const noexcept { return workers_.count; }
  // For readers of whatever version. RETURNS: false behind the last row, or when the row changes too fast to be read.
  [[nodiscard]] bool read_store(std::size_t i, StoreReport& report) const noexcept;
  [[nodiscard]] bool read_worker(std::size_t i, WorkerReport& report) const noexcept;

  // For the module. REQUIRES: consists_of() its own regions, i below the count.
  [[nodiscard]] NodePreamble& preamble() const noexcept;
  [[nodiscard]] NodeHead& head() const noexcept;
  [[nodiscard]] StoreRow& store_row(std::size_t i) const noexcept;
  [[nodiscard]] WorkerRow& worker_row(std::size_t i) const noexcept;

 private:
  friend Status attach_node(std::span<std::byte> memory, NodeMemory& node) noexcept;
  struct Region {
    NodeRegionSpec spec;
    std::uint64_t offset = 0;
  };
  struct Rows {
    std::byte* first = nullptr;
    std::size_t row_size = 0;
    std::size_t count = 0;
  };
  static std::string_view text_of(const NodeText& text) noexcept;
  Status take_regions(const NodePreamble& copy) noexcept;
  Status take_rows(NodeRegion kind, std::uint32_t version, std::size_t max_rows, Rows& rows) const noexcept;

  std::span<std::byte> memory_;
  NodeInstance instance_{};
  std::uint64_t created_us_ = 0;
  NodeText boot_id_{};
  NodeText module_version_{};
  NodeText server_version_{};
  std::array<Region, kMaxNodeRegions> regions_{};
  std::size_t region_count_ = 0;
  Rows stores_;
  Rows workers_;
};

// Lays a preamble and empty rows over zeroed memory, page-aligned, of node_size() bytes. The other regions are the
// caller's to fill before it calls finish_node(): until then attach_node() takes it for no node memory.
Status format_node(std::span<std::byte> memory, const NodeSpec& spec, NodeMemory& node) noexcept;
void finish_node(const NodeMemory& node) noexcept;

// RETURNS: damaged for what is not node memory or contradicts itself, unsupported for another version of the preamble;
// then `node` is not changed.
Status attach_node(std::span<std::byte> memory, NodeMemory& node) noexcept;

}  // namespace apikey
