// What a refusal says in its body. One place decides what a client may learn: by default nothing that tells an unknown
// key from a dead one, nor a stolen key's thief which condition is in the way.
// Called by the header filter. Must never mention the presented key.
#include "ngx_http_apikey_problem.hpp"

#include "ngx_http_apikey_reply.hpp"
#include "ngx_http_apikey_text.hpp"

namespace apikey::nginx {
namespace {

struct Problem {
  std::string_view type;
  std::string_view title;
  std::string_view detail;
};

Problem unauthorized(Outcome outcome, bool is_for_holder) noexcept {
  if (outcome == Outcome::missing) {
    return {"key-required", "Unauthorized", "This request needs an API key."};
  }
  std::string_view detail = "The API key is not valid.";
  if (is_for_holder) {
    switch (outcome) {
      case Outcome::revoked:
        detail = "The API key has been revoked.";
        break;
      case Outcome::suspended:
        detail = "The API key is suspended.";
        break;
      case Outcome::not_yet_valid:
        detail = "The API key is not valid yet.";
        break;
      case Outcome::expired:
        detail = "The API key has expired.";
        break;
      default:
        break;
    }
  }
  return {"key-not-valid", "Unauthorized", detail};
}

Problem forbidden(Outcome outcome, bool is_for_holder) noexcept {
  if (outcome == Outcome::scope) {
    return {"scope-missing", "Forbidden", "The API key lacks a scope that this request needs."};
  }
  std::string_view detail = "The API key may not be used for this request.";
  if (is_for_holder) {
    switch (outcome) {
      case Outcome::wrong_environment:
        detail = "The API key belongs to another environment.";
        break;
      case Outcome::wrong_address:
        detail = "The API key may not be used from this address.";
        break;
      case Outcome::tls_required:
        detail = "The API key may only be used over TLS.";
        break;
      case Outcome::wrong_origin:
        detail = "The API key may not be used from this origin.";
        break;
      case Outcome::wrong_method:
        detail = "The API key may not be used with this method.";
        break;
      case Outcome::wrong_host:
        detail = "The API key may not be used with this host.";
        break;
      default:
        break;
    }
  }
  return {"key-not-allowed-here", "Forbidden", detail};
}

Problem too_many(Outcome outcome) noexcept {
  switch (outcome) {
    case Outcome::throttled:
      return {"throttled", "Too Many Requests", "There were too many failed attempts from this address."};
    case Outcome::quota_exceeded:
      return {"quota-exceeded", "Too Many Requests", "A quota of this API key is used up."};
    case Outcome::concurrency_limited:
      return {"concurrency-limited", "Too Many Requests", "Too many requests of this API key are in flight."};
    default:
      return {"rate-limited", "Too Many Requests", "This API key has sent too many requests."};
  }
}

Problem problem_of(Outcome outcome, bool is_for_holder) noexcept {
  switch (status_of(outcome)) {
    case NGX_HTTP_UNAUTHORIZED:
      return unauthorized(outcome, is_for_holder);
    case NGX_HTTP_FORBIDDEN:
      return forbidden(outcome, is_for_holder);
    case NGX_HTTP_TOO_MANY_REQUESTS:
      return too_many(outcome);
    default:
      return {"unavailable", "Service Unavailable", "API keys cannot be checked at the moment."};
  }
}

// Of a location whose scope lines all name other methods: no scope would help.
std::string_view uncovered_sentence(ngx_pool_t* pool, MethodSet method) noexcept {
  Text text(pool);
  text.add("No API key may use ");
  text.add(method == 0 ? "this method" : method_name(method));
  text.add(" here.");
  return text.ok() ? view(text.str()) : std::string_view();
}

void add_member(Text& text, std::string_view name, std::string_view value) noexcept {
  text.add(",");
  text.add_json(name);
  text.add(":");
  text.add_json(value);
}

void add_scopes(Text& text, std::span<const std::string_view> scopes) noexcept {
  text.add(",\"required_scopes\":[");
  std::string_view before;
  for (const std::string_view scope : scopes) {
    text.add(before);
    text.add_json(scope);
    before = ",";
  }
  text.add("]");
}

}  // namespace

std::string_view request_id(ngx_http_request_t* r) noexcept {
  const ngx_int_t index = main_conf(r)->request_id;
  const ngx_http_variable_value_t* value = ngx_http_get_indexed_variable(r, static_cast<ngx_uint_t>(index));
  return value == nullptr || value->not_found != 0 ? std::string_view()
                                                   : std::string_view(text_of(value->data), value->len);
}

ngx_str_t problem_body(ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  const Verdict& verdict = ctx.verdict;
  const bool is_for_holder = ctx.decided_by->error_detail == static_cast<ngx_uint_t>(ErrorDetail::holder);
  const bool is_uncovered = verdict.outcome == Outcome::scope && verdict.required_scopes.empty();
  const Problem problem =
      is_uncovered ? Problem{"method-not-covered", "Forbidden", uncovered_sentence(r->pool, ctx.facts.method)}
                   : problem_of(verdict.outcome, is_for_holder);
  Text text(r->pool);
  text.add(R"({"type":"urn:apikey:problem:)");
  text.add(problem.type);
  text.add("\"");
  add_member(text, "title", problem.title);
  text.add(",\"status\":");
  text.add_number(status_of(verdict.outcome));
  add_member(text, "detail", problem.detail);
  add_member(text, "instance", request_id(r));
  if (!verdict.required_scopes.empty()) {
    add_scopes(text, verdict.required_scopes);
  }
  if (verdict.has_limit && status_of(verdict.outcome) == NGX_HTTP_TOO_MANY_REQUESTS) {
    add_member(text, "limit", verdict.limit_name);
  }
  text.add("}\n");
  return text.ok() ? text.str() : ngx_str_t{0, nullptr};
}

}  // namespace apikey::nginx
