// origin.cpp: normal forms, wildcards, and URLs that try to look like somebody else's.
#include "apikey/origin.hpp"

#include <string>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::kMaxOriginLength;
using apikey::matches_host;
using apikey::matches_origin;
using apikey::normalize_host;
using apikey::normalize_origin;
using apikey::origin_of;

namespace {

void expect_origin(std::string_view text, std::string_view expected) {
  std::array<char, kMaxOriginLength> buffer;
  std::string_view origin;
  assert_true(normalize_origin(text, buffer, origin).ok());
  expect_text(origin, expected);
}

bool is_origin(std::string_view text) {
  std::array<char, kMaxOriginLength> buffer;
  std::string_view origin;
  return normalize_origin(text, buffer, origin).ok();
}

bool is_host(std::string_view text) {
  std::array<char, kMaxOriginLength> buffer;
  std::string_view host;
  return normalize_host(text, buffer, host).ok();
}

void origins_have_one_form(void**) {
  expect_origin("https://app.example.com", "https://app.example.com");
  expect_origin("HTTPS://App.Example.COM", "https://app.example.com");
  expect_origin("https://app.example.com:443", "https://app.example.com");
  expect_origin("http://app.example.com:80", "http://app.example.com");
  expect_origin("http://app.example.com:443", "http://app.example.com:443");
  expect_origin("http://localhost:3000", "http://localhost:3000");
  expect_origin("https://*.example.com", "https://*.example.com");
  expect_origin("https://*.example.com:8443", "https://*.example.com:8443");
  expect_origin("http://[::1]:3000", "http://[::1]:3000");
  expect_origin("http://[::1]", "http://[::1]");
  expect_origin("https://[2001:DB8::1]:443", "https://[2001:db8::1]");
  expect_origin("http://192.0.2.7", "http://192.0.2.7");
  expect_origin("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop");
}

void other_texts_are_no_origins(void**) {
  for (const std::string_view bad : {"",
                                     "null",
                                     "https://",
                                     "://a",
                                     "a",
                                     "app.example.com",
                                     "https:/a",
                                     "https://a/",
                                     "https://a/b",
                                     "https://a?b",
                                     "https://a#b",
                                     "https://u@a",
                                     "https://a b",
                                     "https://a:",
                                     "https://a:0",
                                     "https://a:080",
                                     "https://a:65536",
                                     "https://a:x",
                                     "https://a:-1",
                                     "https://a..b",
                                     "https://.a",
                                     "https://a.",
                                     "https://*",
                                     "https://*.",
                                     "https://a.*.b",
                                     "https://*a.b",
                                     "https://*.*.b",
                                     "*://a",
                                     "1http://a",
                                     "ht tp://a",
                                     "https://a\\b",
                                     "https://\xc3\xa4",
                                     "https://[::1",
                                     "https://::1",
                                     "https://[]",
                                     "https://[1.2.3.4]",
                                     "https://[::1/64]",
                                     "https://[::g]",
                                     "https://a://b",
                                     "https://a,https://b"}) {
    assert_false(is_origin(bad));
  }
}

void lengths(void**) {
  std::string host;
  while (host.size() + 2 < 253) {
    host += "a.";
  }
  host += "b";
  assert_int_equal(host.size(), 253);
  assert_true(is_host(host));
  assert_false(is_host("a" + host));
  assert_false(is_origin("https://" + host));  // 261 characters
  assert_true(is_host(std::string(63, 'a') + ".b"));
  assert_false(is_host(std::string(64, 'a') + ".b"));
  assert_false(is_host(std::string(10'000, 'a')));

  std::array<char, 8> small;
  std::string_view out;
  assert_true(normalize_host("abcd.efg", small, out).ok());
  assert_false(normalize_host("abcd.efgh", small, out).ok());
  assert_false(normalize_origin("http://ab", small, out).ok());
}

void hosts(void**) {
  for (const std::string_view good : {"a", "api.example.com", "*.example.com", "API.EXAMPLE.COM", "a_b-c.d", "[::1]"}) {
    assert_true(is_host(good));
  }
  for (const std::string_view bad :
       {"", "*", "*.", "a.*", "api.example.com:443", "api.example.com.", ".a", "a b", "https://a", "a/b", "[::1]:80"}) {
    assert_false(is_host(bad));
  }
}

void origins_of_urls(void**) {
  expect_text(origin_of("https://a.example.com/x?y#z"), "https://a.example.com");
  expect_text(origin_of("https://a.example.com?y"), "https://a.example.com");
  expect_text(origin_of("https://a.example.com#z"), "https://a.example.com");
  expect_text(origin_of("https://a.example.com:8443/"), "https://a.example.com:8443");
  expect_text(origin_of("https://a.example.com"), "https://a.example.com");
  expect_text(origin_of("/relative"), "");
  expect_text(origin_of(""), "");
  // What is left of these is no origin, so that they match nothing.
  assert_false(is_origin(origin_of("https://good.example.com@evil.example/")));
  assert_false(is_origin(origin_of("https://evil.example\\@good.example.com/")));
  assert_false(is_origin(origin_of("//evil.example/?https://good.example.com/")));
}

void wildcards_match_below_at_any_depth(void**) {
  constexpr std::string_view kPattern = "https://*.example.com";
  assert_true(matches_origin(kPattern, "https://a.example.com"));
  assert_true(matches_origin(kPattern, "https://a.b.example.com"));
  assert_false(matches_origin(kPattern, "https://example.com"));
  assert_false(matches_origin(kPattern, "https://.example.com"));
  assert_false(matches_origin(kPattern, "http://a.example.com"));
  assert_false(matches_origin(kPattern, "https://aexample.com"));
  assert_false(matches_origin(kPattern, "https://a.example.com.evil.example"));
  assert_false(matches_origin(kPattern, "https://a.example.com:8443"));
  assert_true(matches_origin("https://*.example.com:8443", "https://a.example.com:8443"));
  assert_false(matches_origin("https://*.example.com:8443", "https://a.example.com"));
  assert_false(matches_origin(kPattern, ""));

  assert_true(matches_host("*.example.com", "a.example.com"));
  assert_false(matches_host("*.example.com", "example.com"));
  assert_false(matches_host("*.example.com", ""));
  assert_false(matches_host("*.example.com", "badexample.com"));
}

void names_match_whole(void**) {
  assert_true(matches_origin("https://a.example.com", "https://a.example.com"));
  assert_false(matches_origin("https://a.example.com", "https://a.example.com:8443"));
  assert_false(matches_origin("https://a.example.com", "https://b.a.example.com"));
  assert_false(matches_origin("no origin", "no origin"));
  assert_true(matches_host("a", "a"));
  assert_false(matches_host("a", "b"));
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(origins_have_one_form),
      cmocka_unit_test(other_texts_are_no_origins),
      cmocka_unit_test(lengths),
      cmocka_unit_test(hosts),
      cmocka_unit_test(origins_of_urls),
      cmocka_unit_test(wildcards_match_below_at_any_depth),
      cmocka_unit_test(names_match_whole),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
