// Reads one member of a key's meta: a JSON object of strings (RFC 8259).
// Called by the variables $apikey_meta_*. Safe on any bytes; what is not such an object has no members.
#include "ngx_http_apikey_meta.hpp"

#include <algorithm>

namespace apikey::nginx {
namespace {

// The letters of JSON's short escapes, and what they stand for.
constexpr std::string_view kEscapeNames = "\"\\/bfnrt";
constexpr std::string_view kEscapeMeanings = "\"\\/\b\f\n\r\t";

char folded(char c) noexcept {
  if (c >= 'A' && c <= 'Z') {
    return static_cast<char>(c - 'A' + 'a');
  }
  return c == '-' || c == '.' ? '_' : c;
}

void skip_blanks(std::string_view& text) noexcept {
  const std::size_t end = text.find_first_not_of(" \t\r\n");
  text.remove_prefix(end == std::string_view::npos ? text.size() : end);
}

bool cut_char(std::string_view& text, char expected) noexcept {
  skip_blanks(text);
  if (!text.starts_with(expected)) {
    return false;
  }
  text.remove_prefix(1);
  return true;
}

// Cuts `"…"` off the front; `raw` still has its escapes.
bool cut_string(std::string_view& text, std::string_view& raw) noexcept {
  if (!cut_char(text, '"')) {
    return false;
  }
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      raw = text.substr(0, i);
      text.remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

u_char* add_utf8(u_char* out, unsigned code) noexcept {
  if (code < 0x80) {
    *out++ = static_cast<u_char>(code);
    return out;
  }
  if (code < 0x800) {
    *out++ = static_cast<u_char>(0xc0 | (code >> 6));
  } else if (code < 0x10000) {
    *out++ = static_cast<u_char>(0xe0 | (code >> 12));
    *out++ = static_cast<u_char>(0x80 | ((code >> 6) & 0x3f));
  } else {
    *out++ = static_cast<u_char>(0xf0 | (code >> 18));
    *out++ = static_cast<u_char>(0x80 | ((code >> 12) & 0x3f));
    *out++ = static_cast<u_char>(0x80 | ((code >> 6) & 0x3f));
  }
  *out++ = static_cast<u_char>(0x80 | (code & 0x3f));
  return out;
}

// Cuts the four digits of `\uXXXX` off the front.
bool cut_code_unit(std::string_view& text, unsigned& unit) noexcept {
  if (text.size() < 4) {
    return false;
  }
  const ngx_int_t value = ngx_hextoi(to_ngx_str(text).data, 4);
  if (value == NGX_ERROR) {
    return false;
  }
  unit = static_cast<unsigned>(value);
  text.remove_prefix(4);
  return true;
}

// Behind `\u`: a code point, which may be two surrogates.
bool cut_code_point(std::string_view& text, unsigned& code) noexcept {
  if (!cut_code_unit(text, code)) {
    return false;
  }
  const bool is_high = code >= 0xd800 && code < 0xdc00;
  if (!is_high) {
    return code < 0xd800 || code > 0xdfff;
  }
  unsigned low = 0;
  if (!text.starts_with("\\u")) {
    return false;
  }
  text.remove_prefix(2);
  if (!cut_code_unit(text, low) || low < 0xdc00 || low > 0xdfff) {
    return false;
  }
  code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  return true;
}

bool cut_escape(std::string_view& text, u_char*& out) noexcept {
  const char name = text.front();
  text.remove_prefix(1);
  if (name == 'u') {
    unsigned code = 0;
    if (!cut_code_point(text, code)) {
      return false;
    }
    out = add_utf8(out, code);
    return true;
  }
  const std::size_t which = kEscapeNames.find(name);
  if (which == std::string_view::npos) {
    return false;
  }
  *out++ = static_cast<u_char>(kEscapeMeanings[which]);
  return true;
}

bool unescape(ngx_pool_t* pool, std::string_view raw, ngx_str_t& value) noexcept {
  if (raw.find('\\') == std::string_view::npos) {
    value = to_ngx_str(raw);
    return true;
  }
  auto* memory = static_cast<u_char*>(ngx_pnalloc(pool, raw.size()));
  if (memory == nullptr) {
    return false;
  }
  u_char* out = memory;
  while (!raw.empty()) {
    const char c = raw.front();
    raw.remove_prefix(1);
    if (c != '\\') {
      *out++ = static_cast<u_char>(c);
    } else if (raw.empty() || !cut_escape(raw, out)) {
      return false;
    }
  }
  value = {static_cast<std::size_t>(out - memory), memory};
  return true;
}

}  // namespace

bool find_meta(ngx_pool_t* pool, std::string_view meta, std::string_view name, ngx_str_t& value) noexcept {
  const auto is_same = [](char a, char b) noexcept { return folded(a) == folded(b); };
  std::string_view member;
  std::string_view raw;
  if (!cut_char(meta, '{')) {
    return false;
  }
  while (cut_string(meta, member) && cut_char(meta, ':') && cut_string(meta, raw)) {
    if (std::equal(member.begin(), member.end(), name.begin(), name.end(), is_same)) {
      return unescape(pool, raw, value);
    }
    if (!cut_char(meta, ',')) {
      return false;
    }
  }
  return false;
}

}  // namespace apikey::nginx
