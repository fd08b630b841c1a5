// Laying out the shared zone, taking it over in a reload, and counting in it.
// Called by the master while it configures, then by the workers. A live zone is never laid out again, and `nginx -t`
// touches nothing but a mapping of its own.
#include "ngx_http_apikey_zone.hpp"

#include <sys/random.h>

#include <algorithm>

#include "ngx_http_apikey_decision.hpp"
#include "ngx_http_apikey_sockets.hpp"
#include "ngx_http_apikey_state.hpp"
#include "ngx_http_apikey_store.hpp"

namespace apikey::nginx {
namespace {

constexpr std::uint64_t kMagic = 0x31454e4f5a4b41;  // "AKZONE1"
constexpr std::size_t kTableAlignment = 128;
constexpr std::size_t kMinTableSize = 64 * kTableAlignment;
constexpr std::size_t kMinFlightSlots = 64;

// Differs whenever what lies in the zone differs in place, size or meaning. The first word is raised by hand when a
// meaning changes and no size does.
constexpr std::uint64_t make_fingerprint() noexcept {
  Fold64 fold(9 * sizeof(std::uint64_t));
  for (const std::uint64_t word :
       {std::uint64_t{3}, std::uint64_t{sizeof(ZoneRoot)}, std::uint64_t{sizeof(Adoption)},
        std::uint64_t{kCountedOutcomes}, std::uint64_t{kCredentialForms}, std::uint64_t{kAdoptionResultCount},
        BucketTable::kLayout, std::uint64_t{sizeof(StoreSlot)}, FlightTable::kLayout}) {
    fold.word(word);
  }
  return fold.value();
}
constexpr std::uint64_t kFingerprint = make_fingerprint();

// What a configuration knows of the zone: in the cycle's pool, one per cycle.
struct ZoneContext {
  MainConf* main;
  ngx_cycle_t* cycle;
  ZoneRoot* root;
  FlightTable flights;
  FlightTable client_flights;
  BucketTable buckets;
  BucketTable client_buckets;
  std::uint64_t bucket_slots;
  LimitTables limits;
};
static_assert(std::is_trivially_destructible_v<ZoneContext>);

constexpr std::size_t round_up(std::size_t size) noexcept {
  return (size + kTableAlignment - 1) / kTableAlignment * kTableAlignment;
}

constexpr std::size_t table_offset() noexcept { return round_up(sizeof(ZoneRoot)); }

std::size_t min_flight_size() noexcept { return round_up(FlightTable::bytes_for(kMinFlightSlots)); }

// The slab pool takes its header and a few words per page; 1/32 of the whole is more than that.
std::size_t min_zone_size() noexcept {
  const std::size_t tables = 2 * min_flight_size() + 2 * kMinTableSize;
  const std::size_t needed = table_offset() + tables + kTableAlignment + 2 * ngx_pagesize;
  return ngx_align(needed + needed / 32, ngx_pagesize);
}

ngx_slab_pool_t* slab_pool(const ngx_shm_zone_t& zone) noexcept {
  return static_cast<ngx_slab_pool_t*>(static_cast<void*>(zone.shm.addr));
}

// The root of a mapped zone; null when it was laid out by other code.
ZoneRoot* find_root(const ngx_shm_zone_t& zone) noexcept {
  auto* root = static_cast<ZoneRoot*>(slab_pool(zone)->data);
  const bool is_ours = root != nullptr && root->magic == kMagic && root->fingerprint == kFingerprint;
  return is_ours && root->size == zone.shm.size ? root : nullptr;
}

// Everything behind the root, in whole pages as they were allocated: two sixteenths for requests in flight, a quarter
// for buckets of subjects that clients choose, the rest for buckets of keys and owners.
struct TableMemory {
  std::span<std::byte> flights;
  std::span<std::byte> client_flights;
  std::span<std::byte> client_buckets;
  std::span<std::byte> buckets;
};

TableMemory table_memory(const ngx_shm_zone_t& zone, ZoneRoot& root) noexcept {
  auto* begin = static_cast<std::byte*>(static_cast<void*>(&root)) + table_offset();
  auto* end = static_cast<std::byte*>(static_cast<void*>(slab_pool(zone)->end));
  const std::span all(begin, static_cast<std::size_t>(end - begin));
  const std::size_t flights = std::max(round_up(all.size() / 16), min_flight_size());
  const std::size_t client_buckets = std::max(round_up(all.size() / 4), kMinTableSize);
  return {all.first(flights), all.subspan(flights, flights), all.subspan(2 * flights, client_buckets),
          all.subspan(2 * flights + client_buckets)};
}

std::uint64_t store_key(const StoreConf& store) noexcept {
  Fold64 fold(store.path.len + store.name.len);
  fold.word(fold64(std::as_bytes(std::span(view(store.path)))));
  fold.word(fold64(std::as_bytes(std::span(view(store.name)))));
  return fold.value();
}

StoreSlot& find_slot(ZoneRoot& root, std::uint64_t key) noexcept {
  auto& slots = root.stores;
  for (const std::uint64_t wanted : {key, std::uint64_t{0}}) {
    const auto found = std::find_if(slots.begin(), slots.end(), [&](auto& slot) { return slot.key.load() == wanted; });
    if (found != slots.end()) {
      return *found;
    }
  }
  // All are taken: the store that has been out of use for longest goes. A worker so old that it still serves it sees
  // the other key and keeps what it has.
  auto oldest = std::min_element(slots.begin(), slots.end(), [](const StoreSlot& a, const StoreSlot& b) {
    return a.last_configuration.load() < b.last_configuration.load();
  });
  oldest->key.store(0);
  ngx_memzero(static_cast<void*>(&*oldest), sizeof(StoreSlot));
  return *oldest;
}

// The zone of this name in the configuration that is being replaced, whatever its size; null: there is none.
const ngx_shm_zone_t* find_predecessor(const ngx_shm_zone_t& zone) noexcept {
  ngx_list_part_t* part = &const_cast<ngx_cycle_t*>(ngx_cycle)->shared_memory.part;
  for (; part != nullptr; part = part->next) {
    auto* zones = static_cast<ngx_shm_zone_t*>(part->elts);
    for (ngx_uint_t i = 0; i < part->nelts; ++i) {
      if (zones[i].tag == zone.tag && zones[i].shm.addr != nullptr && view(zones[i].shm.name) == view(zone.shm.name)) {
        return &zones[i];
      }
    }
  }
  return nullptr;
}

// Lets the new zone's workers find what the old zone's workers hold, so that a changed size interrupts nothing.
void inherit_adoption(StoreSlot& slot, const StoreSlot& old) noexcept {
  const Adopted adopted = old.adoption.read();
  Adoption::Holder holder;
  if (adopted.change == 0 || !old.adoption.holder(0, adopted.change, holder)) {
    return;
  }
  const std::uint64_t attempt = slot.adoption.claim(adopted.identity, holder.pid, 0);
  if (!slot.adoption.publish(attempt, adopted, holder.pid, holder.fd)) {
    return;
  }
  const std::uint64_t change = slot.adoption.change();
  for (std::size_t i = 1; old.adoption.holder(i, adopted.change, holder); ++i) {
    static_cast<void>(slot.adoption.hold(holder.pid, holder.fd, change));
  }
}

void assign_stores(ZoneContext& zone, const ZoneRoot* predecessor) noexcept {
  ZoneRoot& root = *zone.root;
  const std::uint64_t configuration = root.configurations.fetch_add(1) + 1;
  auto** stores = static_cast<StoreConf**>(zone.main->stores.elts);
  for (ngx_uint_t i = 0; i < zone.main->stores.nelts; ++i) {
    const std::uint64_t key = store_key(*stores[i]);
    StoreSlot& slot = find_slot(root, key);
    const bool is_new = slot.key.exchange(key) == 0;
    slot.last_configuration.store(configuration);
    attach_store_runtime(*stores[i], *zone.main, slot, configuration);
    if (!is_new || predecessor == nullptr) {
      continue;
    }
    for (const StoreSlot& old : predecessor->stores) {
      if (old.key.load() == key) {
        inherit_adoption(slot, old);
      }
    }
  }
}

MonoNs bucket_clock() noexcept { return {monotonic_ns()}; }

bool attach_tables(const ngx_shm_zone_t& zone, ZoneContext& context) noexcept {
  const TableMemory memory = table_memory(zone, *context.root);
  return FlightTable::attach(memory.flights, context.flights).ok() &&
         FlightTable::attach(memory.client_flights, context.client_flights).ok() &&
         BucketTable::attach(memory.client_buckets, bucket_clock, context.client_buckets).ok() &&
         BucketTable::attach(memory.buckets, bucket_clock, context.buckets).ok();
}

bool format_tables(const ngx_shm_zone_t& zone, ZoneContext& context) noexcept {
  const TableMemory memory = table_memory(zone, *context.root);
  const SipKey& seed = context.root->seed;
  return FlightTable::format(memory.flights, seed, context.flights).ok() &&
         FlightTable::format(memory.client_flights, seed, context.client_flights).ok() &&
         BucketTable::format(memory.client_buckets, seed, bucket_clock, context.client_buckets).ok() &&
         BucketTable::format(memory.buckets, seed, bucket_clock, context.buckets).ok();
}

ngx_int_t take_over(ngx_shm_zone_t& zone, ZoneContext& context) noexcept {
  context.root = find_root(zone);
  if (context.root == nullptr || !attach_tables(zone, context)) {
    ngx_log_error(NGX_LOG_EMERG, zone.shm.log, 0,
                  "apikey_zone \"%V\" was laid out by another version of this module and is in use; "
                  "restart nginx, or give the zone another name",
                  &zone.shm.name);
    return NGX_ERROR;
  }
  assign_stores(context, nullptr);
  return NGX_OK;
}

ngx_int_t lay_out(ngx_shm_zone_t& zone, ZoneContext& context) noexcept {
  ngx_slab_pool_t* pool = slab_pool(zone);
  pool->log_nomem = 0;
  // All pages at once: they are one piece, because nothing was allocated before.
  auto* memory = static_cast<std::byte*>(ngx_slab_alloc(pool, pool->pfree * ngx_pagesize));
  if (memory == nullptr) {
    ngx_log_error(NGX_LOG_EMERG, zone.shm.log, 0, "apikey_zone \"%V\" of %uz bytes is too small; it needs at least %uz",
                  &zone.shm.name, zone.shm.size, min_zone_size());
    return NGX_ERROR;
  }
  ngx_memzero(memory, table_offset());
  context.root = static_cast<ZoneRoot*>(static_cast<void*>(memory));
  ZoneRoot& root = *context.root;
  if (getrandom(root.seed.data(), sizeof root.seed, 0) != static_cast<ssize_t>(sizeof root.seed)) {
    ngx_log_error(NGX_LOG_EMERG, zone.shm.log, ngx_errno, "getrandom() failed for apikey_zone \"%V\"", &zone.shm.name);
    return NGX_ERROR;
  }
  if (!format_tables(zone, context)) {
    ngx_log_error(NGX_LOG_EMERG, zone.shm.log, 0,
                  "apikey_zone \"%V\" of %uz bytes has no room for buckets; make it %uz", &zone.shm.name, zone.shm.size,
                  min_zone_size());
    return NGX_ERROR;
  }
  root.size = zone.shm.size;
  root.fingerprint = kFingerprint;
  root.magic = kMagic;
  pool->data = &root;

  const ngx_shm_zone_t* old = find_predecessor(zone);
  const ZoneRoot* predecessor = old == nullptr ? nullptr : find_root(*old);
  if (predecessor != nullptr) {
    ngx_log_error(NGX_LOG_NOTICE, zone.shm.log, 0,
                  "apikey_zone \"%V\" changes its size from %uL to %uz: buckets and counters start anew",
                  &zone.shm.name, predecessor->size, zone.shm.size);
  }
  assign_stores(context, predecessor);
  return NGX_OK;
}

ngx_int_t on_init_zone(ngx_shm_zone_t* zone, void* old_data) noexcept {
  auto& context = *static_cast<ZoneContext*>(zone->data);
  // What another version of this code may have left in old_data is not looked at: the memory speaks for itself.
  const ngx_int_t made = old_data != nullptr || zone->shm.exists ? take_over(*zone, context) : lay_out(*zone, context);
  if (made != NGX_OK) {
    return made;
  }
  context.bucket_slots = context.buckets.usage({}).slots;
  // The same tag: it was made by this very code.
  const ngx_shm_zone_t* old = find_predecessor(*zone);
  const State* running = old == nullptr ? nullptr : static_cast<ZoneContext*>(old->data)->main->state;
  if (prepare_state(context.cycle, *context.main, *zone, running) != NGX_OK) {
    return NGX_ERROR;
  }
  remove_stale_sockets(*context.cycle, *context.main);
  const State* state = context.main->state;
  context.limits.buckets = &context.buckets;
  context.limits.client_buckets = &context.client_buckets;
  context.limits.quotas = state == nullptr ? nullptr : &state->tables.quotas;
  context.limits.flights = &context.flights;
  context.limits.client_flights = &context.client_flights;
  context.limits.share = context.main->share;
  context.limits.settled_measures = {static_cast<std::string_view*>(context.main->settled_measures.elts),
                                     context.main->settled_measures.nelts};
  return NGX_OK;
}

const ZoneContext& context_of(const MainConf& conf) noexcept { return *static_cast<ZoneContext*>(conf.zone->data); }

}  // namespace

ngx_shm_zone_t* add_zone(ngx_conf_t* cf, ngx_str_t* name, std::size_t size) noexcept {
  if (size < min_zone_size()) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_zone \"%V\" of %uz bytes is too small; it needs at least %uzk",
                       name, size, (min_zone_size() + 1023) / 1024);
    return nullptr;
  }
  ngx_shm_zone_t* zone = ngx_shared_memory_add(cf, name, size, &ngx_http_apikey_module);
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
  context->main = static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_apikey_module));
  zone->data = context;
  zone->init = on_init_zone;
  return zone;
}

