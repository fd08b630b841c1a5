// Answering. Used by every command file.
// Must never write a secret to standard error.
#include "session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

namespace keyloader {

void print_out(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw Failure("standard output cannot be written");
  }
}

void Session::report(const std::string& sentence, const Json& json) const {
  print_out((is_json ? json.dump() : sentence) + "\n");
}

void Session::warn(const std::string& sentence) {
  // Values are quoted back; what would steer a terminal or break the line is not.
  std::string text = sentence;
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  fmt::print(stderr, "keyloader: {}\n", text);
}

}  // namespace keyloader
