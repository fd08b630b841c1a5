// What nginx knows of a request, in the core's terms: the credential it carries, and the facts that bindings are
// checked against. Called in the preaccess phase, or by the first variable that needs the key. Reads only: hiding is in
// _hide.
#pragma once

#include <span>

#include "apikey/authenticator.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"
#include "ngx_http_apikey_stray_copies.hpp"

namespace apikey::nginx {

inline std::span<const Source> sources_of(const LocConf& conf) noexcept {
  return {static_cast<const Source*>(conf.sources->elts), conf.sources->nelts};
}

// Reads every configured source of the main request and computes the digests; `key` keeps what was presented.
void read_credential(ngx_http_request_t* r, const LocConf& conf, const MainConf& main, Credential& credential,
                     PresentedKey& key) noexcept;
// For a key that was read where it is not hidden.
void read_key_again(ngx_http_request_t* r, const LocConf& conf, PresentedKey& key) noexcept;

// LIFETIME: the request's.
[[nodiscard]] RequestFacts request_facts(ngx_http_request_t* r) noexcept;
[[nodiscard]] bool is_cors_preflight(ngx_http_request_t* r, const RequestFacts& facts) noexcept;

// First header of that (lower-case) name in the request; null when there is none.
ngx_table_elt_t* find_header(ngx_http_request_t* r, std::string_view name) noexcept;

// Judges what an Authorization line holds for this source: scheme, bearer or basic. LIFETIME: the line's, or the
// buffer's.
[[nodiscard]] Judged judge_authorization(const Source& source, Format format, const ngx_table_elt_t& line,
                                         std::span<char> buffer) noexcept;

// The iterator over the values of a source whose line others share: cookie or protocol.
using NextInLine = bool (*)(std::string_view& rest, std::string_view name, NamedValue& found) noexcept;
struct SharedLine {
  std::string_view header;
  NextInLine next;
  std::string_view separators;  // and blanks: what need not stand at the end of a line
};
[[nodiscard]] SharedLine shared_line(SourceKind kind) noexcept;

}  // namespace apikey::nginx
