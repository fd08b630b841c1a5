// The region table of this build, and what is carried over from memory of another size or layout. Of what others have
// written only whole regions of a known version are used; their tables check themselves when they are attached.
#include "ngx_http_apikey_tables.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cstring>

#include "apikey/anchors.hpp"
#include "apikey/policies.hpp"
#include "ngx_http_apikey_decision.hpp"
#include "ngx_http_apikey_thread.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kTableAlignment = 128;

MonoNs bucket_clock() noexcept { return {monotonic_ns()}; }

constexpr std::uint64_t round_down(std::uint64_t size) noexcept { return size / kTableAlignment * kTableAlignment; }

constexpr auto kBucketsVersion = static_cast<std::uint32_t>(BucketTable::kLayout);
constexpr auto kFlightsVersion = static_cast<std::uint32_t>(FlightTable::kLayout);
constexpr auto kQuotasVersion = static_cast<std::uint32_t>(QuotaTable::kLayout);
constexpr auto kUsageVersion = static_cast<std::uint32_t>(UsageTable::kLayout);

template <typename Row>
Row row_at(std::span<const std::byte> rows, std::size_t at) noexcept {
  Row row;
  std::memcpy(&row, rows.data() + at, sizeof row);
  return row;
}

std::span<std::byte> buckets_of(const NodeMemory& node, NodeRegion kind = NodeRegion::buckets) noexcept {
  return node.region(kind, kBucketsVersion);
}
std::span<std::byte> flights_of(const NodeMemory& node, NodeRegion kind = NodeRegion::flights) noexcept {
  return node.region(kind, kFlightsVersion);
}
std::span<std::byte> quotas_of(const NodeMemory& node) noexcept {
  return node.region(NodeRegion::quotas, kQuotasVersion);
}
std::span<std::byte> usage_of(const NodeMemory& node) noexcept { return node.region(NodeRegion::usage, kUsageVersion); }

NodeCounters* counters_of(const NodeMemory& node) noexcept {
  const auto region = node.region(NodeRegion::counters, NodeCounters::kVersion);
  return region.size() < sizeof(NodeCounters) ? nullptr : static_cast<NodeCounters*>(static_cast<void*>(region.data()));
}

// Two words at a time, as slots are changed: the same is written again, which proves that both stood together.
void copy_slots(std::span<std::byte> from, std::span<std::byte> to) noexcept {
  for (std::size_t at = 0; at + sizeof(WideWord) <= from.size(); at += sizeof(WideWord)) {
    auto& word = *static_cast<WideWord*>(static_cast<void*>(from.data() + at));
    WidePair pair = word.peek();
    while (!word.swap(pair, pair)) {
      pair = word.peek();
    }
    std::memcpy(to.data() + at, &pair, sizeof pair);
  }
}

}  // namespace

NodeRegions make_regions(std::uint64_t zone_size, std::size_t worker_rows, std::uint64_t policies) noexcept {
  const std::uint64_t flights = round_down(zone_size / 16);
  const std::uint64_t client_buckets = round_down(zone_size / 4);
  const std::uint64_t quotas = round_down(zone_size / 4);
  return {{
      {NodeRegion::head, NodeHead::kVersion, sizeof(NodeHead)},
      {NodeRegion::stores, kStoreRowsVersion, node_rows_size(sizeof(StoreRow), kNodeStores)},
      {NodeRegion::workers, kWorkerRowsVersion, node_rows_size(sizeof(WorkerRow), worker_rows)},
      {NodeRegion::counters, NodeCounters::kVersion, sizeof(NodeCounters)},
      {NodeRegion::flights, kFlightsVersion, flights},
      {NodeRegion::client_flights, kFlightsVersion, flights},
      {NodeRegion::client_buckets, kBucketsVersion, client_buckets},
      {NodeRegion::buckets, kBucketsVersion, zone_size - 2 * flights - client_buckets},
      {NodeRegion::quotas, kQuotasVersion, quotas},
      {NodeRegion::usage, kUsageVersion, zone_size - quotas},
      {NodeRegion::policies, kPoliciesVersion, policies},
      {NodeRegion::anchors, kAnchorsVersion, kAnchorsSize},
  }};
}

namespace {

bool attach_live_tables(const NodeMemory& node, NodeTables& tables) noexcept {
  return FlightTable::attach(flights_of(node), tables.flights).ok() &&
         FlightTable::attach(flights_of(node, NodeRegion::client_flights), tables.client_flights).ok() &&
         BucketTable::attach(buckets_of(node, NodeRegion::client_buckets), bucket_clock, tables.client_buckets).ok() &&
         BucketTable::attach(buckets_of(node), bucket_clock, tables.buckets).ok();
}

bool format_flights(const NodeMemory& node, const SipKey& seed, NodeTables& tables) noexcept {
  return FlightTable::format(flights_of(node), seed, tables.flights).ok() &&
         FlightTable::format(flights_of(node, NodeRegion::client_flights), seed, tables.client_flights).ok();
}

bool format_buckets(const NodeMemory& node, const SipKey& seed, NodeTables& tables) noexcept {
  return BucketTable::format(buckets_of(node), seed, bucket_clock, tables.buckets).ok() &&
         BucketTable::format(buckets_of(node, NodeRegion::client_buckets), seed, bucket_clock, tables.client_buckets)
             .ok();
}

// RETURNS: false when the two have another number of slots.
bool carry_bucket_table(std::span<std::byte> source, std::span<std::byte> target, BucketTable& table) noexcept {
  BucketTable attached;
  // The table's own seed decides where a subject stands; it comes with the bytes.
  if (source.size() != target.size() || !BucketTable::attach(source, bucket_clock, attached).ok()) {
    return false;
  }
  copy_slots(source, target);
  return BucketTable::attach(target, bucket_clock, table).ok();
}

}  // namespace

