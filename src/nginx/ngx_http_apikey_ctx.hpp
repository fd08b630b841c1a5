// What is remembered of a client request over all its passes: credential, pinned snapshots, verdict, what was taken.
// One per main request; subrequests share it.
#pragma once

#include <array>

#include "apikey/authenticator.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_identity.hpp"
#include "ngx_http_apikey_ngx.hpp"
#include "ngx_http_apikey_store.hpp"

namespace apikey::nginx {

struct BodyWatch;  // ngx_http_apikey_cost.cpp

// Lives in the main request's pool until its end. ngx_http_internal_redirect() zeroes r->ctx; it is found again by its
// clean-up handler, which also unpins the snapshots and wipes the digests.
struct RequestCtx {
  Credential credential;
  const LocConf* extracted_by = nullptr;  // null: not yet
  const LocConf* hidden_by = nullptr;
  bool is_reading = false;  // a variable that is a source may itself ask for the key
  ngx_str_t redacted_request{0, nullptr};

  // From its decision on a request sees one generation of a store, however many locations it passes through; what
  // variables showed before may have been of an older one. Requests with a pin are in a
  // list, so that they can be made to let go when a new snapshot has no place.
  ngx_http_request_t* main = nullptr;
  RequestCtx* previous_pinning = nullptr;
  RequestCtx* next_pinning = nullptr;
  std::array<Loaded*, kMaxStores> pins{};
  ngx_uint_t pinned = 0;       // one bit a store; its pin may be null: there was no snapshot
  ngx_uint_t decided = 0;      // one bit a store: its pin is what a decision was made from, and stays
  StoreConf* store = nullptr;  // what `known` and `identity` were found in
  std::uint64_t generation = 0;
  Recognition known;
  Identity identity;

  Verdict verdict;  // the latest that counts
  bool is_decided = false;
  const LocConf* decided_by = nullptr;
  const LocConf* shown_in = nullptr;  // location of the main request when `verdict` was made
  Charge charge;
  std::array<MeasuredCost, kMaxCosts> costs{};
  std::array<std::string_view, kMaxLocationLimits> limit_values{};
  Verdict peeked;  // the latest that does not
  const LocConf* peeked_by = nullptr;
  const sockaddr* peeked_from = nullptr;  // the client's address then, which realip replaces

  bool is_refused = false;  // the main request was told so
  bool is_counted_as_limited = false;
  bool has_filtered_header = false;
  bool replaces_body = false;
  ngx_str_t body{0, nullptr};
  BodyWatch* watch = nullptr;  // looks for what the answer says it has cost; null: no line asks for it
  bool is_refunded = false;    // `costs` was given back
};

// The ctx of the main request; null when none was made yet. get makes one (null: no memory).
RequestCtx* find_ctx(ngx_http_request_t* r) noexcept;
RequestCtx* get_ctx(ngx_http_request_t* r) noexcept;

// To be called before a decision: the first one by a store is made from the newest generation, whatever a variable has
// pinned before.
void renew_pin(RequestCtx& ctx, StoreConf& store) noexcept;

// Pins the store's snapshot, unless this request has one pinned, and makes it what `known` is of.
// RETURNS: null when there is none.
Loaded* enter_store(RequestCtx& ctx, StoreConf& store) noexcept;

// The texts of the recognised key; null when none was recognised.
const Identity* identity_of(ngx_http_request_t* r, RequestCtx& ctx) noexcept;
// The snapshot the latest decision was made from; null: none, or let go.
const Loaded* snapshot_of(const RequestCtx& ctx) noexcept;
// Lets go of the snapshots before the request ends, keeping all that variables show: for answers that take long, and
// where too many old generations are held. A decision after that is made from what is in service then.
void release_snapshots(ngx_http_request_t* r, RequestCtx& ctx) noexcept;

}  // namespace apikey::nginx
