// Numbers as upstreams report them, read exactly and rounded up.
// Called for what an answer is settled by. Must never take for a number what is none, nor overflow.
#include "apikey/figure.hpp"

#include <algorithm>

namespace apikey {
namespace {

constexpr std::uint64_t kMostDigits = 100'000'000'000'000'000;  // 10^17: one more digit still fits 64 bits
constexpr std::int64_t kMostExponent = 1'000'000'000'000'000;   // beyond any number of digits a body could hold

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

// digits · 10^scale (and a little more), rounded up; anything above kMaxFigure as kMaxFigure + 1.
std::uint64_t scaled(std::uint64_t digits, std::int64_t scale, bool has_rest) noexcept {
  for (; scale > 0 && digits != 0 && digits <= kMaxFigure; --scale) {
    digits *= 10;
  }
  for (; scale < 0 && digits != 0; ++scale) {
    has_rest = has_rest || digits % 10 != 0;
    digits /= 10;
  }
  return std::min(digits + (has_rest ? 1 : 0), kMaxFigure + 1);
}

}  // namespace

void DecimalReader::add_digit(unsigned digit) noexcept {
  const bool is_fraction = state_ == State::fraction;
  if (digits_ < kMostDigits) {
    digits_ = digits_ * 10 + digit;
    scale_ -= is_fraction ? 1 : 0;
    return;
  }
  is_cut_ = is_cut_ || digit != 0;
  scale_ += is_fraction ? 0 : 1;
}

void DecimalReader::add_exponent_digit(unsigned digit) noexcept {
  exponent_ = std::min(exponent_ * 10 + static_cast<std::int64_t>(digit), kMostExponent);
}

bool DecimalReader::add(char c) noexcept {
  const auto digit = static_cast<unsigned>(c - '0');
  switch (state_) {
    case State::start:
      if (c == '-') {
        is_negative_ = true;
        state_ = State::minus;
        return true;
      }
      [[fallthrough]];
    case State::minus:
      if (!is_digit(c)) {
        return false;
      }
      state_ = c == '0' ? State::zero : State::integer;
      add_digit(digit);
      return true;
    case State::integer:
      if (is_digit(c)) {
        add_digit(digit);
        return true;
      }
      [[fallthrough]];
    case State::zero:
      if (c == '.') {
        state_ = State::point;
        return true;
      }
      break;
    case State::point:
    case State::fraction:
      if (is_digit(c)) {
        state_ = State::fraction;
        add_digit(digit);
        return true;
      }
      if (state_ == State::point) {
        return false;
      }
      break;
    case State::mark:
      if (c == '+' || c == '-') {
        is_exponent_negative_ = c == '-';
        state_ = State::sign;
        return true;
      }
      [[fallthrough]];
    case State::sign:
    case State::exponent:
      if (!is_digit(c)) {
        return false;
      }
      state_ = State::exponent;
      add_exponent_digit(digit);
      return true;
  }
  if (c != 'e' && c != 'E') {
    return false;
  }
  state_ = State::mark;
  return true;
}

bool DecimalReader::is_complete() const noexcept {
  return state_ == State::zero || state_ == State::integer || state_ == State::fraction || state_ == State::exponent;
}

Figure DecimalReader::figure() const noexcept {
  const std::int64_t scale = scale_ + (is_exponent_negative_ ? -exponent_ : exponent_);
  // Where digits were cut off there are 18 before them: with a scale of 0 or more the figure is too large anyway.
  const std::uint64_t value = scaled(digits_, scale, is_cut_);
  if (is_negative_ && value != 0) {
    return {FigureStatus::not_a_number, 0};
  }
  return value > kMaxFigure ? Figure{FigureStatus::too_large, 0} : Figure{FigureStatus::found, value};
}

Figure parse_figure(std::string_view text) noexcept {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) {
    return {};
  }
  text.remove_suffix(text.size() - 1 - text.find_last_not_of(" \t"));
  text.remove_prefix(first);
  DecimalReader reader;
  const bool is_number = std::all_of(text.begin(), text.end(), [&](char c) { return reader.add(c); });
  return is_number && reader.is_complete() ? reader.figure() : Figure{FigureStatus::not_a_number, 0};
}

}  // namespace apikey
