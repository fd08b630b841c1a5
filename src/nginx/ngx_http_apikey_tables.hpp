// Which regions node memory has in this build, the tables that lie in them, and taking over what stood in others.
// Called by the master while it configures (ngx_http_apikey_node.cpp); workers only use the tables.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "apikey/bucket_table.hpp"
#include "apikey/checkpoint.hpp"
#include "apikey/flight_table.hpp"
#include "apikey/node_memory.hpp"
#include "apikey/quota_table.hpp"
#include "apikey/usage_table.hpp"

namespace apikey::nginx {

struct NodeCounters;  // ngx_http_apikey_zone.hpp

struct NodeTables {
  FlightTable flights;
  FlightTable client_flights;  // of subjects that clients choose
  BucketTable buckets;
  BucketTable client_buckets;  // likewise
  QuotaTable quotas;
  UsageTable usage;
  NodeCounters* counters = nullptr;
  std::uint64_t bucket_slots = 0;  // of keys and owners there is room for
};

// The regions of a zone of that size, for so many worker rows and bytes of policies. One line for each table.
using NodeRegions = std::array<NodeRegionSpec, 12>;
[[nodiscard]] NodeRegions make_regions(std::uint64_t zone_size, std::size_t worker_rows,
                                       std::uint64_t policies) noexcept;

// REQUIRES: node.consists_of() make_regions(). RETURNS: false when a table is not what its region says.
[[nodiscard]] bool attach_tables(const NodeMemory& node, NodeTables& tables) noexcept;
// Empty ones. RETURNS: false when there is no room, or no randomness to be had.
[[nodiscard]] bool format_tables(const NodeMemory& node, const SipKey& seed, NodeTables& tables) noexcept;
// They begin empty again: all who had requests in flight are gone; the buckets' times are of another boot.
void forget_flights(const NodeMemory& node, NodeTables& tables) noexcept;
void forget_buckets(const NodeMemory& node, NodeTables& tables) noexcept;

struct Carried {
  std::uint64_t quotas = 0;
  std::uint64_t usage = 0;  // rows
  std::uint64_t lost = 0;   // of both, for which there was no room
};
// What has a place in a checkpoint. Attached to what other memory has of it; to nothing when one of the two is not
// whole.
struct SavedTables {
  QuotaTable quotas;
  UsageTable usage;
};
[[nodiscard]] SavedTables saved_tables(const NodeMemory& node) noexcept;

// Into tables that nobody uses yet, formatted with the seed of the others. `gap`: as UsageTable::restore().
Carried carry_over(const SavedTables& from, UsageGap gap, const NodeTables& to) noexcept;
Carried carry_over(const Checkpoint& from, UsageGap gap, const NodeTables& to) noexcept;
// The buckets, slot by slot, if they have the same number of slots and the same seed. RETURNS: false when not.
bool carry_buckets(const NodeMemory& from, const NodeMemory& to, NodeTables& tables) noexcept;
// And the counters, if they mean the same.
void carry_counters(const NodeMemory& from, const NodeMemory& to) noexcept;

}  // namespace apikey::nginx
