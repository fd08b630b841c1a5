// figure.cpp: numbers as upstreams report them, to the last digit.
#include "apikey/figure.hpp"

#include <string>

#include "cmocka_cpp.hpp"

using apikey::FigureStatus;
using apikey::parse_figure;

namespace {

void expect_figure(std::string_view text, std::uint64_t expected) {
  const apikey::Figure figure = parse_figure(text);
  if (figure.status != FigureStatus::found || figure.value != expected) {
    print_error("\"%.*s\" gave status %d, value %llu\n", static_cast<int>(text.size()), text.data(),
                static_cast<int>(figure.status), static_cast<unsigned long long>(figure.value));
    assert_true(false);
  }
}

void expect_status(std::string_view text, FigureStatus expected) {
  const FigureStatus status = parse_figure(text).status;
  if (status != expected) {
    print_error("\"%.*s\" gave status %d\n", static_cast<int>(text.size()), text.data(), static_cast<int>(status));
    assert_true(false);
  }
}

void whole_numbers(void**) {
  expect_figure("0", 0);
  expect_figure("1", 1);
  expect_figure(" \t42 ", 42);
  expect_figure("1000000000000", 1'000'000'000'000);
  expect_figure("-0", 0);
  expect_figure("-0.000e5", 0);
}

void fractions_round_up(void**) {
  expect_figure("1.5", 2);
  expect_figure("1.0", 1);
  expect_figure("0.0001", 1);
  expect_figure("41.00000000000000000000000000000000000000001", 42);
  expect_figure("41.00000000000000000000000000000000000000000", 41);
  expect_figure("0.99999999999999999999999999999999", 1);
  expect_figure("999999999999.5", 1'000'000'000'000);
  expect_status("1000000000000.5", FigureStatus::too_large);
}

void exponents(void**) {
  expect_figure("1e3", 1000);
  expect_figure("1E+3", 1000);
  expect_figure("12.345e2", 1235);
  expect_figure("12.3e1", 123);
  expect_figure("1200e-2", 12);
  expect_figure("1201e-2", 13);
  expect_figure("1e-400", 1);
  expect_figure("1e-99999999999999999999999999", 1);
  expect_figure("0e99999999999999999999999999", 0);
  expect_figure("1e12", 1'000'000'000'000);
  expect_status("1e13", FigureStatus::too_large);
  expect_status("1e99999999999999999999999999", FigureStatus::too_large);
  expect_figure("1" + std::string(500, '0') + "e-498", 100);
  expect_figure("0." + std::string(500, '0') + "25e502", 25);
  expect_figure("0." + std::string(500, '0') + "25e501", 3);
}

void what_is_out_of_range(void**) {
  for (const std::string_view text : {"-1", "-0.5", "-1e-400", "-1e99"}) {
    expect_status(text, FigureStatus::not_a_number);
  }
  for (const std::string_view text :
       {"1000000000001", "18446744073709551616", "99999999999999999999999999999999999999"}) {
    expect_status(text, FigureStatus::too_large);
  }
}

void what_is_no_number(void**) {
  for (const std::string_view text :
       {"x",   "1x",  "+1",  "01",   "00",  ".5",       "1.",  "1e",    "1e+",   "-",
        "- 1", "1 2", "1,5", "0x10", "NaN", "Infinity", "--1", "1.5.5", "1e5e5", "12, 12"}) {
    expect_status(text, FigureStatus::not_a_number);
  }
  expect_status(std::string_view("1\0", 2), FigureStatus::not_a_number);
  expect_status("", FigureStatus::absent);
  expect_status("  \t", FigureStatus::absent);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(whole_numbers),        cmocka_unit_test(fractions_round_up), cmocka_unit_test(exponents),
      cmocka_unit_test(what_is_out_of_range), cmocka_unit_test(what_is_no_number),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
