// From the text a client sent to the one key it presented: tokens, base64, queries, cookies, and their judgement.
// Called by the adapter in the preaccess phase, before anything else sees the request.
// Never copies a key but into the caller's buffer, never reads past a view.
#include "apikey/credential.hpp"

#include <openssl/crypto.h>

#include <algorithm>
#include <cstring>

namespace apikey {
namespace {

constexpr std::string_view kBlanks = " \t";

std::string_view slice(std::string_view text, std::size_t begin, std::size_t end) noexcept {
  return {text.data() + begin, end - begin};
}

std::string_view trim(std::string_view text) noexcept {
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) {
    return slice(text, 0, 0);
  }
  return slice(text, first, text.find_last_not_of(kBlanks) + 1);
}

char to_lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool is_shared(SourceKind kind) noexcept {
  return kind == SourceKind::scheme || kind == SourceKind::bearer || kind == SourceKind::basic ||
         kind == SourceKind::cookie;
}

bool is_same_secret(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

// A JWT in compact form has two dots (RFC 7519).
bool is_jwt_like(std::string_view value) noexcept { return std::count(value.begin(), value.end(), '.') == 2; }

constexpr unsigned kNoDigit = 64;

unsigned base64_digit(char c) noexcept {
  if (c >= 'A' && c <= 'Z') {
    return static_cast<unsigned>(c - 'A');
  }
  if (c >= 'a' && c <= 'z') {
    return static_cast<unsigned>(c - 'a' + 26);
  }
  if (c >= '0' && c <= '9') {
    return static_cast<unsigned>(c - '0' + 52);
  }
  if (c == '+') {
    return 62;
  }
  return c == '/' ? 63 : kNoDigit;
}

// RFC 4648, the padding may be left out. RETURNS: false for anything else, and when it does not fit.
bool decode_base64(std::string_view text, std::span<char> buffer, std::string_view& decoded) noexcept {
  if (text.size() % 4 == 0) {
    text.remove_suffix(text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0);
  }
  if (text.size() % 4 == 1 || text.size() / 4 * 3 + text.size() % 4 > buffer.size()) {
    return false;
  }
  unsigned pending = 0;
  unsigned bits = 0;
  std::size_t length = 0;
  for (const char c : text) {
    const unsigned digit = base64_digit(c);
    if (digit == kNoDigit) {
      return false;
    }
    pending = (pending << 6 | digit) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      buffer[length++] = static_cast<char>(pending >> bits);
    }
  }
  decoded = {buffer.data(), length};
  return (pending & ((1U << bits) - 1)) == 0;
}

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  const char lower = to_lower(c);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Takes one character off `text`, decoding an escape. RETURNS: false when an escape is broken. REQUIRES: not empty.
bool cut_decoded(std::string_view& text, char& c) noexcept {
  c = text.front();
  if (c != '%') {
    text.remove_prefix(1);
    return true;
  }
  const int high = text.size() > 2 ? hex_digit(text[1]) : -1;
  const int low = text.size() > 2 ? hex_digit(text[2]) : -1;
  if (high < 0 || low < 0) {
    return false;
  }
  c = static_cast<char>(high << 4 | low);
  text.remove_prefix(3);
  return true;
}

bool is_same_decoded(std::string_view encoded, std::string_view name) noexcept {
  for (const char expected : name) {
    char c = 0;
    if (encoded.empty() || !cut_decoded(encoded, c) || to_lower(c) != to_lower(expected)) {
      return false;
    }
  }
  return encoded.empty();
}

// What is looked for between two separators.
struct List {
  char separator;
  std::string_view name_ends;  // one of these ends a member that is not the one looked for
  std::string_view blanks;     // may stand around members
  // RETURNS: whether this member is the one; then `value` is a part of it.
  bool (*take)(std::string_view member, std::string_view name, std::string_view& value) noexcept;
};

bool take_argument(std::string_view member, std::string_view name, std::string_view& value) noexcept {
  const std::size_t equals = std::min(member.find('='), member.size());
  value = slice(member, std::min(equals + 1, member.size()), member.size());
  return is_same_decoded(slice(member, 0, equals), name);
}

bool take_cookie(std::string_view member, std::string_view name, std::string_view& value) noexcept {
  const std::size_t equals = std::min(member.find('='), member.size());
  value = trim(slice(member, std::min(equals + 1, member.size()), member.size()));
  return is_same_ignoring_case(trim(slice(member, 0, equals)), name);
}

bool take_protocol(std::string_view member, std::string_view prefix, std::string_view& value) noexcept {
  const std::string_view protocol = trim(member);
  if (!protocol.starts_with(prefix)) {
    return false;
  }
  value = slice(protocol, prefix.size(), protocol.size());
  return true;
}

constexpr List kQuery = {'&', "&", "", take_argument};
constexpr List kCookies = {';', ";,", kBlanks, take_cookie};
constexpr List kProtocols = {',', ",", kBlanks, take_protocol};

// `rest` keeps the separator in front of the next member, so that a member is cut out together with the one before it;
// only at the very front with the one behind it. So the cuts of several values never overlap.
bool next_in_list(const List& list, std::string_view& rest, std::string_view name, NamedValue& found) noexcept {
  while (!rest.empty()) {
    const bool has_separator_before = list.name_ends.find(rest.front()) != std::string_view::npos;
    const std::size_t begin = has_separator_before ? 1 : 0;
    std::size_t end = std::min(rest.find_first_of(list.name_ends, begin), rest.size());
    if (!list.take(slice(rest, begin, end), name, found.value)) {
      rest.remove_prefix(end);
      continue;
    }
    // Its value may contain what ends another's name.
    end = std::min(rest.find(list.separator, begin), rest.size());
    static_cast<void>(list.take(slice(rest, begin, end), name, found.value));
    std::size_t cut = end;
    if (!has_separator_before && end < rest.size()) {
      cut = std::min(rest.find_first_not_of(list.blanks, end + 1), rest.size());
    }
    found.whole = slice(rest, 0, cut);
    rest.remove_prefix(cut);
    return true;
  }
  return false;
}

}  // namespace

