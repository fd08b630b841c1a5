// How a verdict becomes an answer: status, challenge, Retry-After, and one log line.
// Called by the access handler and the content handlers. What it says of a missing, malformed, unknown or dead key is
// the same for all of them, so that nobody can probe keys; the reason goes into the log, never the key.
#include "ngx_http_apikey_reply.hpp"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "apikey/plain_text.hpp"
#include "ngx_http_apikey_decision.hpp"
#include "ngx_http_apikey_problem.hpp"
#include "ngx_http_apikey_request.hpp"
#include "ngx_http_apikey_text.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr std::int64_t kRetryUnavailable = 5;  // seconds: a snapshot is adopted within one
constexpr std::int64_t kRetryNever = 86400;    // what can never be admitted may as well be tried tomorrow
constexpr std::size_t kLongestOwnerInLog = 128;
constexpr std::size_t kScopesInLog = 8;  // nginx cuts a line off at 2048 bytes

void append_challenge(ngx_http_request_t* r, ngx_table_elt_t* line) noexcept {
#if (nginx_version < 1023000)
  r->headers_out.www_authenticate = line;
#else
  ngx_table_elt_t** last = &r->headers_out.www_authenticate;
  while (*last != nullptr) {
    last = &(*last)->next;
  }
  *last = line;
#endif
}

// One line for both schemes; it is linked into headers_out so that `satisfy any` can withdraw it.
bool add_challenge(ngx_http_request_t* r, std::string_view value) noexcept {
  const ngx_table_elt_t* other = r->headers_out.www_authenticate;
  if (other != nullptr && view(other->value) == value) {
    return true;  // auth_request has brought ours along from apikey_verify
  }
  ngx_table_elt_t* line = add_header(r, "WWW-Authenticate", to_ngx_str(value));
  if (line == nullptr) {
    return false;
  }
  append_challenge(r, line);
  return true;
}

bool challenge_unauthorized(ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  const LocConf& conf = *ctx.decided_by;
  if (ctx.verdict.outcome == Outcome::missing || !conf.accepts_bearer) {
    return add_challenge(r, view(conf.challenge));
  }
  Text text(r->pool);
  text.add(view(conf.challenge));
  text.add(", error=\"invalid_token\"");
  return text.ok() && add_challenge(r, view(text.str()));
}

// RFC 6750, 3.1.
bool challenge_scope(ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  Text text(r->pool);
  text.add(view(ctx.decided_by->challenge));
  text.add(", error=\"insufficient_scope\"");
  std::string_view before = ", scope=\"";
  for (const std::string_view scope : ctx.verdict.required_scopes) {
    text.add(before);
    text.add(scope);
    before = " ";
  }
  text.add(ctx.verdict.required_scopes.empty() ? "" : "\"");
  return text.ok() && add_challenge(r, view(text.str()));
}

bool add_retry_after(ngx_http_request_t* r, std::int64_t seconds) noexcept {
  const ngx_str_t value = number_text(r->pool, std::max<std::int64_t>(seconds, 1));
  return value.len > 0 && add_header(r, "Retry-After", value) != nullptr;
}

bool add_refusal_headers(ngx_http_request_t* r, const RequestCtx& ctx, ngx_int_t status) noexcept {
  if (add_header(r, "Cache-Control", to_ngx_str("no-store")) == nullptr) {
    return false;
  }
  if (status == NGX_HTTP_UNAUTHORIZED) {
    return challenge_unauthorized(r, ctx);
  }
  if (status == NGX_HTTP_FORBIDDEN) {
    return ctx.verdict.outcome != Outcome::scope || challenge_scope(r, ctx);
  }
  const bool is_limited = status == NGX_HTTP_TOO_MANY_REQUESTS;
  if (is_limited && ctx.verdict.retry_after_ns == UINT64_MAX) {
    return add_retry_after(r, kRetryNever);
  }
  return add_retry_after(r, is_limited ? whole_seconds(ctx.verdict.retry_after_ns) : kRetryUnavailable);
}

// A name for a log line: cut between two characters, what is not plain as escapes, quotes replaced.
class LoggedName {
 public:
  explicit LoggedName(std::string_view name) noexcept {
    while (!name.empty()) {
      std::array<char, kMaxShownCharacter> buffer;
      const Character character = next_character(name);
      const std::string_view piece = character.code == '"' ? "?" : shown(character, buffer);
      if (piece.size() > text_.size() - size_) {
        return;
      }
      std::copy(piece.begin(), piece.end(), text_.begin() + static_cast<std::ptrdiff_t>(size_));
      size_ += piece.size();
    }
  }
  [[nodiscard]] ngx_str_t str() const noexcept { return to_ngx_str({text_.data(), size_}); }

