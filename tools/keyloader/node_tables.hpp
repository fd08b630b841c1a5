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

#include "apikey/quota_table.hpp"
#include "apikey/usage_table.hpp"
#include "nodes.hpp"

namespace keyloader {

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
  struct alignas(64) Block {
    std::array<std::byte, 64> bytes;
  };
  std::string node_;
  bool is_live_;
  bool is_readable_ = false;
  std::vector<Block> memory_;
  apikey::QuotaTable table_;
};

// Those that live; where none does, those that are gone: their quotas count when they start again.
[[nodiscard]] std::vector<NodeQuotas> read_quotas(const Nodes& nodes);

// The hour in which each key was last asked with, of what has not been collected yet.
[[nodiscard]] std::map<apikey::KeyId, Seconds> last_hours(const Nodes& nodes);

// Those with our keys.mdb whose table of usage this build can read.
[[nodiscard]] std::vector<const Node*> nodes_with_usage(const Nodes& nodes);
// RETURNS: attached to nothing where the node has none that this build can read.
[[nodiscard]] apikey::UsageTable usage_table(const apikey::NodeMemory& memory);

}  // namespace keyloader
