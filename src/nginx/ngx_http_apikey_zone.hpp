// What workers count, where it lies in node memory, and the tables of limits as requests use them. nginx's own shared
// zone is only the hook at which nginx has its modules set up what they share.
// Nothing here allocates after init; nothing in it is a pointer.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "apikey/adoption.hpp"
#include "apikey/bucket_table.hpp"
#include "apikey/flight_table.hpp"
#include "apikey/fold64.hpp"
#include "apikey/key_form.hpp"
#include "apikey/limits.hpp"
#include "apikey/node_rows.hpp"
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
  // The body did not come by in one piece, as nobody asked for all of it:
  head,
  not_modified,
  partial,
  slice,    // nginx puts it together from parts
  aborted,  // or somebody went away
};
inline constexpr std::size_t kCostMissCount = static_cast<std::size_t>(CostMiss::aborted) + 1;

inline constexpr std::size_t kCounterShards = 16;  // workers add to different cache lines
inline constexpr std::size_t kMaxEnvLabels = 15;
inline constexpr std::size_t kEnvOther = kMaxEnvLabels;     // no room for its label
inline constexpr std::size_t kEnvNone = kMaxEnvLabels + 1;  // no key was recognised
inline constexpr std::size_t kEnvCount = kMaxEnvLabels + 2;
inline constexpr std::size_t kCountedOutcomes = 2 * kOutcomeCount;  // enforced, then in dry run
inline constexpr std::size_t kMaxLimitLabels = 256;                 // pairs of plan and limit
// Stores of this configuration and of the one its workers are taking over from.
static_assert(kNodeStores == 2 * kMaxStores);

// Of the store in the row of the same number.
struct StoreCounters {
  std::array<Counter, kAdoptionResultCount> results;
  Histogram<kAdoptionBoundsNs.size()> seconds;
};

struct alignas(64) CounterShard {
  Counter requests[kEnvCount][kCountedOutcomes][kCredentialForms];
};

// The region `counters`. Its version differs whenever what lies in it differs in place, size or meaning; the first word
// is raised by hand when a meaning changes and no size does.
struct NodeCounters {
  static const std::uint32_t kVersion;

  std::array<CounterShard, kCounterShards> shards;
  LabelTable<kMaxEnvLabels, kMaxEnvLength / 8> envs;
  LabelTable<kMaxLimitLabels, 16> limits;  // plan, a zero byte, limit
  std::array<Counter, kMaxLimitLabels + 1> limited;
  Histogram<kDecisionBoundsNs.size()> decision;
  std::array<Counter, kCostMissCount> cost_misses;
  std::array<StoreCounters, kNodeStores> stores;
};
static_assert(std::is_standard_layout_v<NodeCounters> && std::is_trivially_destructible_v<NodeCounters>);

constexpr std::uint32_t make_counters_version() noexcept {
  Fold64 fold(6 * sizeof(std::uint64_t));
  for (const std::uint64_t word :
       {std::uint64_t{1}, std::uint64_t{sizeof(NodeCounters)}, std::uint64_t{kCountedOutcomes},
        std::uint64_t{kCredentialForms}, std::uint64_t{kAdoptionResultCount}, std::uint64_t{kCostMissCount}}) {
    fold.word(word);
  }
  return static_cast<std::uint32_t>(fold.value());
}
inline constexpr std::uint32_t NodeCounters::kVersion = make_counters_version();

// Adds the zone to the configuration. RETURNS: null with an error logged.
ngx_shm_zone_t* add_zone(ngx_conf_t* cf, ngx_str_t* name, std::size_t size) noexcept;

// Memory of the running configuration; only valid in a worker.
NodeCounters& node_counters(const MainConf& conf) noexcept;
const SipKey& node_seed(const MainConf& conf) noexcept;     // a secret of the node, the same in all workers and reloads
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
