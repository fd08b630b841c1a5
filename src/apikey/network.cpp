// Addresses and networks: from text, and which holds which.
// Called by keyloader when a network is written down and by the decision for each key that is bound to one.
// Never allocates, never looks a name up.
#include "apikey/network.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace apikey {
namespace {

constexpr std::size_t kIpv4Size = 4;
constexpr std::size_t kIpv6Size = 16;
constexpr std::array<std::uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr const char* kNetworkForm = "a network looks like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7";

std::string_view slice(std::string_view text, std::size_t begin, std::size_t end) noexcept {
  return {text.data() + begin, end - begin};
}

// RETURNS: false when `text` is not an address in the form inet_pton knows.
bool parse_address(std::string_view text, int family, std::span<std::uint8_t> bytes) noexcept {
  std::array<char, INET6_ADDRSTRLEN> terminated{};
  if (text.size() >= terminated.size() || text.find('\0') != std::string_view::npos) {
    return false;
  }
  std::copy(text.begin(), text.end(), terminated.begin());
  return inet_pton(family, terminated.data(), bytes.data()) == 1;
}

bool parse_prefix(std::string_view text, std::uint8_t& number) noexcept {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  return error == std::errc{} && stop == end;
}

// The bits of byte `i` that a prefix of that length covers.
std::uint8_t mask_of(std::size_t i, std::uint8_t prefix) noexcept {
  const std::size_t covered = std::min<std::size_t>(prefix > 8 * i ? prefix - 8 * i : 0, 8);
  return static_cast<std::uint8_t>(0xff00U >> covered);
}

bool has_host_bits(const Network& network) noexcept {
  for (std::size_t i = 0; i < network.address.length; ++i) {
    if ((network.address.bytes[i] & ~mask_of(i, network.prefix)) != 0) {
      return true;
    }
  }
  return false;
}

}  // namespace

Address make_address(std::span<const std::uint8_t> bytes) noexcept {
  Address address;
  if (bytes.size() != kIpv4Size && bytes.size() != kIpv6Size) {
    return address;
  }
  const bool is_mapped =
      bytes.size() == kIpv6Size && std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), bytes.begin());
  const auto used = is_mapped ? bytes.subspan(kMappedPrefix.size()) : bytes;
  std::copy(used.begin(), used.end(), address.bytes.begin());
  address.length = static_cast<std::uint8_t>(used.size());
  return address;
}

Status parse_network(std::string_view text, Network& network) noexcept {
  const std::size_t slash = std::min(text.find('/'), text.size());
  const std::string_view address = slice(text, 0, slash);
  const bool is_ipv6 = address.find(':') != std::string_view::npos;
  std::array<std::uint8_t, kIpv6Size> bytes{};
  const auto used = std::span(bytes).first(is_ipv6 ? kIpv6Size : kIpv4Size);
  if (!parse_address(address, is_ipv6 ? AF_INET6 : AF_INET, used)) {
    return {StatusCode::bad_value, kNetworkForm};
  }
  std::uint8_t prefix = static_cast<std::uint8_t>(8 * used.size());
  if (slash < text.size() && (!parse_prefix(slice(text, slash + 1, text.size()), prefix) || prefix > 8 * used.size())) {
    return {StatusCode::bad_value, kNetworkForm};
  }
  Network found{make_address(used), prefix};
  if (found.address.length < used.size()) {  // IPv4-mapped
    const std::size_t dropped = 8 * kMappedPrefix.size();
    if (prefix < dropped) {
      return {StatusCode::bad_value, "an IPv4-mapped network has a prefix of {0} to 128 bits; write it as IPv4",
              dropped};
    }
    found.prefix = static_cast<std::uint8_t>(prefix - dropped);
  }
  if (has_host_bits(found)) {
    return {StatusCode::bad_value, "the address has bits set behind its prefix of {0} bits", prefix};
  }
  network = found;
  return {};
}

bool contains(const Network& network, const Address& address) noexcept {
  if (address.length == 0 || network.address.length != address.length) {
    return false;
  }
  for (std::size_t i = 0; i < address.length; ++i) {
    if (((network.address.bytes[i] ^ address.bytes[i]) & mask_of(i, network.prefix)) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace apikey
