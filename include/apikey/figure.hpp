// A figure: what an upstream reports a request to have cost, as text or as a number in JSON.
// Called by the finders of number_finder.hpp digit by digit, by the adapter for the text of a variable.
// A figure is a whole number from 0 to kMaxFigure; a fraction rounds up. `1e3` is 1000, `1.5` is 2, `-0` is 0.
#pragma once

#include <cstdint>
#include <string_view>

namespace apikey {

inline constexpr std::uint64_t kMaxFigure = 1'000'000'000'000;  // 10^12

enum class FigureStatus : std::uint8_t {
  found,
  absent,        // nothing there
  not_a_number,  // something else there, or a number below 0
  too_large,     // a number above kMaxFigure
  not_json,      // the body cannot be read
};

struct Figure {
  FigureStatus status = FigureStatus::absent;
  std::uint64_t value = 0;
};

// A number as JSON writes it (RFC 8259 section 6), given one character after the other. Exact however long it is.
class DecimalReader {
 public:
  // RETURNS: false when the number cannot go on with this character, which is then not part of it.
  [[nodiscard]] bool add(char c) noexcept;
  [[nodiscard]] bool is_complete() const noexcept;
  // REQUIRES: is_complete().
  [[nodiscard]] Figure figure() const noexcept;

 private:
  enum class State : std::uint8_t { start, minus, zero, integer, point, fraction, mark, sign, exponent };
  void add_digit(unsigned digit) noexcept;
  void add_exponent_digit(unsigned digit) noexcept;

  std::uint64_t digits_ = 0;  // the first 18 significant ones
  std::int64_t scale_ = 0;    // the value is digits_ · 10^(scale_ ± exponent_), and a little more when is_cut_
  std::int64_t exponent_ = 0;
  State state_ = State::start;
  bool is_negative_ = false;
  bool is_exponent_negative_ = false;
  bool is_cut_ = false;  // a digit after the first 18 was not 0
};

// A number alone in a text; spaces and tabs around it do not count. Nothing at all is `absent`.
[[nodiscard]] Figure parse_figure(std::string_view text) noexcept;

}  // namespace apikey
