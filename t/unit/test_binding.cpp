// binding.cpp: lists byte by byte, each condition alone and all together, lists that are broken.
#include "apikey/binding.hpp"

#include <string>
#include <vector>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::Binding;
using apikey::check_bindings;
using apikey::MethodSet;
using apikey::Network;
using apikey::Outcome;
using apikey::RequestFacts;

namespace {

using Bytes = std::vector<std::byte>;

// Appends entries to a list as keyloader does.
class List {
 public:
  List& network(std::string_view text) {
    Network network;
    assert_true(apikey::parse_network(text, network).ok());
    return take(apikey::encode_network(network, room()));
  }
  List& origin(std::string_view text) { return take(apikey::encode_origin(text, room())); }
  List& methods(MethodSet set) { return take(apikey::encode_methods(set, room())); }
  List& host(std::string_view text) { return take(apikey::encode_host(text, room())); }
  [[nodiscard]] Bytes bytes() const { return {bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(size_)}; }
  [[nodiscard]] Outcome check(const RequestFacts& facts) const { return check_bindings(bytes(), facts); }

 private:
  std::span<std::byte> room() { return std::span(bytes_).subspan(size_); }
  List& take(std::span<std::byte> rest) {
    assert_false(rest.empty());
    size_ = bytes_.size() - rest.size();
    return *this;
  }
  std::array<std::byte, apikey::kMaxBindingBytes + 1> bytes_{};
  std::size_t size_ = 0;
};

RequestFacts facts() {
  constexpr std::array<std::uint8_t, 4> kAddress = {10, 1, 2, 3};
  RequestFacts facts;
  facts.address = apikey::make_address(kAddress);
  facts.method = apikey::kMethodGet;
  facts.origin = "https://app.example.com";
  facts.host = "api.example.com";
  return facts;
}

void methods_by_name(void**) {
  assert_int_equal(apikey::method_bit("GET"), apikey::kMethodGet);
  assert_int_equal(apikey::method_bit("TRACE"), apikey::kMethodTrace);
  MethodSet all = 0;
  for (const std::string_view name : {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "MKCOL", "COPY",
                                      "MOVE", "PROPFIND", "PROPPATCH", "LOCK", "UNLOCK", "TRACE"}) {
    const MethodSet bit = apikey::method_bit(name);
    assert_int_equal(__builtin_popcount(bit), 1);
    assert_int_equal(all & bit, 0);
    all |= bit;
  }
  assert_int_equal(all, (1U << 15) - 1);
  for (const std::string_view bad : {"", "get", "GETT", "CONNECT", "*"}) {
    assert_int_equal(apikey::method_bit(bad), 0);
  }
}

void lists_of_methods(void**) {
  MethodSet set = 0;
  assert_true(apikey::parse_methods("GET", set).ok());
  assert_int_equal(set, apikey::kMethodGet | apikey::kMethodHead);
  assert_true(apikey::parse_methods("HEAD", set).ok());
  assert_int_equal(set, apikey::kMethodHead);
  assert_true(apikey::parse_methods("POST,DELETE,POST", set).ok());
  assert_int_equal(set, apikey::kMethodPost | apikey::kMethodDelete);
  for (const std::string_view bad : {"", ",", "GET,", ",GET", "GET, POST", "GET POST", "get", "GET,BREW"}) {
    assert_false(apikey::parse_methods(bad, set).ok());
  }
  assert_int_equal(set, apikey::kMethodPost | apikey::kMethodDelete);
}

void a_list_byte_by_byte(void**) {
  const Bytes bytes = List().network("10.0.0.0/8").network("2001:db8::/32").methods(5).host("*.a").bytes();
  const auto expected = bytes_of<37>(
      "0105080a000000"
      "02112020010db8000000000000000000000000"
      "040405000000"
      "05032a2e61");
  expect_bytes(bytes, expected);
  std::span<const std::byte> rest = bytes;
  Binding binding;
  for (const std::uint8_t kind : std::array<std::uint8_t, 4>{1, 2, 4, 5}) {
    assert_true(apikey::next_binding(rest, binding));
    assert_int_equal(binding.kind, kind);
  }
  assert_false(apikey::next_binding(rest, binding));
  assert_true(rest.empty());
}

void no_list_no_condition(void**) { assert_true(check_bindings({}, RequestFacts{}) == Outcome::ok); }

void addresses(void**) {
  const auto check = [](const List& list, const RequestFacts& request) { return list.check(request); };
  assert_true(check(List().network("10.0.0.0/8"), facts()) == Outcome::ok);
  assert_true(check(List().network("11.0.0.0/8"), facts()) == Outcome::wrong_address);
  assert_true(check(List().network("11.0.0.0/8").network("::/0").network("10.1.2.3"), facts()) == Outcome::ok);
  RequestFacts unix_socket = facts();
  unix_socket.address = {};
  assert_true(check(List().network("0.0.0.0/0").network("::/0"), unix_socket) == Outcome::wrong_address);
}

void origins(void**) {
  const List list = List().origin("https://app.example.com").origin("https://*.example.org");
  RequestFacts request = facts();
  assert_true(list.check(request) == Outcome::ok);
  request.origin = "HTTPS://APP.example.com:443";
  assert_true(list.check(request) == Outcome::ok);
  request.origin = "https://a.example.org";
  assert_true(list.check(request) == Outcome::ok);
  for (const std::string_view other :
       {"https://evil.example", "http://app.example.com", "null", "https://*.example.org", "https://app.example.com/",
        "https://app.example.com.evil.example"}) {
    request.origin = other;
    request.referer = "https://app.example.com/page";  // not asked when there is an Origin
    assert_true(list.check(request) == Outcome::wrong_origin);
  }
  request.origin = "";
  assert_true(list.check(request) == Outcome::ok);
  request.referer = "https://evil.example/https://app.example.com/";
  assert_true(list.check(request) == Outcome::wrong_origin);
  request.referer = "";
  assert_true(list.check(request) == Outcome::wrong_origin);
  const std::string endless = "https://" + std::string(100'000, 'a');
  request.origin = endless;
  assert_true(list.check(request) == Outcome::wrong_origin);
}

void methods(void**) {
  const List list = List().methods(apikey::kMethodGet | apikey::kMethodHead).methods(apikey::kMethodPut);
  RequestFacts request = facts();
  assert_true(list.check(request) == Outcome::ok);
  request.method = apikey::kMethodPut;
  assert_true(list.check(request) == Outcome::ok);
  request.method = apikey::kMethodPost;
  assert_true(list.check(request) == Outcome::wrong_method);
  request.method = 0;
  assert_true(list.check(request) == Outcome::wrong_method);
  assert_true(List().methods(0).check(facts()) == Outcome::wrong_method);
}

void hosts(void**) {
  RequestFacts request = facts();
  assert_true(List().host("api.example.com").check(request) == Outcome::ok);
  assert_true(List().host("*.example.com").check(request) == Outcome::ok);
  assert_true(List().host("www.example.com").check(request) == Outcome::wrong_host);
  request.host = "";
  assert_true(List().host("*.example.com").check(request) == Outcome::wrong_host);
}

void all_conditions_must_hold_and_the_first_that_fails_is_named(void**) {
  const auto list = [](bool address, bool origin, bool method, bool host) {
    return List()
        .host(host ? "api.example.com" : "x")
        .methods(method ? apikey::kMethodGet : apikey::kMethodPost)
        .origin(origin ? "https://app.example.com" : "https://x")
        .network(address ? "10.0.0.0/8" : "11.0.0.0/8");
  };
  assert_true(list(true, true, true, true).check(facts()) == Outcome::ok);
  assert_true(list(false, false, false, false).check(facts()) == Outcome::wrong_address);
  assert_true(list(true, false, false, false).check(facts()) == Outcome::wrong_origin);
  assert_true(list(true, true, false, false).check(facts()) == Outcome::wrong_method);
  assert_true(list(true, true, true, false).check(facts()) == Outcome::wrong_host);
}

void a_broken_list_decides_nothing(void**) {
  const Bytes whole = List().methods(apikey::kMethodGet).network("10.0.0.0/8").host("api.example.com").bytes();
  std::vector<std::size_t> ends = {0, 6, 13, whole.size()};
  for (std::size_t size = 1; size <= whole.size(); ++size) {
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    const bool is_whole = std::find(ends.begin(), ends.end(), size) != ends.end();
    assert_true(check_bindings(cut, facts()) == (is_whole ? Outcome::ok : Outcome::unavailable));
  }
  const auto broken = [](std::initializer_list<unsigned> values) {
    Bytes bytes;
    for (const unsigned value : values) {
      bytes.push_back(static_cast<std::byte>(value));
    }
    return check_bindings(bytes, facts()) == Outcome::unavailable;
  };
  assert_true(broken({0, 0}));                  // no such kind
  assert_true(broken({6, 1, 'a'}));             // nor this
  assert_true(broken({1, 5, 33, 0, 0, 0, 0}));  // prefix too long
  assert_true(broken({1, 4, 8, 10, 0, 0}));     // wrong lengths
  assert_true(broken({2, 5, 8, 10, 0, 0, 0}));
  assert_true(broken({3, 0}));
  assert_true(broken({4, 3, 1, 0, 0}));
  assert_true(broken({5, 0}));
  assert_true(broken({4, 4, 1, 0, 0, 0, 5}));  // one byte too many
  assert_false(broken({4, 4, 1, 0, 0, 0}));
}

void encoders_say_when_it_does_not_fit(void**) {
  std::array<std::byte, 300> out;
  const std::string longest(255, 'a');
  assert_int_equal(apikey::encode_host(longest, out).size(), out.size() - 257);
  assert_true(apikey::encode_host(longest + "a", out).empty());
  assert_true(apikey::encode_methods(1, std::span(out).first(6)).empty());
  assert_int_equal(apikey::encode_methods(1, std::span(out).first(7)).size(), 1);
  assert_true(apikey::encode_methods(1, {}).empty());
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(methods_by_name),
      cmocka_unit_test(lists_of_methods),
      cmocka_unit_test(a_list_byte_by_byte),
      cmocka_unit_test(no_list_no_condition),
      cmocka_unit_test(addresses),
      cmocka_unit_test(origins),
      cmocka_unit_test(methods),
      cmocka_unit_test(hosts),
      cmocka_unit_test(all_conditions_must_hold_and_the_first_that_fails_is_named),
      cmocka_unit_test(a_broken_list_decides_nothing),
      cmocka_unit_test(encoders_say_when_it_does_not_fit),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
