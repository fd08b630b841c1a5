// A JSON reader that keeps nothing but where it is. One byte after the other; what strings hold is skipped over.
// Called for each piece of a body. Must never believe in a number that stands in a string or in another place, nor
// depend on how the text was cut into pieces.
#include "apikey/number_finder.hpp"

#include <algorithm>

namespace apikey {
namespace {

constexpr std::size_t kMaxNameSize = 128;

bool is_space(char c) noexcept { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// RETURNS: 16 for what is no hexadecimal digit.
unsigned hex_value(char c) noexcept {
  if (c >= '0' && c <= '9') {
    return static_cast<unsigned>(c - '0');
  }
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? static_cast<unsigned>(lower - 'a' + 10) : 16;
}

// The byte an escape of one character stands for; 0: no such escape.
char unescaped(char c) noexcept {
  constexpr std::string_view from = "\"\\/bfnrt";
  constexpr std::string_view to = "\"\\/\b\f\n\r\t";
  const std::size_t at = from.find(c);
  return at == std::string_view::npos ? '\0' : to[at];
}

// How much of a piece is inside of a string without anything to look at.
std::size_t plain_length(std::string_view text) noexcept {
  const auto end = std::find_if(text.begin(), text.end(),
                                [](char c) { return c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20; });
  return static_cast<std::size_t>(end - text.begin());
}

}  // namespace

Status parse_number_path(std::string_view text, NumberPath& path) noexcept {
  NumberPath found;
  for (bool has_more = true; has_more;) {
    const std::size_t dot = text.find('.');
    const std::string_view name = text.substr(0, dot);
    has_more = dot != std::string_view::npos;
    text.remove_prefix(has_more ? dot + 1 : text.size());
    if (name.empty() || name.size() > kMaxNameSize) {
      return {StatusCode::bad_value, "a path is made of member names of 1 to {0} bytes with dots between them",
              kMaxNameSize};
    }
    if (found.count == NumberPath::kMaxNames) {
      return {StatusCode::bad_value, "a path has at most {0} member names", NumberPath::kMaxNames};
    }
    found.names[found.count++] = name;
  }
  path = found;
  return {};
}

bool NumberFinder::is_in_object() const noexcept {
  return (objects_[(depth_ - 1) / 64] >> ((depth_ - 1) % 64) & 1) != 0;
}

void NumberFinder::feed(std::string_view piece) noexcept {
  while (!piece.empty() && state_ != State::broken) {
    if (state_ == State::string && !compares()) {
      piece.remove_prefix(plain_length(piece));
      if (piece.empty()) {
        return;
      }
    }
    state_ = step(piece.front());
    piece.remove_prefix(1);
  }
}

Figure NumberFinder::finish(bool is_whole) noexcept {
  const bool is_untouched = state_ == State::value && depth_ == 0;
  if (state_ == State::number && depth_ == 0 && number_.is_complete()) {
    state_ = State::ended;
  }
  if (state_ == State::broken || (is_whole && state_ != State::ended && !is_untouched)) {
    return {FigureStatus::not_json, 0};
  }
  return figure_;
}

NumberFinder::State NumberFinder::step(char c) noexcept {
  switch (state_) {
    case State::string:
      return read_string(c);
    case State::escape:
      return read_escape(c);
    case State::unicode:
      return read_unicode(c);
    case State::literal:
      return read_literal(c);
    case State::number:
      return read_number(c);
    default:
      break;
  }
  if (is_space(c)) {
    return state_;
  }
  switch (state_) {
    case State::first_item:
      return c == ']' ? close(false) : begin_value(c);
    case State::first_name:
      if (c == '}') {
        return close(true);
      }
      [[fallthrough]];
    case State::name:
      return c == '"' ? begin_name() : State::broken;
    case State::colon:
      return c == ':' ? State::value : State::broken;
    case State::value:
      return begin_value(c);
    case State::after_value:
      return read_after_value(c);
    default:
      return State::broken;
  }
}

NumberFinder::State NumberFinder::begin_name() noexcept {
  is_name_ = true;
  name_matches_ = is_on_path();
  name_size_ = 0;
  return State::string;
}

NumberFinder::State NumberFinder::begin_value(char c) noexcept {
  const bool is_figure = is_wanted_ && on_path_ == path_->count;
  if (is_figure && std::string_view("{[\"tf").find(c) != std::string_view::npos) {
    figure_ = {FigureStatus::not_a_number, 0};
  }
  if (c == '{' || c == '[') {
    return open(c == '{');
  }
  is_wanted_ = false;
  is_figure_ = is_figure;
  if (c == '"') {
    is_name_ = false;
    return State::string;
  }
  for (const std::string_view literal : {"true", "false", "null"}) {
    if (c == literal.front()) {
      rest_ = literal;
      rest_.remove_prefix(1);
      return State::literal;
    }
  }
  number_ = {};
  return number_.add(c) ? State::number : State::broken;
}

NumberFinder::State NumberFinder::open(bool is_object) noexcept {
  if (depth_ == kMaxDepth) {
    return State::broken;
  }
  const bool is_on_path = depth_ == 0 || (is_wanted_ && on_path_ < path_->count);
  on_path_ += is_object && is_on_path ? 1 : 0;
  is_wanted_ = false;
  const std::uint64_t bit = std::uint64_t{1} << (depth_ % 64);
  std::uint64_t& word = objects_[depth_ / 64];
  word = is_object ? word | bit : word & ~bit;
  ++depth_;
  return is_object ? State::first_name : State::first_item;
}

NumberFinder::State NumberFinder::close(bool is_object) noexcept {
  if (is_in_object() != is_object) {
    return State::broken;
  }
  on_path_ -= is_on_path() ? 1 : 0;
  --depth_;
  return end_value();
}

NumberFinder::State NumberFinder::read_after_value(char c) noexcept {
  if (c == ',') {
    return is_in_object() ? State::name : State::value;
  }
  return c == '}' || c == ']' ? close(c == '}') : State::broken;
}

NumberFinder::State NumberFinder::read_string(char c) noexcept {
  if (c == '"') {
    return end_string();
  }
  if (static_cast<unsigned char>(c) < 0x20) {
    return State::broken;
  }
  if (c == '\\') {
    return State::escape;
  }
  compare_byte(c);
  return State::string;
}

NumberFinder::State NumberFinder::end_string() noexcept {
  if (!is_name_) {
    return end_value();
  }
  is_wanted_ = name_matches_ && high_ == 0 && name_size_ == path_->names[on_path_ - 1].size();
  high_ = 0;
  if (is_wanted_) {
    figure_ = {};  // what an earlier member of this name held does not count
  }
  return State::colon;
}

NumberFinder::State NumberFinder::read_escape(char c) noexcept {
  if (c == 'u') {
    unit_ = 0;
    hex_digits_ = 0;
    return State::unicode;
  }
  const char byte = unescaped(c);
  compare_byte(byte);
  return byte == '\0' ? State::broken : State::string;
}

NumberFinder::State NumberFinder::read_unicode(char c) noexcept {
  const unsigned digit = hex_value(c);
  if (digit > 15) {
    return State::broken;
  }
  unit_ = unit_ << 4 | digit;
  if (++hex_digits_ < 4) {
    return State::unicode;
  }
  if (compares()) {
    compare_unit(unit_);
  }
  return State::string;
}

NumberFinder::State NumberFinder::read_literal(char c) noexcept {
  if (c != rest_.front()) {
    return State::broken;
  }
  rest_.remove_prefix(1);
  return rest_.empty() ? end_value() : State::literal;
}

NumberFinder::State NumberFinder::read_number(char c) noexcept {
  if (number_.add(c)) {
    return State::number;
  }
  if (!number_.is_complete()) {
    return State::broken;
  }
  if (is_figure_) {
    figure_ = number_.figure();
  }
  state_ = end_value();
  return step(c);
}

void NumberFinder::compare_byte(char c) noexcept {
  if (!compares()) {
    return;
  }
  const std::string_view wanted = path_->names[on_path_ - 1];
  name_matches_ = high_ == 0 && name_size_ < wanted.size() && wanted[name_size_] == c;
  ++name_size_;
}

// A surrogate without its other half is in no name of a path.
void NumberFinder::compare_unit(std::uint32_t unit) noexcept {
  const bool is_low = unit >= 0xdc00 && unit <= 0xdfff;
  const std::uint32_t high = high_;
  high_ = 0;
  if (is_low != (high != 0)) {
    name_matches_ = false;
  } else if (is_low) {
    compare_code_point(0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00));
  } else if (unit >= 0xd800 && unit <= 0xdbff) {
    high_ = unit;
  } else {
    compare_code_point(unit);
  }
}

void NumberFinder::compare_code_point(std::uint32_t code_point) noexcept {
  const auto add = [this](std::uint32_t byte) { compare_byte(static_cast<char>(byte)); };
  const auto add_tail = [&](unsigned shift) { add(0x80 | (code_point >> shift & 0x3f)); };
  if (code_point < 0x80) {
    add(code_point);
    return;
  }
  if (code_point < 0x800) {
    add(0xc0 | code_point >> 6);
  } else if (code_point < 0x10000) {
    add(0xe0 | code_point >> 12);
    add_tail(6);
  } else {
    add(0xf0 | code_point >> 18);
    add_tail(12);
    add_tail(6);
  }
  add_tail(0);
}

}  // namespace apikey
