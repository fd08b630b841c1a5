// Checking a key's conditions and encoding them for a snapshot (include/apikey/binding.hpp has the layout).
// Called by `key create|set`, `import` and by publishing.
#include "bindings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "apikey/binding.hpp"
#include "data_dir.hpp"
#include "registry/registry.hpp"

namespace keyloader {

std::string tidy_network(const std::string& text) {
  apikey::Network network;
  if (!apikey::parse_network(text, network).ok()) {
    throw UsageError(
        fmt::format("\"{}\" is no address or network; write 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32 (no bits set "
                    "behind the prefix)",
                    text));
  }
  return text;
}

std::string tidy_origin(const std::string& text) {
  std::array<char, 256> buffer{};
  std::string_view origin;
  if (!apikey::normalize_origin(text, buffer, origin).ok()) {
    throw UsageError(fmt::format(
        "\"{}\" is no origin; write https://app.example.com or https://*.example.com, without a path", text));
  }
  return std::string{origin};
}

std::string tidy_method(const std::string& text) {
  if (apikey::method_bit(text) == 0) {
    throw UsageError(fmt::format("\"{}\" is no method nginx knows; write GET, POST … in capitals", text));
  }
  return text;
}

std::string tidy_host(const std::string& text) {
  std::array<char, 256> buffer{};
  std::string_view host;
  if (!apikey::normalize_host(text, buffer, host).ok()) {
    throw UsageError(
        fmt::format("\"{}\" is no host name; write api.example.com or *.example.com, without a port", text));
  }
  return std::string{host};
}

std::string encode_bindings(const Key& key) {
  std::array<std::byte, apikey::kMaxBindingBytes> buffer{};
  std::span<std::byte> rest{buffer};
  for (const std::string& text : key.allow_ip) {
    apikey::Network network;
    check(apikey::parse_network(text, network), text_of(key.id) + " cannot be published");
    rest = apikey::encode_network(network, rest);
  }
  for (const std::string& origin : key.allow_origin) {
    rest = apikey::encode_origin(origin, rest);
  }
  apikey::MethodSet methods = 0;
  for (const std::string& name : key.allow_method) {
    methods |= apikey::method_bit(tidy_method(name));
  }
  if ((methods & apikey::kMethodGet) != 0) {
    methods |= apikey::kMethodHead;
  }
  if (methods != 0) {
    rest = apikey::encode_methods(methods, rest);
  }
  for (const std::string& host : key.allow_host) {
    rest = apikey::encode_host(host, rest);
  }
  if (rest.empty()) {
    throw Failure(
        fmt::format("{} has more conditions than a snapshot can hold ({} bytes); allow networks instead of addresses",
                    text_of(key.id), apikey::kMaxBindingBytes));
  }
  const auto length = static_cast<std::size_t>(rest.data() - buffer.data());
  std::string bytes(length, '\0');
  std::transform(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(length), bytes.begin(),
                 [](std::byte value) { return static_cast<char>(value); });
  return bytes;
}

}  // namespace keyloader
