// Extraction, and the core's decision with what it needs: facts, clocks, the pinned snapshot, the table of buckets.
// Called by the phases, by content handlers, and by the first variable that asks for the key.
// Must never let a request pass because something of ours failed.
#include "ngx_http_apikey_decision.hpp"

#include <ctime>

#include "ngx_http_apikey_cost.hpp"
#include "ngx_http_apikey_hide.hpp"
#include "ngx_http_apikey_request.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr unsigned kObserveOneIn = 64;

bool reads_alike(const LocConf& a, const LocConf& b) noexcept { return a.sources == b.sources && a.format == b.format; }

// `block=all`: a key from an address that has failed too often is not looked up any more. Judged with the decision, not
// with the extraction before it: only then has realip made the address final.
bool is_blocked(ngx_http_request_t* r, const LocConf& conf) noexcept {
  const FailLimit& limit = conf.fail_limit;
  return limit.is_on && limit.blocks_all && conf.policy->dry_run != DryRun::on &&
         throttled_for(limit, limit_tables(*main_conf(r)), request_facts(r).address, {monotonic_ns()}) != 0;
}

Verdict throttle(ngx_http_request_t* r, const LocConf& conf, Charge* charge) noexcept {
  Verdict verdict;
  verdict.outcome = Outcome::throttled;
  verdict.reason = Outcome::throttled;
  verdict.retry_after_ns =
      throttled_for(conf.fail_limit, limit_tables(*main_conf(r)), request_facts(r).address, {monotonic_ns()});
  if (charge != nullptr) {
    charge->is_refused = true;
    charge->refusal = verdict;
  }
  return verdict;
}

std::string_view read_variable(ngx_http_request_t* r, const LimitVariable& variable) noexcept {
  ngx_http_variable_value_t& kept = r->variables[variable.index];
  const ngx_http_variable_value_t before = kept;
  if (variable.is_address) {
    kept.valid = 0;
    kept.not_found = 0;
  }
  const auto* value = ngx_http_get_flushed_variable(r, variable.index);
  const bool has_value = value != nullptr && value->not_found == 0;
  const std::string_view text = has_value ? std::string_view(text_of(value->data), value->len) : std::string_view();
  if (variable.is_address) {
    kept = before;  // whoever else reads it gets what nginx gives
  }
  return text;
}

// What the location's limits are told of this request: by whom, and what it costs.
void prepare_charge(ngx_http_request_t* r, const LocConf& conf, RequestCtx& ctx) noexcept {
  ctx.charge.tables = &limit_tables(*main_conf(r));
  for (ngx_uint_t i = 0; i < conf.limit_variable_count; ++i) {
    ctx.limit_values[i] = read_variable(r, conf.limit_variables[i]);
  }
  ctx.charge.values = std::span(ctx.limit_values).first(conf.limit_variable_count);
}

Verdict judge(ngx_http_request_t* r, const LocConf& conf, RequestCtx& ctx, Charge* charge) noexcept {
  Verdict verdict;
  if (conf.preflight == static_cast<ngx_uint_t>(Preflight::allow) && is_cors_preflight(r)) {
    verdict.outcome = Outcome::preflight;
    return verdict;
  }
  if (is_blocked(r, conf)) {
    return throttle(r, conf, charge);
  }
  Loaded* loaded = enter_store(ctx, *conf.store);
  const Clocks clocks = read_clocks();
  verdict = decide(*conf.policy, ctx.credential, view_of(loaded), request_facts(r), clocks, ctx.known, charge);
  static unsigned decisions = 0;
  if (++decisions % kObserveOneIn == 0) {
    observe_decision(*main_conf(r), monotonic_ns() - clocks.mono.value);
  }
  return verdict;
}

constexpr bool is_limited(Outcome outcome) noexcept {
  return outcome == Outcome::rate_limited || outcome == Outcome::quota_exceeded ||
         outcome == Outcome::concurrency_limited;
}

void count_if_limited(ngx_http_request_t* r, RequestCtx& ctx) noexcept {
  if (!is_limited(ctx.verdict.outcome) || ctx.verdict.is_dry_run || ctx.is_counted_as_limited) {
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

Clocks read_clocks() noexcept {
  const ngx_time_t& wall = *ngx_timeofday();
  const auto seconds = static_cast<std::uint64_t>(wall.sec);
  return {{wall.sec}, {monotonic_ns()}, {seconds * 1'000'000 + static_cast<std::uint64_t>(wall.msec) * 1000}};
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
  // An early variable may have asked before realip: what was judged of another address says nothing of this one.
  const sockaddr* address = r->main->connection->sockaddr;
  if (ctx->peeked_by != &conf || ctx->peeked_from != address) {
    ctx->peeked = judge(r, conf, *ctx, nullptr);
    ctx->peeked_by = &conf;
    ctx->peeked_from = address;
  }
  return &ctx->peeked;
}

const Verdict* decide_request(ngx_http_request_t* r, bool charges) noexcept {
  const LocConf& conf = *loc_conf(r);
  RequestCtx* ctx = get_ctx(r);
  if (ctx == nullptr || !extract(r, conf, *ctx)) {
    return nullptr;
  }
  renew_pin(*ctx, *conf.store);
  prepare_charge(r, conf, *ctx);
  const bool may_pass =
      ctx->credential.found == Found::key || (ctx->credential.found == Found::none && conf.policy->is_optional);
  const bool may_be_charged = charges && may_pass;
  ctx->charge.costs = may_be_charged ? read_costs(r, conf, *ctx) : std::span<const MeasuredCost>();
  ctx->verdict = judge(r, conf, *ctx, charges ? &ctx->charge : nullptr);
  ctx->is_decided = true;
  ctx->decided_by = &conf;
  ctx->shown_in = loc_conf(r->main);
  count_if_limited(r, *ctx);
  return &ctx->verdict;
}

bool limits_here(ngx_http_request_t* r, const RequestCtx& ctx, std::span<LimitUse> uses, std::size_t& count) noexcept {
  const Loaded* loaded = snapshot_of(ctx);
  count = 0;
  if (ctx.decided_by == nullptr || ctx.charge.tables == nullptr) {
    return false;
  }
  const bool has_key = ctx.credential.found != Found::none;
  if (has_key && (loaded == nullptr || !ctx.known.has_record)) {
    return false;
  }
  return gather_limits(*ctx.decided_by->policy, has_key ? &loaded->snapshot() : nullptr, ctx.known, request_facts(r),
                       read_clocks(), ctx.charge, uses, count);
}

const Verdict* current_verdict(ngx_http_request_t* r) noexcept {
  RequestCtx* ctx = find_ctx(r);
  if (ctx != nullptr && holds_here(r, *ctx)) {
    return &ctx->verdict;
  }
  return peek(r);
}

std::string_view current_status(ngx_http_request_t* r) noexcept {
  const RequestCtx* ctx = find_ctx(r);
  const bool is_dry_run = ctx != nullptr && holds_here(r, *ctx) && ctx->verdict.is_dry_run;
  return is_dry_run ? dry_run_name(ctx->verdict.outcome) : outcome_name(current_outcome(r));
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
