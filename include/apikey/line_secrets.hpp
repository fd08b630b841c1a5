// Finds what must not be shown in a line that a client wrote: a request line, a URI, the value of a header.
// Called by the adapter before such a line is logged or handed on. Works on text that nobody has parsed yet, so it
// finds rather too much than too little: names behind any separator, escapes decoded, keys in the middle of a word.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace apikey {

struct LineSecrets {
  std::span<const std::string_view> names;  // of arguments whose values are secrets; compared ignoring case
  std::string_view key;                     // a text that is one wherever it stands; empty: none
};

// Looks, from `begin` on, for the first of these: the value of a named argument (`?name=…`, `&name=…`, `;name=…`, up to
// `&`, a blank or the end), `key`, and a text that has the whole form of one of our keys. Percent-encoded ones are
// found as well. RETURNS: false when there is none; else `found` is a part of `line`, never empty.
[[nodiscard]] bool find_secret(std::string_view line, std::size_t begin, const LineSecrets& secrets,
                               std::string_view& found) noexcept;
// The same for `key` alone.
[[nodiscard]] bool find_copy(std::string_view line, std::size_t begin, std::string_view key,
                             std::string_view& found) noexcept;

}  // namespace apikey
