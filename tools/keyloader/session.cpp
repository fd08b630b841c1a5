// Answering. Used by every command file.
// Must never write a secret to standard error.
#include "session.hpp"

#include <fmt/format.h>

namespace keyloader {

void Session::report(const std::string& sentence, const Json& json) const {
  print_out((is_json ? json_text(json) : shown_lines(sentence)) + "\n");
}

void Session::warn(const std::string& sentence) { print_note("keyloader: " + sentence); }

void Session::warn(const Texts& sentences) {
  for (const std::string& sentence : sentences) {
    warn(sentence);
  }
}

}  // namespace keyloader