Found judge_credential(SourceKind kind, Format format, std::string_view value) noexcept {
  if (value.empty()) {
    return Found::none;
  }
  KeyParts parts;
  if (format == Format::strict) {
    if (is_shared(kind) && !has_own_form(value)) {
      return Found::foreign;
    }
    return parse_key(value, parts) ? Found::key : Found::malformed;
  }
  if (kind == SourceKind::bearer && is_jwt_like(value)) {
    return Found::foreign;
  }
  if (!is_presentable(value) || (has_own_form(value) && !parse_key(value, parts))) {
    return Found::malformed;
  }
  return Found::key;
}

bool is_same_ignoring_case(std::string_view a, std::string_view b) noexcept {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char left, char right) { return to_lower(left) == to_lower(right); });
}

void Presented::add(Found found, std::string_view value) noexcept {
  if (found == Found::none || found == Found::foreign || found_ == Found::malformed) {
    return;
  }
  if (found == Found::key && found_ == Found::none) {
    found_ = Found::key;
    key_ = value;
    return;
  }
  if (found != Found::key || !is_same_secret(value, key_)) {
    found_ = Found::malformed;
    key_ = {};
  }
}

std::string_view scheme_token(std::string_view authorization, std::string_view scheme) noexcept {
  if (authorization.size() <= scheme.size() || authorization[scheme.size()] != ' ' ||
      !is_same_ignoring_case(slice(authorization, 0, scheme.size()), scheme)) {
    return {};
  }
  return trim(slice(authorization, scheme.size() + 1, authorization.size()));
}

Judged judge_basic(Format format, std::string_view token, std::span<char> buffer) noexcept {
  std::string_view pair;
  if (!decode_base64(token, buffer, pair)) {
    return {};
  }
  const std::size_t colon = pair.find(':');
  if (colon == std::string_view::npos) {
    return {};
  }
  const std::string_view user = slice(pair, 0, colon);
  const std::string_view password = slice(pair, colon + 1, pair.size());
  const bool is_user_ours = has_own_form(user);
  const bool is_password_ours = has_own_form(password);
  if (is_user_ours && is_password_ours && !is_same_secret(user, password)) {
    return {Found::malformed, user};
  }
  const std::string_view value = user.empty() || (!is_user_ours && is_password_ours) ? password : user;
  return {judge_credential(SourceKind::basic, format, value), value};
}

bool next_in_query(std::string_view& rest, std::string_view name, NamedValue& found) noexcept {
  return next_in_list(kQuery, rest, name, found);
}

bool next_in_cookie(std::string_view& rest, std::string_view name, NamedValue& found) noexcept {
  return next_in_list(kCookies, rest, name, found);
}

bool next_in_protocols(std::string_view& rest, std::string_view prefix, NamedValue& found) noexcept {
  return next_in_list(kProtocols, rest, prefix, found);
}

bool percent_decode(std::string_view text, std::span<char> buffer, std::string_view& decoded) noexcept {
  if (text.find('%') == std::string_view::npos) {
    decoded = text;
    return true;
  }
  std::size_t length = 0;
  while (!text.empty()) {
    char c = 0;
    if (length == buffer.size() || !cut_decoded(text, c)) {
      return false;
    }
    buffer[length++] = c;
  }
  decoded = {buffer.data(), length};
  return true;
}

}  // namespace apikey
