// The phases: preaccess (extract and hide), access (decide and charge), log (count, unpin); and the request's context,
// which survives internal redirects.
#pragma once

#include "apikey/authenticator.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"
#include "ngx_http_apikey_store.hpp"

namespace apikey::nginx {

// Lives in the main request's pool until its end. ngx_http_internal_redirect() zeroes r->ctx; it is found again by its
// clean-up handler, which also unpins the snapshot and wipes the digests.
struct RequestCtx {
  Credential credential;
  bool is_extracted = false;
  Loaded* pinned = nullptr;
  bool is_pinned = false;  // pinned may be null: there was no snapshot
  StoreConf* pinned_store = nullptr;
  Recognition known;
  Verdict verdict;  // the latest
  bool is_decided = false;
  bool is_authenticated = false;  // identity variables may be shown
  Charge charge;
  ngx_str_t redacted_request{0, nullptr};
  const LocConf* decided_by = nullptr;  // location of the latest verdict
  bool is_counted = false;
};

// The ctx of the main request; null when none was made yet. get makes one (null: no memory).
RequestCtx* find_ctx(ngx_http_request_t* r) noexcept;
RequestCtx* get_ctx(ngx_http_request_t* r) noexcept;

// Rows 2-8 without charging, once per location and request: for variables read before the access phase.
const Verdict* peek(ngx_http_request_t* r) noexcept;

// The whole decision with charging; for the access phase and the content handlers apikey_verify. Extracts when that has
// not been done. RETURNS: null without memory.
const Verdict* decide_request(ngx_http_request_t* r, bool charges) noexcept;

ngx_int_t on_preaccess(ngx_http_request_t* r) noexcept;
ngx_int_t on_access(ngx_http_request_t* r) noexcept;
ngx_int_t on_log(ngx_http_request_t* r) noexcept;

// Registers the three in the order docs/design.md gives.
ngx_int_t install_handlers(ngx_conf_t* cf) noexcept;

}  // namespace apikey::nginx
