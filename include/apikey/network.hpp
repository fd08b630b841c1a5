// Internet addresses and the networks that hold them, as far as a key's conditions need them.
// Called by the adapter (address of a request), by keyloader (what people write) and by binding.
// Never looks a name up.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/status.hpp"

namespace apikey {

// 4 bytes in network order for IPv4 (length 4), 16 for IPv6; an IPv4-mapped IPv6 address is taken as IPv4.
struct Address {
  std::array<std::uint8_t, 16> bytes{};
  std::uint8_t length = 0;  // 0: not an internet address (unix socket): matches no network
};
[[nodiscard]] Address make_address(std::span<const std::uint8_t> bytes) noexcept;

struct Network {
  Address address;
  std::uint8_t prefix = 0;
};
// "10.0.0.0/8", "2001:db8::/32", "192.0.2.7". RETURNS: bad_value also when host bits are set.
Status parse_network(std::string_view text, Network& network) noexcept;
[[nodiscard]] bool contains(const Network& network, const Address& address) noexcept;

}  // namespace apikey
