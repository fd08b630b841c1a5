// Compares a snapshot's keys with the tables of limits. Called when a worker has switched to it.
// A hint, not a bound: limits of owners and of locations need room too, families of several keys need less.
#include "ngx_http_apikey_room.hpp"

#include <algorithm>

#include "ngx_http_apikey_node.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kMegabyte = std::size_t{1} << 20U;

bool is_quota(const LimitRow& limit) noexcept {
  return limit.kind == LimitKind::calendar_quota || limit.kind == LimitKind::rolling_quota;
}

bool has_quota(const Snapshot& snapshot) noexcept {
  const std::uint64_t plans = snapshot.row_counts()[static_cast<std::size_t>(Table::plans) - 1];
  for (std::uint64_t number = 1; number <= plans; ++number) {
    PlanRow plan;
    if (!snapshot.plan(static_cast<std::uint32_t>(number), plan)) {
      continue;
    }
    for (std::size_t i = 0; i < plan.limits.size(); ++i) {
      if (is_quota(plan.limits[i])) {
        return true;
      }
    }
  }
  return false;
}

// In megabytes, with a quarter to spare: what is hashed never fills evenly.
std::uint64_t size_for(std::uint64_t keys, std::uint64_t slots, std::uint64_t zone_size) noexcept {
  return (zone_size / slots + 1) * keys / 4 * 5 / kMegabyte + 1;
}

}  // namespace

void warn_if_crowded(const StoreConf& store, const Loaded& loaded, ngx_log_t* log) noexcept {
  const StoreRuntime& mine = *store.runtime;
  const MainConf& main = *mine.main;
  const std::uint64_t keys = loaded.snapshot().meta().keys;
  const std::uint64_t buckets = bucket_slots(main);
  const std::uint64_t quotas = quota_table(main).size();
  const bool lacks_quotas = keys > quotas && quotas != 0 && has_quota(loaded.snapshot());
  if ((keys <= buckets && !lacks_quotas) ||
      mine.slot->crowded_change.exchange(loaded.deciding->change) == loaded.deciding->change) {
    return;
  }
  const std::uint64_t zone_size = main.node->zone_size;
  std::uint64_t megabytes = keys > buckets ? size_for(keys, buckets, zone_size) : 0;
  if (lacks_quotas) {
    megabytes = std::max(megabytes, size_for(keys, quotas, zone_size));
  }
  ngx_log_error(NGX_LOG_WARN, log, 0,
                "apikey store \"%V\": its %uL keys are more than apikey_zone \"%V\" has room for (%uL buckets, %uL "
                "quotas); write zone=%V:%uLm",
                &store.name, keys, &main.zone->shm.name, buckets, quotas, &main.zone->shm.name, megabytes);
}

}  // namespace apikey::nginx
