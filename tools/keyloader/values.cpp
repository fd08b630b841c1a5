// Parsing what people write: names, times, meta, lists. Called by all commands and by import.
// Messages name the value; so no secret may ever come through here.
#include "values.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>
#include <optional>

#include "admin_roles.hpp"
#include "apikey/plain_text.hpp"
#include "apikey/scope_set.hpp"

namespace keyloader {
namespace {

constexpr std::string_view kNone = "none";
constexpr std::size_t kMaxLabel = 64;
constexpr std::size_t kMaxReason = 512;
constexpr std::size_t kMaxMetaValue = 1024;
constexpr std::size_t kMaxMetaTotal = 10'240;
constexpr std::string_view kUnits = "smhdw";
constexpr std::array<Seconds, kUnits.size()> kUnitSeconds{1, 60, 3600, 86'400, 604'800};
constexpr Seconds kDay = 86'400;
constexpr Seconds kMaxDuration = Seconds{100} * 366 * 86'400;

bool is_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// The digits text[at, at + count) as a number; -1 when they are not all digits.
int digits(std::string_view text, std::size_t at, std::size_t count) {
  int value = 0;
  for (std::size_t i = at; i < at + count; ++i) {
    if (i >= text.size() || text[i] < '0' || text[i] > '9') {
      return -1;
    }
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

// "", "Z", "+02:00", "-0500" (as `date +%z` writes it) → seconds east of Greenwich.
std::optional<Seconds> parse_zone(std::string_view text) {
  if (text.empty() || text == "Z" || text == "z") {
    return 0;
  }
  if (text.front() != '+' && text.front() != '-') {
    return std::nullopt;
  }
  const std::size_t minutes_at = text.size() == 6 && text[3] == ':' ? 4 : 3;
  const int hours = digits(text, 1, 2);
  const int minutes = digits(text, minutes_at, 2);
  if (text.size() != minutes_at + 2 || hours < 0 || hours > 23 || minutes < 0 || minutes > 59) {
    return std::nullopt;
  }
  const Seconds east = Seconds{hours} * 3600 + Seconds{minutes} * 60;
  return text.front() == '+' ? east : -east;
}

// ".123" at the beginning of `text` → cut off. RETURNS: whether it says more than zero; none when a dot stands alone.
std::optional<bool> cut_fraction(std::string_view& text) {
  if (text.empty() || text.front() != '.') {
    return false;
  }
  const std::size_t end = std::min(text.find_first_not_of("0123456789", 1), text.size());
  if (end == 1) {
    return std::nullopt;
  }
  const bool is_more = text.substr(1, end - 1).find_first_not_of('0') != std::string_view::npos;
  text.remove_prefix(end);
  return is_more;
}

// "12:00", "12:00:00.5+02:00" → seconds since the midnight of the day in UTC, maybe negative.
std::optional<Seconds> parse_time_of_day(std::string_view text, Rounding rounding) {
  const int hour = digits(text, 0, 2);
  const int minute = digits(text, 3, 2);
  if (text.size() < 5 || text[2] != ':' || hour < 0 || hour > 23 || minute < 0 || minute > 59) {
    return std::nullopt;
  }
  text.remove_prefix(5);
  int second = 0;
  bool is_more = false;
  if (!text.empty() && text.front() == ':') {
    second = digits(text, 1, 2);
    text.remove_prefix(std::min<std::size_t>(3, text.size()));
    const auto fraction = cut_fraction(text);
    if (second < 0 || second > 60 || !fraction) {
      return std::nullopt;
    }
    is_more = *fraction;
  }
  const auto east = parse_zone(text);
  if (!east) {
    return std::nullopt;
  }
  const Seconds time = Seconds{hour} * 3600 + Seconds{minute} * 60 + second - *east;
  // A leap second ends a day in UTC.
  if (second == 60 && time % 86'400 != 0) {
    return std::nullopt;
  }
  return is_more && rounding == Rounding::up ? time + 1 : time;
}

// RFC 3339, or a date alone; a space may stand for the T, and seconds and zone may be left out.
std::optional<Seconds> parse_date(std::string_view text, Rounding rounding) {
  const int year = digits(text, 0, 4);
  const int month = digits(text, 5, 2);
  const int day = digits(text, 8, 2);
  if (text.size() < 10 || year < 1970 || month < 1 || day < 1 || text[4] != '-' || text[7] != '-') {
    return std::nullopt;
  }
  std::optional<Seconds> time{0};
  if (text.size() > 10) {
    const bool is_separated = text[10] == 'T' || text[10] == 't' || text[10] == ' ';
    time = is_separated ? parse_time_of_day(text.substr(11), rounding) : std::nullopt;
  }
  std::tm parts{};
  parts.tm_year = year - 1900;
  parts.tm_mon = month - 1;
  parts.tm_mday = day;
  std::tm normalized = parts;
  const Seconds midnight = timegm(&normalized);
  // timegm() makes the 30th of February a day in March.
  const bool is_calendar_day = normalized.tm_mday == day && normalized.tm_mon == month - 1;
  return is_calendar_day && time ? std::optional(midnight + *time) : std::nullopt;
}

std::optional<Seconds> duration_of(std::string_view text) {
  if (text.size() < 2) {
    return std::nullopt;
  }
  std::uint32_t count = 0;
  const char* unit = text.data() + text.size() - 1;
  const auto [end, error] = std::from_chars(text.data(), unit, count);
  const std::size_t which = kUnits.find(*unit);
  if (error != std::errc{} || end != unit || count == 0 || which == std::string_view::npos) {
    return std::nullopt;
  }
  const Seconds duration = Seconds{count} * kUnitSeconds.at(which);
  return duration <= kMaxDuration ? std::optional(duration) : std::nullopt;
}

}  // namespace

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return text;
}

bool is_none(std::string_view text) { return text == kNone; }

bool clears(std::string_view what, const Texts& words) {
  if (words.size() == 1) {
    return is_none(words.front());
  }
  if (std::any_of(words.begin(), words.end(), is_none)) {
    throw UsageError(
        fmt::format("`none` clears all {}, so it stands alone; leave it out, or leave the others out", what));
  }
  return false;
}

void check_label(std::string_view what, const std::string& name) {
  const bool is_good =
      !name.empty() && name.size() <= kMaxLabel && is_alnum(name.front()) && !is_none(name) &&
      std::all_of(name.begin(), name.end(), [](char c) { return is_alnum(c) || c == '.' || c == '_' || c == '-'; });
  if (!is_good) {
    throw UsageError(
        fmt::format("\"{}\" cannot be the name of a {}: 1-{} of A-Z a-z 0-9 . _ -, beginning with a letter or digit, "
                    "and not `none`",
                    name, what, kMaxLabel));
  }
}

void check_text(std::string_view what, const std::string& text, std::size_t most) {
  if (text.empty() || text.size() > most || is_none(text) || text.front() == ' ' || text.back() == ' ' ||
      !apikey::is_plain_text(text)) {
    throw UsageError(
        fmt::format("\"{}\" cannot be the {}: 1-{} bytes of UTF-8 without control or invisible characters, no space at "
                    "the ends, and not `none`",
                    text, what, most));
  }
}

void check_reason(const std::string& reason) {
  if (!reason.empty()) {
    check_text("reason", reason, kMaxReason);
  }
}

Seconds parse_duration(const std::string& text) {
  const auto duration = duration_of(text);
  if (!duration) {
    throw UsageError(fmt::format("\"{}\" is no duration; write 30s, 15m, 24h, 90d or 2w", text));
  }
  return *duration;
}

Seconds parse_time(const std::string& text, Seconds now, Rounding rounding) {
  if (const auto duration = duration_of(text)) {
    return now + *duration;
  }
  const auto date = parse_date(text, rounding);
  if (!date) {
    throw UsageError(fmt::format(
        "\"{}\" is not a time; write 90d (from now), 12h, 2w, 2026-01-31 or 2026-01-31T12:00:00Z (UTC unless it "
        "names an offset)",
        text));
  }
  return *date;
}

Seconds parse_past(const std::string& text, Seconds now) {
  if (const auto duration = duration_of(text)) {
    return now - *duration;
  }
  const Seconds midnight = now / kDay * kDay;
  if (text == "today" || text == "yesterday") {
    return text == "today" ? midnight : midnight - kDay;
  }
  const auto date = parse_date(text, Rounding::down);
  if (!date) {
    throw UsageError(
        fmt::format("\"{}\" is not a time; write 7d (ago), 12h, today, yesterday, 2026-01-31 or "
                    "2026-01-31T12:00:00Z (UTC unless it names an offset)",
                    text));
  }
  return *date;
}

std::optional<Seconds> parse_start(const std::string& text, Seconds now) {
  if (is_none(text)) {
    return std::nullopt;
  }
  const Seconds start = parse_time(text, now, Rounding::up);
  if (start <= 0) {
    throw UsageError(fmt::format(
        "\"{}\" cannot be kept, times begin after 1970-01-01T00:00:00Z; write `none` for a key that is valid "
        "from the start",
        text));
  }
  return start;
}

std::optional<Seconds> parse_end(const std::string& text, Seconds now) {
  if (is_none(text)) {
    return std::nullopt;
  }
  const Seconds end = parse_time(text, now, Rounding::down);
  if (end <= now) {
    throw UsageError(
        fmt::format("\"{}\" is in the past, so the key would never be good; write a later time, such as 90d or "
                    "2027-01-31, or `none` for one that never expires. `keyloader key revoke` ends a key at once",
                    text));
  }
  return end;
}

Texts sorted_once(Texts words) {
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  return words;
}

Texts tidy_scopes(const Texts& scopes) {
  for (const std::string& scope : scopes) {
    if (!apikey::is_valid_grant(scope) || is_none(scope)) {
      throw UsageError(
          fmt::format("\"{}\" is no scope: segments of A-Z a-z 0-9 _ . / - joined by ':', `*` only as the last "
                      "(orders:read, orders:*)",
                      scope));
    }
    if (apikey::is_reserved_scope(scope)) {
      throw UsageError(reserved_sentence(scope));
    }
  }
  if (scopes.size() > apikey::kMaxScopesPerSet) {
    throw UsageError(
        fmt::format("{} scopes are too many, {} fit; use `orders:*`", scopes.size(), apikey::kMaxScopesPerSet));
  }
  return sorted_once(scopes);
}

void set_meta_value(MetaMap& meta, const std::string& name, const std::string& value) {
  const bool is_good = !name.empty() && name.size() <= kMaxLabel && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
  if (!is_good) {
    throw UsageError(fmt::format(
        "\"{}\" cannot name a meta value: 1-{} of a-z 0-9 _ (nginx sees it as $apikey_meta_<name>)", name, kMaxLabel));
  }
  if (value.empty()) {
    meta.erase(name);
    return;
  }
  if (value.size() > kMaxMetaValue || !apikey::is_plain_text(value)) {
    throw UsageError(
        fmt::format("the value of meta {} must be at most {} bytes of UTF-8 without control or invisible characters",
                    name, kMaxMetaValue));
  }
  meta[name] = value;
  std::size_t total = 0;
  for (const auto& [each, text] : meta) {
    total += each.size() + text.size();
  }
  if (total > kMaxMetaTotal) {
    throw UsageError(fmt::format("all meta values together are {} bytes, {} are allowed", total, kMaxMetaTotal));
  }
}

void apply_meta(MetaMap& meta, const Texts& pairs) {
  for (const std::string& pair : pairs) {
    if (is_none(pair)) {
      meta.clear();
      continue;
    }
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos) {
      throw UsageError(fmt::format("\"{}\" is no meta value; write name=value, or name= to remove it", pair));
    }
    set_meta_value(meta, pair.substr(0, equals), pair.substr(equals + 1));
  }
}

}  // namespace keyloader
