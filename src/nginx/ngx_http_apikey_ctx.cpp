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

void on_request_end(void* data) noexcept {
  auto& ctx = *static_cast<RequestCtx*>(data);
  unpin_all(ctx);
  // Here and not in the log phase: however a request ends, its pool is destroyed.
  if (ctx.charge.tables != nullptr) {
    release_flights(*ctx.charge.tables, ctx.charge.takings);
  }
  for (Digest& digest : ctx.credential.digests) {
    wipe(digest.bytes);
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
    release_snapshots(each->main, *each);
    each = next;
  }
  switch_to_adopted(store, ngx_cycle->log);
  return pin(store);
}

Loaded* pinned_snapshot(RequestCtx& ctx, StoreConf& store) noexcept {
  const ngx_uint_t bit = ngx_uint_t{1} << store.index;
  if ((ctx.pinned & bit) == 0) {
    Loaded* loaded = pin_newest(store);
    if (ctx.pinned == 0) {
      join_pinning(ctx);
    }
    ctx.pins[store.index] = loaded;
    ctx.pinned |= bit;
  }
  return ctx.pins[store.index];
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
  ctx->main = r->main;
  cleanup->handler = on_request_end;
  ngx_http_set_ctx(r->main, ctx, ngx_http_apikey_module);
  return ctx;
}

void renew_pin(RequestCtx& ctx, StoreConf& store) noexcept {
  const ngx_uint_t bit = ngx_uint_t{1} << store.index;
  if ((ctx.decided & bit) != 0) {
    return;
  }
  ctx.decided |= bit;
  Loaded*& pinned = ctx.pins[store.index];
  if ((ctx.pinned & bit) == 0 || is_newest(store, pinned)) {
    return;
  }
  unpin(pinned);
  pinned = nullptr;
  ctx.pinned &= ~bit;
  if (ctx.pinned == 0) {
    leave_pinning(ctx);
  }
  if (ctx.store == &store) {  // what was found in the older one counts no more
    ctx.store = nullptr;
    ctx.known = {};
    ctx.identity = {};
    ctx.peeked_by = nullptr;
    ctx.generation = 0;
  }
}

Loaded* enter_store(RequestCtx& ctx, StoreConf& store) noexcept {
  const bool is_same = ctx.store == &store && (ctx.pinned >> store.index & 1) != 0;
  Loaded* loaded = pinned_snapshot(ctx, store);
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
  return ctx.store == nullptr ? nullptr : ctx.pins[ctx.store->index];
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

void release_snapshots(ngx_http_request_t* r, RequestCtx& ctx) noexcept {
  if (ctx.pinned == 0) {
    return;
  }
  if (ctx.known.has_record) {
    const Identity* identity = identity_of(r, ctx);
    if (identity == nullptr) {
      return;
    }
    auto* owner_id = static_cast<std::byte*>(ngx_pnalloc(r->pool, ctx.known.owner.id.size()));
    if (owner_id == nullptr) {
      return;
    }
    std::copy(ctx.known.owner.id.begin(), ctx.known.owner.id.end(), owner_id);
    ctx.known.owner.id = {owner_id, ctx.known.owner.id.size()};
    ctx.known.env = identity->env;
  }
  for (Verdict* verdict : {&ctx.verdict, &ctx.peeked}) {
    const ngx_str_t name = copy_to_pool(r->pool, verdict->limit_name);
    if (name.len != verdict->limit_name.size()) {
      return;
    }
    verdict->limit_name = view(name);
  }
  unpin_all(ctx);
}

}  // namespace apikey::nginx
