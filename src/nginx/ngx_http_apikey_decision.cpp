// Extraction, and the core's decision with what it needs: facts, clocks, the pinned snapshot, the table of buckets.
// Called by the phases, by content handlers, and by the first variable that asks for the key.
// Must never let a request pass because something of ours failed.
#include "ngx_http_apikey_decision.hpp"

#include <ctime>

#include "ngx_http_apikey_hide.hpp"
#include "ngx_http_apikey_request.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr unsigned kObserveOneIn = 64;

bool reads_alike(const LocConf& a, const LocConf& b) noexcept { return a.sources == b.sources && a.format == b.format; }

Verdict judge(ngx_http_request_t* r, const LocConf& conf, RequestCtx& ctx, Charge* charge) noexcept {
  Verdict verdict;
  if (conf.preflight == static_cast<ngx_uint_t>(Preflight::allow) && is_cors_preflight(r)) {
    verdict.outcome = Outcome::preflight;
    return verdict;
  }
  Loaded* loaded = enter_store(ctx, *conf.store);
  const MonoNs started{monotonic_ns()};
  verdict = decide(*conf.policy, ctx.credential, view_of(loaded), request_facts(r), {{ngx_time()}, started}, ctx.known,
                   charge);
  static unsigned decisions = 0;
  if (++decisions % kObserveOneIn == 0) {
    observe_decision(*main_conf(r), monotonic_ns() - started.value);
  }
  return verdict;
}

void count_if_limited(ngx_http_request_t* r, RequestCtx& ctx) noexcept {
  if (ctx.verdict.outcome != Outcome::rate_limited || ctx.is_counted_as_limited) {
    return;
  }
  ctx.is_counted_as_limited = true;
  const Identity* identity = identity_of(r, ctx);
  count_limited(*main_conf(r), identity == nullptr ? std::string_view() : identity->plan, ctx.verdict.limit_name);
}

// True when the access phase of this pass is over: `satisfy any` may have left our handler out.
bool is_past_access(const ngx_http_request_t* r) noexcept {
  const auto* core = static_cast<ngx_http_core_main_conf_t*>(r->main_conf[ngx_http_core_module.ctx_index]);
  for (const auto* phase = core->phase_engine.handlers + r->phase_handler; phase->checker != nullptr; ++phase) {
    if (phase->checker == ngx_http_core_post_access_phase) {
      return false;
    }
  }
  return true;
}

// Whether the verdict that counts was made for where the request is now: a location of another pass decides for itself,
// one that says `apikey off` and a subrequest show what was decided before.
bool holds_here(ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  const LocConf* conf = loc_conf(r);
  return ctx.is_decided && (ctx.decided_by == conf || !conf->is_on || r != r->main);
}

}  // namespace

std::uint64_t monotonic_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<std::uint64_t>(now.tv_nsec);
}

bool extract(ngx_http_request_t* r, const LocConf& conf, RequestCtx& ctx) noexcept {
  const bool is_fresh =
      ctx.extracted_by == nullptr || (ctx.credential.found == Found::none && !reads_alike(*ctx.extracted_by, conf));
  if (is_fresh) {
    ctx.is_reading = true;
    read_credential(r, conf, *main_conf(r), ctx.credential);
    ctx.is_reading = false;
    if (!redact_request_line(r, conf, ctx.redacted_request)) {
      return false;
    }
    ctx.extracted_by = &conf;
    ctx.known = {};
    ctx.peeked_by = nullptr;
  }
  if (!conf.hides || (ctx.hidden_by != nullptr && reads_alike(*ctx.hidden_by, conf))) {
    return true;
  }
  if (hide_credential(r, *ctx.extracted_by) != NGX_OK) {
    return false;
  }
  if (ctx.extracted_by != &conf && hide_credential(r, conf) != NGX_OK) {
    return false;
  }
  ctx.hidden_by = &conf;
  return true;
}

const Verdict* peek(ngx_http_request_t* r) noexcept {
  const LocConf& conf = *loc_conf(r);
  if (!conf.is_on) {
    return nullptr;
  }
  RequestCtx* ctx = get_ctx(r);
  if (ctx == nullptr || ctx->is_reading || !extract(r, conf, *ctx)) {
    return nullptr;
  }
  if (ctx->peeked_by != &conf) {
    ctx->peeked = judge(r, conf, *ctx, nullptr);
    ctx->peeked_by = &conf;
  }
  return &ctx->peeked;
}

const Verdict* decide_request(ngx_http_request_t* r, bool charges) noexcept {
  const LocConf& conf = *loc_conf(r);
  RequestCtx* ctx = get_ctx(r);
  if (ctx == nullptr || !extract(r, conf, *ctx)) {
    return nullptr;
  }
  ctx->charge.table = &bucket_table(*main_conf(r));
  ctx->verdict = judge(r, conf, *ctx, charges ? &ctx->charge : nullptr);
  ctx->is_decided = true;
  ctx->decided_by = &conf;
  ctx->shown_in = loc_conf(r->main);
  count_if_limited(r, *ctx);
  return &ctx->verdict;
}

const Verdict* current_verdict(ngx_http_request_t* r) noexcept {
  RequestCtx* ctx = find_ctx(r);
  if (ctx != nullptr && holds_here(r, *ctx)) {
    return &ctx->verdict;
  }
  return peek(r);
}

Outcome current_outcome(ngx_http_request_t* r) noexcept {
  const RequestCtx* ctx = find_ctx(r);
  if (ctx != nullptr && holds_here(r, *ctx)) {
    return ctx->verdict.outcome;
  }
  const LocConf& conf = *loc_conf(r);
  if (!conf.is_on) {
    return Outcome::off;
  }
  if (r == r->main && !conf.is_content && is_past_access(r)) {
    return Outcome::skipped;
  }
  const Verdict* verdict = peek(r);
  return verdict == nullptr ? Outcome::unavailable : verdict->outcome;
}

}  // namespace apikey::nginx
