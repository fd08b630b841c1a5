// Parsing what people write: names, times, meta, lists. Called by all commands and by import.
// Messages name the value; so no secret may ever come through here.
#include "values.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>
#include <optional>

#include "apikey/scope_set.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kMaxLabel = 64;
constexpr std::size_t kMaxMetaValue = 1024;
constexpr std::size_t kMaxMetaTotal = 10'240;
constexpr std::string_view kUnits = "smhdw";
constexpr std::array<Seconds, kUnits.size()> kUnitSeconds{1, 60, 3600, 86'400, 604'800};
constexpr Seconds kMaxDuration = Seconds{100} * 366 * 86'400;

bool is_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

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

// "", "Z", "+02:00", "-0500" → seconds east of Greenwich.
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
  if (text.size() != minutes_at + 2 || hours < 0 || hours > 14 || minutes < 0 || minutes > 59) {
    return std::nullopt;
  }
  const Seconds east = Seconds{hours} * 3600 + Seconds{minutes} * 60;
  return text.front() == '+' ? east : -east;
}

std::optional<Seconds> parse_date(std::string_view text) {
  const int year = digits(text, 0, 4);
  const int month = digits(text, 5, 2);
  const int day = digits(text, 8, 2);
  if (year < 1970 || month < 1 || day < 1 || text[4] != '-' || text[7] != '-') {
    return std::nullopt;
  }
  std::tm parts{};
  Seconds east = 0;
  if (text.size() > 10) {
    parts.tm_hour = digits(text, 11, 2);
    parts.tm_min = digits(text, 14, 2);
    const bool has_seconds = text.size() > 16 && text[16] == ':';
    parts.tm_sec = has_seconds ? digits(text, 17, 2) : 0;
    const bool is_time = (text[10] == 'T' || text[10] == ' ') && text.size() >= 16 && text[13] == ':' &&
                         parts.tm_hour >= 0 && parts.tm_hour < 24 && parts.tm_min >= 0 && parts.tm_min < 60 &&
                         parts.tm_sec >= 0 && parts.tm_sec < 60;
    const auto zone = is_time ? parse_zone(text.substr(has_seconds ? 19 : 16)) : std::nullopt;
    if (!zone) {
      return std::nullopt;
    }
    east = *zone;
  }
  parts.tm_year = year - 1900;
  parts.tm_mon = month - 1;
  parts.tm_mday = day;
  std::tm normalized = parts;
  const Seconds moment = timegm(&normalized);
  // timegm() makes the 30th of February a day in March.
  const bool is_calendar_day = normalized.tm_mday == day && normalized.tm_mon == month - 1;
  return is_calendar_day ? std::optional(moment - east) : std::nullopt;
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

bool is_none(std::string_view text) { return text.empty() || text == "none"; }

bool is_utf8(std::string_view text) {
  // Json refuses to write what is not UTF-8: one judge for everything that ends in --json output and the audit.
  try {
    static_cast<void>(Json(text).dump());
    return true;
  } catch (const Json::exception&) {
    return false;
  }
}

void check_label(std::string_view what, const std::string& name) {
  const bool is_good =
      !name.empty() && name.size() <= kMaxLabel && is_alnum(name.front()) && name != "none" &&
      std::all_of(name.begin(), name.end(), [](char c) { return is_alnum(c) || c == '.' || c == '_' || c == '-'; });
  if (!is_good) {
    throw UsageError(
        fmt::format("\"{}\" cannot be the name of a {}: 1-{} of A-Z a-z 0-9 . _ -, beginning with a letter or digit, "
                    "and not `none`",
                    name, what, kMaxLabel));
  }
}

void check_text(std::string_view what, const std::string& text, std::size_t most) {
  if (!is_utf8(text)) {
    throw UsageError(fmt::format("the {} is not UTF-8", what));
  }
  if (text.empty() || text.size() > most || text == "none" || text.front() == ' ' || text.back() == ' ' ||
      std::any_of(text.begin(), text.end(), is_control)) {
    throw UsageError(
        fmt::format("\"{}\" cannot be the {}: 1-{} bytes without control characters, no space at the ends, and not "
                    "`none`",
                    text, what, most));
  }
}

Seconds parse_duration(const std::string& text) {
  const auto duration = duration_of(text);
  if (!duration) {
    throw UsageError(fmt::format("\"{}\" is no duration; write 30s, 15m, 24h, 90d or 2w", text));
  }
  return *duration;
}

Seconds parse_moment(const std::string& text, Seconds now) {
  if (is_none(text)) {
    return 0;
  }
  if (const auto duration = duration_of(text)) {
    return now + *duration;
  }
  const auto date = text.size() >= 10 ? parse_date(text) : std::nullopt;
  if (!date) {
    throw UsageError(
        fmt::format("\"{}\" is no moment; write 90d (from now), 2026-01-31 or 2026-01-31T12:00:00Z (UTC unless it "
                    "names an offset)",
                    text));
  }
  return *date;
}

Texts sorted_once(Texts words) {
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  return words;
}

Texts tidy_scopes(const Texts& scopes) {
  for (const std::string& scope : scopes) {
    if (!apikey::is_valid_grant(scope)) {
      throw UsageError(
          fmt::format("\"{}\" is no scope: segments of A-Z a-z 0-9 _ . / - joined by ':', `*` only as the last "
                      "(orders:read, orders:*)",
                      scope));
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
  if (value.size() > kMaxMetaValue || !is_utf8(value) || std::any_of(value.begin(), value.end(), is_control)) {
    throw UsageError(fmt::format("the value of meta {} must be at most {} bytes of UTF-8 without control characters",
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
