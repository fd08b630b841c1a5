// Answering. Used by every command file.
// Must never write a secret to standard error.
#include "session.hpp"

#include <fmt/format.h>

#include "table.hpp"

namespace keyloader {

void Session::report(const std::string& sentence, const Json& json) const {
  print_out((is_json ? json_text(json) : shown_lines(sentence)) + "\n");
}

void Session::report_table(const Texts& heading, const std::vector<Texts>& rows, const Json& json,
                           const std::string& none, std::size_t leading) const {
  if (is_json) {
    print_out(json_text(json) + "\n");
  } else if (rows.empty()) {
    print_note(none);
  } else {
    print_out((leading == 0 ? list_text(heading, rows, screen()) : block_text(heading, rows, leading, screen())) +
              "\n");
  }
}

void Session::warn(const std::string& sentence) { print_note("keyloader: " + sentence); }

void Session::warn(const Texts& sentences) {
  for (const std::string& sentence : sentences) {
    warn(sentence);
  }
}

}  // namespace keyloader
