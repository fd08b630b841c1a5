// What the nginx instances that have our keys.mdb have counted, read from their node memory while they count.
// Used by what shows quotas, by `key list`, and by collecting. Written by nginx's workers, so it may be a lie: numbers
// are shown and added up, and nothing else comes of them.
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "apikey/flight_table.hpp"
#include "apikey/quota_table.hpp"
#include "apikey/usage_table.hpp"
#include "nodes.hpp"

namespace keyloader {

// What buckets and requests in flight are counted by.
[[nodiscard]] apikey::MonoNs monotonic_now() noexcept;

// The memory of a table, copied so that nothing changes under whoever looks, and aligned as every table wants it.
class TableCopy {
 public:
  explicit TableCopy(std::span<const std::byte> region);

  [[nodiscard]] std::span<std::byte> bytes();  // as long as the region

 private:
  struct alignas(128) Block {
    std::array<std::byte, 128> bytes;
  };
  std::vector<Block> blocks_;
  std::size_t size_;
};

// One nginx's quotas, as they were at one moment.
class NodeQuotas {
 public:
  // REQUIRES: the region of quotas of `node`; the node must live only as long as this is made.
  NodeQuotas(const Node& node, std::span<const std::byte> region);
  NodeQuotas(NodeQuotas&&) = default;
  NodeQuotas& operator=(NodeQuotas&&) = default;

  [[nodiscard]] const std::string& node() const { return node_; }
  [[nodiscard]] bool is_live() const { return is_live_; }
  [[nodiscard]] bool is_readable() const { return is_readable_; }
  [[nodiscard]] const apikey::QuotaTable& table() const { return table_; }

 private:
  std::string node_;
  bool is_live_;
  bool is_readable_ = false;
  TableCopy memory_;
  apikey::QuotaTable table_;
};

// Those that live; where none does, those that are gone: their quotas count when they start again.
[[nodiscard]] std::vector<NodeQuotas> read_quotas(const Nodes& nodes);

// One nginx's requests in flight under limits of concurrency, as they were at one moment.
class NodeFlights {
 public:
  // As NodeQuotas. The region of flights of key families and owners.
  NodeFlights(const Node& node, std::span<const std::byte> region);
  NodeFlights(NodeFlights&&) = default;
  NodeFlights& operator=(NodeFlights&&) = default;

  [[nodiscard]] const std::string& node() const { return node_; }
  [[nodiscard]] bool is_readable() const { return is_readable_; }
  // Of a family of keys, under a limit of the keys themselves.
  [[nodiscard]] std::uint64_t running(std::string_view limit, const apikey::KeyId& family) const;

 private:
  std::string node_;
  bool is_readable_ = false;
  TableCopy memory_;
  apikey::FlightTable table_;
};

// Those that live and have our keys.mdb.
[[nodiscard]] std::vector<NodeFlights> read_flights(const Nodes& nodes);

// The hour in which each key was last asked with, of what has not been collected yet.
[[nodiscard]] std::map<apikey::KeyId, Seconds> last_hours(const Nodes& nodes);

// Those with our keys.mdb whose table of usage this build can read.
[[nodiscard]] std::vector<const Node*> nodes_with_usage(const Nodes& nodes);
// RETURNS: attached to nothing where the node has none that this build can read.
[[nodiscard]] apikey::UsageTable usage_table(const apikey::NodeMemory& memory);

}  // namespace keyloader
