// plain_text.cpp: which characters may reach a terminal or a log, and how the others are shown.
#include "apikey/plain_text.hpp"

#include <array>
#include <string>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

namespace {

std::string shown(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    std::array<char, apikey::kMaxShownCharacter> buffer;
    out += apikey::shown(apikey::next_character(text), buffer);
  }
  return out;
}

std::string utf8(char32_t code) {
  std::string out;
  if (code < 0x80) {
    return {static_cast<char>(code)};
  }
  if (code < 0x800) {
    out += static_cast<char>(0xc0 | code >> 6);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xe0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3f));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3f));
  }
  return out + static_cast<char>(0x80 | (code & 0x3f));
}

void names_of_people_are_plain(void**) {
  for (const std::string_view name : {"", "acme", "O'Neill, Söhne", "Zażółć 多言語 😀", "العربية", "עברית", "ไทย",
                                      "한국어", "हिन्दी", "say \"hi\" \\ ☃", "a\u0301", "\U0010ffff"}) {
    assert_true(apikey::is_plain_text(name));
    expect_text(shown(name), name);
  }
}

void what_steers_or_hides_is_not(void**) {
  for (char32_t code = 0; code < 0xa0; ++code) {
    assert_int_equal(apikey::is_plain_text(utf8(code)), code >= 0x20 && code < 0x7f);
  }
  for (const char32_t code :
       {0xadU,   0x34fU,  0x61cU,  0x180eU, 0x200bU, 0x200cU, 0x200dU, 0x200eU,  0x200fU,  0x2028U,  0x2029U, 0x202aU,
        0x202bU, 0x202cU, 0x202dU, 0x202eU, 0x2060U, 0x2064U, 0x2066U, 0x2067U,  0x2068U,  0x2069U,  0x206fU, 0x3164U,
        0xfeffU, 0xffa0U, 0xfff9U, 0xfffbU, 0x115fU, 0x1160U, 0x600U,  0xe0001U, 0xe0020U, 0xe007fU, 0x1d173U}) {
    assert_false(apikey::is_plain_text("name" + utf8(code) + "rest"));
  }
  for (const char32_t code : {0xa0U, 0xacU, 0xaeU, 0x200aU, 0x2010U, 0x2027U, 0x202fU, 0x205fU, 0x2070U, 0xfefeU,
                              0xfffcU, 0xfffdU, 0xdffffU}) {
    assert_true(apikey::is_plain_text(utf8(code)));
  }
}

void what_is_not_utf8_is_not(void**) {
  for (const std::string_view bad :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x80\x80", "\xe2\x82", "\xed\xa0\x80",
        "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xff"}) {
    assert_false(apikey::is_plain_text(bad));
  }
}

void it_is_shown_as_an_escape(void**) {
  expect_text(shown("a\x1b[31mb"), "a\\x1b[31mb");
  expect_text(shown("two\nlines\t\x7f"), "two\\x0alines\\x09\\x7f");
  expect_text(shown("\u009b31m"), "\\u009b31m");
  expect_text(shown("\u202egnp.exe"), "\\u202egnp.exe");
  expect_text(shown("\U000e0041"), "\\U000e0041");
  expect_text(shown("\xc3"), "\\xc3");
  expect_text(shown("\xe2\x82x\xff"), "\\xe2\\x82x\\xff");
  expect_text(shown(std::string_view("\0", 1)), "\\x00");
  expect_text(shown("ü\u200bü"), "ü\\u200bü");
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(names_of_people_are_plain),
      cmocka_unit_test(what_steers_or_hides_is_not),
      cmocka_unit_test(what_is_not_utf8_is_not),
      cmocka_unit_test(it_is_shown_as_an_escape),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
