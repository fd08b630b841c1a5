// Extraction, and the core's decision with what it needs: facts, clocks, the pinned snapshot, the table of buckets.
// Called by the phases, by content handlers, and by the first variable that asks for the key.
// Must never let a request pass because something of ours failed.
#include "ngx_http_apikey_decision.hpp"

#include <ctime>

#include "ngx_http_apikey_cost.hpp"
#include "ngx_http_apikey_hide.hpp"
#include "ngx_http_apikey_question.hpp"
#include "ngx_http_apikey_request.hpp"
#include "ngx_http_apikey_request_line.hpp"
#include "ngx_http_apikey_stray_copies.hpp"
#include "ngx_http_apikey_strip.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr unsigned kObserveOneIn = 64;

bool reads_alike(const LocConf& a, const LocConf& b) noexcept { return a.sources == b.sources && a.format == b.format; }

// `block=all`: a key from an address that has failed too often is not looked up any more. Judged with the decision, not
// with the extraction before it: only then has realip made the address final. Not for what has been let in by an
// earlier pass, in which it was looked up.
bool is_blocked(ngx_http_request_t* r, const LocConf& conf, const RequestCtx& ctx) noexcept {
  const FailLimit& limit = conf.fail_limit;
  return limit.is_on && limit.blocks_all && conf.policy->dry_run != DryRun::on && ctx.credential.found != Found::none &&
         !(ctx.is_decided && ctx.store == conf.store && passes(ctx.verdict)) &&
         throttled_for(limit, limit_tables(*main_conf(r)), ctx.facts.address, {monotonic_ns()}) != 0;
}

Verdict refusal(Outcome outcome, Charge* charge) noexcept {
  Verdict verdict;
  verdict.outcome = outcome;
  verdict.reason = outcome;
  if (charge != nullptr) {
    charge->is_refused = true;
    charge->refusal = verdict;
  }
  return verdict;
}

