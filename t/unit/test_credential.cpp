// credential.cpp: tokens, base64, queries and cookies as clients send them and as attackers do; whose key a value is.
#include "apikey/credential.hpp"

#include <string>
#include <vector>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::Format;
using apikey::Found;
using apikey::judge_credential;
using apikey::Judged;
using apikey::NamedValue;
using apikey::Presented;
using apikey::SourceKind;

namespace {

constexpr std::string_view kKey = "ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXO";
constexpr std::string_view kWrongCheck = "ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXP";
constexpr std::string_view kOtherKey = "ab_0_0123456789ABCDEFGHIJKLMNOPQRSTUV1HOX8R";
constexpr std::string_view kJwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl_-";
constexpr std::string_view kStripeLike = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";
constexpr std::string_view kTruncated = "ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxX";
constexpr SourceKind kShared[] = {SourceKind::scheme, SourceKind::bearer, SourceKind::basic, SourceKind::cookie};
constexpr SourceKind kOwn[] = {SourceKind::header, SourceKind::query, SourceKind::protocol, SourceKind::variable};

void nothing_is_nothing(void**) {
  for (const SourceKind kind : kShared) {
    assert_true(judge_credential(kind, Format::strict, "") == Found::none);
    assert_true(judge_credential(kind, Format::any, "") == Found::none);
  }
  for (const SourceKind kind : kOwn) {
    assert_true(judge_credential(kind, Format::strict, "") == Found::none);
    assert_true(judge_credential(kind, Format::any, "") == Found::none);
  }
}

void strict_takes_our_form_alone(void**) {
  const std::string endless(10'000, 'x');
  for (const SourceKind kind : kOwn) {
    assert_true(judge_credential(kind, Format::strict, kKey) == Found::key);
    for (const std::string_view bad :
         {kWrongCheck, kJwt, kStripeLike, std::string_view(endless), std::string_view("x")}) {
      assert_true(judge_credential(kind, Format::strict, bad) == Found::malformed);
    }
  }
  for (const SourceKind kind : kShared) {
    assert_true(judge_credential(kind, Format::strict, kKey) == Found::key);
    assert_true(judge_credential(kind, Format::strict, kWrongCheck) == Found::malformed);
    for (const std::string_view foreign :
         {kJwt, kStripeLike, kTruncated, std::string_view(endless), std::string_view("x")}) {
      assert_true(judge_credential(kind, Format::strict, foreign) == Found::foreign);
    }
  }
}

void any_takes_what_a_header_can_carry(void**) {
  for (const SourceKind kind : {SourceKind::header, SourceKind::query, SourceKind::cookie, SourceKind::bearer}) {
    assert_true(judge_credential(kind, Format::any, kKey) == Found::key);
    assert_true(judge_credential(kind, Format::any, kWrongCheck) == Found::malformed);
    assert_true(judge_credential(kind, Format::any, kStripeLike) == Found::key);
    assert_true(judge_credential(kind, Format::any, "12345678") == Found::key);
    assert_true(judge_credential(kind, Format::any, "1234567") == Found::malformed);
    assert_true(judge_credential(kind, Format::any, std::string(256, '\xe4')) == Found::key);
    assert_true(judge_credential(kind, Format::any, std::string(257, 'x')) == Found::malformed);
    assert_true(judge_credential(kind, Format::any, "1234 5678") == Found::malformed);
    assert_true(judge_credential(kind, Format::any, "12345678\n") == Found::malformed);
    assert_true(judge_credential(kind, Format::any, std::string_view("1234\00056789", 10)) == Found::malformed);
  }
  assert_true(judge_credential(SourceKind::bearer, Format::any, kJwt) == Found::foreign);
  assert_true(judge_credential(SourceKind::header, Format::any, kJwt) == Found::key);
  assert_true(judge_credential(SourceKind::bearer, Format::any, "one.dot.") == Found::foreign);
  assert_true(judge_credential(SourceKind::bearer, Format::any, "one.dot1") == Found::key);
  assert_true(judge_credential(SourceKind::bearer, Format::any, "a.b.c.d.e") == Found::key);
}

void the_same_key_twice_is_one_key(void**) {
  Presented presented;
  assert_true(presented.found() == Found::none);
  presented.add(Found::none, "");
  presented.add(Found::foreign, kJwt);
  assert_true(presented.found() == Found::none);
  presented.add(Found::key, kKey);
  const std::string copy(kKey);
  presented.add(Found::key, copy);
  presented.add(Found::foreign, kJwt);
  presented.add(Found::none, "");
  assert_true(presented.found() == Found::key);
  assert_ptr_equal(presented.key().data(), kKey.data());
}

void two_that_differ_are_malformed_for_good(void**) {
  for (const std::string_view other : {kOtherKey, kWrongCheck, kKey.substr(0, 45), std::string_view()}) {
    Presented presented;
    presented.add(Found::key, kKey);
    presented.add(Found::key, other);
    assert_true(presented.found() == Found::malformed);
    presented.add(Found::key, kKey);
    presented.add(Found::none, "");
    assert_true(presented.found() == Found::malformed);
    assert_true(presented.key().empty());
  }
  for (const bool is_first : {false, true}) {
    Presented presented;
    presented.add(is_first ? Found::malformed : Found::key, kKey);
    presented.add(is_first ? Found::key : Found::malformed, kKey);
    assert_true(presented.found() == Found::malformed);
  }
}

void authorization_headers(void**) {
  expect_text(apikey::scheme_token("Bearer abc", "Bearer"), "abc");
  expect_text(apikey::scheme_token("bEaReR abc", "Bearer"), "abc");
  expect_text(apikey::scheme_token("Bearer   abc \t", "bearer"), "abc");
  expect_text(apikey::scheme_token("Bearer a b", "Bearer"), "a b");
  for (const std::string_view none :
       {"", "Bearer", "Bearer ", "Bearer   ", "Bearerabc", "Basic abc", "Bear abc", "Bearer\tabc", " Bearer abc"}) {
    expect_text(apikey::scheme_token(none, "Bearer"), "");
  }
  expect_text(apikey::scheme_token("APIKEY abc", "ApiKey"), "abc");
  expect_text(apikey::scheme_token("ApiKeys abc", "ApiKey"), "");
}

std::string base64(std::string_view text) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += 3) {
    unsigned bits = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      bits = bits << 8 | (i + j < text.size() ? static_cast<unsigned char>(text[i + j]) : 0U);
    }
    for (std::size_t j = 0; j < 4; ++j) {
      out += i + j <= text.size() ? digits[bits >> (18 - 6 * j) & 63] : '=';
    }
  }
  return out;
}