ZoneRoot& zone_root(const MainConf& conf) noexcept { return *context_of(conf).root; }

std::uint64_t bucket_slots(const MainConf& conf) noexcept { return context_of(conf).bucket_slots; }

Adoption& adoption_of(const MainConf&, const StoreConf& store) noexcept { return store.runtime->slot->adoption; }

const LimitTables& limit_tables(const MainConf& conf) noexcept { return context_of(conf).limits; }

void set_flight_holder(const MainConf& conf, FlightHolder holder) noexcept {
  static_cast<ZoneContext*>(conf.zone->data)->limits.holder = holder;
}

void count_request(const MainConf& conf, Outcome outcome, bool is_dry_run, std::string_view env,
                   CredentialForm form) noexcept {
  ZoneRoot& root = zone_root(conf);
  const std::size_t number = env.empty() ? kEnvNone : root.envs.number(env);
  add(root.shards[ngx_worker % kCounterShards]
          .requests[number][static_cast<std::size_t>(outcome) + (is_dry_run ? kOutcomeCount : 0)]
                   [static_cast<std::size_t>(form)]);
}

void count_limited(const MainConf& conf, std::string_view plan, std::string_view limit) noexcept {
  ZoneRoot& root = zone_root(conf);
  std::array<char, decltype(root.limits)::kMaxLength> text;
  std::size_t number = kMaxLimitLabels;
  if (plan.size() + 1 + limit.size() <= text.size()) {
    char* end = std::copy(plan.begin(), plan.end(), text.begin());
    *end++ = '\0';
    end = std::copy(limit.begin(), limit.end(), end);
    number = root.limits.number({text.data(), static_cast<std::size_t>(end - text.data())});
  }
  add(root.limited[number]);
}

void count_cost_miss(const MainConf& conf, CostMiss miss) noexcept {
  add(zone_root(conf).cost_misses[static_cast<std::size_t>(miss)]);
}

void observe_decision(const MainConf& conf, std::uint64_t ns) noexcept {
  zone_root(conf).decision.observe(kDecisionBoundsNs, ns);
}

void count_adoption(const MainConf&, const StoreConf& store, AdoptionResult result, std::uint64_t ns) noexcept {
  StoreSlot& slot = *store.runtime->slot;
  add(slot.results[static_cast<std::size_t>(result)]);
  slot.seconds.observe(kAdoptionBoundsNs, ns);
}

}  // namespace apikey::nginx
