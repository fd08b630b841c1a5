// Looks through all header lines and the query for the key itself.
// Called once its sources are hidden. The path stays as it is, because it says what is asked for; where it is logged
// with the request line, it is clean.
#include "ngx_http_apikey_stray_copies.hpp"

#include <algorithm>

#include "apikey/credential.hpp"
#include "apikey/digest.hpp"
#include "apikey/line_secrets.hpp"
#include "ngx_http_apikey_header_list.hpp"
#include "ngx_http_apikey_own_memory.hpp"
#include "ngx_http_apikey_query.hpp"
#include "ngx_http_apikey_request_line.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kShortestWithin = 16;
constexpr std::string_view kScheme = "ApiKey ";

class Copies {
 public:
  Copies(ngx_http_request_t* r, std::string_view key) noexcept
      : r_(r), key_(key), pseudonym_(pseudonym_of(r, key)), text_(pseudonym_text(pseudonym_)) {}

  // Replaces the copies in `part`, which is a part of `text`. RETURNS: false without memory.
  bool replace(ngx_str_t& text, std::string_view part) const noexcept {
    std::string_view found;
    if (part.size() < key_.size() || !find(part, 0, found)) {
      return true;
    }
    const std::string_view old = view(text);
    std::size_t size = old.size() + 1;
    for (std::size_t at = 0; find(part, at, found); at = end_in(part, found)) {
      size += text_.size();
    }
    auto* const memory = static_cast<u_char*>(ngx_pnalloc(r_->pool, size));
    if (memory == nullptr) {
      return false;
    }
    u_char* end = memory;
    const char* copied = old.data();
    for (std::size_t at = 0; find(part, at, found); at = end_in(part, found)) {
      end = ngx_cpymem(end, copied, found.data() - copied);
      end = ngx_cpymem(end, text_.data(), text_.size());
      copied = found.data() + found.size();
    }
    end = ngx_cpymem(end, copied, old.data() + old.size() - copied);
    *end = '\0';
    text = {static_cast<std::size_t>(end - memory), memory};
    return true;
  }

  void overwrite_in(std::string_view part) const noexcept {
    std::string_view found;
    for (std::size_t at = 0; find(part, at, found); at = end_in(part, found)) {
      overwrite(r_, found, pseudonym_);
    }
  }

  // `Authorization: Basic`, where a copy does not look like one. RETURNS: false without memory.
  bool replace_basic(ngx_table_elt_t& line) const noexcept {
    if (!has_in_basic(view(line.value))) {
      return true;
    }
    ngx_str_t value{kScheme.size() + text_.size(), nullptr};
    value.data = static_cast<u_char*>(ngx_pnalloc(r_->pool, value.len + 1));
    if (value.data == nullptr) {
      return false;
    }
    u_char* end = ngx_cpymem(value.data, kScheme.data(), kScheme.size());
    *ngx_cpymem(end, text_.data(), text_.size()) = '\0';
    overwrite(r_, view(line.value), pseudonym_);
    line.value = value;
    return true;
  }

 private:
  static std::size_t end_in(std::string_view part, std::string_view found) noexcept {
    return static_cast<std::size_t>(found.data() + found.size() - part.data());
  }

  bool find(std::string_view part, std::size_t at, std::string_view& found) const noexcept {
    if (key_.size() < kShortestWithin) {
      found = part;
      return at == 0 && part == key_;
    }
    if (part.find('%', at) != std::string_view::npos) {
      return find_copy(part, at, key_, found);
    }
    const std::size_t begin = part.find(key_, at);
    found = begin == std::string_view::npos ? std::string_view() : part.substr(begin, key_.size());
    return begin != std::string_view::npos;
  }

  [[nodiscard]] bool has_in_basic(std::string_view value) const noexcept {
    constexpr std::string_view basic = "basic ";
    if (value.size() <= basic.size() ||
        ngx_strncasecmp(to_ngx_str(value).data, to_ngx_str(basic).data, basic.size()) != 0) {
      return false;
    }
    std::array<char, kBasicBufferSize> buffer;
    ngx_str_t token = to_ngx_str(value.substr(basic.size()));
    if (ngx_base64_decoded_length(token.len) > buffer.size()) {
      return false;
    }
    ngx_str_t decoded = to_ngx_str({buffer.data(), buffer.size()});
    const bool has_key =
        ngx_decode_base64(&decoded, &token) == NGX_OK && view(decoded).find(key_) != std::string_view::npos;
    wipe(std::span<char>(buffer));
    return has_key;
  }

  ngx_http_request_t* r_;
  std::string_view key_;
  Pseudonym pseudonym_;
  PseudonymText text_;
};

bool clean_header(const Copies& copies, ngx_table_elt_t& line) noexcept {
  const ngx_str_t old = line.value;
  if (!copies.replace(line.value, view(old))) {
    return false;
  }
  if (line.value.data != old.data) {
    copies.overwrite_in(view(old));
    return true;
  }
  return std::string_view(text_of(line.lowcase_key), line.key.len) != "authorization" || copies.replace_basic(line);
}

bool clean_request(const Copies& copies, ngx_http_request_t* r, std::string_view key) noexcept {
  const ngx_str_t args = r->args;
  const ngx_str_t uri = r->unparsed_uri;
  if (!copies.replace(r->args, view(args)) || !copies.replace(r->unparsed_uri, query_of_uri(view(uri))) ||
      !clean_line(r->pool, r->request_line, {{}, key}, Shown::nothing)) {
    return false;
  }
  // They may be views of one buffer: nothing is overwritten before all are replaced.
  copies.overwrite_in(view(args));
  copies.overwrite_in(query_of_uri(view(uri)));
  return true;
}

}  // namespace

PresentedKey::~PresentedKey() { wipe(std::span(bytes_).first(size_)); }

void PresentedKey::keep(std::string_view key) noexcept {
  size_ = key.size();
  std::copy(key.begin(), key.end(), bytes_.begin());
}

bool hide_copies(ngx_http_request_t* r, std::string_view key) noexcept {
  const Copies copies(r, key);
  HeaderLines lines(r->main, {});
  while (ngx_table_elt_t* line = lines.next()) {
    if (line->value.len >= key.size() && !clean_header(copies, *line)) {
      return false;
    }
  }
  for (ngx_http_request_t* each = r;; each = each->parent) {
    if (!clean_request(copies, each, key)) {
      return false;
    }
    if (each == each->main || each->parent == nullptr) {
      return true;
    }
  }
}

}  // namespace apikey::nginx