Judged basic(Format format, std::string_view token) {
  static std::array<char, apikey::kBasicBufferSize> buffer;
  return apikey::judge_basic(format, token, buffer);
}

void expect_basic(std::string_view pair, Found found, std::string_view value) {
  const Judged judged = basic(Format::any, base64(pair));
  assert_true(judged.found == found);
  expect_text(judged.value, value);
}

void basic_credentials(void**) {
  expect_basic("Aladdin1:open sesame", Found::key, "Aladdin1");
  expect_basic(":secret-1", Found::key, "secret-1");
  expect_basic("secret-1:", Found::key, "secret-1");
  expect_basic(":k:e:y:.:.:", Found::key, "k:e:y:.:.:");
  expect_basic("sk_live_4eC39HqLyjWDarjtT1zdp7dc:me", Found::key, kStripeLike);
  expect_basic("me:sk_live_4eC39HqLyjWDarjtT1zdp7dc", Found::malformed, "me");
  const std::string key(kKey);
  expect_basic(key + ":", Found::key, kKey);
  expect_basic(":" + key, Found::key, kKey);
  expect_basic("me:" + key, Found::key, kKey);
  expect_basic("sk_live_4eC39HqLyjWDarjtT1zdp7dc:" + key, Found::key, kKey);
  expect_basic(key + ":x", Found::key, kKey);
  expect_basic(key + ":" + key, Found::key, kKey);
  assert_true(basic(Format::any, "OnNlY3JldC0x").found == Found::key);  // without its padding: none is needed
  assert_true(basic(Format::any, "OnNlY3JldC0xMg").found == Found::key);
  for (const std::string_view bad :
       {"", "bm8gY29sb24=", "Og==", "azo=x", "a", "azo-", "az o=", "====", "=azo", "azp=", "OnNlY3JldA=", "YTpi\n"}) {
    assert_true(basic(Format::any, bad).found == Found::none);
    expect_text(basic(Format::any, bad).value, "");
  }
}

