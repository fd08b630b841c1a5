// What is counted of a key in an hour, as keyloader handles it: the counters of include/apikey/usage_table.hpp by name.
// Used by all files of `keyloader usage`.
#pragma once

#include <array>
#include <string>

#include "apikey/usage_table.hpp"
#include "registry/model.hpp"

namespace keyloader {

using UsageCounters = std::array<std::uint64_t, apikey::kUsageCounters>;
using UsageInstance = apikey::UsageInstance;

// admitted, cost, refunded, bytes, upstream_us, refused_unavailable, refused_revoked …
[[nodiscard]] const std::array<std::string, apikey::kUsageCounters>& usage_counter_names();

// One slot of nginx's table, or one line of another node's export (then `row` is kMergedRow).
struct UsageRecord {
  UsageInstance instance{};
  std::uint64_t row = 0;
  apikey::KeyId key{};  // zeros, with the owner: for whose key there was no room in nginx's memory
  OwnerId owner{};
  Seconds hour = 0;  // when it begins
  UsageCounters counters{};
};
inline constexpr std::uint64_t kMergedRow = ~std::uint64_t{0};

void add(UsageCounters& sum, const UsageCounters& more);
[[nodiscard]] std::uint64_t refused_total(const UsageCounters& counters);

// {"admitted": 3, "cost": 3, "refunded": 0, "refused": {"rate_limited": 1}, "bytes": 99, "upstream_seconds": 0.25}; of
// `refused` only what has happened.
[[nodiscard]] Json to_json(const UsageCounters& counters);
// "0.25", exact.
[[nodiscard]] std::string upstream_seconds(const UsageCounters& counters);

// "key_…"; empty for the key of an overflow row.
[[nodiscard]] std::string usage_key_text(const apikey::KeyId& key);
// 16 bytes out of 32 hex digits, for instances and owners.
[[nodiscard]] std::optional<std::array<std::uint8_t, 16>> bytes16_from_hex(std::string_view text);

}  // namespace keyloader
