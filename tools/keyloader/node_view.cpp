// Copying first, then looking: a table is attached to a copy of its bytes, so that nothing can change under it.
#include "node_view.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "apikey/bucket_table.hpp"
#include "apikey/quota_table.hpp"
#include "apikey/usage_table.hpp"
#include "node_tables.hpp"

namespace keyloader {
namespace {

constexpr std::uint64_t kUsPerSecond = 1'000'000;

template <typename Attach>
void add_fill(std::vector<TableFill>& fills, std::string_view name, std::span<std::byte> region, Attach attach) {
  TableFill fill{.name = name};
  if (!region.empty()) {
    TableCopy copy(region);
    attach(copy.bytes(), fill);
  }
  fills.push_back(fill);
}

void count_buckets(std::span<std::byte> bytes, TableFill& fill) {
  apikey::BucketTable table;
  if (apikey::BucketTable::attach(
          bytes, []() noexcept { return monotonic_now(); }, table)
          .ok()) {
    const auto usage = table.usage(monotonic_now());
    fill.slots = usage.slots;
    fill.used = usage.used;
  }
}

}  // namespace

std::string StoreView::generation_text() const {
  const std::string active = adopted.has_active() ? std::to_string(adopted.active.generation) : "-";
  return adopted.has_veto() ? fmt::format("{} (veto {})", active, adopted.veto.generation) : active;
}

std::string_view state_text(apikey::AckState state) {
  switch (state) {
    case apikey::AckState::open:
      return "open";
    case apikey::AckState::fenced:
      return "fenced";
    case apikey::AckState::vetoed:
      return "vetoed";
    case apikey::AckState::unchecked:
      return "unchecked";
    case apikey::AckState::none:
      break;
  }
  return "none";
}

std::vector<StoreView> stores_of(const Node& node) {
  std::vector<StoreView> stores;
  const auto report = std::make_unique<apikey::StoreReport>();
  for (std::size_t row = 0; row < node.memory().store_count(); ++row) {
    if (!node.memory().read_store(row, *report) || report->key == 0) {
      continue;
    }
    StoreView view{.row = row,
                   .path = std::string{report->path()},
                   .name = std::string{report->name()},
                   .last_configuration = report->last_configuration,
                   .min_keep = report->min_keep,
                   .newest_format = report->newest_format,
                   .adopted = report->adopted,
                   .refusal = std::nullopt};
    apikey::Refusal refusal;
    if (report->adoption().last_refusal(refusal)) {
      view.refusal = refusal;
    }
    stores.push_back(std::move(view));
  }
  return stores;
}

std::vector<WorkerView> workers_of(const Node& node, std::size_t store) {
  std::vector<WorkerView> workers;
  apikey::WorkerReport report;
  for (std::size_t row = 0; row < node.memory().worker_count(); ++row) {
    if (node.has_live_worker(row) && node.memory().read_worker(row, report)) {
      workers.push_back({.pid = report.pid,
                         .flags = report.flags,
                         .ack = store < report.acks.size() ? report.acks.at(store) : apikey::Ack{}});
    }
  }
  return workers;
}

std::vector<TableFill> fills_of(const Node& node) {
  constexpr auto buckets_version = static_cast<std::uint32_t>(apikey::BucketTable::kLayout);
  constexpr auto quotas_version = static_cast<std::uint32_t>(apikey::QuotaTable::kLayout);
  constexpr auto usage_version = static_cast<std::uint32_t>(apikey::UsageTable::kLayout);
  const apikey::NodeMemory& memory = node.memory();
  std::vector<TableFill> fills;
  add_fill(fills, "buckets", memory.region(apikey::NodeRegion::buckets, buckets_version), count_buckets);
  add_fill(fills, "client_buckets", memory.region(apikey::NodeRegion::client_buckets, buckets_version), count_buckets);
  add_fill(fills, "quotas", memory.region(apikey::NodeRegion::quotas, quotas_version),
           [](std::span<std::byte> bytes, TableFill& fill) {
             apikey::QuotaTable table;
             if (apikey::QuotaTable::attach(bytes, table).ok()) {
               const auto now_us = static_cast<std::uint64_t>(wall_clock()) * kUsPerSecond;
               const auto usage = table.usage({now_us});
               fill.slots = usage.slots;
               fill.used = usage.used;
             }
           });
  add_fill(fills, "usage", memory.region(apikey::NodeRegion::usage, usage_version),
           [](std::span<std::byte> bytes, TableFill& fill) {
             apikey::UsageTable table;
             if (apikey::UsageTable::attach(bytes, table).ok()) {
               const auto usage = table.usage();
               fill.slots = usage.slots;
               fill.used = usage.used;
             }
           });
  return fills;
}

std::vector<apikey::Anchor> anchors_of(const Node& node) {
  std::vector<apikey::Anchor> anchors;
  const auto region = node.memory().region(apikey::NodeRegion::anchors, apikey::kAnchorsVersion);
  apikey::Anchor anchor;
  for (std::size_t i = 0; i < apikey::kMaxAnchors; ++i) {
    if (apikey::read_anchor(region, i, anchor)) {
      anchors.push_back(anchor);
    }
  }
  return anchors;
}

}  // namespace keyloader
