// status.cpp: sentences with their numbers, cut off where the buffer ends.
#include "apikey/status.hpp"

#include <array>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::describe;
using apikey::Status;
using apikey::StatusCode;

namespace {

void expect_sentence(const Status& status, std::string_view expected) {
  std::array<char, 200> buffer;
  expect_text(describe(status, buffer), expected);
}

void numbers_stand_where_they_belong(void**) {
  expect_sentence({StatusCode::refused, "generation {0} is older than generation {1} in service", 12, 17},
                  "generation 12 is older than generation 17 in service");
  expect_sentence({StatusCode::refused, "{1}{0}{1}", 1, UINT64_MAX}, "18446744073709551615118446744073709551615");
  expect_sentence({}, "");
}

void other_braces_are_text(void**) {
  expect_sentence({StatusCode::damaged, "{", 1, 2}, "{");
  expect_sentence({StatusCode::damaged, "a {2} {0 {} {{0}", 1, 2}, "a {2} {0 {} {1");
}

void what_does_not_fit_is_cut_off(void**) {
  const Status status{StatusCode::refused, "key {0} of {1}", 123456, 7};
  constexpr std::string_view kWhole = "key 123456 of 7";
  std::array<char, kWhole.size() + 1> buffer;
  for (std::size_t room = 0; room <= kWhole.size(); ++room) {
    buffer.fill('#');
    const auto text = describe(status, std::span(buffer).first(room));
    expect_text(text, kWhole.substr(0, room));
    assert_true(buffer[room] == '#');
  }
}

void only_ok_is_ok(void**) {
  assert_true(Status{}.ok());
  assert_false((Status{StatusCode::failed, "x"}).ok());
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(numbers_stand_where_they_belong),
      cmocka_unit_test(other_braces_are_text),
      cmocka_unit_test(what_does_not_fit_is_cut_off),
      cmocka_unit_test(only_ok_is_ok),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
