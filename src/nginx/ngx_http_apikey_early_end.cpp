// What is logged of a request that our preaccess handler never saw.
// Called before nginx or anybody else logs anything of the request that comes after its head was read, and again before
// the access log is written. What nginx logs while it reads the head is out of reach.
#include "ngx_http_apikey_early_end.hpp"

#include "ngx_http_apikey_ctx.hpp"
#include "ngx_http_apikey_decision.hpp"
#include "ngx_http_apikey_hide.hpp"
#include "ngx_http_apikey_request.hpp"
#include "ngx_http_apikey_request_line.hpp"
#include "ngx_http_apikey_stray_copies.hpp"

namespace apikey::nginx {
namespace {

// Is that handler still to come, in this pass through the phases?
bool is_ahead(const ngx_http_request_t* r, ngx_http_handler_pt handler) noexcept {
  const auto* core = static_cast<ngx_http_core_main_conf_t*>(r->main_conf[ngx_http_core_module.ctx_index]);
  for (const auto* phase = core->phase_engine.handlers + r->phase_handler; phase->checker != nullptr; ++phase) {
    if (phase->handler == handler) {
      return true;
    }
  }
  return false;
}

// An error page is a pass of its own; what it shows an error of may have ended early.
bool is_error_page(const ngx_http_request_t* r) noexcept { return r->internal != 0 && r->err_status != 0; }

bool clean_request_line(ngx_http_request_t* r) noexcept {
  if (r->request_line.data == nullptr) {
    r->request_line = sent_request_line(r);
  }
  return clean_line(r->pool, r->request_line, {names_in(srv_conf(r)->argument_names), {}}, Shown::nothing);
}

// Where the URI holds a key of our form in its path, it is shown without.
bool clean_path(ngx_http_request_t* r) noexcept {
  const LineSecrets secrets{names_in(srv_conf(r)->argument_names), {}};
  return clean_line(r->pool, r->unparsed_uri, secrets, Shown::nothing) &&
         clean_line(r->pool, r->uri, secrets, Shown::nothing) && clean_line(r->pool, r->args, secrets, Shown::nothing);
}

// Whatever the port's sources hold, and copies of the key that is found first.
void hide_all(ngx_http_request_t* r, RequestCtx& ctx, const SrvConf& server) noexcept {
  const auto all = elements<LocConf*>(server.hidden);
  PresentedKey key;
  for (const LocConf* each : all) {
    if (key.text().empty()) {
      read_key_again(r, *each, key);
    }
  }
  for (const LocConf* each : all) {
    static_cast<void>(hide_credential(r, ctx, *each));
  }
  if (!key.text().empty()) {
    static_cast<void>(hide_copies(r, key.text()));
  }
}

}  // namespace

ngx_int_t on_post_read(ngx_http_request_t* r) noexcept {
  if (!srv_conf(r)->takes_from_line) {
    return NGX_DECLINED;
  }
  return clean_request_line(r) ? NGX_DECLINED : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

void hide_at_end(ngx_http_request_t* r, ngx_http_handler_pt preaccess) noexcept {
  const SrvConf& server = *srv_conf(r);
  if (server.hidden.nelts == 0) {
    return;
  }
  const LocConf& here = *loc_conf(r);
  const bool is_left_alone = here.is_on && !here.hides;
  RequestCtx* ctx = find_ctx(r);
  const bool is_hidden = ctx != nullptr && ctx->hidden_by != nullptr;
  const bool is_early = !is_hidden && !is_left_alone && (is_ahead(r, preaccess) || is_error_page(r));
  if (is_early) {
    ctx = get_ctx(r);
    if (ctx == nullptr) {
      return;
    }
    if (here.is_on) {
      static_cast<void>(extract(r, here, *ctx));
    }
    hide_all(r, *ctx, server);
  }
  if ((is_early && server.takes_from_line) || (is_hidden && server.takes_from_path)) {
    static_cast<void>(clean_request_line(r) && clean_path(r));
  }
}

}  // namespace apikey::nginx
