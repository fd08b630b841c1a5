// The variables $apikey_*: each is computed anew when it is read, so that a later pass shows the later verdict.
// Called by nginx in any phase; before the access phase the first read extracts the key and decides without charging.
// Must never show anything the client wrote, except for the redacted request line.
#include "ngx_http_apikey_vars.hpp"

#include "ngx_http_apikey_decision.hpp"
#include "ngx_http_apikey_meta.hpp"
#include "ngx_http_apikey_reply.hpp"
#include "ngx_http_apikey_request_line.hpp"
#include "ngx_http_apikey_text.hpp"

namespace apikey::nginx {
namespace {

enum class Field : uintptr_t {
  status,
  generation,
  request,
  required,
  location,
  limit,
  limit_name,
  remaining,
  reset,
  id,
  name,
  owner,
  plan,
  env,
  scopes,
  expires,
  seen_id,
  seen_owner,
  seen_env,
};

struct Variable {
  std::string_view name;
  Field field;
};
constexpr Variable kVariables[] = {
    {"apikey_status", Field::status},
    {"apikey_generation", Field::generation},
    {"apikey_request", Field::request},
    {"apikey_required", Field::required},
    {"apikey_location", Field::location},
    {"apikey_limit", Field::limit},
    {"apikey_limit_name", Field::limit_name},
    {"apikey_remaining", Field::remaining},
    {"apikey_reset", Field::reset},
    {"apikey_id", Field::id},
    {"apikey_name", Field::name},
    {"apikey_owner", Field::owner},
    {"apikey_plan", Field::plan},
    {"apikey_env", Field::env},
    {"apikey_scopes", Field::scopes},
    {"apikey_expires", Field::expires},
    {"apikey_seen_id", Field::seen_id},
    {"apikey_seen_owner", Field::seen_owner},
    {"apikey_seen_env", Field::seen_env},
};
constexpr std::string_view kMetaPrefix = "apikey_meta_";

// Without a value a variable is empty, not "not found": nginx would show `-` and try an argument of the same name.
ngx_int_t show(ngx_http_variable_value_t* v, std::string_view text) noexcept {
  const ngx_str_t str = to_ngx_str(text);
  v->data = str.data;
  v->len = static_cast<unsigned>(str.len) & 0x0fffffff;
  v->valid = 1;
  v->no_cacheable = 0;
  v->not_found = 0;
  return NGX_OK;
}

ngx_int_t show_safe(ngx_http_request_t* r, ngx_http_variable_value_t* v, std::string_view text) noexcept {
  const ngx_str_t safe = header_safe(r->pool, text);
  return safe.len == text.size() ? show(v, view(safe)) : NGX_ERROR;
}

// For what lives in a snapshot, which the request may leave before nginx uses the value.
ngx_int_t show_copy(ngx_http_request_t* r, ngx_http_variable_value_t* v, std::string_view text) noexcept {
  const ngx_str_t copy = copy_to_pool(r->pool, text);
  return copy.len == text.size() ? show_safe(r, v, view(copy)) : NGX_ERROR;
}

ngx_int_t show_number(ngx_http_request_t* r, ngx_http_variable_value_t* v, std::int64_t number) noexcept {
  const ngx_str_t text = number_text(r->pool, number);
  return text.len == 0 ? NGX_ERROR : show(v, view(text));
}

ngx_int_t show_scopes(ngx_http_request_t* r, ngx_http_variable_value_t* v,
                      std::span<const std::string_view> scopes) noexcept {
  Text text(r->pool);
  for (const std::string_view scope : scopes) {
    text.add(text.str().len == 0 ? "" : " ");
    text.add(scope);
  }
  return text.ok() ? show(v, view(text.str())) : NGX_ERROR;
}

ngx_int_t show_limit(ngx_http_request_t* r, ngx_http_variable_value_t* v, Field field,
                     const Verdict& verdict) noexcept {
  if (!verdict.has_limit) {
    return show(v, {});
  }
  switch (field) {
    case Field::limit:
      return show_number(r, v, static_cast<std::int64_t>(verdict.limit_size));
    case Field::remaining:
      return show_number(r, v, static_cast<std::int64_t>(verdict.remaining));
    case Field::reset:
      return show_number(r, v, whole_seconds(verdict.reset_ns));
    default:
      return show_copy(r, v, verdict.limit_name);
  }
}

// Also of a request that was refused.
bool is_seen(Field field) noexcept {
  return field == Field::seen_id || field == Field::seen_owner || field == Field::seen_env;
}

ngx_int_t show_identity(ngx_http_request_t* r, ngx_http_variable_value_t* v, Field field, const RequestCtx& ctx,
                        const Identity& identity) noexcept {
  switch (field) {
    case Field::id:
    case Field::seen_id:
      return show(v, identity.id);
    case Field::owner:
    case Field::seen_owner:
      return show_safe(r, v, identity.owner);
    case Field::name:
      return show_safe(r, v, identity.name);
    case Field::plan:
      return show_safe(r, v, identity.plan);
    case Field::env:
    case Field::seen_env:
      return show_safe(r, v, identity.env);
    case Field::scopes:
      return show_safe(r, v, identity.scopes);
    case Field::expires:
      return ctx.known.record.expires.value == 0 ? show(v, {}) : show_number(r, v, ctx.known.record.expires.value);
    default:
      return show(v, {});
  }
}

// Also where a limit or a scope in dry run would have refused it.
bool is_authenticated(const Verdict& verdict, const Recognition& known) noexcept {
  return verdict.outcome == Outcome::ok || (verdict.is_dry_run && known.is_done && known.outcome == Outcome::ok);
}

// The key of this request, when its verdict is `ok` (or, for logs, whatever the verdict is). Null: show nothing.
const Identity* shown_identity(ngx_http_request_t* r, bool whatever_the_verdict, RequestCtx*& ctx) noexcept {
  const Verdict* verdict = current_verdict(r, ctx);
  if (ctx == nullptr || (!whatever_the_verdict && (verdict == nullptr || !is_authenticated(*verdict, ctx->known)))) {
    return nullptr;
  }
  return identity_of(r, *ctx);
}

ngx_int_t show_request(ngx_http_request_t* r, ngx_http_variable_value_t* v) noexcept {
  const LocConf& conf = *loc_conf(r);
  RequestCtx* ctx = conf.is_on ? get_own_ctx(r) : find_ctx(r);
  if (conf.is_on && (ctx == nullptr || (!ctx->client->is_reading && !extract(r, conf, *ctx)))) {
    return NGX_ERROR;
  }
  if (ctx != nullptr && ctx->client->redacted_request.data != nullptr) {
    return show(v, view(ctx->client->redacted_request));
  }
  ngx_str_t line = r->main->request_line;
  return clean_line(r->pool, line, {names_in(srv_conf(r)->argument_names), {}}, Shown::form) ? show(v, view(line))
                                                                                             : NGX_ERROR;
}

ngx_int_t show_generation(ngx_http_request_t* r, ngx_http_variable_value_t* v) noexcept {
  RequestCtx* ctx = nullptr;
  current_verdict(r, ctx);
  return ctx == nullptr || ctx->generation == 0 ? show(v, {})
                                                : show_number(r, v, static_cast<std::int64_t>(ctx->generation));
}

// Which location's lines decided; after error_page or auth_request it is not the one the request is in.
ngx_int_t show_location(ngx_http_request_t* r, ngx_http_variable_value_t* v) noexcept {
  const RequestCtx* ctx = deciding_ctx(r);
  const LocConf* conf = ctx != nullptr ? ctx->decided_by : loc_conf(r);
  return conf->is_on ? show(v, view(conf->location_name)) : show(v, {});
}

ngx_int_t get_verdict_variable(ngx_http_request_t* r, ngx_http_variable_value_t* v, uintptr_t data) noexcept {
  const auto field = static_cast<Field>(data);
  if (field == Field::status) {
    return show(v, current_status(r));
  }
  if (field == Field::request) {
    return show_request(r, v);
  }
  if (field == Field::generation) {
    return show_generation(r, v);
  }
  if (field == Field::location) {
    return show_location(r, v);
  }
  RequestCtx* ctx = nullptr;
  const Verdict* verdict = current_verdict(r, ctx);
  if (verdict == nullptr) {
    return show(v, {});
  }
  return field == Field::required ? show_scopes(r, v, verdict->required_scopes) : show_limit(r, v, field, *verdict);
}

ngx_int_t get_identity_variable(ngx_http_request_t* r, ngx_http_variable_value_t* v, uintptr_t data) noexcept {
  const auto field = static_cast<Field>(data);
  RequestCtx* ctx = nullptr;
  const Identity* identity = shown_identity(r, is_seen(field), ctx);
  return identity == nullptr ? show(v, {}) : show_identity(r, v, field, *ctx, *identity);
}

// `data` is the whole name, in lower case.
ngx_int_t get_meta_variable(ngx_http_request_t* r, ngx_http_variable_value_t* v, uintptr_t data) noexcept {
  const std::string_view name = view(*name_of_variable(data)).substr(kMetaPrefix.size());
  RequestCtx* ctx = nullptr;
  const Identity* identity = shown_identity(r, false, ctx);
  ngx_str_t value{0, nullptr};
  if (identity == nullptr || !find_meta(r->pool, identity->meta, name, value)) {
    return show(v, {});
  }
  return show_safe(r, v, view(value));
}

bool add_variable(ngx_conf_t* cf, std::string_view name, ngx_uint_t flags, ngx_http_get_variable_pt handler,
                  uintptr_t data) noexcept {
  ngx_str_t text = to_ngx_str(name);
  ngx_http_variable_t* variable = ngx_http_add_variable(cf, &text, NGX_HTTP_VAR_NOCACHEABLE | flags);
  if (variable == nullptr) {
    return false;
  }
  variable->get_handler = handler;
  variable->data = data;
  return true;
}

}  // namespace

ngx_int_t add_variables(ngx_conf_t* cf) noexcept {
  for (const Variable& each : kVariables) {
    const bool is_identity = each.field >= Field::id;
    if (!add_variable(cf, each.name, 0, is_identity ? get_identity_variable : get_verdict_variable,
                      static_cast<uintptr_t>(each.field))) {
      return NGX_ERROR;
    }
  }
  return add_variable(cf, kMetaPrefix, NGX_HTTP_VAR_PREFIX, get_meta_variable, 0) ? NGX_OK : NGX_ERROR;
}

}  // namespace apikey::nginx
