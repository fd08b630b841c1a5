// Reading the table of usage in node memory, and asking nginx to forget what was collected. Called by
// usage_collect.cpp.
#include "usage_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

#include "node_inbox.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kSlotsAtOnce = std::size_t{1} << 18U;
constexpr auto kMaxCount = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

// A file that was replaced is read until its last worker has ended; its counts go on in the one that took its place.
std::string place_of(const Node& node) {
  const std::filesystem::path& state = node.place().state;
  const std::string id = state.stem().string();
  return (state.parent_path() / (id.substr(0, id.find('~')) + state.extension().string())).string();
}

bool can_be(const apikey::UsageRow& row) {
  return std::all_of(row.counters.begin(), row.counters.end(), [](std::uint64_t count) { return count <= kMaxCount; });
}

}  // namespace

UsageMemory::UsageMemory(const Node& node) : node_(node), table_(usage_table(node.memory())), place_(place_of(node)) {}

UsagePage UsageMemory::read(std::uint64_t from) {
  const apikey::UsageHead head = table_.head();
  UsagePage page{
      .instance = head.instance,
      .created = head.created,
      .now = wall_clock(),
      .acknowledged_to = head.acknowledged == 0 ? 0 : static_cast<Seconds>(head.acknowledged + 1) * apikey::kUsageHour,
      .unplaced = head.unplaced};
  if (page.created < 0 || page.created > page.now + apikey::kUsageHour || head.unplaced > kMaxCount) {
    throw Failure(fmt::format("{} has counts that cannot be: they were begun at {}", name(), time_text(page.created)));
  }
  for (const apikey::UsageGap& gap : std::span(head.gaps).first(head.gap_count)) {
    page.gaps.emplace_back(gap.from, gap.to);
  }
  const std::size_t size = table_.size();
  const std::size_t begin = std::min<std::size_t>(from, size);
  const std::size_t end = begin + std::min(kSlotsAtOnce, size - begin);
  apikey::UsageRow row;
  for (std::size_t slot = begin; slot < end; ++slot) {
    if (!table_.save(slot, row)) {
      continue;
    }
    if (!can_be(row)) {
      throw Failure(fmt::format("{} has counts that cannot be, in row {}; nothing of them was kept", name(), row.row));
    }
    page.rows.push_back({.instance = head.instance,
                         .row = row.row,
                         .key = row.key,
                         .owner = row.owner,
                         .hour = static_cast<Seconds>(row.hour) * apikey::kUsageHour,
                         .counters = row.counters});
  }
  if (end < size) {
    page.next = end;
  }
  return page;
}

std::string UsageMemory::acknowledge(const UsageInstance& instance, Seconds to) {
  // One that was replaced has no inbox, and ends soon.
  if (place_ != node_.place().state) {
    return {};
  }
  const NodeInbox opened(node_);
  if (!opened.problem().empty()) {
    return fmt::format("{}: {}", node_.inbox().string(), opened.problem());
  }
  // A worker does it at its next look; an nginx that is gone, or will not, has its rows read again, which counts
  // nothing twice.
  const auto hour = static_cast<std::uint64_t>(to / apikey::kUsageHour - 1);
  return opened.inbox().ask_to_forget(instance, hour) ? std::string{} : "it has no inbox";
}

bool UsageMemory::may_acknowledge() const {
  return place_ != node_.place().state || faccessat(AT_FDCWD, node_.inbox().c_str(), W_OK, AT_EACCESS) == 0;
}

}  // namespace keyloader
