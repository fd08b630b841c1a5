// Which characters of a text from outside are shown, and how the others are. Called by keyloader for all it takes and
// prints, and by the module for its log.
// Invariant: what shown() returns for a character that is not plain is printable ASCII.
#include "apikey/plain_text.hpp"

#include <algorithm>

namespace apikey {
namespace {

struct Range {
  char32_t first;
  char32_t last;
};

// Sorted. From Unicode's general categories Cc, Cf, Zl, Zp and the letters that are drawn as nothing.
constexpr Range kHidden[] = {
    {0x0000, 0x001f},    // C0
    {0x007f, 0x009f},    // DEL, C1: a terminal takes U+009B as ESC [
    {0x00ad, 0x00ad},    // soft hyphen
    {0x034f, 0x034f},    // combining grapheme joiner
    {0x0600, 0x0605},    // Arabic number signs
    {0x061c, 0x061c},    // Arabic letter mark
    {0x06dd, 0x06dd},    // Arabic end of ayah
    {0x070f, 0x070f},    // Syriac abbreviation mark
    {0x0890, 0x0891},    // Arabic currency marks above
    {0x08e2, 0x08e2},    // Arabic disputed end of ayah
    {0x115f, 0x1160},    // Hangul fillers
    {0x17b4, 0x17b5},    // Khmer inherent vowels
    {0x180b, 0x180f},    // Mongolian variation selectors and vowel separator
    {0x200b, 0x200f},    // zero width, marks of direction
    {0x2028, 0x202e},    // separators, overrides of direction
    {0x2060, 0x206f},    // word joiner, invisible operators, isolates of direction
    {0x3164, 0x3164},    // Hangul filler
    {0xfeff, 0xfeff},    // byte-order mark
    {0xffa0, 0xffa0},    // halfwidth Hangul filler
    {0xfff9, 0xfffb},    // interlinear annotation
    {0x110bd, 0x110bd},  // Kaithi number sign
    {0x110cd, 0x110cd},  // Kaithi number sign above
    {0x13430, 0x1343f},  // Egyptian hieroglyph format controls
    {0x1bca0, 0x1bca3},  // shorthand format controls
    {0x1d173, 0x1d17a},  // musical formatting
    {0xe0000, 0xe0fff},  // tags, supplementary variation selectors
};

bool is_hidden(char32_t code) noexcept {
  const auto* const found = std::lower_bound(std::begin(kHidden), std::end(kHidden), code,
                                             [](const Range& range, char32_t value) { return range.last < value; });
  return found != std::end(kHidden) && found->first <= code;
}

struct Form {
  std::size_t length;
  char32_t bits;   // of the first byte
  char32_t least;  // a shorter form would do for less
};

// RETURNS: length 0 for a byte that begins no character.
Form form_of(std::uint8_t first) noexcept {
  if (first < 0x80) {
    return {1, first, 0};
  }
  if (first >= 0xc0 && first < 0xe0) {
    return {2, first & 0x1fU, 0x80};
  }
  if (first >= 0xe0 && first < 0xf0) {
    return {3, first & 0x0fU, 0x800};
  }
  return first >= 0xf0 && first < 0xf8 ? Form{4, first & 0x07U, 0x10000} : Form{0, 0, 0};
}

bool is_surrogate(char32_t code) noexcept { return code >= 0xd800 && code < 0xe000; }

// RETURNS: false for what is not UTF-8 (RFC 3629).
bool decode(std::string_view text, Form form, char32_t& code) noexcept {
  if (form.length == 0 || text.size() < form.length) {
    return false;
  }
  code = form.bits;
  for (std::size_t i = 1; i < form.length; ++i) {
    const auto byte = static_cast<std::uint8_t>(text[i]);
    if ((byte & 0xc0U) != 0x80) {
      return false;
    }
    code = code << 6 | (byte & 0x3fU);
  }
  return code >= form.least && code <= 0x10ffff && !is_surrogate(code);
}

}  // namespace

Character next_character(std::string_view& rest) noexcept {
  Character character;
  const auto first = static_cast<std::uint8_t>(rest.front());
  const Form form = form_of(first);
  character.is_encoded = decode(rest, form, character.code);
  if (!character.is_encoded) {
    character.code = first;
  }
  character.bytes = {rest.data(), character.is_encoded ? form.length : 1};
  character.is_plain = character.is_encoded && !is_hidden(character.code);
  rest.remove_prefix(character.bytes.size());
  return character;
}

bool is_plain_text(std::string_view text) noexcept {
  while (!text.empty()) {
    if (!next_character(text).is_plain) {
      return false;
    }
  }
  return true;
}

std::string_view shown(const Character& character, std::span<char, kMaxShownCharacter> buffer) noexcept {
  if (character.is_plain) {
    return character.bytes;
  }
  constexpr std::string_view hex_digits = "0123456789abcdef";
  const bool is_byte = !character.is_encoded || character.code < 0x80;
  const std::size_t digits = is_byte ? 2 : character.code < 0x10000 ? 4 : 8;
  buffer[0] = '\\';
  buffer[1] = is_byte ? 'x' : digits == 4 ? 'u' : 'U';
  for (std::size_t i = 0; i < digits; ++i) {
    buffer[2 + i] = hex_digits[character.code >> (4 * (digits - 1 - i)) & 0xf];
  }
  return {buffer.data(), 2 + digits};
}

}  // namespace apikey
