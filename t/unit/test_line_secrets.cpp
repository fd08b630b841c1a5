// line_secrets.cpp: values of arguments, a given key and keys of our form, wherever and however they stand in a line.
#include "apikey/line_secrets.hpp"

#include <array>
#include <string>
#include <vector>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

namespace {

constexpr std::string_view kKey = "ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXO";
constexpr std::array<std::string_view, 2> kNames = {"api_key", "token"};

// The line with each secret replaced; `key`: a text that is one.
std::string redact(std::string_view line, std::string_view key = {}, std::span<const std::string_view> names = kNames) {
  std::string out;
  std::size_t at = 0;
  for (std::string_view found; apikey::find_secret(line, at, {names, key}, found);) {
    assert_true(!found.empty());
    const auto begin = static_cast<std::size_t>(found.data() - line.data());
    assert_true(begin >= at && begin + found.size() <= line.size());
    out.append(line.substr(at, begin - at)).append("****");
    at = begin + found.size();
  }
  return out.append(line.substr(at));
}

std::string with_key(std::string text, std::string_view key = kKey) {
  for (std::size_t at = 0; (at = text.find("KEY", at)) != std::string::npos; at += key.size()) {
    text.replace(at, 3, key);
  }
  return text;
}

void values_of_named_arguments_are_found(void**) {
  expect_text(redact("GET /a?api_key=x&b=2 HTTP/1.1"), "GET /a?api_key=****&b=2 HTTP/1.1");
  expect_text(redact("GET /a?b=2&token=x HTTP/1.1"), "GET /a?b=2&token=**** HTTP/1.1");
  expect_text(redact("GET /a?API_Key=x&Token=y"), "GET /a?API_Key=****&Token=****");
  expect_text(redact("GET /a?a%70i%5Fkey=x"), "GET /a?a%70i%5Fkey=****");
  expect_text(redact("GET /login?next=%2Fa%3Fb%3D1%26api%5Fkey%3Dx&c=1"),
              "GET /login?next=%2Fa%3Fb%3D1%26api%5Fkey%3D****&c=1");
  expect_text(redact("GET /a;api_key=x"), "GET /a;api_key=****");
  expect_text(redact("GET /a?api_key=a;b?c#d&e=f"), "GET /a?api_key=****&e=f");
  expect_text(redact("api_key=x"), "api_key=****");
  expect_text(redact("GET /a?b=1 api_key=x HTTP/9"), "GET /a?b=1 api_key=**** HTTP/9");
}

void other_arguments_stay(void**) {
  for (const std::string_view line :
       {"GET /a?my_api_key=x", "GET /a?api_key2=x", "GET /a?api_key", "GET /a?api_key=&b=1", "GET /api_key=x",
        "GET /a?b=api_key=x", "", "?", "%", "%4", "%zz_%41"}) {
    expect_text(redact(line), line);
  }
}

void keys_of_our_form_are_found_anywhere(void**) {
  for (const char* line : {"GET /k/KEY/x HTTP/1.1", "KEY", "/KEY", "x=KEY", "Bearer KEY", "KEY.json", "(KEY)"}) {
    expect_text(redact(with_key(line)), with_key(line, "****"));
  }
  expect_text(redact(with_key("/KEY/KEY")), "/****/****");
  expect_text(redact("/ak%5Flive%5f0123456789ABCDEFGHIJKLMNOPQRSTUV06nxX%4F?"), "/****?");
  // A wrong checksum, or a character too many, does not make it harmless.
  expect_text(redact("/ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXP/"), "/****/");
  expect_text(redact(with_key("/KEYzzz/")), "/****/");
}

void what_only_resembles_a_key_stays(void**) {
  for (const std::string_view line :
       {"/ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxX", "/ak_live_", "/a_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXO",
        "/ak__0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXO", "/ak_LIVE_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxXO",
        "/ak_live_0123456789ABCDEF-HIJKLMNOPQRSTUV06nxXO"}) {
    expect_text(redact(line), line);
  }
}

void a_given_key_is_found_however_it_is_written(void**) {
  expect_text(redact("/k/s3cr3t!!/x", "s3cr3t!!"), "/k/****/x");
  expect_text(redact("/k/s3cr3t%21%21/x?t=%733cr3t!!", "s3cr3t!!"), "/k/****/x?t=****");
  expect_text(redact("/k/s3cr3t!/x", "s3cr3t!!"), "/k/s3cr3t!/x");
  expect_text(redact("/k/S3CR3T!!", "s3cr3t!!"), "/k/S3CR3T!!");
}

void copies_are_of_the_given_key_only(void**) {
  const std::string line = with_key("/KEY?a=s3cr%33t!!&api_key=x");
  std::string_view found;
  assert_true(apikey::find_copy(line, 0, "s3cr3t!!", found));
  expect_text(found, "s3cr%33t!!");
  assert_false(apikey::find_copy(line, line.find("&api_key"), "s3cr3t!!", found));
  assert_false(apikey::find_copy(line, 0, "", found));
}

void without_names_only_keys_are_found(void**) {
  expect_text(redact("GET /a?api_key=x", {}, {}), "GET /a?api_key=x");
  expect_text(redact(with_key("GET /a?api_key=KEY&b=1"), {}, {}), "GET /a?api_key=****&b=1");
}

// Every cut of a line that holds everything: nothing is read behind its end (the sanitizers look).
void cut_lines_are_safe(void**) {
  const std::string whole = with_key("GET /a%5?api%5Fkey=%KEY&token=%41%4 KEY s3cr3t%21%21 HTTP/1.1");
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    const std::vector<char> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    redact({cut.data(), cut.size()}, "s3cr3t!!");
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(values_of_named_arguments_are_found),        cmocka_unit_test(other_arguments_stay),
      cmocka_unit_test(keys_of_our_form_are_found_anywhere),        cmocka_unit_test(what_only_resembles_a_key_stays),
      cmocka_unit_test(a_given_key_is_found_however_it_is_written), cmocka_unit_test(copies_are_of_the_given_key_only),
      cmocka_unit_test(without_names_only_keys_are_found),          cmocka_unit_test(cut_lines_are_safe),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
