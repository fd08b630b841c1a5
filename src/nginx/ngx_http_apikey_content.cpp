// apikey_verify and apikey_whoami. Both decide here, not in the access phase, so that they work in subrequests, which
// nginx lets past it.
// Called by nginx in the content phase. A refusal is returned as a status, as from the access phase.
#include "ngx_http_apikey_content.hpp"

#include <array>

#include "ngx_http_apikey_decision.hpp"
#include "ngx_http_apikey_reply.hpp"
#include "ngx_http_apikey_text.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr std::string_view kJsonType = "application/json";

// Decides and answers a refusal. RETURNS: NGX_OK to go on, or what the content handler has to return.
ngx_int_t admit(ngx_http_request_t* r, bool charges, RequestCtx*& ctx) noexcept {
  if (loc_conf(r)->is_on == 0) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  ctx = get_own_ctx(r);
  if (ctx == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (ctx->is_refused) {
    return repeat(r, *ctx);
  }
  if (decide_request(r, charges) == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  const ngx_int_t status = reply(r, *ctx);
  return status == NGX_DECLINED ? NGX_OK : status;
}

bool add_identity_header(ngx_http_request_t* r, std::string_view name, std::string_view value) noexcept {
  if (value.empty()) {
    return true;
  }
  const ngx_str_t safe = header_safe(r->pool, value);
  return safe.len > 0 && add_header(r, name, safe) != nullptr;
}

bool add_identity_headers(ngx_http_request_t* r, const Identity& identity) noexcept {
  return add_identity_header(r, "X-Apikey-Id", identity.id) &&
         add_identity_header(r, "X-Apikey-Owner", identity.owner) &&
         add_identity_header(r, "X-Apikey-Name", identity.name) &&
         add_identity_header(r, "X-Apikey-Plan", identity.plan) &&
         add_identity_header(r, "X-Apikey-Env", identity.env) &&
         add_identity_header(r, "X-Apikey-Scopes", identity.scopes);
}

void add_text_member(Text& json, std::string_view name, std::string_view value) noexcept {
  json.add(",");
  json.add_json(name);
  json.add(":");
  json.add_json(value);
}

// Seconds since 1970; null when there is no such time.
void add_time_member(Text& json, std::string_view name, UnixSec time) noexcept {
  json.add(",");
  json.add_json(name);
  json.add(":");
  if (time.value == 0) {
    json.add("null");
  } else {
    json.add_number(time.value);
  }
}

void add_scope_array(Text& json, std::string_view scopes) noexcept {
  json.add(",\"scopes\":[");
  std::string_view before;
  while (!scopes.empty()) {
    const std::size_t end = std::min(scopes.find(' '), scopes.size());
    json.add(before);
    json.add_json(scopes.substr(0, end));
    scopes.remove_prefix(std::min(end + 1, scopes.size()));
    before = ",";
  }
  json.add("]");
}

constexpr std::string_view kind_name(LimitKind kind) noexcept {
  switch (kind) {
    case LimitKind::rate:
      return "rate";
    case LimitKind::concurrency:
      return "concurrency";
    default:
      return "quota";
  }
}

// What is left of one limit, without taking any of it.
void add_limit(Text& json, const LimitTables& tables, const LimitUse& use, const Clocks& clocks) noexcept {
  const LimitLevel left = look_at_limit(tables, use, clocks);
  json.add("{\"name\":");
  json.add_json(use.name);
  add_text_member(json, "kind", kind_name(use.kind));
  json.add(",\"limit\":");
  json.add_number(static_cast<std::int64_t>(use.size));
  json.add(",\"remaining\":");
  json.add_number(static_cast<std::int64_t>(left.remaining));
  json.add(",\"reset\":");
  json.add_number(use.kind == LimitKind::concurrency ? 0 : whole_seconds(left.reset_ns));
  json.add("}");
}

bool add_limit_array(Text& json, const RequestCtx& ctx) noexcept {
  std::array<LimitUse, kMaxUses> uses;
  std::size_t count = 0;
  if (!limits_here(ctx, uses, count)) {
    return false;
  }
  const Clocks clocks = read_clocks();
  json.add(",\"limits\":[");
  std::string_view before;
  for (const LimitUse& use : std::span<const LimitUse>(uses).first(count)) {
    json.add(before);
    add_limit(json, *ctx.charge.tables, use, clocks);
    before = ",";
  }
  json.add("]");
  return true;
}

bool compose_whoami(Text& json, const RequestCtx& ctx, const Identity& identity) noexcept {
  json.add("{\"id\":");
  json.add_json(identity.id);
  add_text_member(json, "name", identity.name);
  add_text_member(json, "owner", identity.owner);
  add_text_member(json, "plan", identity.plan);
  add_text_member(json, "env", identity.env);
  add_scope_array(json, identity.scopes);
  add_time_member(json, "not_before", ctx.known.record.not_before);
  add_time_member(json, "expires", ctx.known.record.expires);
  if (!add_limit_array(json, ctx)) {
    return false;
  }
  json.add(",\"generation\":");
  json.add_number(static_cast<std::int64_t>(ctx.generation));
  json.add("}\n");
  return json.ok();
}

}  // namespace

ngx_int_t on_verify(ngx_http_request_t* r) noexcept {
  RequestCtx* ctx = nullptr;
  const ngx_int_t admitted = admit(r, true, ctx);
  if (admitted != NGX_OK) {
    return admitted;
  }
  if (const ngx_int_t rc = ngx_http_discard_request_body(r); rc != NGX_OK) {
    return rc;
  }
  const Identity* identity = ctx->verdict.outcome == Outcome::ok ? identity_of(r, *ctx) : nullptr;
  if (identity != nullptr && !add_identity_headers(r, *identity)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  r->headers_out.status = loc_conf(r)->verify_status;
  if (r->headers_out.status == NGX_HTTP_OK) {
    r->headers_out.content_length_n = 0;
  }
  r->header_only = 1;
  return ngx_http_send_header(r);
}

ngx_int_t on_whoami(ngx_http_request_t* r) noexcept {
  if ((r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD | NGX_HTTP_OPTIONS)) == 0) {
    return NGX_HTTP_NOT_ALLOWED;
  }
  RequestCtx* ctx = nullptr;
  const ngx_int_t admitted = admit(r, false, ctx);
  if (admitted != NGX_OK) {
    return admitted;
  }
  if (const ngx_int_t rc = ngx_http_discard_request_body(r); rc != NGX_OK) {
    return rc;
  }
  const Identity* identity = ctx->verdict.outcome == Outcome::ok ? identity_of(r, *ctx) : nullptr;
  if (identity == nullptr) {
    // Let in without a key: there is nobody to speak of.
    r->headers_out.status = NGX_HTTP_NO_CONTENT;
    r->header_only = 1;
    return ngx_http_send_header(r);
  }
  Text json(r->pool);
  if (!compose_whoami(json, *ctx, *identity)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  return send_text(r, NGX_HTTP_OK, kJsonType, json.str());
}

}  // namespace apikey::nginx
