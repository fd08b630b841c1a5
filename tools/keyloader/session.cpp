// Answering, and taking a change to nginx. Used by every command file.
// Must never write a secret to standard error.
#include "session.hpp"

#include <fmt/format.h>

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

void Session::warn(const std::string& sentence) { fmt::print(stderr, "keyloader: {}\n", sentence); }

void finish_change(const Session& session, Registry& registry, Change& change, bool is_quiet) {
  const std::uint64_t seq = change.commit();
  if (is_quiet) {
    return;
  }
  try {
    publish_change(session.dir(), registry, seq);
  } catch (const Failure& failure) {
    throw Failure(
        fmt::format("the change is made, but nginx does not know it yet: {}. Put that right and run "
                    "`keyloader publish`",
                    failure.what()));
  }
}

}  // namespace keyloader
