// What people write on the command line and in import files, made into values: names, times, meta, lists.
// Called by all commands and by import. Each throws UsageError: what is wrong, with which value, what to write.
#pragma once

#include <string>
#include <string_view>

#include "registry/registry.hpp"

namespace keyloader {

// `none` or nothing at all: clears a field.
[[nodiscard]] bool is_none(std::string_view text);

// Plans, roles: they stand in lists and in metrics. 1-64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit.
void check_label(std::string_view what, const std::string& name);
// Owners, names of keys, e-mail, teams: 1-`most` bytes of UTF-8 without control characters.
void check_text(std::string_view what, const std::string& text, std::size_t most = 128);
[[nodiscard]] bool is_utf8(std::string_view text);

// "15m", "24h", "90d", "2w" → seconds.
[[nodiscard]] Seconds parse_duration(const std::string& text);
// A duration from `now`, or "2026-01-31", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00+02:00"; `none` → 0.
[[nodiscard]] Seconds parse_moment(const std::string& text, Seconds now);

// Sorted, each once, each checked as something a key may hold.
[[nodiscard]] Texts tidy_scopes(const Texts& scopes);
[[nodiscard]] Texts sorted_once(Texts words);

// Adds `name=value` pairs to `meta`; `name=` removes one, a lone `none` removes all.
void apply_meta(MetaMap& meta, const Texts& pairs);
void set_meta_value(MetaMap& meta, const std::string& name, const std::string& value);

}  // namespace keyloader
