// What people write on the command line and in import files, made into values: names, times, meta, lists.
// Called by all commands and by import. Each throws UsageError: what is wrong, with which value, what to write.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "registry/registry.hpp"

namespace keyloader {

// A-Z as a-z, whatever the locale.
[[nodiscard]] std::string lower_case(std::string text);

// `none` clears a field. It is the only word that does: nothing at all, 0 or 1970 never mean it.
[[nodiscard]] bool is_none(std::string_view text);
// Whether `words` is a lone `none`. Throws where it stands among others. `what`: "scopes".
[[nodiscard]] bool clears(std::string_view what, const Texts& words);

// Plans, roles: they stand in lists and in metrics. 1-64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit.
void check_label(std::string_view what, const std::string& name);
// Owners, names of keys, e-mail, teams: 1-`most` bytes of UTF-8, all of it plain (apikey/plain_text.hpp).
void check_text(std::string_view what, const std::string& text, std::size_t most = 128);

// Why something was done, as the audit keeps it; empty: nobody said.
void check_reason(const std::string& reason);

// "15m", "24h", "90d", "2w" → seconds.
[[nodiscard]] Seconds parse_duration(const std::string& text);
// What becomes of a fraction of a second: the end of a validity is never later than it says, its start never earlier.
enum class Rounding : std::uint8_t { down, up };
// A time to come: a duration from `now`, or "2026-01-31", or RFC 3339: "2026-01-31T12:00:00Z",
// "2026-01-31t12:00:00.5+02:00".
[[nodiscard]] Seconds parse_time(const std::string& text, Seconds now, Rounding rounding = Rounding::down);
// A time that was: a duration before `now`, "today", "yesterday" (midnights in UTC), or a date as above.
[[nodiscard]] Seconds parse_past(const std::string& text, Seconds now);
// The time from which a key is good; `none` → nothing. May be in the past.
[[nodiscard]] std::optional<Seconds> parse_start(const std::string& text, Seconds now);
// The time at which a key ends; `none` → nothing. Throws for one that has passed.
[[nodiscard]] std::optional<Seconds> parse_end(const std::string& text, Seconds now);

// Sorted, each once, each checked as something a key may hold.
[[nodiscard]] Texts tidy_scopes(const Texts& scopes);
[[nodiscard]] Texts sorted_once(Texts words);

// Adds `name=value` pairs to `meta`; `name=` removes one, a lone `none` removes all.
void apply_meta(MetaMap& meta, const Texts& pairs);
void set_meta_value(MetaMap& meta, const std::string& name, const std::string& value);

}  // namespace keyloader
