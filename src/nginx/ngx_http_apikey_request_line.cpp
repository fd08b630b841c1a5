// Copies of request lines, and of other text of a client, without keys.
// Called in the post-read phase, when a key is hidden, and when a request is logged.
#include "ngx_http_apikey_request_line.hpp"

#include <algorithm>
#include <array>

#include "apikey/credential.hpp"
#include "apikey/digest.hpp"
#include "apikey/key_form.hpp"

namespace apikey::nginx {
namespace {

constexpr std::string_view kRedacted = "****";
constexpr std::string_view kLineEnd = "\r\n";
constexpr std::size_t kRedactedSize = kMaxPrefixLength + kMaxEnvLength + 6;

using Buffer = std::array<char, kRedactedSize>;

// What is shown of a secret as it stands in the line.
std::string_view shown_form(std::string_view found, Shown shown, Buffer& out) noexcept {
  if (shown == Shown::nothing) {
    return kRedacted;
  }
  std::array<char, kMaxKeyLength> buffer;
  std::string_view decoded;
  if (!percent_decode(found, buffer, decoded)) {
    decoded = {};
  }
  const std::string_view redacted = redact_key(decoded, out);
  wipe(std::span<char>(buffer));
  return redacted;
}

// Calls `write` with each piece of the cleaned line. RETURNS: how many secrets there were.
template <typename Write>
std::size_t clean(std::string_view line, const LineSecrets& secrets, Shown shown, Write write) noexcept {
  std::size_t count = 0;
  std::size_t at = 0;
  for (std::string_view found; find_secret(line, at, secrets, found); ++count) {
    const auto begin = static_cast<std::size_t>(found.data() - line.data());
    Buffer buffer;
    write(line.substr(at, begin - at));
    write(shown_form(found, shown, buffer));
    at = begin + found.size();
  }
  write(line.substr(at));
  return count;
}

// HTTP/2 and later have no line; nginx makes one as well.
ngx_str_t make_line(ngx_http_request_t* r) noexcept {
  ngx_str_t line{r->method_name.len + 1 + r->unparsed_uri.len + 1 + r->http_protocol.len, nullptr};
  line.data = static_cast<u_char*>(ngx_pnalloc(r->pool, line.len));
  if (line.data == nullptr) {
    return {0, nullptr};
  }
  ngx_sprintf(line.data, "%V %V %V", &r->method_name, &r->unparsed_uri, &r->http_protocol);
  return line;
}

}  // namespace

ngx_str_t sent_request_line(ngx_http_request_t* r) noexcept {
  if (r->http_version >= NGX_HTTP_VERSION_20) {
    return make_line(r);
  }
  if (r->request_start == nullptr) {
    return {0, nullptr};
  }
  const u_char* end = r->request_end;
  if (end == nullptr || end < r->request_start) {
    // It could not be parsed: what nginx shows in its place.
    end = std::find_if(r->request_start, r->header_in->last, [](u_char c) { return c == '\r' || c == '\n'; });
  }
  return {static_cast<std::size_t>(end - r->request_start), r->request_start};
}

bool clean_line(ngx_pool_t* pool, ngx_str_t& line, const LineSecrets& secrets, Shown shown) noexcept {
  std::size_t size = 0;
  if (clean(view(line), secrets, shown, [&](std::string_view piece) { size += piece.size(); }) == 0) {
    return true;
  }
  auto* memory = static_cast<u_char*>(ngx_pnalloc(pool, size + kLineEnd.size()));
  if (memory == nullptr) {
    return false;
  }
  u_char* end = memory;
  clean(view(line), secrets, shown, [&](std::string_view piece) { end = ngx_cpymem(end, piece.data(), piece.size()); });
  ngx_memcpy(end, kLineEnd.data(), kLineEnd.size());
  line = {size, memory};
  return true;
}

bool redact_request_line(ngx_http_request_t* r, const LocConf& conf, std::string_view key,
                         ngx_str_t& redacted) noexcept {
  if (conf.takes_from_line == 0) {
    return true;
  }
  if (redacted.data == nullptr) {
    redacted = sent_request_line(r->main);
  }
  return redacted.data == nullptr || clean_line(r->pool, redacted, {names_in(*conf.argument_names), key}, Shown::form);
}

}  // namespace apikey::nginx
