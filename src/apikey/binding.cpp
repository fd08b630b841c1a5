// Conditions of a key: methods by name, the encoded list, and whether a request meets it.
// Called by keyloader when conditions are written down, and by the decision for each key that has some.
// Never takes a list that it does not understand to the last byte for one that holds.
#include "apikey/binding.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "apikey/little_endian.hpp"

namespace apikey {
namespace {

enum Kind : std::uint8_t { kNetwork4 = 1, kNetwork6 = 2, kOrigin = 3, kMethods = 4, kHost = 5 };

constexpr std::size_t kEntryHeaderSize = 2;
constexpr std::size_t kMaxValueSize = 255;
constexpr std::size_t kIpv4Size = 4;
constexpr std::size_t kIpv6Size = 16;

struct MethodName {
  std::string_view name;
  MethodSet bit;
};
constexpr MethodName kMethodNames[] = {
    {"GET", kMethodGet},         {"HEAD", kMethodHead},         {"POST", kMethodPost},
    {"PUT", kMethodPut},         {"DELETE", kMethodDelete},     {"PATCH", kMethodPatch},
    {"OPTIONS", kMethodOptions}, {"MKCOL", kMethodMkcol},       {"COPY", kMethodCopy},
    {"MOVE", kMethodMove},       {"PROPFIND", kMethodPropfind}, {"PROPPATCH", kMethodProppatch},
    {"LOCK", kMethodLock},       {"UNLOCK", kMethodUnlock},     {"TRACE", kMethodTrace},
};

// Where the request says it comes from, in the form the list has; empty when it says nothing usable.
std::string_view presented_origin(const RequestFacts& facts, std::span<char> buffer) noexcept {
  const std::string_view text = facts.origin.empty() ? origin_of(facts.referer) : facts.origin;
  std::string_view origin;
  // A pattern is no origin: only a list may hold one.
  if (text.find('*') != std::string_view::npos || !normalize_origin(text, buffer, origin).ok()) {
    return {};
  }
  return origin;
}

Network network_of(std::span<const std::byte> value) noexcept {
  Network network;
  network.prefix = load_le<std::uint8_t>(value, 0);
  network.address.length = static_cast<std::uint8_t>(value.size() - 1);
  std::memcpy(network.address.bytes.data(), value.data() + 1, value.size() - 1);
  return network;
}

std::string_view text_of(std::span<const std::byte> value) noexcept {
  return {static_cast<const char*>(static_cast<const void*>(value.data())), value.size()};
}

bool is_whole(const Binding& binding) noexcept {
  const std::size_t n = binding.value.size();
  switch (binding.kind) {
    case kNetwork4:
      return n == 1 + kIpv4Size && load_le<std::uint8_t>(binding.value, 0) <= 8 * kIpv4Size;
    case kNetwork6:
      return n == 1 + kIpv6Size && load_le<std::uint8_t>(binding.value, 0) <= 8 * kIpv6Size;
    case kOrigin:
    case kHost:
      return n > 0;
    case kMethods:
      return n == sizeof(MethodSet);
    default:
      return false;
  }
}

std::span<std::byte> encode(std::uint8_t kind, std::span<const std::byte> value, std::span<std::byte> out) noexcept {
  const std::size_t size = kEntryHeaderSize + value.size();
  if (value.size() > kMaxValueSize || size >= out.size()) {
    return {};
  }
  store_le(out, 0, kind);
  store_le(out, 1, static_cast<std::uint8_t>(value.size()));
  std::copy(value.begin(), value.end(), out.begin() + kEntryHeaderSize);
  return out.subspan(size);
}

// One of the four conditions: there is one as soon as it has an entry, and it holds when one of them matches.
struct Condition {
  bool is_there = false;
  bool holds = false;

