// Answering, and taking a change to nginx. Used by every command file.
// Must never write a secret to standard error.
#include "session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "publisher.hpp"

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

void finish_change(const Session& session, Registry& registry, Change& change, bool is_quiet,
                   std::uint64_t named_losses) {
  const std::uint64_t seq = change.commit();
  if (is_quiet) {
    return;
  }
  try {
    publish_change(session.dir(), registry, seq, Loss{.is_meant = false, .named = named_losses});
  } catch (const Failure& failure) {
    throw Failure(
        fmt::format("the change is made, but not published: {}. nginx goes on with what it has until "
                    "`keyloader publish` succeeds",
                    failure.what()));
  }
}

}  // namespace keyloader