bool attach_tables(const NodeMemory& node, NodeTables& tables) noexcept {
  tables.counters = counters_of(node);
  const bool are_whole = attach_live_tables(node, tables) && QuotaTable::attach(quotas_of(node), tables.quotas).ok() &&
                         UsageTable::attach(usage_of(node), tables.usage).ok() && tables.counters != nullptr;
  tables.bucket_slots = are_whole ? tables.buckets.usage({}).slots : 0;
  return are_whole;
}

bool format_tables(const NodeMemory& node, const SipKey& seed, NodeTables& tables) noexcept {
  UsageOrigin origin;
  origin.created.value = static_cast<std::int64_t>(wall_us() / 1'000'000);
  const bool is_random =
      getrandom(origin.instance.data(), sizeof origin.instance, 0) == static_cast<ssize_t>(sizeof origin.instance) &&
      getrandom(&origin.incarnation, sizeof origin.incarnation, 0) == static_cast<ssize_t>(sizeof origin.incarnation);
  tables.counters = counters_of(node);
  node.head().seed = seed;
  const bool are_made = is_random && format_flights(node, seed, tables) && format_buckets(node, seed, tables) &&
                        QuotaTable::format(quotas_of(node), seed, tables.quotas).ok() &&
                        UsageTable::format(usage_of(node), seed, origin, tables.usage).ok() &&
                        tables.counters != nullptr;
  tables.bucket_slots = are_made ? tables.buckets.usage({}).slots : 0;
  return are_made;
}

void forget_flights(const NodeMemory& node, NodeTables& tables) noexcept {
  static_cast<void>(format_flights(node, tables.quotas.seed(), tables));
}

void forget_buckets(const NodeMemory& node, NodeTables& tables) noexcept {
  static_cast<void>(format_buckets(node, tables.quotas.seed(), tables));
}

SavedTables saved_tables(const NodeMemory& node) noexcept {
  SavedTables saved;
  const bool are_whole =
      QuotaTable::attach(quotas_of(node), saved.quotas).ok() && UsageTable::attach(usage_of(node), saved.usage).ok();
  return are_whole ? saved : SavedTables{};
}

Carried carry_over(const SavedTables& from, UsageGap gap, const NodeTables& to) noexcept {
  Carried carried;
  QuotaTable::Saved quota;
  for (std::size_t i = 0; i < from.quotas.size(); ++i) {
    if (from.quotas.save(i, quota)) {
      ++(to.quotas.restore(quota) ? carried.quotas : carried.lost);
    }
  }
  if (from.usage.size() == 0) {
    return carried;
  }
  to.usage.restore(from.usage.head(), gap);
  UsageRow row;
  for (std::size_t i = 0; i < from.usage.size(); ++i) {
    if (from.usage.save(i, row)) {
      ++(to.usage.restore(row) ? carried.usage : carried.lost);
    }
  }
  return carried;
}

Carried carry_over(const Checkpoint& from, UsageGap gap, const NodeTables& to) noexcept {
  Carried carried;
  for (std::size_t at = 0; at < from.quotas.size(); at += sizeof(QuotaTable::Saved)) {
    ++(to.quotas.restore(row_at<QuotaTable::Saved>(from.quotas, at)) ? carried.quotas : carried.lost);
  }
  to.usage.restore(row_at<UsageHead>(from.usage_head, 0), gap);
  for (std::size_t at = 0; at < from.usage.size(); at += sizeof(UsageRow)) {
    ++(to.usage.restore(row_at<UsageRow>(from.usage, at)) ? carried.usage : carried.lost);
  }
  return carried;
}

bool carry_buckets(const NodeMemory& from, const NodeMemory& to, NodeTables& tables) noexcept {
  const bool are_carried = carry_bucket_table(buckets_of(from), buckets_of(to), tables.buckets);
  return carry_bucket_table(buckets_of(from, NodeRegion::client_buckets), buckets_of(to, NodeRegion::client_buckets),
                            tables.client_buckets) &&
         are_carried;
}

void carry_counters(const NodeMemory& from, const NodeMemory& to) noexcept {
  const NodeCounters* source = counters_of(from);
  NodeCounters* target = counters_of(to);
  if (source == nullptr || target == nullptr) {
    return;
  }
  std::memcpy(static_cast<void*>(target), static_cast<const void*>(source), sizeof *target);
  // Counted by row, and the rows are given to other stores.
  ngx_memzero(static_cast<void*>(&target->stores), sizeof target->stores);
}

}  // namespace apikey::nginx
