// The one way from a text to standard output or standard error. Texts from outside (names, reasons, other machines'
// snapshots) may hold what steers a terminal or hides itself: it is shown as an escape, in sentences, in tables and in
// JSON. Only this file and progress.cpp print; t/lint/layering.sh checks it.
#pragma once

#include <string>
#include <string_view>

#include "registry/registry.hpp"

namespace keyloader {

// One text of one line: `\u202e` for what is not plain (apikey/plain_text.hpp), a line end included.
[[nodiscard]] std::string shown(std::string_view text);
// A sentence or table made of such texts: its line ends stay.
[[nodiscard]] std::string shown_lines(std::string_view text);
// JSON on one line, in UTF-8: what is not plain stands in its strings as \u….
[[nodiscard]] std::string json_text(const Json& json);

// Whoever read standard output has gone, as `head` does.
class ReaderGone : public Failure {
 public:
  using Failure::Failure;
};

// As it is, on standard output: a secret, JSON, a file for others to read. Throws when it cannot be written: what
// nobody saw did not happen.
void print_out(const std::string& text);
// On standard error without a line end: a question.
void print_prompt(std::string_view text);
// One line on standard error.
void print_note(std::string_view line);

// Where standard output goes.
struct Screen {
  std::size_t columns = 0;  // 0: no terminal
  bool has_colour = false;
};
[[nodiscard]] Screen screen();

}  // namespace keyloader
