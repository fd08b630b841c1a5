// rate_spec.cpp: the rates people write, and that nothing else is one.
#include "apikey/rate_spec.hpp"

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::parse_burst;
using apikey::parse_rate;
using apikey::Rate;
using apikey::StatusCode;

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

void expect_rate(std::string_view text, const Rate& expected) {
  Rate rate;
  assert_true(parse_rate(text, rate).ok());
  assert_true(rate == expected);
}

void rates_in_every_unit(void**) {
  expect_rate("100r/s", {100, kSecond});
  expect_rate("100/s", {100, kSecond});
  expect_rate("30r/m", {30, 60 * kSecond});
  expect_rate("30/m", {30, 60 * kSecond});
  expect_rate("1000r/h", {1000, 3600 * kSecond});
  expect_rate("1/h", {1, 3600 * kSecond});
  expect_rate("1000000000r/s", {1'000'000'000, kSecond});
}

void anything_else_is_no_rate(void**) {
  Rate rate{7, 7};
  for (const std::string_view bad : {"",
                                     "100",
                                     "100r",
                                     "100r/",
                                     "r/s",
                                     "/s",
                                     "0r/s",
                                     "0/s",
                                     "-1r/s",
                                     "+1r/s",
                                     "1.5r/s",
                                     " 1r/s",
                                     "1r/s ",
                                     "1 r/s",
                                     "1R/s",
                                     "1r/S",
                                     "1r/d",
                                     "1rr/s",
                                     "1r/ss",
                                     "1r//s",
                                     "0x10r/s",
                                     "1000000001r/s",
                                     "18446744073709551616r/s",
                                     "99999999999999999999999/s"}) {
    assert_true(parse_rate(bad, rate).code == StatusCode::bad_value);
  }
  assert_true((rate == Rate{7, 7}));
}

void the_sentences_say_what_is_wrong(void**) {
  std::array<char, 200> buffer;
  Rate rate;
  expect_text(apikey::describe(parse_rate("fast", rate), buffer), "a rate looks like 100r/s, 100/s, 30r/m or 1000r/h");
  expect_text(apikey::describe(parse_rate("2000000000/s", rate), buffer),
              "the number in a rate is 1 to 1000000000, not 2000000000");
  std::uint64_t burst = 0;
  expect_text(apikey::describe(parse_burst("0", burst), buffer),
              "burst=0 would admit nothing: burst is the size of the bucket; limit_req's burst=n is burst=n+1 here");
}

void bursts(void**) {
  std::uint64_t burst = 7;
  for (const std::string_view bad : {"", "0", "-1", "1.0", "1 ", " 1", "x", "1000000001", "18446744073709551616"}) {
    assert_true(parse_burst(bad, burst).code == StatusCode::bad_value);
  }
  assert_int_equal(burst, 7);
  assert_true(parse_burst("1", burst).ok());
  assert_int_equal(burst, 1);
  assert_true(parse_burst("1000000000", burst).ok());
  assert_int_equal(burst, 1'000'000'000);
}

void a_burst_that_is_not_written(void**) {
  for (const std::string_view text : {"1r/s", "50r/s", "30r/m", "1000r/h"}) {
    Rate rate;
    assert_true(parse_rate(text, rate).ok());
    assert_int_equal(apikey::default_burst(rate), rate.amount);
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(rates_in_every_unit),
      cmocka_unit_test(anything_else_is_no_rate),
      cmocka_unit_test(the_sentences_say_what_is_wrong),
      cmocka_unit_test(bursts),
      cmocka_unit_test(a_burst_that_is_not_written),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
