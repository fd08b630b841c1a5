// Joining what was collected with what nginx counts. Called by `key list` and `key show`.
// Must never fail a command that only wants to show something else as well.
#include "last_use.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "node_tables.hpp"
#include "user.hpp"

namespace keyloader {

LastUse::LastUse(const Session& session) {
  if (std::filesystem::exists(session.dir().usage_file())) {
    try {
      store_ = std::make_unique<UsageStore>(session.dir());
      for (const UsageSource& source : store_->sources()) {
        know_since(source.created);
      }
    } catch (const Failure& failure) {
      problem_ = failure.what();
    }
  }
  if (problem_.empty() && access(session.directory.c_str(), R_OK) != 0 && errno == EACCES) {
    problem_ = fmt::format("{} may not see what nginx has counted since the last collection", user_name(geteuid()));
  }
  const Nodes nodes(session.dir(), session.runtime);
  live_ = last_hours(nodes);
  for (const Node* const node : nodes_with_usage(nodes)) {
    know_since(usage_table(node->memory()).head().created);
  }
}

void LastUse::know_since(Seconds time) { known_since_ = std::min(known_since_.value_or(time), time); }

void LastUse::warn_of_problem() const {
  if (!problem_.empty()) {
    Session::warn("when keys were last used is not known: " + problem_);
  }
}

Seconds LastUse::of(const apikey::KeyId& key) {
  const auto found = live_.find(key);
  const Seconds live = found == live_.end() ? 0 : found->second;
  return store_ ? std::max(live, store_->last_used(key)) : live;
}

}  // namespace keyloader
