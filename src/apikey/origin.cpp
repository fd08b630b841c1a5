// Origins and host names: normalisation and matching.
// Called by keyloader when one is written down and by the decision for each key that is bound to one.
// Never takes for a name what a URL parser might read in two ways: '@', '\' and blanks are no part of a host.
#include "apikey/origin.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "apikey/network.hpp"

namespace apikey {
namespace {

constexpr std::size_t kMaxHostLength = 253;  // RFC 1035
constexpr std::size_t kMaxLabelLength = 63;
constexpr std::size_t kMaxSchemeLength = 32;
constexpr std::string_view kWildcard = "*.";
constexpr std::string_view kSchemeEnd = "://";
constexpr const char* kOriginForm =
    "an origin looks like https://app.example.com, https://*.example.com or http://localhost:3000";
constexpr const char* kHostForm = "a host looks like api.example.com or *.example.com, without a port";

std::string_view slice(std::string_view text, std::size_t begin, std::size_t end) noexcept {
  return {text.data() + begin, end - begin};
}

char to_lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool is_alpha(char c) noexcept { return c >= 'a' && c <= 'z'; }

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

// 1 to 65535 without a leading zero, as a browser writes it.
bool parse_port(std::string_view text, std::uint16_t& port) noexcept {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, port);
  return error == std::errc{} && stop == end && text.front() != '0';
}

bool is_host_label(std::string_view label) noexcept {
  return !label.empty() && label.size() <= kMaxLabelLength && std::all_of(label.begin(), label.end(), [](char c) {
    return is_alpha(c) || is_digit(c) || c == '-' || c == '_';
  });
}

bool is_host_name(std::string_view host) noexcept {
  if (host.size() > kMaxHostLength) {
    return false;
  }
  while (true) {
    const std::size_t end = std::min(host.find('.'), host.size());
    if (!is_host_label(slice(host, 0, end))) {
      return false;
    }
    if (end == host.size()) {
      return true;
    }
    host.remove_prefix(end + 1);
  }
}

// A name, `*.` and a name, or an IPv6 address in brackets. REQUIRES: lower case.
bool is_host(std::string_view host) noexcept {
  if (host.starts_with('[') && host.ends_with(']')) {
    const std::string_view address = slice(host, 1, host.size() - 1);
    Network network;
    return address.find(':') != std::string_view::npos && address.find('/') == std::string_view::npos &&
           parse_network(address, network).ok();
  }
  if (host.starts_with(kWildcard)) {
    host.remove_prefix(kWildcard.size());
  }
  return is_host_name(host);
}

bool is_scheme(std::string_view scheme) noexcept {
  return !scheme.empty() && scheme.size() <= kMaxSchemeLength && is_alpha(scheme.front()) &&
         std::all_of(scheme.begin(), scheme.end(),
                     [](char c) { return is_alpha(c) || is_digit(c) || c == '+' || c == '-' || c == '.'; });
}

// Where the `:port` of an authority begins; its size when there is none. The colons of an IPv6 address do not count.
std::size_t port_begin(std::string_view authority) noexcept {
  const std::size_t colon = authority.rfind(':');
  const std::size_t bracket = authority.rfind(']');
  if (colon == std::string_view::npos || (bracket != std::string_view::npos && colon < bracket)) {
    return authority.size();
  }
  return colon;
}

bool is_default_port(std::string_view scheme, std::uint16_t port) noexcept {
  return (scheme == "https" && port == 443) || (scheme == "http" && port == 80);
}

// Lower-cases into `out`. RETURNS: false when it does not fit.
bool lower(std::string_view text, std::span<char> out, std::string_view& lowered) noexcept {
  if (text.size() > out.size()) {
    return false;
  }
  std::transform(text.begin(), text.end(), out.begin(), to_lower);
  lowered = {out.data(), text.size()};
  return true;
}

// A wildcard stands right behind the first `before` characters of the pattern.
bool matches(std::string_view pattern, std::string_view text, std::size_t before) noexcept {
  const std::string_view tail = slice(pattern, before, pattern.size());
  if (!tail.starts_with(kWildcard)) {
    return pattern == text;
  }
  const std::string_view head = slice(pattern, 0, before);
  const std::string_view suffix = slice(tail, 1, tail.size());
  return text.size() > head.size() + suffix.size() && text.starts_with(head) && text.ends_with(suffix);
}

}  // namespace

Status normalize_origin(std::string_view text, std::span<char> out, std::string_view& origin) noexcept {
  std::string_view lowered;
  const std::size_t scheme_end = text.find(kSchemeEnd);
  if (text.size() > kMaxOriginLength || scheme_end == std::string_view::npos || !lower(text, out, lowered)) {
    return {StatusCode::bad_value, kOriginForm};
  }
  const std::string_view scheme = slice(lowered, 0, scheme_end);
  const std::string_view authority = slice(lowered, scheme_end + kSchemeEnd.size(), lowered.size());
  const std::size_t colon = port_begin(authority);
  std::uint16_t port = 0;
  const bool has_port = colon < authority.size();
  if (!is_scheme(scheme) || !is_host(slice(authority, 0, colon)) ||
      (has_port && !parse_port(slice(authority, colon + 1, authority.size()), port))) {
    return {StatusCode::bad_value, kOriginForm};
  }
  // Browsers leave the default port out of what they send.
  if (has_port && is_default_port(scheme, port)) {
    lowered.remove_suffix(authority.size() - colon);
  }
  origin = lowered;
  return {};
}

Status normalize_host(std::string_view text, std::span<char> out, std::string_view& host) noexcept {
  std::string_view lowered;
  if (text.size() > kMaxOriginLength || !lower(text, out, lowered) || !is_host(lowered)) {
    return {StatusCode::bad_value, kHostForm};
  }
  host = lowered;
  return {};
}

std::string_view origin_of(std::string_view url) noexcept {
  const std::size_t scheme = url.find(kSchemeEnd);
  if (scheme == std::string_view::npos) {
    return {};
  }
  return slice(url, 0, std::min(url.find_first_of("/?#", scheme + kSchemeEnd.size()), url.size()));
}

bool matches_origin(std::string_view pattern, std::string_view origin) noexcept {
  const std::size_t scheme = pattern.find(kSchemeEnd);
  return scheme != std::string_view::npos && matches(pattern, origin, scheme + kSchemeEnd.size());
}

bool matches_host(std::string_view pattern, std::string_view host) noexcept { return matches(pattern, host, 0); }

}  // namespace apikey
