// What comes after `keyloader init`, and whether nginx's workers will get to the directory.
// Called by init.cpp. Reads what is there, changes nothing.
#include "first_steps.hpp"

#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "directory_owner.hpp"
#include "user.hpp"

namespace keyloader {
namespace {

// The directory as nginx and a shell elsewhere have to name it.
std::filesystem::path real_path(const DataDir& directory) {
  std::error_code error;
  const auto path = std::filesystem::canonical(directory.path(), error);
  return error ? std::filesystem::absolute(directory.path()) : path;
}

// A word of a shell or of nginx's configuration: both know this kind of quotes.
std::string word(const std::string& text) {
  return text.find_first_of(" \t;{}()$&|<>*?!#~\"'\\`") == std::string::npos ? text : fmt::format("\"{}\"", text);
}

struct stat status_of(const std::filesystem::path& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    fail_errno("look at", path);
  }
  return status;
}

// The user of the same name as the directory's group: www-data, nginx. Null: there is none.
const passwd* user_of_group(gid_t gid) {
  return getpwnam(group_name(gid).c_str());  // NOLINT(concurrency-mt-unsafe): there is one thread
}

bool lets_pass(const struct stat& directory, gid_t group, const passwd* user) {
  if (user != nullptr && directory.st_uid == user->pw_uid) {
    return (directory.st_mode & S_IXUSR) != 0;
  }
  return (directory.st_mode & (directory.st_gid == group ? S_IXGRP : S_IXOTH)) != 0;
}

}  // namespace

Json first_steps(const Session& session, const std::string& pepper) {
  const DataDir directory{real_path(session.dir())};
  Json steps = Json::array();
  // Workers of an nginx that root starts take the user that it names, or "nobody"; otherwise they are who started it.
  const passwd* const user = is_started_by_root() ? user_of_group(status_of(directory.path()).st_gid) : nullptr;
  if (user != nullptr) {
    steps.push_back({{"where", "nginx.conf has"}, {"text", fmt::format("user {};", user->pw_name)}});
  }
  const std::string with_pepper =
      pepper.empty()
          ? ""
          : fmt::format(" {}", word(fmt::format("pepper={}:{}", pepper, (directory.peppers() / pepper).string())));
  steps.push_back({{"where", "its http { }"},
                   {"text", fmt::format("apikey_store {}{};", word(directory.snapshot_file().string()), with_pepper)}});
  steps.push_back({{"where", "a location { }"}, {"text", "apikey \"orders\"; apikey_scope orders:read;"}});
  const std::string where =
      directory.path() == Session{}.directory ? "" : fmt::format(" --dir {}", word(directory.path().string()));
  steps.push_back(
      {{"where", "the first key"},
       {"text", fmt::format("keyloader{} key create --owner alice --create-owner --scope orders:read", where)}});
  steps.push_back({{"where", "a request"}, {"text", "curl -H \"X-API-Key: $KEY\" http://localhost:8080/orders/"}});
  return steps;
}

std::string first_steps_text(const Json& steps) {
  std::size_t width = 0;
  for (const Json& step : steps) {
    width = std::max(width, step.at("where").get_ref<const std::string&>().size());
  }
  std::string text = "\nNext:";
  for (const Json& step : steps) {
    text +=
        fmt::format("\n  {:<{}}  {}", step.at("where").get<std::string>(), width, step.at("text").get<std::string>());
  }
  return text;
}

std::string unreachable_for_workers(const DataDir& directory) {
  const std::filesystem::path path = real_path(directory);
  const gid_t group = status_of(path).st_gid;
  const passwd* const user = user_of_group(group);
  for (auto above = path.parent_path();; above = above.parent_path()) {
    if (const struct stat status = status_of(above); !lets_pass(status, group, user)) {
      return fmt::format(
          "nginx's workers will not be able to read {}: {} (mode {:o}) lets nobody of the group {} pass; "
          "use another directory, or `chmod o+x {}`",
          path.string(), above.string(), status.st_mode & 07777U, group_name(group), word(above.string()));
    }
    if (above == above.parent_path()) {
      return {};
    }
  }
}

}  // namespace keyloader
