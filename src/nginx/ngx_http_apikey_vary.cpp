// Vary against hidden headers. nginx computes the variant of an answer from the headers that are left, so the answer
// for one key would be that for every key. Called before nginx stores an answer. A header that has something else left
// than a key of ours still tells its clients apart; a Cookie does not, since two clients may have the same other
// cookies.
#include "ngx_http_apikey_vary.hpp"

#include <algorithm>

#include "ngx_http_apikey_ctx.hpp"
#include "ngx_http_apikey_header_list.hpp"
#include "ngx_http_apikey_request.hpp"

namespace apikey::nginx {
namespace {

#if (NGX_HTTP_CACHE)

bool is_same_header(std::string_view a, std::string_view b, bool is_any_dash) noexcept {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [is_any_dash](char x, char y) {
    const bool are_dashes = (x == '-' || x == '_') && (y == '-' || y == '_');
    return ngx_tolower(x) == ngx_tolower(y) || (is_any_dash && are_dashes);
  });
}

bool is_hidden_in(const Source& source, std::string_view header) noexcept {
  switch (source.kind) {
    case SourceKind::header:
      return is_same_header(header, view(source.name), source.is_any_dash);
    case SourceKind::scheme:
    case SourceKind::bearer:
    case SourceKind::basic:
      return is_same_header(header, "authorization", false);
    case SourceKind::cookie:
      return is_same_header(header, "cookie", false);
    case SourceKind::protocol:
      return is_same_header(header, "sec-websocket-protocol", false);
    case SourceKind::query:
      return false;
    case SourceKind::variable:
      return source.place != nullptr && is_hidden_in(*source.place, header);
  }
  return false;
}

bool is_still_there(ngx_http_request_t* r, std::string_view header) noexcept {
  HeaderLines lines(r, {});
  const ngx_table_elt_t* line = lines.next();
  while (line != nullptr && !is_same_header(header, {text_of(line->lowcase_key), line->key.len}, false)) {
    line = lines.next();
  }
  return line != nullptr;
}

bool no_longer_tells_apart(ngx_http_request_t* r, const LocConf& conf, std::string_view header) noexcept {
  const auto all = sources_of(conf);
  return std::any_of(all.begin(), all.end(), [header](const Source& source) { return is_hidden_in(source, header); }) &&
         (is_same_header(header, "cookie", false) || !is_still_there(r, header));
}

#endif

}  // namespace

void forbid_storing(ngx_http_request_t* r) noexcept {
#if (NGX_HTTP_CACHE)
  if (r->upstream == nullptr || r->upstream->cacheable == 0 || r->cache == nullptr || r->cache->vary.len == 0) {
    return;
  }
  const RequestCtx* ctx = find_ctx(r);
  if (ctx == nullptr || ctx->hidden_by == nullptr) {
    return;
  }
  constexpr std::string_view separators = ", \t";
  std::string_view rest = view(r->cache->vary);
  while (!rest.empty()) {
    const std::size_t begin = std::min(rest.find_first_not_of(separators), rest.size());
    const std::size_t end = std::min(rest.find_first_of(separators, begin), rest.size());
    if (no_longer_tells_apart(r, *ctx->hidden_by, rest.substr(begin, end - begin))) {
      r->upstream->cacheable = 0;
      return;
    }
    rest.remove_prefix(end);
  }
#else
  static_cast<void>(r);
#endif
}

}  // namespace apikey::nginx
