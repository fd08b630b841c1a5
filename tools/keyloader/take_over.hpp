// keyloader init --user: a node's directory is given to another user. Called by `init`, as root.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>

namespace keyloader {

// Throws Failure for a user that there is not on this machine.
[[nodiscard]] uid_t require_user(const std::string& name);

struct TakeOver {
  uid_t from = 0;         // whose the directory was
  std::size_t given = 0;  // files and directories that have another owner now
  bool is_new = false;    // the directory was made
};

// Gives the directory and what keyloader and nginx keep in it to `user`; makes it where it is not there. Groups and
// modes stay. Follows no link. Throws Failure, with everything as it was, where a file in it has a further name outside
// of it and is somebody else's: giving that away would give away the other one, too. REQUIRES: root.
TakeOver take_over(const std::filesystem::path& directory, uid_t user);

}  // namespace keyloader
