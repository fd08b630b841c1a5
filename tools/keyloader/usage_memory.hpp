// nginx's side of collecting, in its node memory: no socket and no location have to be configured.
// Used by usage_collect.cpp.
#pragma once

#include <string>

#include "node_tables.hpp"
#include "usage_client.hpp"

namespace keyloader {

class UsageMemory final : public UsageReader {
 public:
  // REQUIRES: one of nodes_with_usage(); it lives longer than this.
  explicit UsageMemory(const Node& node);

  [[nodiscard]] const std::string& place() const override { return place_; }
  [[nodiscard]] std::string name() const override { return node_.name(); }
  [[nodiscard]] UsagePage read(std::uint64_t from) override;
  [[nodiscard]] std::string acknowledge(const UsageInstance& instance, Seconds to) override;

  // Whether this user may write the inbox, so that acknowledge() can succeed.
  [[nodiscard]] bool may_acknowledge() const;

 private:
  const Node& node_;
  apikey::UsageTable table_;
  std::string place_;
};

}  // namespace keyloader
