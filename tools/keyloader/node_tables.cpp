// Reading the tables of quotas, of requests in flight and of usage out of node memory that is mapped for reading.
// Called by what shows quotas and fills, by `key list`, by receipts, by `check`, and by collecting.
#include "node_tables.hpp"

#include <algorithm>
#include <cstring>
#include <ctime>

namespace keyloader {
namespace {

constexpr auto kQuotasVersion = static_cast<std::uint32_t>(apikey::QuotaTable::kLayout);
constexpr auto kFlightsVersion = static_cast<std::uint32_t>(apikey::FlightTable::kLayout);
constexpr int kMostReads = 64;  // of one slot
constexpr auto kUsageVersion = static_cast<std::uint32_t>(apikey::UsageTable::kLayout);

// Sixteen bytes at a time, as slots are changed. Memory that is mapped for reading cannot be asked to prove that both
// words stood together, so they are read until they are the same twice.
void copy_slots(std::span<const std::byte> from, std::byte* to) {
  for (std::size_t at = 0; at + sizeof(apikey::WideWord) <= from.size(); at += sizeof(apikey::WideWord)) {
    const auto* word = static_cast<const apikey::WideWord*>(static_cast<const void*>(from.data() + at));
    apikey::WidePair pair = word->peek();
    for (int i = 0; i < kMostReads; ++i) {
      const apikey::WidePair again = word->peek();
      if (again == pair) {
        break;
      }
      pair = again;
    }
    std::memcpy(to + at, &pair, sizeof pair);
  }
  const std::size_t rest = from.size() % sizeof(apikey::WideWord);
  std::copy(from.end() - static_cast<std::ptrdiff_t>(rest), from.end(), to + (from.size() - rest));
}

bool has_our_keys(const Nodes& nodes, const Node& node) {
  return node.problem().empty() && !node.rows_of(nodes.snapshot()).empty();
}

}  // namespace

apikey::MonoNs monotonic_now() noexcept {
  timespec now{};
  static_cast<void>(clock_gettime(CLOCK_MONOTONIC, &now));
  return {static_cast<std::uint64_t>(now.tv_sec) * apikey::kNsPerSecond + static_cast<std::uint64_t>(now.tv_nsec)};
}

TableCopy::TableCopy(std::span<const std::byte> region)
    : blocks_((region.size() + sizeof(Block) - 1) / sizeof(Block)), size_(region.size()) {
  if (!blocks_.empty()) {
    copy_slots(region, blocks_.front().bytes.data());
  }
}

std::span<std::byte> TableCopy::bytes() {
  return blocks_.empty() ? std::span<std::byte>{} : std::span(blocks_.front().bytes.data(), size_);
}

NodeQuotas::NodeQuotas(const Node& node, std::span<const std::byte> region)
    : node_(node.name()), is_live_(node.is_live()), memory_(region) {
  is_readable_ = !region.empty() && apikey::QuotaTable::attach(memory_.bytes(), table_).ok();
}

NodeFlights::NodeFlights(const Node& node, std::span<const std::byte> region) : node_(node.name()), memory_(region) {
  is_readable_ = !region.empty() && apikey::FlightTable::attach(memory_.bytes(), table_).ok();
}

std::uint64_t NodeFlights::running(std::string_view limit, const apikey::KeyId& family) const {
  const apikey::FlightResult left = table_.look(table_.subject(limit, family.bytes), apikey::kMaxConcurrency);
  switch (left.status) {
    case apikey::FlightResult::Status::admitted:
      return apikey::kMaxConcurrency - std::min(left.remaining, apikey::kMaxConcurrency);
    case apikey::FlightResult::Status::refused:
      return apikey::kMaxConcurrency;
    case apikey::FlightResult::Status::full:
      break;  // it has no place in a full table, so it has no request there
  }
  return 0;
}

std::vector<NodeFlights> read_flights(const Nodes& nodes) {
  std::vector<NodeFlights> live;
  for (const auto& node : nodes.all()) {
    if (has_our_keys(nodes, *node) && node->is_live()) {
      live.emplace_back(*node, node->memory().region(apikey::NodeRegion::flights, kFlightsVersion));
    }
  }
  return live;
}

std::vector<NodeQuotas> read_quotas(const Nodes& nodes) {
  std::vector<NodeQuotas> live;
  std::vector<NodeQuotas> gone;
  for (const auto& node : nodes.all()) {
    if (!has_our_keys(nodes, *node) || node->memory().is_superseded()) {
      continue;
    }
    NodeQuotas quotas(*node, node->memory().region(apikey::NodeRegion::quotas, kQuotasVersion));
    if (quotas.is_readable()) {
      (quotas.is_live() ? live : gone).push_back(std::move(quotas));
    }
  }
  return live.empty() ? std::move(gone) : std::move(live);
}

apikey::UsageTable usage_table(const apikey::NodeMemory& memory) {
  apikey::UsageTable table;
  static_cast<void>(apikey::UsageTable::attach(memory.region(apikey::NodeRegion::usage, kUsageVersion), table));
  return table;
}

std::vector<const Node*> nodes_with_usage(const Nodes& nodes) {
  std::vector<const Node*> found;
  for (const auto& node : nodes.all()) {
    if (has_our_keys(nodes, *node) && usage_table(node->memory()).size() != 0) {
      found.push_back(node.get());
    }
  }
  return found;
}

std::map<apikey::KeyId, Seconds> last_hours(const Nodes& nodes) {
  std::map<apikey::KeyId, Seconds> last;
  apikey::UsageRow row;
  for (const Node* const node : nodes_with_usage(nodes)) {
    const apikey::UsageTable table = usage_table(node->memory());
    for (std::size_t slot = 0; slot < table.size(); ++slot) {
      if (table.save(slot, row) && row.key != apikey::KeyId{}) {
        Seconds& hour = last[row.key];
        hour = std::max(hour, static_cast<Seconds>(row.hour) * apikey::kUsageHour);
      }
    }
  }
  return last;
}

}  // namespace keyloader
