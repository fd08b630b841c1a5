// The header and the body filter: rate headers, and problem+json where ours is the refusal that is being answered.
// Called by nginx for every answer; touches the main request's only. Also lets go of the snapshot before an answer that
// may take long, so that open streams and WebSockets do not hold on to old generations.
#include "ngx_http_apikey_problem.hpp"
#include "ngx_http_apikey_reply.hpp"
#include "ngx_http_apikey_text.hpp"

namespace apikey::nginx {
namespace {

ngx_http_output_header_filter_pt next_header_filter;
ngx_http_output_body_filter_pt next_body_filter;

constexpr off_t kLongAnswer = 1 << 20;  // bytes
constexpr std::string_view kProblemType = "application/problem+json";
constexpr std::string_view kLimitHeader = "X-RateLimit-Limit";
constexpr std::string_view kRemainingHeader = "X-RateLimit-Remaining";
constexpr std::string_view kResetHeader = "X-RateLimit-Reset";

bool is_named(const ngx_table_elt_t& line, std::string_view name) noexcept {
  return line.key.len == name.size() && ngx_strncasecmp(line.key.data, to_ngx_str(name).data, name.size()) == 0;
}

// What an upstream says of its own limits must not stand beside ours.
void drop_rate_headers(ngx_http_request_t* r) noexcept {
  for (ngx_list_part_t* part = &r->headers_out.headers.part; part != nullptr; part = part->next) {
    for (ngx_table_elt_t& line : std::span(static_cast<ngx_table_elt_t*>(part->elts), part->nelts)) {
      if (is_named(line, kLimitHeader) || is_named(line, kRemainingHeader) || is_named(line, kResetHeader)) {
        line.hash = 0;
      }
    }
  }
}

bool add_number_header(ngx_http_request_t* r, std::string_view name, std::uint64_t number) noexcept {
  const ngx_str_t value = number_text(r->pool, static_cast<std::int64_t>(number));
  return value.len > 0 && add_header(r, name, value) != nullptr;
}

bool add_rate_headers(ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  const Verdict& verdict = ctx.verdict;
  if (!verdict.has_limit || ctx.decided_by->ratelimit_headers != static_cast<ngx_uint_t>(RatelimitHeaders::x)) {
    return true;
  }
  drop_rate_headers(r);
  return add_number_header(r, kLimitHeader, verdict.limit_burst) &&
         add_number_header(r, kRemainingHeader, verdict.remaining) &&
         add_number_header(r, kResetHeader, static_cast<std::uint64_t>(whole_seconds(verdict.reset_ns)));
}

// True when the answer is nginx's own page for our refusal: no error_page has led elsewhere, nobody else's refusal came
// first. What auth_request learned from apikey_verify may have been overruled by `satisfy any`: then the same status
// may come from an upstream.
bool is_our_refusal(ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  const ngx_int_t status = status_of(ctx.verdict.outcome);
  return status >= NGX_HTTP_BAD_REQUEST && r->headers_out.status == static_cast<ngx_uint_t>(status) &&
         (ctx.is_refused || r->upstream == nullptr) && loc_conf(r) == ctx.shown_in &&
         ctx.decided_by->error_body == static_cast<ngx_uint_t>(ErrorBody::problem);
}

bool replace_body(ngx_http_request_t* r, RequestCtx& ctx) noexcept {
  ctx.body = problem_body(r, ctx);
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
  RequestCtx* ctx = r == r->main ? find_ctx(r) : nullptr;
  if (ctx == nullptr || ctx->has_filtered_header) {
    return next_header_filter(r);
  }
  ctx->has_filtered_header = true;
  if (ctx->is_decided) {
    if (!add_rate_headers(r, *ctx)) {
      return NGX_ERROR;
    }
    if (is_our_refusal(r, *ctx) && !replace_body(r, *ctx)) {
      return NGX_ERROR;
    }
  }
  if (takes_long(r)) {
    release_snapshots(r, *ctx);
  }
  return next_header_filter(r);
}

// nginx's page comes in one piece; whatever else follows is left out.
ngx_int_t filter_body(ngx_http_request_t* r, ngx_chain_t* in) noexcept {
  // The header filter has found it again; no need to search for each piece.
  auto* ctx = static_cast<RequestCtx*>(ngx_http_get_module_ctx(r, ngx_http_apikey_module));
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
