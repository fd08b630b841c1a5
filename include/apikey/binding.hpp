// Conditions of a key beside its scopes: client address, Origin/Referer, method, host. (TLS is a record flag.)
// A binding list as it stands in a row of `strings`, entry behind entry:
//   0 1 kind · 1 1 length n · 2 n value
//   kind 1 allowed IPv4 network: 1 byte prefix length, 4 bytes address     (n = 5)
//   kind 2 allowed IPv6 network: 1 byte prefix length, 16 bytes address    (n = 17)
//   kind 3 allowed origin: lower-case text `https://app.example.com`, `https://*.example.com`, `http://localhost:3000`
//   kind 4 allowed methods: 4 bytes little-endian, a set of MethodBit      (n = 4)
//   kind 5 allowed host: lower-case text `api.example.com` or `*.example.com`
// Kinds 1 and 2 together, and each of 3, 4, 5, are one condition: it holds when one of its entries matches, and
// there is no such condition when it has no entry. All conditions must hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/network.hpp"
#include "apikey/origin.hpp"
#include "apikey/status.hpp"
#include "apikey/verdict.hpp"

namespace apikey {

inline constexpr std::size_t kMaxBindingBytes = 4096;

using MethodSet = std::uint32_t;
enum MethodBit : MethodSet {
  kMethodGet = 1U << 0,
  kMethodHead = 1U << 1,
  kMethodPost = 1U << 2,
  kMethodPut = 1U << 3,
  kMethodDelete = 1U << 4,
  kMethodPatch = 1U << 5,
  kMethodOptions = 1U << 6,
  kMethodMkcol = 1U << 7,
  kMethodCopy = 1U << 8,
  kMethodMove = 1U << 9,
  kMethodPropfind = 1U << 10,
  kMethodProppatch = 1U << 11,
  kMethodLock = 1U << 12,
  kMethodUnlock = 1U << 13,
  kMethodTrace = 1U << 14,
};

// "GET" → kMethodGet, 0 for a name not in the list. Case-sensitive, as methods are.
[[nodiscard]] MethodSet method_bit(std::string_view name) noexcept;
// The way back. REQUIRES: one bit of the list.
[[nodiscard]] std::string_view method_name(MethodSet bit) noexcept;
// "GET,POST" → set; GET includes HEAD. RETURNS: bad_value naming nothing (the caller has the text).
Status parse_methods(std::string_view text, MethodSet& set) noexcept;

// Encoders append one entry and return what is left of `out`, which is never nothing: an empty result means that the
// entry did not fit. So a buffer has one byte more than the longest list it is for.
std::span<std::byte> encode_network(const Network& network, std::span<std::byte> out) noexcept;
std::span<std::byte> encode_origin(std::string_view origin, std::span<std::byte> out) noexcept;
std::span<std::byte> encode_methods(MethodSet methods, std::span<std::byte> out) noexcept;
std::span<std::byte> encode_host(std::string_view host, std::span<std::byte> out) noexcept;

// What nginx knows of the request. Views live as long as the request.
struct RequestFacts {
  Address address;
  bool is_tls = false;
  MethodSet method = 0;      // one bit; 0 for a method without one
  bool has_method = true;    // false: nobody has said what the method is; what depends on it is refused
  bool has_address = true;   // false: `address` is of who asks, not of the client
  std::string_view origin;   // Origin header, empty when absent
  std::string_view referer;  // used for the origin condition when there is no Origin header
  std::string_view host;     // host of the request, lower-case, without port
};

// RETURNS: Outcome::ok, or the first of wrong_address, wrong_origin, wrong_method, wrong_host that does not hold;
// unavailable when the bytes are damaged. An empty list holds always.
[[nodiscard]] Outcome check_bindings(std::span<const std::byte> list, const RequestFacts& facts) noexcept;

// Walks a list for display. RETURNS: false at the end or on damage.
struct Binding {
  std::uint8_t kind = 0;
  std::span<const std::byte> value;
};
[[nodiscard]] bool next_binding(std::span<const std::byte>& rest, Binding& binding) noexcept;

}  // namespace apikey
