// Where the tables lie in the state's memory: a page of header, a quarter of the rest for quotas, the rest for usage.
#include "ngx_http_apikey_tables.hpp"

#include <sys/random.h>

#include <cstring>

#include "ngx_http_apikey_state.hpp"
#include "ngx_http_apikey_thread.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kRegionAlignment = 128;

struct Regions {
  std::span<std::byte> quotas;
  std::span<std::byte> usage;
};

// REQUIRES: memory.size() > kStateHeaderSize.
Regions regions_of(std::span<std::byte> memory) noexcept {
  const std::span<std::byte> rest = memory.subspan(kStateHeaderSize);
  const std::size_t quotas = rest.size() / 4 / kRegionAlignment * kRegionAlignment;
  return {rest.first(quotas), rest.subspan(quotas)};
}

template <typename Row>
Row row_at(std::span<const std::byte> rows, std::size_t at) noexcept {
  Row row;
  std::memcpy(&row, rows.data() + at, sizeof row);
  return row;
}

}  // namespace

bool attach_tables(std::span<std::byte> memory, StateTables& tables) noexcept {
  const Regions regions = regions_of(memory);
  return QuotaTable::attach(regions.quotas, tables.quotas).ok() && UsageTable::attach(regions.usage, tables.usage).ok();
}

bool format_tables(std::span<std::byte> memory, const SipKey& seed, StateTables& tables) noexcept {
  const Regions regions = regions_of(memory);
  UsageOrigin origin;
  origin.created.value = static_cast<std::int64_t>(wall_us() / 1'000'000);
  const bool is_random =
      getrandom(origin.instance.data(), sizeof origin.instance, 0) == static_cast<ssize_t>(sizeof origin.instance) &&
      getrandom(&origin.incarnation, sizeof origin.incarnation, 0) == static_cast<ssize_t>(sizeof origin.incarnation);
  return is_random && QuotaTable::format(regions.quotas, seed, tables.quotas).ok() &&
         UsageTable::format(regions.usage, seed, origin, tables.usage).ok();
}

Carried carry_over(const StateTables& from, UsageGap gap, const StateTables& to) noexcept {
  Carried carried;
  QuotaTable::Saved quota;
  for (std::size_t i = 0; i < from.quotas.size(); ++i) {
    if (from.quotas.save(i, quota)) {
      ++(to.quotas.restore(quota) ? carried.quotas : carried.lost);
    }
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

Carried carry_over(const Checkpoint& from, UsageGap gap, const StateTables& to) noexcept {
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

}  // namespace apikey::nginx
