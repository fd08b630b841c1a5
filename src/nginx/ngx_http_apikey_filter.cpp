// The header and the body filter: rate headers, problem+json where ours is the refusal that is being answered, and a
// look at what passes for what the answer says it has cost.
// Called by nginx for every answer; touches the main request's only. Also lets go of the snapshot before an answer that
// may take long, so that open streams and WebSockets do not hold on to old generations.
#include <algorithm>
#include <array>

#include "ngx_http_apikey_cost.hpp"
#include "ngx_http_apikey_decision.hpp"
#include "ngx_http_apikey_problem.hpp"
#include "ngx_http_apikey_redirect.hpp"
#include "ngx_http_apikey_reply.hpp"
#include "ngx_http_apikey_text.hpp"
#include "ngx_http_apikey_vary.hpp"

namespace apikey::nginx {
namespace {

ngx_http_output_header_filter_pt next_header_filter;
ngx_http_output_body_filter_pt next_body_filter;

constexpr std::uint64_t kLargestInteger = 999'999'999'999'999;  // of a structured field
constexpr off_t kLongAnswer = 1 << 20;                          // bytes
constexpr std::string_view kProblemType = "application/problem+json";
constexpr std::string_view kLimitHeader = "X-RateLimit-Limit";
constexpr std::string_view kRemainingHeader = "X-RateLimit-Remaining";
constexpr std::string_view kResetHeader = "X-RateLimit-Reset";
constexpr std::string_view kDraftHeader = "RateLimit";
constexpr std::string_view kPolicyHeader = "RateLimit-Policy";

bool is_named(const ngx_table_elt_t& line, std::string_view name) noexcept {
  return line.key.len == name.size() && ngx_strncasecmp(line.key.data, to_ngx_str(name).data, name.size()) == 0;
}

// What an upstream says of its own limits must not stand beside ours.
void drop_headers(ngx_http_request_t* r, std::span<const std::string_view> names) noexcept {
  for (ngx_list_part_t* part = &r->headers_out.headers.part; part != nullptr; part = part->next) {
    for (ngx_table_elt_t& line : elements<ngx_table_elt_t>(part)) {
      if (std::any_of(names.begin(), names.end(), [&](std::string_view name) { return is_named(line, name); })) {
        line.hash = 0;
      }
    }
  }
}

bool add_number_header(ngx_http_request_t* r, std::string_view name, std::uint64_t number) noexcept {
  const ngx_str_t value = number_text(r->pool, static_cast<std::int64_t>(number));
  return value.len > 0 && add_header(r, name, value) != nullptr;
}

bool add_x_headers(ngx_http_request_t* r, const Verdict& verdict) noexcept {
  constexpr std::array names = {kLimitHeader, kRemainingHeader, kResetHeader};
  drop_headers(r, names);
  return add_number_header(r, kLimitHeader, verdict.limit_size) &&
         add_number_header(r, kRemainingHeader, verdict.remaining) &&
         add_number_header(r, kResetHeader, static_cast<std::uint64_t>(whole_seconds(verdict.reset_ns)));
}

// How long a whole allowance takes to come back, in seconds: the `w` of the draft. 0: it does not come with time.
std::uint64_t window_of(const LimitUse& use) noexcept {
  switch (use.kind) {
    case LimitKind::rate: {
      const RateLimit limit{use.amount, use.period_ns, use.size};
      return static_cast<std::uint64_t>(whole_seconds(limit.depth_ns()));
    }
    case LimitKind::calendar_quota: {
      // Of the whole window, also where a reset has begun it anew.
      const Window window = window_at(use.unit, {use.begin});
      return static_cast<std::uint64_t>(window.end.value - window.begin.value);
    }
    case LimitKind::rolling_quota:
      return static_cast<std::uint64_t>(whole_seconds(use.period_ns));
    default:
      return 0;
  }
}

void add_parameter(Text& text, std::string_view name, std::uint64_t value) noexcept {
  text.add(name);
  text.add_number(static_cast<std::int64_t>(std::min(value, kLargestInteger)));
}

// draft-ietf-httpapi-ratelimit-headers-10: two lists (RFC 9651) with one item per limit.
void add_item(Text& policy, Text& state, const LimitUse& use, const LimitLevel& level) noexcept {
  const std::string_view before = policy.str().len == 0 ? "" : ", ";
  for (Text* text : {&policy, &state}) {
    text->add(before);
    text->add_quoted(use.name);
  }
  add_parameter(policy, ";q=", use.size);
  if (const std::uint64_t window = window_of(use); window != 0) {
    add_parameter(policy, ";w=", window);
  }
  policy.add(use.kind == LimitKind::concurrency ? ";qu=\"concurrent-requests\"" : "");
  add_parameter(state, ";r=", level.remaining);
  if (level.reset_ns != 0 && use.kind != LimitKind::concurrency) {
    add_parameter(state, ";t=", static_cast<std::uint64_t>(whole_seconds(level.reset_ns)));
  }
}

bool add_draft_headers(ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  std::array<LimitUse, kMaxUses> uses;
  std::size_t count = 0;
  if (!limits_here(ctx, uses, count) || count == 0) {
    return true;  // nobody knows what applies: nothing is said of it
  }
  const Clocks clocks = read_clocks();
  Text policy(r->pool);
  Text state(r->pool);
  for (const LimitUse& use : std::span<const LimitUse>(uses).first(count)) {
    add_item(policy, state, use, look_at_limit(*ctx.charge.tables, use, clocks));
  }
  constexpr std::array names = {kDraftHeader, kPolicyHeader};
  drop_headers(r, names);
  return policy.ok() && state.ok() && add_header(r, kPolicyHeader, policy.str()) != nullptr &&
         add_header(r, kDraftHeader, state.str()) != nullptr;
}

bool add_rate_headers(ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  if (!ctx.verdict.has_limit) {
    return true;
  }
  switch (static_cast<RatelimitHeaders>(ctx.decided_by->ratelimit_headers)) {
    case RatelimitHeaders::x:
      return add_x_headers(r, ctx.verdict);
    case RatelimitHeaders::draft:
      return add_draft_headers(r, ctx);
    case RatelimitHeaders::off:
      break;
  }
  return true;
}

// True when the answer is nginx's own page for our refusal: no error_page has led elsewhere, nobody else's refusal came
// first. What auth_request learned from apikey_verify may have been overruled by `satisfy any`: then the same status
// may come from an upstream.
bool is_our_refusal(ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  const ngx_int_t status = ctx.verdict.is_dry_run ? NGX_OK : status_of(ctx.verdict.outcome);
  return status >= NGX_HTTP_BAD_REQUEST && r->headers_out.status == static_cast<ngx_uint_t>(status) &&
         (ctx.client->is_refused || r->upstream == nullptr) && loc_conf(r) == ctx.shown_in &&
         ctx.decided_by->error_body == static_cast<ngx_uint_t>(ErrorBody::problem);
}

// REQUIRES: `ctx` is the client request's, `refusal` that of the verdict.
bool replace_body(ngx_http_request_t* r, RequestCtx& ctx, const RequestCtx& refusal) noexcept {
  ctx.body = problem_body(r, refusal);
  if (ctx.body.len == 0) {
    return false;
  }
  ctx.replaces_body = true;
  r->headers_out.content_type = to_ngx_str(kProblemType);
  r->headers_out.content_type_len = kProblemType.size();
  r->headers_out.content_type_lowcase = nullptr;
  ngx_http_clear_content_length(r);
  r->headers_out.content_length_n = static_cast<off_t>(ctx.body.len);
  return true;
}

bool takes_long(const ngx_http_request_t* r) noexcept {
  if (r->header_only != 0) {
    return false;
  }
  return r->headers_out.status == NGX_HTTP_SWITCHING_PROTOCOLS || r->headers_out.content_length_n < 0 ||
         r->headers_out.content_length_n > kLongAnswer;
}

ngx_int_t filter_header(ngx_http_request_t* r) noexcept {
  forbid_storing(r);
  if (r == r->main && !clean_redirect(r)) {
    return NGX_ERROR;
  }
  RequestCtx* ctx = r == r->main ? find_ctx(r) : nullptr;
  if (ctx == nullptr || ctx->has_filtered_header) {
    return next_header_filter(r);
  }
  ctx->has_filtered_header = true;
  if (const RequestCtx* deciding = deciding_ctx(r)) {
    if (!add_rate_headers(r, *deciding)) {
      return NGX_ERROR;
    }
    if (is_our_refusal(r, *deciding) && !replace_body(r, *ctx, *deciding)) {
      return NGX_ERROR;
    }
    begin_watching(r, *deciding);
  }
  if (takes_long(r)) {
    release_snapshots(*ctx);
  }
  return next_header_filter(r);
}

// nginx's page comes in one piece; whatever else follows is left out.
ngx_int_t filter_body(ngx_http_request_t* r, ngx_chain_t* in) noexcept {
  // The header filter has found it again; no need to search for each piece.
  auto* ctx = static_cast<RequestCtx*>(ngx_http_get_module_ctx(r, ngx_http_apikey_module));
  if (in != nullptr && ctx != nullptr && ctx->watch != nullptr) {
    watch(*ctx, in);
  }
  if (in == nullptr || ctx == nullptr || !ctx->replaces_body) {
    return next_body_filter(r, in);
  }
  if (ctx->body.len == 0) {
    return NGX_OK;
  }
  ngx_buf_t* buffer = static_cast<ngx_buf_t*>(ngx_pcalloc(r->pool, sizeof(ngx_buf_t)));
  ngx_chain_t* out = ngx_alloc_chain_link(r->pool);
  if (buffer == nullptr || out == nullptr) {
    return NGX_ERROR;
  }
  buffer->pos = ctx->body.data;
  buffer->last = ctx->body.data + ctx->body.len;
  buffer->memory = 1;
  buffer->last_buf = 1;
  buffer->last_in_chain = 1;
  out->buf = buffer;
  out->next = nullptr;
  ctx->body.len = 0;
  return next_body_filter(r, out);
}

}  // namespace

ngx_int_t install_filters(ngx_conf_t* cf) noexcept {
  auto* main = static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_apikey_module));
  ngx_str_t name = ngx_string("request_id");
  // By index the variable is made once a request: logs and bodies show the same.
  main->request_id = ngx_http_get_variable_index(cf, &name);
  if (main->request_id == NGX_ERROR) {
    return NGX_ERROR;
  }
  next_header_filter = ngx_http_top_header_filter;
  ngx_http_top_header_filter = filter_header;
  next_body_filter = ngx_http_top_body_filter;
  ngx_http_top_body_filter = filter_body;
  return NGX_OK;
}

}  // namespace apikey::nginx
