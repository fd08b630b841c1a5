// Names of users. Called by data_dir.cpp and registry/sqlite_db.cpp.
#include "user.hpp"

#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

namespace keyloader {
namespace {

std::string user_name(uid_t uid) {
  const passwd* entry = getpwuid(uid);  // NOLINT(concurrency-mt-unsafe): there is one thread
  return entry != nullptr ? entry->pw_name : fmt::format("user {}", uid);
}

}  // namespace

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