void two_of_our_form_in_basic_are_malformed(void**) {
  for (const Format format : {Format::strict, Format::any}) {
    for (const std::string_view other : {kOtherKey, kWrongCheck}) {
      assert_true(basic(format, base64(std::string(kKey) + ":" + std::string(other))).found == Found::malformed);
      assert_true(basic(format, base64(std::string(other) + ":" + std::string(kKey))).found == Found::malformed);
    }
    assert_true(basic(format, base64(std::string(kKey) + ":" + std::string(kTruncated))).found == Found::key);
  }
  assert_true(basic(Format::strict, base64("alice:password")).found == Found::foreign);
}

void basic_credentials_have_to_fit(void**) {
  std::array<char, 9> buffer;
  expect_text(apikey::judge_basic(Format::any, base64(":12345678"), buffer).value, "12345678");
  expect_text(apikey::judge_basic(Format::any, base64(":123456789"), buffer).value, "");
  std::array<char, 0> none;
  assert_true(apikey::judge_basic(Format::any, "Og==", none).found == Found::none);
  assert_true(basic(Format::any, std::string(100'000, 'A')).found == Found::none);
}

using Next = bool (*)(std::string_view&, std::string_view, NamedValue&) noexcept;

// Collects the values, and checks that cutting out all of `whole` leaves `left`.
std::vector<std::string> values(Next next, std::string_view text, std::string_view name, std::string_view left) {
  std::vector<std::string> found;
  std::string remaining;
  std::string_view rest = text;
  const char* kept = text.data();
  NamedValue value;
  while (next(rest, name, value)) {
    assert_true(value.whole.data() >= kept);  // the cuts stand in order and do not overlap
    assert_true(value.value.data() >= value.whole.data());
    assert_true(value.value.data() + value.value.size() <= value.whole.data() + value.whole.size());
    found.emplace_back(value.value);
    remaining.append(kept, value.whole.data());
    kept = value.whole.data() + value.whole.size();
  }
  remaining.append(kept, text.data() + text.size());
  expect_text(remaining, left);
  return found;
}

using Values = std::vector<std::string>;

void queries(void**) {
  const auto query = [](std::string_view text, std::string_view left) {
    return values(apikey::next_in_query, text, "k", left);
  };
  assert_true(query("", "") == Values{});
  assert_true(query("a=1&b=2", "a=1&b=2") == Values{});
  assert_true(query("k=v", "") == Values{"v"});
  assert_true(query("k=v&a=1", "a=1") == Values{"v"});
  assert_true(query("a=1&k=v", "a=1") == Values{"v"});
  assert_true(query("a=1&k=v&b=2", "a=1&b=2") == Values{"v"});
  assert_true((query("k=v&k=w", "") == Values{"v", "w"}));
  assert_true((query("k=v&k=w&b=2", "b=2") == Values{"v", "w"}));
  assert_true((query("a=1&k=v&k=w", "a=1") == Values{"v", "w"}));
  assert_true((query("k=v&a=1&k=w", "a=1") == Values{"v", "w"}));
  assert_true(query("k", "") == Values{""});
  assert_true(query("k=", "") == Values{""});
  assert_true(query("k=a=b", "") == Values{"a=b"});
  assert_true(query("K=v&a=1", "a=1") == Values{"v"});
  assert_true(query("kk=v&xk=v", "kk=v&xk=v") == Values{});
  assert_true(query("a=k=v", "a=k=v") == Values{});
  assert_true(query("&&k=v&&", "&&&") == Values{"v"});
  assert_true(query("&", "&") == Values{});
  assert_true(query("k=%41", "") == Values{"%41"});
  assert_true(query("%6b=v&%6B=w&%4b=x", "") == (Values{"v", "w", "x"}));
  assert_true(query("%6=v&%=v&%zz=v&k%=v", "%6=v&%=v&%zz=v&k%=v") == Values{});
}

void names_in_queries_are_compared_decoded_and_without_case(void**) {
  assert_true(values(apikey::next_in_query, "api%5Fkey=v&api_key=w&API_KEY=x&api-key=y", "Api_Key", "api-key=y") ==
              (Values{"v", "w", "x"}));
}

void cookies(void**) {
  const auto cookie = [](std::string_view text, std::string_view left) {
    return values(apikey::next_in_cookie, text, "k", left);
  };
  assert_true(cookie("", "") == Values{});
  assert_true(cookie("k=v", "") == Values{"v"});
  assert_true(cookie("k=v; a=1", "a=1") == Values{"v"});
  assert_true(cookie("a=1; k=v", "a=1") == Values{"v"});
  assert_true(cookie("a=1; k=v; b=2", "a=1; b=2") == Values{"v"});
  assert_true((cookie("k=v; k=w", "") == Values{"v", "w"}));
  assert_true((cookie("k=v; a=1;k=w", "a=1") == Values{"v", "w"}));
  assert_true(cookie(" k = v ;a", "a") == Values{"v"});
  assert_true(cookie("kk=v; %6b=v; K=v", "kk=v; %6b=v") == Values{"v"});
  // As $cookie_ does: a name may follow a comma, a value ends at a semicolon only.
  assert_true((cookie("a=1,k=v,w; b=2, k=x", "a=1; b=2") == Values{"v,w", "x"}));
  assert_true(cookie("k=v,a=1", "") == Values{"v,a=1"});
  assert_true(cookie("k=a=b;", "") == Values{"a=b"});
  assert_true(cookie("k= ; k=;k", "") == (Values{"", "", ""}));
  assert_true(cookie(";;", ";;") == Values{});
}

void protocols(void**) {
  const auto protocol = [](std::string_view text, std::string_view left) {
    return values(apikey::next_in_protocols, text, "key.", left);
  };
  assert_true(protocol("", "") == Values{});
  assert_true(protocol("chat", "chat") == Values{});
  assert_true(protocol("key.v", "") == Values{"v"});
  assert_true(protocol("key.v, chat", "chat") == Values{"v"});
  assert_true(protocol("chat, key.v", "chat") == Values{"v"});
  assert_true(protocol("a,key.v , b", "a, b") == Values{"v"});
  assert_true((protocol("a, key.v, b, key.w", "a, b") == Values{"v", "w"}));
  assert_true(protocol("key., KEY.v, akey.v", "KEY.v, akey.v") == Values{""});
  assert_true(protocol("key.a=b;c", "") == Values{"a=b;c"});
}

void percent_decoding(void**) {
  std::array<char, 8> buffer;
  std::string_view decoded;
  const std::string_view plain = "a+b_c";
  assert_true(apikey::percent_decode(plain, buffer, decoded));
  assert_ptr_equal(decoded.data(), plain.data());
  assert_true(apikey::percent_decode("%61b%7E%7e", buffer, decoded));
  expect_text(decoded, "ab~~");
  assert_true(apikey::percent_decode("%00", buffer, decoded));
  assert_int_equal(decoded.size(), 1);
  assert_true(apikey::percent_decode("%41%42%43%44%45%46%47%48", buffer, decoded));
  assert_false(apikey::percent_decode("%41%42%43%44%45%46%47%48%49", buffer, decoded));
  for (const std::string_view bad : {"%", "%4", "a%", "%g1", "%1g", "%%41", "%-1"}) {
    assert_false(apikey::percent_decode(bad, buffer, decoded));
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(nothing_is_nothing),
      cmocka_unit_test(strict_takes_our_form_alone),
      cmocka_unit_test(any_takes_what_a_header_can_carry),
      cmocka_unit_test(the_same_key_twice_is_one_key),
      cmocka_unit_test(two_that_differ_are_malformed_for_good),
      cmocka_unit_test(authorization_headers),
      cmocka_unit_test(basic_credentials),
      cmocka_unit_test(two_of_our_form_in_basic_are_malformed),
      cmocka_unit_test(basic_credentials_have_to_fit),
      cmocka_unit_test(queries),
      cmocka_unit_test(names_in_queries_are_compared_decoded_and_without_case),
      cmocka_unit_test(cookies),
      cmocka_unit_test(protocols),
      cmocka_unit_test(percent_decoding),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
