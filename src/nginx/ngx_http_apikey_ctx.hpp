// What is remembered of a client request over all its passes: credential, pinned snapshots, verdict, what was taken.
// One per client request. A subrequest in which a content handler of ours decides has one of its own: it shares the
// pinned snapshots and the list of what was taken, and changes nothing else of the client request's.
#pragma once

#include <array>

#include "apikey/authenticator.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_identity.hpp"
#include "ngx_http_apikey_ngx.hpp"
#include "ngx_http_apikey_store.hpp"

namespace apikey::nginx {

struct BodyWatch;    // ngx_http_apikey_cost.cpp
struct HiddenValue;  // ngx_http_apikey_pseudonym.hpp

// A subrequest of a client request that had been let in.
struct StartedSubrequest {
  ngx_http_request_t* request;
  const StartedSubrequest* before;
};

// Lives in the main request's pool until its end. ngx_http_internal_redirect() zeroes r->ctx; it is found again by its
// clean-up handler, which also unpins the snapshots and wipes the digests.
struct RequestCtx {
  Credential credential;
  ngx_http_request_t* request = nullptr;  // the client request, or the subrequest
  RequestCtx* client = nullptr;           // the client request's; of that one itself
  RequestCtx* next_sub = nullptr;   // of the client request: the newest of its subrequests; of those: the one before
  std::uint8_t taker = kMainTaker;  // in the list of what was taken
  const LocConf* extracted_by = nullptr;  // null: not yet
  const LocConf* hidden_by = nullptr;
  bool is_reading = false;  // a variable that is a source may itself ask for the key
  bool is_hiding = false;   // … as may one that is kept before the key is hidden
  HiddenValue* hidden = nullptr;
  ngx_str_t redacted_request{0, nullptr};

  // From its decision on a request sees one generation of a store, however many locations it passes through; what
  // variables showed before may have been of an older one. Requests with a pin are in a
  // list, so that they can be made to let go when a new snapshot has no place.
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
  RequestFacts facts;                 // of the latest, counting or not
  Charge charge;
  Takings takings;                // of the client request and its subrequests; unused in theirs
  std::span<MeasuredCost> costs;  // of the lines of `decided_by`, where something is charged
  bool is_free = false;           // apikey_whoami: nothing is charged
  std::array<std::string_view, kMaxLocationLimits> limit_values{};
  Verdict peeked;  // the latest that does not count
  const LocConf* peeked_by = nullptr;
  const sockaddr* peeked_from = nullptr;  // the client's address then, which realip replaces

  bool is_refused = false;  // the client was told so, or is about to be: nothing decides again
  // What a subrequest of the access phase has decided (auth_request), or, for a location with `apikey off`, the first
  // that has decided at all. It stands for the client request until that decides itself.
  RequestCtx* asked = nullptr;
  const LocConf* asked_in = nullptr;        // where the client request was then
  bool was_asked_before_access = false;     // it was in its access phase
  bool must_heed_question = false;          // and nobody else could let it in
  std::uint8_t last_question = kMainTaker;  // those who took before the client request decided
  const StartedSubrequest* started = nullptr;
  bool is_logged = false;  // the client request has ended
  bool is_counted_as_limited = false;
  bool has_filtered_header = false;
  bool replaces_body = false;
  ngx_str_t body{0, nullptr};
  BodyWatch* watch = nullptr;  // looks for what the answer says it has cost; null: no line asks for it
  bool is_refunded = false;    // `costs` was given back
};

// The ctx of the client request; null when none was made yet. get makes one (null: no memory).
RequestCtx* find_ctx(ngx_http_request_t* r) noexcept;
RequestCtx* get_ctx(ngx_http_request_t* r) noexcept;
// The ctx that a content handler decides in: the client request's, or the subrequest's own. RETURNS: null: no memory.
RequestCtx* get_own_ctx(ngx_http_request_t* r) noexcept;
// The subrequest's own; null when it has none.
RequestCtx* find_sub_ctx(ngx_http_request_t* r) noexcept;

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
// Lets go of the snapshots of a client request before it ends, keeping all that variables show: for answers that take
// long, and where too many old generations are held. A decision after that is made from what is in service then.
void release_snapshots(RequestCtx& client) noexcept;

}  // namespace apikey::nginx
