// Finds the number at a path in a stream of server-sent events (text/event-stream, WHATWG HTML section 9.2) that comes
// in pieces of any size. Keeps none of it.
// Called by the adapter's body filter. The data of each event is read as a JSON text of its own; the last event that
// has a number at the path counts. Events that are no JSON, such as `[DONE]`, do not matter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "apikey/number_finder.hpp"

namespace apikey {

class EventNumberFinder {
 public:
  // REQUIRES: the path outlives the finder.
  explicit EventNumberFinder(const NumberPath& path) noexcept : path_(&path), json_(path) {}

  void feed(std::string_view piece) noexcept;

  // What was found. An event that the end of the stream has cut off counts as far as it was read.
  [[nodiscard]] Figure finish() noexcept;

 private:
  enum class State : std::uint8_t {
    byte_order_mark,
    field,       // the name of the field, so far that of a data line
    after_name,  // a colon or the end of the line
    space,       // after the colon: one space does not count
    data,
    ignored,  // a line of another field, or a comment
  };
  void read_line_part(std::string_view& piece) noexcept;
  void read_byte(char c) noexcept;
  void begin_data() noexcept;
  void end_line() noexcept;
  void end_event(bool is_whole) noexcept;

  const NumberPath* path_;
  NumberFinder json_;  // of the event being read
  Figure last_;
  State state_ = State::byte_order_mark;
  std::uint8_t matched_ = 0;  // bytes of the mark, or of "data"
  bool has_data_ = false;     // the event has a data line
  bool skips_line_feed_ = false;
};

}  // namespace apikey