  void add(bool is_match) noexcept {
    is_there = true;
    holds = holds || is_match;
  }
  [[nodiscard]] bool fails() const noexcept { return is_there && !holds; }
};

}  // namespace

MethodSet method_bit(std::string_view name) noexcept {
  for (const auto& method : kMethodNames) {
    if (method.name == name) {
      return method.bit;
    }
  }
  return 0;
}

std::string_view method_name(MethodSet bit) noexcept {
  for (const auto& method : kMethodNames) {
    if (method.bit == bit) {
      return method.name;
    }
  }
  return {};
}

Status parse_methods(std::string_view text, MethodSet& set) noexcept {
  MethodSet found = 0;
  while (true) {
    const std::size_t end = std::min(text.find(','), text.size());
    const MethodSet bit = method_bit({text.data(), end});
    if (bit == 0) {
      return {StatusCode::bad_value, "methods are names nginx knows, in capitals, separated by commas: GET,POST"};
    }
    found |= bit == kMethodGet ? kMethodGet | kMethodHead : bit;
    if (end == text.size()) {
      set = found;
      return {};
    }
    text.remove_prefix(end + 1);
  }
}

std::span<std::byte> encode_network(const Network& network, std::span<std::byte> out) noexcept {
  std::array<std::byte, 1 + kIpv6Size> value{};
  store_le(value, 0, network.prefix);
  std::memcpy(value.data() + 1, network.address.bytes.data(), network.address.length);
  const std::uint8_t kind = network.address.length == kIpv4Size ? kNetwork4 : kNetwork6;
  return encode(kind, std::span(value).first(1 + std::size_t{network.address.length}), out);
}

std::span<std::byte> encode_origin(std::string_view origin, std::span<std::byte> out) noexcept {
  return encode(kOrigin, std::as_bytes(std::span(origin)), out);
}

std::span<std::byte> encode_methods(MethodSet methods, std::span<std::byte> out) noexcept {
  std::array<std::byte, sizeof methods> value;
  store_le(value, 0, methods);
  return encode(kMethods, value, out);
}

std::span<std::byte> encode_host(std::string_view host, std::span<std::byte> out) noexcept {
  return encode(kHost, std::as_bytes(std::span(host)), out);
}

bool next_binding(std::span<const std::byte>& rest, Binding& binding) noexcept {
  if (rest.size() < kEntryHeaderSize) {
    return false;
  }
  const std::size_t length = load_le<std::uint8_t>(rest, 1);
  if (length > rest.size() - kEntryHeaderSize) {
    return false;
  }
  const Binding found{load_le<std::uint8_t>(rest, 0), rest.subspan(kEntryHeaderSize, length)};
  if (!is_whole(found)) {
    return false;
  }
  binding = found;
  rest = rest.subspan(kEntryHeaderSize + length);
  return true;
}

Outcome check_bindings(std::span<const std::byte> list, const RequestFacts& facts) noexcept {
  if (list.empty()) {
    return Outcome::ok;
  }
  std::array<char, kMaxOriginLength> buffer;
  const std::string_view request_origin = presented_origin(facts, buffer);
  Condition address;
  Condition origin;
  Condition method;
  Condition host;
  Binding binding;
  while (next_binding(list, binding)) {
    switch (binding.kind) {
      case kOrigin:
        origin.add(matches_origin(text_of(binding.value), request_origin));
        break;
      case kMethods:
        method.add((load_le<MethodSet>(binding.value, 0) & facts.method) != 0);
        break;
      case kHost:
        host.add(matches_host(text_of(binding.value), facts.host));
        break;
      default:
        address.add(facts.has_address && contains(network_of(binding.value), facts.address));
        break;
    }
  }
  if (!list.empty()) {
    return Outcome::unavailable;
  }
  if (address.fails()) {
    return Outcome::wrong_address;
  }
  if (origin.fails()) {
    return Outcome::wrong_origin;
  }
  if (method.fails()) {
    return Outcome::wrong_method;
  }
  return host.fails() ? Outcome::wrong_host : Outcome::ok;
}

}  // namespace apikey
