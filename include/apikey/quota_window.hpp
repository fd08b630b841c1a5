// Calendar windows in UTC, as quotas count in them. Pure arithmetic on the proleptic Gregorian calendar; a day has
// 86,400 seconds (POSIX, 4.16), weeks begin on Monday (ISO 8601).
#pragma once

#include "apikey/rows.hpp"
#include "apikey/units.hpp"

namespace apikey {

// From `begin` until just before `end`.
struct Window {
  UnixSec begin;
  UnixSec end;
  friend constexpr bool operator==(const Window&, const Window&) = default;
};

// The window that `now` lies in. REQUIRES: unit != CalendarUnit::none. Times before 1970 are taken for 1970.
[[nodiscard]] Window window_at(CalendarUnit unit, UnixSec now) noexcept;

}  // namespace apikey
