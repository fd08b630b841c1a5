// What the system calls users and groups. See user.hpp.
#include "user.hpp"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

namespace keyloader {
// NOLINTBEGIN(concurrency-mt-unsafe): there is one thread
std::string user_name(uid_t uid) {
  const passwd* const entry = getpwuid(uid);
  return entry == nullptr ? std::to_string(uid) : entry->pw_name;
}

std::string group_name(gid_t gid) {
  const group* const entry = getgrgid(gid);
  return entry == nullptr ? std::to_string(gid) : entry->gr_name;
}
// NOLINTEND(concurrency-mt-unsafe)

std::string who_may(const std::filesystem::path& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    return fmt::format("you are {}, who may not even look at it; run it as root: sudo keyloader …",
                       user_name(geteuid()));
  }
  return fmt::format("it belongs to {0}, and you are {1}; run it as {0}: sudo -u {0} keyloader …",
                     user_name(status.st_uid), user_name(geteuid()));
}

}  // namespace keyloader
