// Finds the number at a path in a JSON text (RFC 8259) that comes in pieces of any size. Keeps none of the text.
// Called by the adapter's body filter for what a request has cost, e.g. `usage.total_tokens`; over server-sent events
// by event_number_finder.hpp. Its work is a few instructions per byte and its size fixed, whatever the text.
//   The path is followed through objects only: an array on it is no match, and what lies in arrays is not looked at.
//   Where a member name stands twice in an object the last one counts, as most readers have it.
//   Names are compared with their escapes decoded. Bytes above 0x7f are not checked to be UTF-8.
//   A text nested deeper than kMaxDepth is refused as if it were no JSON.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "apikey/figure.hpp"
#include "apikey/status.hpp"

namespace apikey {

// Member names from the outermost object to the number. LIFETIME: of the text it was parsed from.
struct NumberPath {
  static constexpr std::size_t kMaxNames = 8;
  std::array<std::string_view, kMaxNames> names;
  std::size_t count = 0;
};

// `usage.total_tokens`: 1 to 8 names with dots between them. RETURNS: bad_value with a sentence.
Status parse_number_path(std::string_view text, NumberPath& path) noexcept;

class NumberFinder {
 public:
  static constexpr std::size_t kMaxDepth = 256;

  // REQUIRES: the path outlives the finder.
  explicit NumberFinder(const NumberPath& path) noexcept : path_(&path) {}

  void feed(std::string_view piece) noexcept;

  // What was found. `is_whole`: there is no more of the text; then half a text is none. Otherwise it was cut off, and
  // what has been read counts.
  [[nodiscard]] Figure finish(bool is_whole) noexcept;

 private:
  enum class State : std::uint8_t {
    value,
    first_item,  // after [
    first_name,  // after {
    name,        // after , in an object
    colon,
    after_value,
    string,
    escape,
    unicode,
    literal,
    number,
    ended,
    broken,
  };
  [[nodiscard]] bool is_on_path() const noexcept { return on_path_ == depth_; }
  [[nodiscard]] bool is_in_object() const noexcept;
  [[nodiscard]] bool compares() const noexcept { return is_name_ && name_matches_; }
  State step(char c) noexcept;
  State begin_value(char c) noexcept;
  State begin_name() noexcept;
  State open(bool is_object) noexcept;
  State close(bool is_object) noexcept;
  State end_value() const noexcept { return depth_ == 0 ? State::ended : State::after_value; }
  State end_string() noexcept;
  State read_after_value(char c) noexcept;
  State read_string(char c) noexcept;
  State read_escape(char c) noexcept;
  State read_unicode(char c) noexcept;
  State read_literal(char c) noexcept;
  State read_number(char c) noexcept;
  void compare_byte(char c) noexcept;
  void compare_unit(std::uint32_t unit) noexcept;
  void compare_code_point(std::uint32_t code_point) noexcept;

  const NumberPath* path_;
  Figure figure_;
  DecimalReader number_;
  std::array<std::uint64_t, kMaxDepth / 64> objects_{};  // a bit per open container: an object, not an array
  std::size_t depth_ = 0;                                // containers that are open
  std::size_t on_path_ = 0;    // how many of them, from the outermost, are objects the path leads through
  std::string_view rest_;      // of the literal: true, false or null
  std::size_t name_size_ = 0;  // bytes of the name that have been compared
  std::uint32_t unit_ = 0;     // of \uXXXX, as far as it was read
  std::uint32_t high_ = 0;     // a high surrogate that waits for its low one; 0: none
  std::uint8_t hex_digits_ = 0;
  State state_ = State::value;
  bool is_name_ = false;       // the string being read is a member's name …
  bool name_matches_ = false;  // … and so far the one that the path wants in this object
  bool is_wanted_ = false;     // the value that comes is the one the path leads to from here
  bool is_figure_ = false;     // the number being read is the figure
};

}  // namespace apikey
