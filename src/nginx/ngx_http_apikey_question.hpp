// What a forward-auth proxy says, in the request it sends to apikey_verify, of the request that it asks about.
// Called by the decision for every location: for any other request, and in a subrequest, the facts are nginx's own.
// A part that is missing, or not said exactly once, is refused and never guessed.
#pragma once

#include <array>

#include "ngx_http_apikey_request.hpp"

namespace apikey::nginx {

enum class QuestionPart : std::uint8_t { method, uri, host, scheme, address };
inline constexpr std::size_t kQuestionParts = 5;
inline constexpr std::array<std::string_view, kQuestionParts> kQuestionPartNames = {"method", "uri", "host", "scheme",
                                                                                    "address"};

struct QuestionSource {
  ngx_int_t variable = NGX_ERROR;  // its index; NGX_ERROR: not written
  std::string_view header;         // of $http_…: as nginx names it, in lower case and with `_`; else empty
};

// The parameters of an apikey_verify.
struct QuestionConf {
  std::array<QuestionSource, kQuestionParts> sources;
  ngx_array_t* trusted = nullptr;  // Network; null: not written
  bool trusts_unix = false;
  [[nodiscard]] const QuestionSource& of(QuestionPart part) const noexcept {
    return sources[static_cast<std::size_t>(part)];
  }
  [[nodiscard]] bool has(QuestionPart part) const noexcept { return of(part).variable != NGX_ERROR; }
};

// The facts a location decides by. RETURNS: Outcome::ok, or that of row 7 which comes nearest to what is wrong with the
// question; `log`: in a line, too.
[[nodiscard]] Outcome read_facts(ngx_http_request_t* r, const LocConf& conf, RequestFacts& facts, bool log) noexcept;

// The URI that the question is about; empty where there is none. LIFETIME: the variable's.
[[nodiscard]] std::string_view asked_uri(ngx_http_request_t* r, const LocConf& conf) noexcept;
// Redacts keys in the header that holds it. RETURNS: false without memory.
[[nodiscard]] bool redact_asked_uri(ngx_http_request_t* r, const LocConf& conf) noexcept;

}  // namespace apikey::nginx
