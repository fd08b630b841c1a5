// Opening and mapping an inbox. See node_inbox.hpp.
#include "node_inbox.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "data_dir.hpp"
#include "directory_owner.hpp"
#include "file_descriptor.hpp"

namespace keyloader {

NodeInbox::NodeInbox(const Node& node) {
  const AsCaller of_root(node.place().is_found);
  const FileDescriptor fd(open(node.inbox().c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  struct stat found {};
  if (!fd.is_open() || fstat(fd.get(), &found) != 0) {
    problem_ = fmt::format("it cannot be opened: {}", strerrordesc_np(errno));
    return;
  }
  if (!S_ISREG(found.st_mode) || found.st_size != static_cast<off_t>(apikey::kInboxSize)) {
    problem_ = "it is not an inbox";
    return;
  }
  void* const start = mmap(nullptr, apikey::kInboxSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (start == MAP_FAILED) {  // NOLINT(performance-no-int-to-ptr)
    problem_ = fmt::format("it cannot be mapped: {}", strerrordesc_np(errno));
    return;
  }
  start_ = start;
  const apikey::Status status =
      apikey::attach_inbox({static_cast<std::byte*>(start), apikey::kInboxSize}, node.memory().instance(), inbox_);
  if (!status.ok()) {
    problem_ = sentence_of(status);
  }
}

NodeInbox::~NodeInbox() {
  if (start_ != nullptr) {
    munmap(start_, apikey::kInboxSize);
  }
}

}  // namespace keyloader