Verdict throttle(ngx_http_request_t* r, const LocConf& conf, const RequestCtx& ctx, Charge* charge) noexcept {
  Verdict verdict = refusal(Outcome::throttled, charge);
  verdict.retry_after_ns =
      throttled_for(conf.fail_limit, limit_tables(*main_conf(r)), ctx.facts.address, {monotonic_ns()});
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

// Those of `before=`, which are computed from the key itself. What they are now they stay, nocacheable ones too.
void keep_variables(ngx_http_request_t* r, const LocConf& conf, RequestCtx& client) noexcept {
  if (conf.before_hiding == nullptr) {
    return;
  }
  client.is_hiding = true;
  const auto all = elements<ngx_int_t>(conf.before_hiding);
  for (const ngx_int_t index : all) {
    if (auto* value = ngx_http_get_indexed_variable(r, static_cast<ngx_uint_t>(index))) {
      value->no_cacheable = 0;
    }
  }
  client.is_hiding = false;
}

// Hides what was read, now or in an earlier call, and what the location takes keys from. RETURNS: false without memory.
bool hide(ngx_http_request_t* r, const LocConf& conf, RequestCtx& ctx, PresentedKey& key, bool was_read_now) noexcept {
  RequestCtx& client = *ctx.client;
  if (!conf.hides || client.is_hiding || (client.hidden_by != nullptr && reads_alike(*client.hidden_by, conf))) {
    return true;
  }
  keep_variables(r, conf, client);
  const LocConf* read_by = ctx.extracted_by;
  if (!was_read_now && client.hidden_by == nullptr && read_by != nullptr) {
    read_key_again(r, *read_by, key);
  }
  const bool is_hidden = (read_by == nullptr || hide_credential(r, client, *read_by) == NGX_OK) &&
                         (read_by == &conf || hide_credential(r, client, conf) == NGX_OK) &&
                         redact_asked_uri(r, conf) && (key.text().empty() || hide_copies(r, key.text()));
  if (is_hidden) {
    client.hidden_by = &conf;
  }
  return is_hidden;
}

// What the location's limits are told of this request: by whom, and what it costs.
void prepare_charge(ngx_http_request_t* r, const LocConf& conf, RequestCtx& ctx) noexcept {
  ctx.charge.tables = &limit_tables(*main_conf(r));
  for (ngx_uint_t i = 0; i < conf.limit_variable_count; ++i) {
    ctx.limit_values[i] = read_variable(r, conf.limit_variables[i]);
  }
  ctx.charge.values = std::span(ctx.limit_values).first(conf.limit_variable_count);
}

bool lets_preflight_pass(const LocConf& conf) noexcept {
  return conf.preflight == static_cast<ngx_uint_t>(Preflight::allow);
}

Verdict judge(ngx_http_request_t* r, const LocConf& conf, RequestCtx& ctx, Charge* charge) noexcept {
  if (const Outcome fault = read_facts(r, conf, ctx.facts, charge != nullptr); fault != Outcome::ok) {
    return refusal(fault, charge);
  }
  if (lets_preflight_pass(conf) && is_cors_preflight(r, ctx.facts)) {
    ctx.charge.costs = {};  // it is one request, whatever the real one will cost
    return decide_preflight(*conf.policy, ctx.facts, read_clocks(), charge);
  }
  if (is_blocked(r, conf, ctx)) {
    return throttle(r, conf, ctx, charge);
  }
  Loaded* loaded = enter_store(ctx, *conf.store);
  const Clocks clocks = read_clocks();
  const Verdict verdict = decide(*conf.policy, ctx.credential, view_of(loaded), ctx.facts, clocks, ctx.known, charge);
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

// A client request is counted once: by its own verdict, or by that of what was asked for it.
void count_if_limited(ngx_http_request_t* r, RequestCtx& ctx) noexcept {
  RequestCtx& client = *ctx.client;
  const bool counts = &ctx == &client || client.asked == &ctx;
  if (!counts || !is_limited(ctx.verdict.outcome) || ctx.verdict.is_dry_run || client.is_counted_as_limited) {
    return;
  }
  client.is_counted_as_limited = true;
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

// Whether a verdict was made for where the request is now: a location of another pass decides for itself, one that says
// `apikey off` shows what was decided before. A refusal lasts.
bool holds_here(ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  const LocConf* conf = loc_conf(r);
  return ctx.is_decided &&
         (ctx.is_refused || ctx.decided_by == conf || !conf->is_on || r != ctx.request || ctx.client->is_logged);
}

// The question stands for the client request where that does not decide itself: with `apikey off`, or when the question
// has let it in under `satisfy any`. A refusal does not when somebody else has let the request in.
RequestCtx* standing_question(const RequestCtx& client) noexcept {
  RequestCtx* asked = client.asked;
  if (asked == nullptr || client.is_decided) {
    return nullptr;
  }
  ngx_http_request_t* main = client.request;
  if (refused_question(main) != nullptr) {
    return asked;
  }
  if (passes(asked->verdict)) {
    return !loc_conf(main)->is_on || is_past_access(main) ? asked : nullptr;
  }
  const bool was_overruled = client.was_asked_before_access && is_past_access(main);
  return loc_conf(main)->is_on || was_overruled ? nullptr : asked;
}

// Whether a wrong key is a failed attempt. In a subrequest it is not where the client request has decided about the
// same key, or will when the question refuses: that another store does not know it makes it no guess.
bool may_fail(const RequestCtx& ctx) noexcept {
  const RequestCtx& client = *ctx.client;
  if (&ctx == &client || client.credential.found == Found::none) {
    return true;
  }
  ngx_http_request_t* main = client.request;
  const auto* core = static_cast<ngx_http_core_loc_conf_t*>(ngx_http_get_module_loc_conf(main, ngx_http_core_module));
  return !client.is_decided && (!loc_conf(main)->is_on || core->satisfy == NGX_HTTP_SATISFY_ALL);
}

// What a subrequest has decided in its access phase replaces what one before has; any other is only heard when it is
// the first.
void remember_question(RequestCtx& ctx) noexcept {
  RequestCtx& client = *ctx.client;
  ngx_http_request_t* main = client.request;
  const bool is_before_access = !is_past_access(main);
  if (client.is_decided || refused_question(main) != nullptr || (client.asked != nullptr && !is_before_access)) {
    return;
  }
  const auto* core = static_cast<ngx_http_core_loc_conf_t*>(ngx_http_get_module_loc_conf(main, ngx_http_core_module));
  client.asked = &ctx;
  client.asked_in = loc_conf(main);
  client.was_asked_before_access = is_before_access;
  client.must_heed_question = is_before_access && core->satisfy == NGX_HTTP_SATISFY_ALL;
  client.last_question = ctx.taker;
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
  RequestCtx& client = *ctx.client;
  if (&ctx != &client && ctx.extracted_by == nullptr) {
    ctx.credential = client.credential;
    ctx.extracted_by = client.extracted_by;
  }
  PresentedKey key;
  const bool is_fresh =
      !ctx.is_refused &&
      (ctx.extracted_by == nullptr || (ctx.credential.found == Found::none && !reads_alike(*ctx.extracted_by, conf)));
  if (is_fresh) {
    client.is_reading = true;
    read_credential(r, conf, *main_conf(r), ctx.credential, key);
    client.is_reading = false;
    if (!redact_request_line(r, conf, key.text(), client.redacted_request)) {
      return false;
    }
    ctx.extracted_by = &conf;
    ctx.known = {};
    ctx.peeked_by = nullptr;
    if (client.extracted_by == nullptr) {
      client.credential = ctx.credential;
      client.extracted_by = &conf;
    }
  }
  return hide(r, conf, ctx, key, is_fresh);
}

const Verdict* peek(ngx_http_request_t* r) noexcept {
  const LocConf& conf = *loc_conf(r);
  if (!conf.is_on) {
    return nullptr;
  }
  RequestCtx* ctx = get_own_ctx(r);
  if (ctx == nullptr || ctx->client->is_reading || !extract(r, conf, *ctx)) {
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
  RequestCtx* ctx = get_own_ctx(r);
  if (ctx == nullptr || !extract(r, conf, *ctx)) {
    return nullptr;
  }
  if (ctx->is_refused) {
    return &ctx->verdict;
  }
  // The question's location meters the answer to the client request.
  if (r != r->main && meters_body(conf) && !ask_for_whole(r)) {
    return nullptr;
  }
  RequestCtx& client = *ctx->client;
  renew_pin(*ctx, *conf.store);
  prepare_charge(r, conf, *ctx);
  const bool may_pass =
      ctx->credential.found == Found::key || (ctx->credential.found == Found::none && conf.policy->is_optional);
  if (!read_costs(r, conf, *ctx, charges && may_pass)) {
    return nullptr;
  }
  client.takings.taker = ctx->taker;
  const bool can_fail = may_fail(*ctx);
  ctx->charge.has_failed = client.charge.has_failed || !can_fail;
  ctx->verdict = judge(r, conf, *ctx, charges ? &ctx->charge : nullptr);
  client.charge.has_failed = client.charge.has_failed || (can_fail && ctx->charge.has_failed);
  if (ctx != &client) {
    remember_question(*ctx);
  } else if (!ctx->is_decided && client.next_sub != nullptr) {
    client.last_question = client.next_sub->taker;
  }
  ctx->is_free = !charges;
  ctx->is_decided = true;
  ctx->decided_by = &conf;
  ctx->shown_in = loc_conf(r->main);
  count_if_limited(r, *ctx);
  if (ctx->verdict.outcome == Outcome::preflight && !strip_preflight(r)) {
    return nullptr;
  }
  return &ctx->verdict;
}

RequestCtx* refused_question(ngx_http_request_t* r) noexcept {
  const RequestCtx* client = find_ctx(r);
  const bool is_refusal = client != nullptr && !client->is_decided && client->must_heed_question &&
                          client->asked_in != loc_conf(r->main) && !passes(client->asked->verdict);
  return is_refusal ? client->asked : nullptr;
}

RequestCtx* deciding_ctx(ngx_http_request_t* r) noexcept {
  if (RequestCtx* ctx = find_sub_ctx(r); ctx != nullptr && holds_here(r, *ctx)) {
    return ctx;
  }
  RequestCtx* client = find_ctx(r);
  if (client == nullptr) {
    return nullptr;
  }
  return client->is_decided && holds_here(r, *client) ? client : standing_question(*client);
}

bool limits_here(const RequestCtx& ctx, std::span<LimitUse> uses, std::size_t& count) noexcept {
  const Loaded* loaded = snapshot_of(ctx);
  count = 0;
  if (ctx.decided_by == nullptr || ctx.charge.tables == nullptr) {
    return false;
  }
  const bool has_key = ctx.credential.found != Found::none;
  if (has_key && (loaded == nullptr || !ctx.known.has_record)) {
    return false;
  }
  return gather_limits(*ctx.decided_by->policy, has_key ? &loaded->snapshot() : nullptr, ctx.known, ctx.facts,
                       read_clocks(), ctx.charge, uses, count);
}

const Verdict* current_verdict(ngx_http_request_t* r, RequestCtx*& ctx) noexcept {
  ctx = deciding_ctx(r);
  if (ctx != nullptr) {
    return &ctx->verdict;
  }
  const Verdict* verdict = peek(r);
  ctx = find_sub_ctx(r);
  ctx = ctx == nullptr ? find_ctx(r) : ctx;
  return verdict;
}

std::string_view current_status(ngx_http_request_t* r) noexcept {
  const RequestCtx* ctx = deciding_ctx(r);
  const bool is_dry_run = ctx != nullptr && ctx->verdict.is_dry_run;
  return is_dry_run ? dry_run_name(ctx->verdict.outcome) : outcome_name(current_outcome(r));
}

Outcome current_outcome(ngx_http_request_t* r) noexcept {
  if (const RequestCtx* ctx = deciding_ctx(r)) {
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
