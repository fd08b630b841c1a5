// Tests of quota_window.cpp against the C library's calendar: random moments, and all that lie at an edge.
#include "apikey/quota_window.hpp"

#include <array>
#include <ctime>

#include "table_fixture.hpp"

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

constexpr std::int64_t kEnd = 4'102'444'800;  // 2100-01-01, which is no leap year's
constexpr std::array kUnits = {CalendarUnit::minute, CalendarUnit::hour,  CalendarUnit::day,
                               CalendarUnit::week,   CalendarUnit::month, CalendarUnit::year};

std::tm civil(std::int64_t at) {
  const std::time_t time = at;
  std::tm parts{};
  assert_non_null(gmtime_r(&time, &parts));
  return parts;
}

// What the C library says. timegm() puts right what is out of range, such as a month 13 or a day 0.
Window expected(CalendarUnit unit, std::int64_t now) {
  std::tm begin = civil(now);
  begin.tm_sec = 0;
  begin.tm_min = unit > CalendarUnit::minute ? 0 : begin.tm_min;
  begin.tm_hour = unit > CalendarUnit::hour ? 0 : begin.tm_hour;
  if (unit == CalendarUnit::week) {
    begin.tm_mday -= (begin.tm_wday + 6) % 7;  // tm_wday: 0 is Sunday
  }
  begin.tm_mday = unit > CalendarUnit::week ? 1 : begin.tm_mday;
  begin.tm_mon = unit > CalendarUnit::month ? 0 : begin.tm_mon;
  std::tm end = begin;
  end.tm_min += unit == CalendarUnit::minute ? 1 : 0;
  end.tm_hour += unit == CalendarUnit::hour ? 1 : 0;
  end.tm_mday += unit == CalendarUnit::day ? 1 : 0;
  end.tm_mday += unit == CalendarUnit::week ? 7 : 0;
  end.tm_mon += unit == CalendarUnit::month ? 1 : 0;
  end.tm_year += unit == CalendarUnit::year ? 1 : 0;
  return {{timegm(&begin)}, {timegm(&end)}};
}

void assert_agrees(std::int64_t now) {
  for (const CalendarUnit unit : kUnits) {
    const Window wanted = expected(unit, now);
    const Window window = window_at(unit, {now});
    assert_int_equal(window.begin.value, wanted.begin.value < 0 ? 0 : wanted.begin.value);
    assert_int_equal(window.end.value, wanted.end.value);
  }
}

void the_c_library_agrees_at_random_moments(void**) {
  Random random(3);
  for (int n = 0; n < 50'000; ++n) {
    assert_agrees(static_cast<std::int64_t>(random.below(kEnd)));
  }
}

// The last second of each day, and the first of the next: leap days, ends of months, years and weeks among them.
void the_c_library_agrees_at_every_midnight(void**) {
  for (std::int64_t day = 1; day * 86'400 <= kEnd; ++day) {
    assert_agrees(day * 86'400 - 1);
    assert_agrees(day * 86'400);
  }
}

void windows_that_people_know(void**) {
  const auto begin_of = [](CalendarUnit unit, std::int64_t now) { return window_at(unit, {now}).begin.value; };
  const auto end_of = [](CalendarUnit unit, std::int64_t now) { return window_at(unit, {now}).end.value; };
  constexpr std::int64_t leap_day = 1'709'208'000;  // 2024-02-29 12:00:00, a Thursday
  assert_int_equal(begin_of(CalendarUnit::month, leap_day), 1'706'745'600);
  assert_int_equal(end_of(CalendarUnit::month, leap_day), 1'709'251'200);
  assert_int_equal(begin_of(CalendarUnit::week, leap_day), 1'708'905'600);  // Monday, February 26
  assert_int_equal(end_of(CalendarUnit::year, leap_day) - begin_of(CalendarUnit::year, leap_day), 366 * 86'400);
  // December 31, 2024 lies in the first ISO week of 2025.
  assert_int_equal(begin_of(CalendarUnit::week, 1'735'603'200), begin_of(CalendarUnit::week, 1'735'689'600));
}

// Before the first Monday, and before 1970.
void time_begins_in_1970(void**) {
  assert_true((window_at(CalendarUnit::week, {0}) == Window{{0}, {4 * 86'400}}));
  for (const CalendarUnit unit : kUnits) {
    assert_true(window_at(unit, {-1'000'000}) == window_at(unit, {0}));
  }
}

void a_reset_begins_a_window_anew(void**) {
  const Window day{{86'400}, {2 * 86'400}};
  constexpr UnixSec noon{86'400 + 43'200};
  assert_true((begun_anew(day, noon, noon) == Window{noon, day.end}));
  assert_true(begun_anew(day, {0}, noon) == day);
  assert_true(begun_anew(day, {86'399}, noon) == day);                // of the day before
  assert_true(begun_anew(day, {noon.value + 1}, noon) == day);        // has not come yet
  assert_true(begun_anew(day, day.end, {day.end.value + 1}) == day);  // of the next day
}

void a_unit_is_found_by_how_far_it_reaches(void**) {
  Random random(5);
  for (int n = 0; n < 20'000; ++n) {
    const std::int64_t now = static_cast<std::int64_t>(random.below(kEnd));
    for (const CalendarUnit unit : kUnits) {
      const Window window = window_at(unit, {now});
      // Of the windows from here: the shortest with this end.
      const CalendarUnit found = unit_reaching({now}, window.end);
      assert_true(found <= unit || unit == CalendarUnit::week);
      assert_true(window_at(found, {now}).end >= window.end);
      assert_int_equal(static_cast<int>(unit_reaching(window.begin, window.end)), static_cast<int>(unit));
    }
  }
  assert_int_equal(static_cast<int>(unit_reaching({0}, {kEnd})), static_cast<int>(CalendarUnit::year));
}

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(the_c_library_agrees_at_random_moments),
      cmocka_unit_test(the_c_library_agrees_at_every_midnight),
      cmocka_unit_test(windows_that_people_know),
      cmocka_unit_test(time_begins_in_1970),
      cmocka_unit_test(a_reset_begins_a_window_anew),
      cmocka_unit_test(a_unit_is_found_by_how_far_it_reaches),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
