// The inbox beside an instance's node memory, opened for writing: what keyloader wants of that nginx. Nothing else of
// an instance is ever written by keyloader. Used by nodes.cpp (permissions) and usage_memory.cpp (usage that is
// stored).
#pragma once

#include <string>

#include "apikey/node_inbox.hpp"
#include "nodes.hpp"

namespace keyloader {

class NodeInbox {
 public:
  explicit NodeInbox(const Node& node);
  ~NodeInbox();
  NodeInbox(const NodeInbox&) = delete;
  NodeInbox& operator=(const NodeInbox&) = delete;

  // Why nothing can be put into it; empty: it is open.
  [[nodiscard]] const std::string& problem() const { return problem_; }
  [[nodiscard]] const apikey::Inbox& inbox() const { return inbox_; }

 private:
  void* start_ = nullptr;
  apikey::Inbox inbox_;
  std::string problem_;
};

}  // namespace keyloader