 private:
  std::array<char, kLongestOwnerInLog> text_{};
  std::size_t size_ = 0;
};

// ", request_id 4f…": what a client was shown as `instance`.
void add_request_id(Text& text, ngx_http_request_t* r) noexcept {
  text.add(", request_id ");
  text.add(request_id(r));
}

void write_log(ngx_http_request_t* r, ngx_uint_t level, const Text& text) noexcept {
  if (text.ok()) {
    const ngx_str_t line = text.str();
    ngx_log_error(level, r->connection->log, 0, "apikey: %V", &line);
  }
}

void log_unavailable(ngx_http_request_t* r, std::initializer_list<std::string_view> words) noexcept {
  Text text(r->pool);
  text.add("unavailable: ");
  for (const std::string_view word : words) {
    text.add(word);
  }
  add_request_id(text, r);
  write_log(r, NGX_LOG_ERR, text);
}

// A store that is down would write a line per request: one a second of each cause says as much. Those that
// on_error=allow lets pass are told of too.
void log_unavailable(ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  static std::array<time_t, 3> logged_at{};
  if (ctx.verdict.is_zone_full) {
    if (logged_at[2] != ngx_time()) {
      logged_at[2] = ngx_time();
      log_unavailable(r, {"no room for another quota or request in flight, make apikey_zone larger"});
    }
    return;
  }
  const bool is_damaged = snapshot_of(ctx) != nullptr;
  time_t& last = logged_at[is_damaged ? 1 : 0];
  if (last == ngx_time()) {
    return;
  }
  last = ngx_time();
  const std::string_view path = view(ctx.decided_by->store->path);
  if (is_damaged) {
    log_unavailable(r, {"a record of store \"", path, "\" contradicts itself, publish the snapshot again"});
    return;
  }
  const std::string_view which = ctx.decided_by->store->denies_when_stale ? " that is younger than max_age" : "";
  log_unavailable(r, {"store \"", path, "\" has no snapshot to decide by", which});
}

// A guesser would fill the log: one line per address and minute.
void log_throttled(ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  if (!takes_notice(limit_tables(*main_conf(r)), ctx.facts.address, {monotonic_ns()})) {
    return;
  }
  Text text(r->pool);
  text.add("throttled: too many failed attempts from ");
  text.add(view(r->connection->addr_text));
  text.add(", they are answered 429 for now (said once a minute per address)");
  add_request_id(text, r);
  write_log(r, NGX_LOG_WARN, text);
}

// " (needs orders:read or orders:write)"; any one of them is enough.
void add_needed_scopes(Text& text, const RequestCtx& ctx) noexcept {
  const auto scopes = ctx.verdict.required_scopes;
  if (scopes.empty()) {
    text.add(" (no apikey_scope covers ");
    text.add(ctx.facts.method == 0 ? "this method" : method_name(ctx.facts.method));
    text.add(")");
    return;
  }
  std::string_view before = " (needs ";
  for (const std::string_view scope : scopes.first(std::min(scopes.size(), kScopesInLog))) {
    text.add(before);
    text.add(scope);
    before = " or ";
  }
  text.add(scopes.size() > kScopesInLog ? " or others)" : ")");
}

void log_refusal(ngx_http_request_t* r, RequestCtx& ctx) noexcept {
  const LocConf& conf = *ctx.decided_by;
  if (r->connection->log->log_level < conf.log_level) {
    return;
  }
  const bool is_dry_run = ctx.verdict.is_dry_run;
  Text text(r->pool);
  text.add(is_dry_run ? "let pass: " : "refused: ");
  text.add(is_dry_run ? dry_run_name(ctx.verdict.outcome) : outcome_name(ctx.verdict.outcome));
  if (ctx.verdict.outcome == Outcome::scope) {
    add_needed_scopes(text, ctx);
  }
  if (const Identity* identity = identity_of(r, ctx)) {
    text.add(", key ");
    text.add(identity->id);
    text.add(", owner \"");
    text.add(view(LoggedName(identity->owner).str()));
    text.add("\"");
  }
  // Also without a key: a limit of the location counts the address then.
  if (ctx.verdict.has_limit) {
    text.add(", limit \"");
    text.add(view(LoggedName(ctx.verdict.limit_name).str()));
    text.add("\"");
  }
  text.add(", location \"");
  text.add(view(conf.location_name));
  text.add("\"");
  add_request_id(text, r);
  write_log(r, conf.log_level, text);
}

}  // namespace

