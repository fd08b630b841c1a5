// Calendar windows in UTC: minutes, hours, days, ISO weeks, months, years.
// Called wherever a quota is looked at, and by keyloader. Reads no clock and no time zone.
#include "apikey/quota_window.hpp"

#include <algorithm>

namespace apikey {

namespace {

constexpr std::int64_t kMinute = 60;
constexpr std::int64_t kHour = 3600;
constexpr std::int64_t kDay = 86'400;
constexpr std::int64_t kWeek = 7 * kDay;

// Years are counted from March here, so that the leap day is the last one of its year, and a month's first day is
// (153 m + 2) / 5 with m = 0 for March. 400 years are 146,097 days.
constexpr std::int64_t kDaysPerEra = 146'097;
constexpr std::int64_t kDaysBefore1970 = 719'468;  // from March 1 of year 0

struct Month {
  std::int64_t year = 0;   // since 0
  std::int64_t month = 0;  // 1 … 12
};

constexpr std::int64_t first_day(Month at) noexcept {
  const std::int64_t year = at.month <= 2 ? at.year - 1 : at.year;
  const std::int64_t from_march = (at.month + 9) % 12;
  return 365 * year + year / 4 - year / 100 + year / 400 + (153 * from_march + 2) / 5 - kDaysBefore1970;
}

constexpr Month month_of(std::int64_t day) noexcept {
  const std::int64_t days = day + kDaysBefore1970;
  const std::int64_t era = days / kDaysPerEra;
  const std::int64_t day_of_era = days % kDaysPerEra;
  // The leap days of the era that came before are taken out; then every year has 365 days.
  const std::int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36'524 - day_of_era / (kDaysPerEra - 1)) / 365;
  const std::int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const std::int64_t from_march = (5 * day_of_year + 2) / 153;
  const std::int64_t month = from_march < 10 ? from_march + 3 : from_march - 9;
  return {400 * era + year_of_era + (month <= 2 ? 1 : 0), month};
}
static_assert(first_day({1970, 1}) == 0 && first_day({2000, 3}) == 11'017);
static_assert(month_of(11'016).month == 2 && month_of(11'017).month == 3);

constexpr Window aligned(std::int64_t now, std::int64_t length, std::int64_t offset = 0) noexcept {
  const std::int64_t begin = now - (now + offset) % length;
  return {{std::max<std::int64_t>(begin, 0)}, {begin + length}};
}

constexpr Window between(Month first, Month next) noexcept {
  return {{first_day(first) * kDay}, {first_day(next) * kDay}};
}

}  // namespace

Window window_at(CalendarUnit unit, UnixSec now) noexcept {
  const std::int64_t at = std::max<std::int64_t>(now.value, 0);
  const Month month = month_of(at / kDay);
  switch (unit) {
    case CalendarUnit::minute:
      return aligned(at, kMinute);
    case CalendarUnit::hour:
      return aligned(at, kHour);
    case CalendarUnit::none:
    case CalendarUnit::day:
      return aligned(at, kDay);
    case CalendarUnit::week:
      return aligned(at, kWeek, 3 * kDay);  // 1970 began on a Thursday
    case CalendarUnit::month:
      return between(month, month.month < 12 ? Month{month.year, month.month + 1} : Month{month.year + 1, 1});
    case CalendarUnit::year:
      return between({month.year, 1}, {month.year + 1, 1});
  }
  return {};
}

CalendarUnit unit_reaching(UnixSec begin, UnixSec end) noexcept {
  for (const CalendarUnit unit :
       {CalendarUnit::minute, CalendarUnit::hour, CalendarUnit::day, CalendarUnit::week, CalendarUnit::month}) {
    if (window_at(unit, begin).end >= end) {
      return unit;
    }
  }
  return CalendarUnit::year;
}

}  // namespace apikey
