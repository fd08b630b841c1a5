// The hook in nginx's start at which node memory is made or adopted, and counting in it.
// Called by the master while it configures, then by the workers. `nginx -t` touches nothing.
#include "ngx_http_apikey_zone.hpp"

#include <algorithm>

#include "ngx_http_apikey_node.hpp"
#include "ngx_http_apikey_sockets.hpp"
#include "ngx_http_apikey_store.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kMinZoneBytes = std::size_t{1} << 16U;  // room for a few of each table's slots

// What a configuration knows of the zone: in the cycle's pool, one per cycle.
struct ZoneContext {
  MainConf* main;
  ngx_cycle_t* cycle;
  std::size_t size;  // as the configuration says it; nginx's own zone is as small as it can be
  LimitTables limits;
};
static_assert(std::is_trivially_destructible_v<ZoneContext>);

ZoneContext& context_of(const MainConf& conf) noexcept { return *static_cast<ZoneContext*>(conf.zone->data); }

// What another version of this code may have left in the zone or in the second argument is not looked at.
ngx_int_t on_init_zone(ngx_shm_zone_t* zone, void*) noexcept {
  auto& context = *static_cast<ZoneContext*>(zone->data);
  if (prepare_node(context.cycle, *context.main, zone->shm.name, context.size, zone->shm.log) != NGX_OK) {
    return NGX_ERROR;
  }
  remove_stale_sockets(*context.cycle, *context.main);
  const Node* node = context.main->node;
  if (node != nullptr) {
    context.limits.buckets = &node->tables.buckets;
    context.limits.client_buckets = &node->tables.client_buckets;
    context.limits.quotas = &node->tables.quotas;
    context.limits.flights = &node->tables.flights;
    context.limits.client_flights = &node->tables.client_flights;
    context.limits.share = context.main->share;
    context.limits.settled_measures = {static_cast<std::string_view*>(context.main->settled_measures.elts),
                                       context.main->settled_measures.nelts};
  }
  return NGX_OK;
}

}  // namespace

ngx_shm_zone_t* add_zone(ngx_conf_t* cf, ngx_str_t* name, std::size_t size) noexcept {
  if (size < kMinZoneBytes) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_zone \"%V\" of %uz bytes is too small; it needs at least %uzk",
                       name, size, kMinZoneBytes / 1024);
    return nullptr;
  }
  ngx_shm_zone_t* zone = ngx_shared_memory_add(cf, name, 8 * ngx_pagesize, &ngx_http_apikey_module);
  if (zone == nullptr) {
    return nullptr;
  }
  if (zone->data != nullptr) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_zone \"%V\" is declared twice; leave one of the two out", name);
    return nullptr;
  }
  auto* context = pool_new<ZoneContext>(cf->pool);
  if (context == nullptr) {
    return nullptr;
  }
  context->cycle = cf->cycle;
  context->size = size;
  context->main = static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_apikey_module));
  zone->data = context;
  zone->init = on_init_zone;
  return zone;
}

NodeCounters& node_counters(const MainConf& conf) noexcept { return *conf.node->tables.counters; }

const SipKey& node_seed(const MainConf& conf) noexcept { return conf.node->file->memory.head().seed; }

std::uint64_t bucket_slots(const MainConf& conf) noexcept { return conf.node->tables.bucket_slots; }

Adoption& adoption_of(const MainConf&, const StoreConf& store) noexcept { return store.runtime->slot->adoption; }

const LimitTables& limit_tables(const MainConf& conf) noexcept { return context_of(conf).limits; }

void set_flight_holder(const MainConf& conf, FlightHolder holder) noexcept { context_of(conf).limits.holder = holder; }

void count_request(const MainConf& conf, Outcome outcome, bool is_dry_run, std::string_view env,
                   CredentialForm form) noexcept {
  NodeCounters& counters = node_counters(conf);
  const std::size_t number = env.empty() ? kEnvNone : counters.envs.number(env);
  add(counters.shards[ngx_worker % kCounterShards]
          .requests[number][static_cast<std::size_t>(outcome) + (is_dry_run ? kOutcomeCount : 0)]
                   [static_cast<std::size_t>(form)]);
}

void count_limited(const MainConf& conf, std::string_view plan, std::string_view limit) noexcept {
  NodeCounters& counters = node_counters(conf);
  std::array<char, decltype(counters.limits)::kMaxLength> text;
  std::size_t number = kMaxLimitLabels;
  if (plan.size() + 1 + limit.size() <= text.size()) {
    char* end = std::copy(plan.begin(), plan.end(), text.begin());
    *end++ = '\0';
    end = std::copy(limit.begin(), limit.end(), end);
    number = counters.limits.number({text.data(), static_cast<std::size_t>(end - text.data())});
  }
  add(counters.limited[number]);
}

void count_cost_miss(const MainConf& conf, CostMiss miss) noexcept {
  add(node_counters(conf).cost_misses[static_cast<std::size_t>(miss)]);
}

void observe_decision(const MainConf& conf, std::uint64_t ns) noexcept {
  node_counters(conf).decision.observe(kDecisionBoundsNs, ns);
}

void count_adoption(const MainConf&, const StoreConf& store, AdoptionResult result, std::uint64_t ns) noexcept {
  StoreCounters& counters = *store.runtime->counters;
  add(counters.results[static_cast<std::size_t>(result)]);
  counters.seconds.observe(kAdoptionBoundsNs, ns);
}

}  // namespace apikey::nginx
