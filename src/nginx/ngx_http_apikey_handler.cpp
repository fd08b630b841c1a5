// The three phases. The decision itself is _decision's, how it is answered _reply's.
// Called by nginx, once per pass through the phases: an internal redirect is another pass of the same request.
// Must never let a request pass because something of ours failed.
#include "ngx_http_apikey_handler.hpp"

#include <algorithm>

#include "ngx_http_apikey_cost.hpp"
#include "ngx_http_apikey_early_end.hpp"
#include "ngx_http_apikey_reply.hpp"
#include "ngx_http_apikey_strip.hpp"
#include "ngx_http_apikey_usage.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

CredentialForm form_of(const Credential& credential) noexcept {
  if (credential.found == Found::none) {
    return CredentialForm::none;
  }
  return credential.has_own_form ? CredentialForm::own : CredentialForm::foreign;
}

void count(ngx_http_request_t* r, RequestCtx& ctx, Outcome outcome, bool is_dry_run) noexcept {
  std::string_view env;
  if (ctx.known.has_record) {
    env = ctx.known.env;
  }
  count_request(*main_conf(r), outcome, is_dry_run, env, form_of(ctx.credential));
}

// RETURNS: false without memory.
bool note_subrequest(ngx_http_request_t* r) noexcept {
  RequestCtx* client = find_ctx(r);
  if (client == nullptr || (!client->is_decided && client->asked == nullptr)) {
    return true;
  }
  auto* started = static_cast<StartedSubrequest*>(ngx_palloc(r->pool, sizeof(StartedSubrequest)));
  if (started == nullptr) {
    return false;
  }
  client->started = ::new (started) StartedSubrequest{r, client->started};
  return true;
}

ngx_http_handler_pt* push_handler(ngx_http_core_main_conf_t& core, ngx_uint_t phase) noexcept {
  return static_cast<ngx_http_handler_pt*>(ngx_array_push(&core.phases[phase].handlers));
}

// Moves the handlers of a phase up by one, over the last of them. RETURNS: the first place.
ngx_http_handler_pt* make_room_in_front(ngx_http_core_main_conf_t& core, ngx_uint_t phase,
                                        ngx_http_handler_pt* last) noexcept {
  auto* first = static_cast<ngx_http_handler_pt*>(core.phases[phase].handlers.elts);
  std::move_backward(first, last, last + 1);
  return first;
}

}  // namespace

ngx_int_t on_preaccess(ngx_http_request_t* r) noexcept {
  if (r != r->main) {
    return note_subrequest(r) ? NGX_DECLINED : NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  const LocConf& conf = *loc_conf(r);
  if (!conf.is_on) {
    return NGX_DECLINED;
  }
  RequestCtx* ctx = get_ctx(r);
  if (ctx == nullptr || !extract(r, conf, *ctx) || (meters_body(conf) && !ask_for_whole(r))) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  return NGX_DECLINED;
}

ngx_int_t on_access(ngx_http_request_t* r) noexcept {
  const LocConf& conf = *loc_conf(r);
  if (!conf.is_on || conf.is_content) {
    return NGX_DECLINED;
  }
  RequestCtx* ctx = get_ctx(r);
  if (ctx == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (RequestCtx* question = refused_question(r)) {
    return repeat(r, *question);
  }
  if (ctx->is_refused) {
    return repeat(r, *ctx);
  }
  if (decide_request(r, true) == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  return reply(r, *ctx);
}

ngx_int_t on_log(ngx_http_request_t* r) noexcept {
  RequestCtx* ctx = r == r->main ? find_ctx(r) : nullptr;
  if (r == r->main) {
    hide_at_end(r, on_preaccess);
  }
  if (ctx == nullptr) {
    return NGX_OK;
  }
  ctx->is_logged = true;
  settle(r, *ctx);
  if (RequestCtx* deciding = deciding_ctx(r)) {
    count(r, *deciding, deciding->verdict.outcome, deciding->verdict.is_dry_run);
    count_usage(r, *deciding);
  } else if (current_outcome(r) == Outcome::skipped) {
    count(r, *ctx, Outcome::skipped, false);
  }
  return NGX_OK;
}

ngx_int_t install_handlers(ngx_conf_t* cf) noexcept {
  auto& core = *static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  ngx_http_handler_pt* preaccess = push_handler(core, NGX_HTTP_PREACCESS_PHASE);
  ngx_http_handler_pt* access = push_handler(core, NGX_HTTP_ACCESS_PHASE);
  ngx_http_handler_pt* log = push_handler(core, NGX_HTTP_LOG_PHASE);
  if (preaccess == nullptr || access == nullptr || log == nullptr) {
    return NGX_ERROR;
  }
  // nginx runs the handlers of a phase backwards. The last of preaccess runs first: the key is hidden before limit_req,
  // auth_request or a mirror can see it. The first of access runs last: what others refuse is charged nothing. The log
  // phase alone runs forwards: a request is settled and counted before its line is in the access log.
  *preaccess = on_preaccess;
  *make_room_in_front(core, NGX_HTTP_ACCESS_PHASE, access) = on_access;
  *make_room_in_front(core, NGX_HTTP_LOG_PHASE, log) = on_log;
  const auto* main = static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_apikey_module));
  if (!main->cleans_lines) {
    return NGX_OK;
  }
  ngx_http_handler_pt* post_read = push_handler(core, NGX_HTTP_POST_READ_PHASE);
  if (post_read == nullptr) {
    return NGX_ERROR;
  }
  *post_read = on_post_read;
  return NGX_OK;
}

}  // namespace apikey::nginx
