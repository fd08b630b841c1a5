// Answering, and taking a change to nginx. Used by every command file.
// Must never write a secret to standard error.
#include "session.hpp"

#include <fmt/format.h>

#include "publisher.hpp"

namespace keyloader {

void Session::report(const std::string& sentence, const Json& json) const {
  print_out((is_json ? json_text(json) : shown_lines(sentence)) + "\n");
}

void Session::warn(const std::string& sentence) { print_note("keyloader: " + sentence); }

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
