// Texts from outside that people get to see: names of owners and plans, of other machines' snapshots, reasons, nodes.
// One test for what may be in them and one way to show what should not have been, for keyloader and for nginx's log.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace apikey {

// What stands at the front of a text.
struct Character {
  std::string_view bytes;   // at least one
  char32_t code = 0;        // of a character in UTF-8, or of the single byte that begins none
  bool is_encoded = false;  // it is a character in UTF-8
  bool is_plain = false;    // it may be shown as it is
};

// Not plain are: bytes that are not UTF-8; control characters (C0, DEL, C1); line and paragraph separators; and what is
// not seen but changes how the rest is seen or compared: marks and overrides of direction, characters without a width,
// invisible letters, tags.
// REQUIRES: `rest` is not empty. Takes the character off it.
[[nodiscard]] Character next_character(std::string_view& rest) noexcept;

// True when all of the text is plain. True for an empty one.
[[nodiscard]] bool is_plain_text(std::string_view text) noexcept;

// A character as it is shown: itself when it is plain, else `\x1b` for a byte or ASCII, `\u202e` or `\U000e0001`.
// RETURNS: a view of `character.bytes`, or of `buffer`.
inline constexpr std::size_t kMaxShownCharacter = 10;
[[nodiscard]] std::string_view shown(const Character& character, std::span<char, kMaxShownCharacter> buffer) noexcept;

}  // namespace apikey