ngx_int_t status_of(Outcome outcome) noexcept {
  switch (outcome) {
    case Outcome::ok:
    case Outcome::preflight:
    case Outcome::bypass:
      return NGX_OK;
    case Outcome::off:
    case Outcome::skipped:
    case Outcome::anonymous:
      return NGX_DECLINED;
    case Outcome::missing:
    case Outcome::malformed:
    case Outcome::unknown:
    case Outcome::revoked:
    case Outcome::suspended:
    case Outcome::not_yet_valid:
    case Outcome::expired:
      return NGX_HTTP_UNAUTHORIZED;
    case Outcome::wrong_environment:
    case Outcome::wrong_address:
    case Outcome::tls_required:
    case Outcome::wrong_origin:
    case Outcome::wrong_method:
    case Outcome::wrong_host:
    case Outcome::scope:
      return NGX_HTTP_FORBIDDEN;
    case Outcome::throttled:
    case Outcome::rate_limited:
    case Outcome::quota_exceeded:
    case Outcome::concurrency_limited:
      return NGX_HTTP_TOO_MANY_REQUESTS;
    case Outcome::unavailable:
      break;
  }
  return NGX_HTTP_SERVICE_UNAVAILABLE;
}

std::int64_t whole_seconds(std::uint64_t ns) noexcept {
  return static_cast<std::int64_t>(ns / kNsPerSecond + (ns % kNsPerSecond == 0 ? 0 : 1));
}

ngx_table_elt_t* add_header(ngx_http_request_t* r, std::string_view name, ngx_str_t value) noexcept {
  auto* line = static_cast<ngx_table_elt_t*>(ngx_list_push(&r->headers_out.headers));
  if (line == nullptr) {
    return nullptr;
  }
  line->hash = 1;
#if (nginx_version >= 1023000)
  line->next = nullptr;
#endif
  line->key = to_ngx_str(name);
  line->value = value;
  line->lowcase_key = nullptr;
  return line;
}

ngx_int_t reply(ngx_http_request_t* r, RequestCtx& ctx) noexcept {
  if (ctx.verdict.is_dry_run) {
    log_refusal(r, ctx);
    // Without a key that is good nothing has been decided for `satisfy any`.
    return ctx.known.outcome == Outcome::ok ? NGX_OK : NGX_DECLINED;
  }
  const ngx_int_t status = status_of(ctx.verdict.outcome);
  if (ctx.verdict.outcome == Outcome::bypass) {
    log_unavailable(r, ctx);
  }
  if (status == NGX_OK || status == NGX_DECLINED) {
    return status;
  }
  ctx.is_refused = true;
  if (!add_refusal_headers(r, ctx, status)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (status == NGX_HTTP_SERVICE_UNAVAILABLE) {
    log_unavailable(r, ctx);
  } else if (ctx.verdict.outcome == Outcome::throttled) {
    log_throttled(r, ctx);
  } else {
    log_refusal(r, ctx);
  }
  return status;
}

ngx_int_t repeat(ngx_http_request_t* r, RequestCtx& ctx) noexcept {
  ctx.shown_in = loc_conf(r->main);
  return status_of(ctx.verdict.outcome);
}

ngx_int_t send_text(ngx_http_request_t* r, ngx_uint_t status, std::string_view type, ngx_str_t body) noexcept {
  r->headers_out.status = status;
  r->headers_out.content_length_n = static_cast<off_t>(body.len);
  r->headers_out.content_type = to_ngx_str(type);
  r->headers_out.content_type_len = type.size();
  r->headers_out.content_type_lowcase = nullptr;
  if (add_header(r, "Cache-Control", to_ngx_str("no-store")) == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  const ngx_int_t rc = ngx_http_send_header(r);
  if (rc == NGX_ERROR || rc > NGX_OK || r->header_only != 0) {
    return rc;
  }
  auto* buffer = static_cast<ngx_buf_t*>(ngx_calloc_buf(r->pool));
  if (buffer == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  buffer->pos = body.data;
  buffer->last = body.data + body.len;
  buffer->memory = 1;
  buffer->last_buf = r == r->main ? 1 : 0;
  buffer->last_in_chain = 1;
  ngx_chain_t out{buffer, nullptr};
  return ngx_http_output_filter(r, &out);
}

}  // namespace apikey::nginx
