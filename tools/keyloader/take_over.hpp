// keyloader init --user: a node's directory is given to another user. Called by `init`, as root.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace keyloader {

// Throws Failure for a user that there is not on this machine; `workers`: the group of nginx's, for the advice.
[[nodiscard]] uid_t require_user(const std::string& name, const std::string& workers);

struct TakeOver {
  uid_t from = 0;         // whose the directory was; where it was the user's already, whose a file in it was
  std::size_t given = 0;  // files and directories that have another owner now
  bool is_new = false;    // the directory was made
};

// Gives the directory and what keyloader and nginx keep in it to `user`; makes it where it is not there. Groups stay,
// and modes but for the right of others to write. Follows no link. At every step nginx takes the snapshot and the
// peppers, and what was left half done is completed by the next call. Throws Failure, with everything as it was, where
// the user cannot get to the directory, where one of the directories in it is a link, and where a file in it has a
// further name outside of it: who owns that would go on writing the file, or lose it. `groups`: which the user's
// keyloader is in, beside those of the user and the one of the directory. REQUIRES: root.
TakeOver take_over(const std::filesystem::path& directory, uid_t user, const std::vector<gid_t>& groups);

}  // namespace keyloader
