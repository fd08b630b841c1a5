// The shared zone: one adoption state per store, the counters, the tables of requests in flight and of buckets. Laid
// out once when the zone is new, adopted as it is by a reload. Nothing here allocates after init; nothing in it is a
// pointer.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "apikey/adoption.hpp"
#include "apikey/bucket_table.hpp"
#include "apikey/flight_table.hpp"
#include "apikey/key_form.hpp"
#include "apikey/limits.hpp"
#include "apikey/verdict.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_counters.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// How the credential looked, for metrics.
enum class CredentialForm : std::uint8_t { none, own, foreign };
inline constexpr std::size_t kCredentialForms = 3;

// Why a request was charged something else than what it cost, as far as anybody knows.
enum class CostMiss : std::uint8_t {
  no_figure,     // the answer does not say
  not_a_number,  // something else stands there
  too_large,
  not_json,
  encoded,       // the body is compressed
  bad_variable,  // of the cost or the reserve
};
inline constexpr std::size_t kCostMissCount = static_cast<std::size_t>(CostMiss::bad_variable) + 1;

inline constexpr std::size_t kCounterShards = 16;  // workers add to different cache lines
inline constexpr std::size_t kMaxEnvLabels = 15;
inline constexpr std::size_t kEnvOther = kMaxEnvLabels;     // no room for its label
inline constexpr std::size_t kEnvNone = kMaxEnvLabels + 1;  // no key was recognised
inline constexpr std::size_t kEnvCount = kMaxEnvLabels + 2;
inline constexpr std::size_t kCountedOutcomes = 2 * kOutcomeCount;  // enforced, then in dry run
inline constexpr std::size_t kMaxLimitLabels = 256;                 // pairs of plan and limit
// Stores of this configuration and of the one its workers are taking over from.
inline constexpr std::size_t kStoreSlots = 2 * kMaxStores;

// What all workers know of one store. Found again after a reload by a hash of path and name.
struct StoreSlot {
  std::atomic<std::uint64_t> key;                   // 0: free
  std::atomic<std::uint64_t> last_configuration;    // number of the latest one that named this store
  std::atomic<std::uint64_t> active_configuration;  // number of the latest one whose workers have started
  Adoption adoption;
  std::array<Counter, kAdoptionResultCount> results;
  Histogram<kAdoptionBoundsNs.size()> seconds;
  // So that all workers together say a thing once: what was complained of last, the change found to be stale, and the
  // one found to have more keys than there is room for.
  std::atomic<std::uint64_t> complaint;
  std::atomic<std::uint64_t> stale_change;
  std::atomic<std::uint64_t> crowded_change;
};

struct alignas(64) CounterShard {
  Counter requests[kEnvCount][kCountedOutcomes][kCredentialForms];
};

struct ZoneRoot {
  std::uint64_t magic;
  std::uint64_t fingerprint;  // of everything that lies here, see _zone.cpp
  std::uint64_t size;         // of the whole zone
  SipKey seed;
  std::atomic<std::uint64_t> configurations;  // how many have been loaded
  std::atomic<std::uint64_t> dead_looked_ms;  // when a worker last looked for dead ones, monotonic
  std::atomic<std::int64_t> clock_offset_us;  // wall clock less monotonic, when last looked at or spoken of; 0: not yet
  std::array<StoreSlot, kStoreSlots> stores;
  std::array<CounterShard, kCounterShards> shards;
  LabelTable<kMaxEnvLabels, kMaxEnvLength / 8> envs;
  LabelTable<kMaxLimitLabels, 16> limits;  // plan, a zero byte, limit
  std::array<Counter, kMaxLimitLabels + 1> limited;
  Histogram<kDecisionBoundsNs.size()> decision;
  std::array<Counter, kCostMissCount> cost_misses;
};
static_assert(std::is_standard_layout_v<ZoneRoot> && std::is_trivially_destructible_v<ZoneRoot>);

// Adds the zone to the configuration. RETURNS: null with an error logged.
ngx_shm_zone_t* add_zone(ngx_conf_t* cf, ngx_str_t* name, std::size_t size) noexcept;

// Attached memory of the running configuration; only valid in a worker (after init_zone).
ZoneRoot& zone_root(const MainConf& conf) noexcept;
std::uint64_t bucket_slots(const MainConf& conf) noexcept;  // how many buckets of keys and owners there is room for
// All tables of limits, with this node's share and who holds what this process has in flight.
const LimitTables& limit_tables(const MainConf& conf) noexcept;
void set_flight_holder(const MainConf& conf, FlightHolder holder) noexcept;  // at a worker's start
Adoption& adoption_of(const MainConf& conf, const StoreConf& store) noexcept;

// Counters: sharded by worker, relaxed additions, never reset by a reload.
void count_request(const MainConf& conf, Outcome outcome, bool is_dry_run, std::string_view env,
                   CredentialForm form) noexcept;
void count_limited(const MainConf& conf, std::string_view plan, std::string_view limit) noexcept;
void count_cost_miss(const MainConf& conf, CostMiss miss) noexcept;
void observe_decision(const MainConf& conf, std::uint64_t ns) noexcept;  // called for one request in 64
void count_adoption(const MainConf& conf, const StoreConf& store, AdoptionResult result, std::uint64_t ns) noexcept;

}  // namespace apikey::nginx
