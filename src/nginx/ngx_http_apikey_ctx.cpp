// The context of a request: found again after an internal redirect, let go of at the end of the request.
// Called by _decision, _handler and whoever shows what was decided. Decides nothing itself.
#include "ngx_http_apikey_ctx.hpp"

#include <algorithm>

#include "apikey/digest.hpp"

namespace apikey::nginx {
namespace {

RequestCtx* first_pinning = nullptr;  // of this worker

void join_pinning(RequestCtx& ctx) noexcept {
  ctx.next_pinning = first_pinning;
  if (first_pinning != nullptr) {
    first_pinning->previous_pinning = &ctx;
  }
  first_pinning = &ctx;
}

void leave_pinning(RequestCtx& ctx) noexcept {
  (ctx.previous_pinning == nullptr ? first_pinning : ctx.previous_pinning->next_pinning) = ctx.next_pinning;
  if (ctx.next_pinning != nullptr) {
    ctx.next_pinning->previous_pinning = ctx.previous_pinning;
  }
  ctx.previous_pinning = nullptr;
  ctx.next_pinning = nullptr;
}

void unpin_all(RequestCtx& ctx) noexcept {
  if (ctx.pinned != 0) {
    leave_pinning(ctx);
  }
  for (Loaded*& loaded : ctx.pins) {
    if (loaded != nullptr) {
      unpin(loaded);
      loaded = nullptr;
    }
  }
  ctx.pinned = 0;
}

// Calls `act` for the client request's and for those of its subrequests. RETURNS: false as soon as `act` does.
template <typename Act>
bool for_each(RequestCtx& client, Act act) noexcept {
  for (RequestCtx* each = &client; each != nullptr; each = each->next_sub) {
    if (!act(*each)) {
      return false;
    }
  }
  return true;
}

void on_request_end(void* data) noexcept {
  auto& client = *static_cast<RequestCtx*>(data);
  unpin_all(client);
  const LimitTables* tables = nullptr;
  for_each(client, [&](RequestCtx& each) noexcept {
    tables = tables == nullptr ? each.charge.tables : tables;
    for (Digest& digest : each.credential.digests) {
      wipe(digest.bytes);
    }
    return true;
  });
  // Here and not in the log phase: however a request ends, its pool is destroyed.
  if (tables != nullptr) {
    release_flights(*tables, client.takings);
  }
}

// A revoked key must not live on because slow requests hold every generation there is room for: they let go.
Loaded* pin_newest(StoreConf& store) noexcept {
  Loaded* loaded = pin(store);
  if (!store.runtime->is_waiting || first_pinning == nullptr) {
    return loaded;
  }
  unpin(loaded);
  for (RequestCtx* each = first_pinning; each != nullptr;) {
    RequestCtx* next = each->next_pinning;
    release_snapshots(*each);
    each = next;
  }
  switch_to_adopted(store, ngx_cycle->log);
  return pin(store);
}

Loaded* pinned_snapshot(RequestCtx& client, StoreConf& store) noexcept {
  const ngx_uint_t bit = ngx_uint_t{1} << store.index;
  if ((client.pinned & bit) == 0) {
    Loaded* loaded = pin_newest(store);
    if (client.pinned == 0) {
      join_pinning(client);
    }
    client.pins[store.index] = loaded;
    client.pinned |= bit;
  }
  return client.pins[store.index];
}

// The one thing of a text that may end with the snapshot it stands in. RETURNS: false without memory.
bool keep(ngx_pool_t* pool, std::string_view& text) noexcept {
  const ngx_str_t copy = copy_to_pool(pool, text);
  const bool is_copied = copy.len == text.size();
  text = is_copied ? view(copy) : text;
  return is_copied;
}

// Copies what variables show and limits are settled by. RETURNS: false without memory.
bool keep_what_is_shown(RequestCtx& ctx) noexcept {
  ngx_pool_t* pool = ctx.request->pool;
  if (ctx.known.has_record) {
    const Identity* identity = identity_of(ctx.request, ctx);
    auto* owner_id = static_cast<std::byte*>(ngx_pnalloc(pool, ctx.known.owner.id.size()));
    if (identity == nullptr || owner_id == nullptr) {
      return false;
    }
    std::copy(ctx.known.owner.id.begin(), ctx.known.owner.id.end(), owner_id);
    ctx.known.owner.id = {owner_id, ctx.known.owner.id.size()};
    ctx.known.env = identity->env;
  }
  return keep(pool, ctx.verdict.limit_name) && keep(pool, ctx.peeked.limit_name);
}

bool keep_measures(ngx_pool_t* pool, Takings& takings) noexcept {
  for (TakenLimit& taken : std::span(takings.limits).first(takings.count)) {
    std::string_view measure = taken.measure;
    if (!keep(pool, measure)) {
      return false;
    }
    taken.measure = {measure.data(), measure.size()};
  }
  return true;
}

}  // namespace

RequestCtx* find_ctx(ngx_http_request_t* r) noexcept {
  ngx_http_request_t* main = r->main;
  auto* ctx = static_cast<RequestCtx*>(ngx_http_get_module_ctx(main, ngx_http_apikey_module));
  if (ctx != nullptr) {
    return ctx;
  }
  for (const ngx_pool_cleanup_t* cleanup = main->pool->cleanup; cleanup != nullptr; cleanup = cleanup->next) {
    if (cleanup->handler == on_request_end) {
      ctx = static_cast<RequestCtx*>(cleanup->data);
      ngx_http_set_ctx(main, ctx, ngx_http_apikey_module);
      return ctx;
    }
  }
  return nullptr;
}

RequestCtx* get_ctx(ngx_http_request_t* r) noexcept {
  static_assert(std::is_trivially_destructible_v<RequestCtx> && alignof(RequestCtx) <= NGX_ALIGNMENT);
  if (RequestCtx* ctx = find_ctx(r)) {
    return ctx;
  }
  ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(r->main->pool, sizeof(RequestCtx));
  if (cleanup == nullptr) {
    return nullptr;
  }
  auto* ctx = ::new (cleanup->data) RequestCtx{};
  ctx->request = r->main;
  ctx->client = ctx;
  ctx->charge.takings = &ctx->takings;
  cleanup->handler = on_request_end;
  ngx_http_set_ctx(r->main, ctx, ngx_http_apikey_module);
  return ctx;
}

void renew_pin(RequestCtx& ctx, StoreConf& store) noexcept {
  RequestCtx& client = *ctx.client;
  const ngx_uint_t bit = ngx_uint_t{1} << store.index;
  if ((client.decided & bit) != 0) {
    return;
  }
  client.decided |= bit;
  Loaded*& pinned = client.pins[store.index];
  if ((client.pinned & bit) == 0 || is_newest(store, pinned)) {
    return;
  }
  unpin(pinned);
  pinned = nullptr;
  client.pinned &= ~bit;
  if (client.pinned == 0) {
    leave_pinning(client);
  }
  // What was found in the older one counts no more.
  for (RequestCtx* each = &client; each != nullptr; each = each->next_sub) {
    if (each->store == &store) {
      each->store = nullptr;
      each->known = {};
      each->identity = {};
      each->peeked_by = nullptr;
      each->generation = 0;
    }
  }
}

RequestCtx* find_sub_ctx(ngx_http_request_t* r) noexcept {
  RequestCtx* client = r == r->main ? nullptr : find_ctx(r);
  for (RequestCtx* each = client == nullptr ? nullptr : client->next_sub; each != nullptr; each = each->next_sub) {
    if (each->request == r) {
      return each;
    }
  }
  return nullptr;
}

RequestCtx* get_own_ctx(ngx_http_request_t* r) noexcept {
  RequestCtx* client = get_ctx(r);
  if (client == nullptr || r == r->main) {
    return client;
  }
  if (RequestCtx* ctx = find_sub_ctx(r)) {
    return ctx;
  }
  void* memory = ngx_palloc(r->pool, sizeof(RequestCtx));
  if (memory == nullptr) {
    return nullptr;
  }
  auto* ctx = ::new (memory) RequestCtx{};
  ctx->request = r;
  ctx->client = client;
  ctx->taker = static_cast<std::uint8_t>(
      std::min<unsigned>((client->next_sub == nullptr ? kMainTaker : client->next_sub->taker) + 1U, UINT8_MAX));
  ctx->charge.takings = &client->takings;
  ctx->next_sub = client->next_sub;
  client->next_sub = ctx;
  return ctx;
}

Loaded* enter_store(RequestCtx& ctx, StoreConf& store) noexcept {
  const bool is_same = ctx.store == &store && (ctx.client->pinned >> store.index & 1) != 0;
  Loaded* loaded = pinned_snapshot(*ctx.client, store);
  if (!is_same) {
    ctx.store = &store;
    ctx.known = {};
    ctx.identity = {};
    ctx.peeked_by = nullptr;
    ctx.generation = loaded == nullptr ? 0 : loaded->snapshot().meta().generation;
  }
  return loaded;
}

const Loaded* snapshot_of(const RequestCtx& ctx) noexcept {
  return ctx.store == nullptr ? nullptr : ctx.client->pins[ctx.store->index];
}

const Identity* identity_of(ngx_http_request_t* r, RequestCtx& ctx) noexcept {
  if (!ctx.known.has_record) {
    return nullptr;
  }
  if (const Loaded* loaded = snapshot_of(ctx)) {
    look_up(r->pool, loaded->snapshot(), ctx.known, ctx.identity);
  }
  return ctx.identity.is_looked_up ? &ctx.identity : nullptr;
}

void release_snapshots(RequestCtx& client) noexcept {
  if (client.pinned != 0 && for_each(client, keep_what_is_shown) &&
      keep_measures(client.request->pool, client.takings)) {
    unpin_all(client);
  }
}

}  // namespace apikey::nginx
