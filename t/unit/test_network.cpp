// network.cpp: what people write, which address lies where, IPv4 in IPv6's clothes.
#include "apikey/network.hpp"

#include <arpa/inet.h>

#include <string>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::Address;
using apikey::contains;
using apikey::make_address;
using apikey::Network;
using apikey::parse_network;

namespace {

Address address(const char* text) {
  std::array<std::uint8_t, 16> bytes{};
  const bool is_ipv6 = std::string_view(text).find(':') != std::string_view::npos;
  assert_int_equal(inet_pton(is_ipv6 ? AF_INET6 : AF_INET, text, bytes.data()), 1);
  return make_address(std::span(bytes).first(is_ipv6 ? 16 : 4));
}

Network network(std::string_view text) {
  Network network;
  assert_true(parse_network(text, network).ok());
  return network;
}

bool holds(std::string_view net, const char* host) { return contains(network(net), address(host)); }

void networks_hold_their_addresses(void**) {
  assert_true(holds("10.0.0.0/8", "10.0.0.0"));
  assert_true(holds("10.0.0.0/8", "10.255.255.255"));
  assert_false(holds("10.0.0.0/8", "11.0.0.0"));
  assert_true(holds("192.0.2.7", "192.0.2.7"));
  assert_false(holds("192.0.2.7", "192.0.2.6"));
  assert_true(holds("192.0.2.4/30", "192.0.2.7"));
  assert_false(holds("192.0.2.4/30", "192.0.2.8"));
  assert_true(holds("0.0.0.0/0", "203.0.113.9"));
  assert_true(holds("2001:db8::/32", "2001:db8:ffff::1"));
  assert_false(holds("2001:db8::/32", "2001:db9::1"));
  assert_true(holds("2001:db8::/33", "2001:db8:7fff::"));
  assert_false(holds("2001:db8::/33", "2001:db8:8000::"));
  assert_true(holds("::1", "::1"));
  assert_true(holds("::/0", "2001:db8::1"));
}

void families_do_not_mix_except_where_mapped(void**) {
  assert_false(holds("0.0.0.0/0", "::1"));
  assert_false(holds("::/0", "203.0.113.9"));
  assert_true(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
  assert_false(holds("::/0", "::ffff:10.1.2.3"));
  const Network mapped = network("::ffff:10.0.0.0/104");
  assert_int_equal(mapped.prefix, 8);
  assert_int_equal(mapped.address.length, 4);
  assert_true(contains(mapped, address("10.9.9.9")));
  assert_int_equal(network("::ffff:192.0.2.7").prefix, 32);
}

void every_prefix_at_its_edge(void**) {
  for (unsigned prefix = 1; prefix <= 128; ++prefix) {
    Network net;
    net.address.length = 16;
    net.prefix = static_cast<std::uint8_t>(prefix);
    Address inside;
    inside.length = 16;
    Address outside = inside;
    outside.bytes[(prefix - 1) / 8] = static_cast<std::uint8_t>(0x80 >> ((prefix - 1) % 8));
    for (unsigned bit = prefix; bit < 128; ++bit) {
      inside.bytes[bit / 8] |= static_cast<std::uint8_t>(0x80 >> (bit % 8));
    }
    assert_true(contains(net, inside));
    assert_false(contains(net, outside));
  }
}

void other_texts_are_refused(void**) {
  Network net;
  for (const std::string_view bad : {"",
                                     "/8",
                                     "10.0.0.0/",
                                     "10.0.0.0/33",
                                     "10.0.0.0/-1",
                                     "10.0.0.0/8 ",
                                     " 10.0.0.0/8",
                                     "10.0.0.0/8/8",
                                     "10/8",
                                     "10.0.0/8",
                                     "256.0.0.0/8",
                                     "10.0.0.0/256",
                                     "10.0.0.0/8x",
                                     "2001:db8::/129",
                                     "2001:db8",
                                     "fe80::1%eth0",
                                     "localhost",
                                     "::ffff:0:0/90",
                                     "[::1]",
                                     "1.2.3.4.5"}) {
    assert_false(parse_network(bad, net).ok());
  }
  assert_false(parse_network(std::string_view("10.0.0.0\0x", 10), net).ok());
  assert_false(parse_network(std::string(1000, '1'), net).ok());
}

void host_bits_are_a_mistake(void**) {
  Network net;
  std::array<char, 100> buffer;
  expect_text(apikey::describe(parse_network("10.0.0.1/8", net), buffer),
              "the address has bits set behind its prefix of 8 bits");
  assert_false(parse_network("2001:db8::1/64", net).ok());
  assert_false(parse_network("1.0.0.0/0", net).ok());
  assert_true(parse_network("10.0.0.1/32", net).ok());
}

void no_internet_address_is_in_no_network(void**) {
  const std::array<std::uint8_t, 5> bytes{};
  for (const std::size_t length : std::array<std::size_t, 3>{0, 3, 5}) {
    const Address none = make_address(std::span(bytes).first(length));
    assert_int_equal(none.length, 0);
    assert_false(contains(network("0.0.0.0/0"), none));
    assert_false(contains(network("::/0"), none));
    assert_false(contains(Network{}, none));
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(networks_hold_their_addresses), cmocka_unit_test(families_do_not_mix_except_where_mapped),
      cmocka_unit_test(every_prefix_at_its_edge),      cmocka_unit_test(other_texts_are_refused),
      cmocka_unit_test(host_bits_are_a_mistake),       cmocka_unit_test(no_internet_address_is_in_no_network),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
