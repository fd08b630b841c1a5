// Answering. Used by every command file.
// Must never write a secret to standard error.
#include "session.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "hint.hpp"
#include "table.hpp"

namespace keyloader {

void Session::report(const std::string& sentence, const Json& json) const {
  print_out((is_json ? json_text(json) : shown_lines(with_directory(sentence))) + "\n");
}

void Session::report_table(const Texts& heading, const std::vector<Texts>& rows, const Json& json,
                           const std::string& none, std::size_t leading) const {
  if (is_json) {
    print_out(json_text(json) + "\n");
  } else if (rows.empty()) {
    print_note(with_directory(none));
  } else {
    std::vector<Texts> cells = rows;
    for (Texts& row : cells) {
      std::replace(row.begin(), row.end(), std::string{}, std::string{"-"});
    }
    print_out((leading == 0 ? list_text(heading, cells, screen()) : block_text(heading, cells, leading, screen())) +
              "\n");
  }
}

void Session::warn(const std::string& sentence) { print_note("keyloader: " + with_directory(sentence)); }

void Session::warn(const Texts& sentences) {
  for (const std::string& sentence : sentences) {
    warn(sentence);
  }
}

}  // namespace keyloader
