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

// The same, begun anew by a reset that lies in it; one that is still to come does nothing yet.
[[nodiscard]] constexpr Window begun_anew(Window window, UnixSec reset, UnixSec now) noexcept {
  if (reset > window.begin && reset < window.end && reset <= now) {
    window.begin = reset;
  }
  return window;
}

// The shortest unit whose window reaches from `begin` to `end` at least; the year when none does.
[[nodiscard]] CalendarUnit unit_reaching(UnixSec begin, UnixSec end) noexcept;

}  // namespace apikey
