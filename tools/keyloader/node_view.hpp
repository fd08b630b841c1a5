// What one nginx instance knows, copied out of its node memory: its stores, what they refused last, how far its workers
// are, how full its tables are. For `node list`, `status` and `doctor`.
// INVARIANT: everything here may be a lie of whoever runs as the workers' user; it is shown, never acted on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apikey/adoption.hpp"
#include "apikey/anchors.hpp"
#include "apikey/node_rows.hpp"
#include "nodes.hpp"

namespace keyloader {

struct StoreView {
  std::size_t row = 0;
  std::string path;
  std::string name;
  std::uint64_t last_configuration = 0;
  std::optional<std::uint64_t> min_keep{};  // percent; none: the module does not say it
  std::uint32_t newest_format = 1;          // of snapshots that it reads
  apikey::Adopted adopted;
  std::optional<apikey::Refusal> refusal;  // the last one, of whatever file

  // "58", "57 (veto 58)", "-"
  [[nodiscard]] std::string generation_text() const;
};

struct WorkerView {
  std::uint64_t pid = 0;
  std::uint64_t flags = 0;
  apikey::Ack ack;  // of the store that was asked about
};

// "open", "fenced", "vetoed", "unchecked", "none": as --json writes it.
[[nodiscard]] std::string_view state_text(apikey::AckState state);

struct TableFill {
  std::string_view name;    // "buckets", "client_buckets", "quotas", "usage"
  std::uint64_t slots = 0;  // 0: this keyloader does not know the version of that table
  std::uint64_t used = 0;
};

// REQUIRES of all: node.problem() is empty.
[[nodiscard]] std::vector<StoreView> stores_of(const Node& node);
// Those whose byte is locked. `store`: whose acknowledgement.
[[nodiscard]] std::vector<WorkerView> workers_of(const Node& node, std::size_t store);
[[nodiscard]] std::vector<TableFill> fills_of(const Node& node);
// Ends of the audit that it has seen, oldest first; of all its stores, whatever registry they are of.
[[nodiscard]] std::vector<apikey::Anchor> anchors_of(const Node& node);

}  // namespace keyloader
