// Server-sent events, line by line: lines end with CR, LF or both; an empty line ends an event; the data lines of one
// event are joined by a line feed. Called for each piece of a body. Must not depend on how it was cut into pieces.
#include "apikey/event_number_finder.hpp"

#include <algorithm>

namespace apikey {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr std::string_view kDataField = "data";

bool ends_line(char c) noexcept { return c == '\r' || c == '\n'; }

}  // namespace

void EventNumberFinder::feed(std::string_view piece) noexcept {
  while (!piece.empty()) {
    const char c = piece.front();
    if (skips_line_feed_ && c == '\n') {
      skips_line_feed_ = false;
      piece.remove_prefix(1);
      continue;
    }
    skips_line_feed_ = false;
    if (ends_line(c)) {
      end_line();
      skips_line_feed_ = c == '\r';
      piece.remove_prefix(1);
      continue;
    }
    read_line_part(piece);
  }
}

// REQUIRES: the piece does not begin with the end of a line.
void EventNumberFinder::read_line_part(std::string_view& piece) noexcept {
  if (state_ == State::space) {
    state_ = State::data;
    if (piece.front() == ' ') {
      piece.remove_prefix(1);
    }
    return;
  }
  if (state_ != State::data && state_ != State::ignored) {
    read_byte(piece.front());
    piece.remove_prefix(1);
    return;
  }
  const auto end = std::find_if(piece.begin(), piece.end(), ends_line);
  const auto length = static_cast<std::size_t>(end - piece.begin());
  if (state_ == State::data) {
    json_.feed(piece.substr(0, length));
  }
  piece.remove_prefix(length);
}

// One byte of the mark or of the field's name.
void EventNumberFinder::read_byte(char c) noexcept {
  if (state_ == State::byte_order_mark) {
    if (matched_ < kByteOrderMark.size() && c == kByteOrderMark[matched_]) {
      ++matched_;
      return;
    }
    const bool is_half_a_mark = matched_ != 0 && matched_ < kByteOrderMark.size();
    matched_ = 0;
    state_ = is_half_a_mark ? State::ignored : State::field;
  }
  if (state_ == State::field && matched_ < kDataField.size() && c == kDataField[matched_]) {
    state_ = ++matched_ == kDataField.size() ? State::after_name : State::field;
    return;
  }
  if (state_ == State::after_name && c == ':') {
    begin_data();
    state_ = State::space;
    return;
  }
  state_ = State::ignored;
}

void EventNumberFinder::begin_data() noexcept {
  if (has_data_) {
    json_.feed("\n");
  } else {
    json_ = NumberFinder(*path_);
  }
  has_data_ = true;
}

void EventNumberFinder::end_line() noexcept {
  // Half a mark is a field nobody knows; a whole one and nothing behind it is an empty line.
  const bool is_empty = (state_ == State::field && matched_ == 0) ||
                        (state_ == State::byte_order_mark && (matched_ == 0 || matched_ == kByteOrderMark.size()));
  if (state_ == State::after_name) {
    begin_data();
  }
  if (is_empty) {
    end_event(true);
  }
  state_ = State::field;
  matched_ = 0;
}

void EventNumberFinder::end_event(bool is_whole) noexcept {
  if (!has_data_) {
    return;
  }
  has_data_ = false;
  const Figure figure = json_.finish(is_whole);
  const bool is_no_figure = figure.status == FigureStatus::absent || figure.status == FigureStatus::not_json;
  if (figure.status == FigureStatus::found || (last_.status != FigureStatus::found && !is_no_figure)) {
    last_ = figure;
  }
}

Figure EventNumberFinder::finish() noexcept {
  end_event(false);
  return last_;
}

}  // namespace apikey
