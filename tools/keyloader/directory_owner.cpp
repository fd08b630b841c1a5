// Changing the user of the process, once. See directory_owner.hpp.
#include "directory_owner.hpp"

#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "registry/model.hpp"
#include "registry/registry.hpp"
#include "user.hpp"

namespace keyloader {
namespace {

constexpr std::uint32_t kNothing = 0;

// What the process has become. One process is one user.
struct Identity {
  bool has_root_started = getuid() == 0;
  std::string works_as;
  std::uint32_t kept = kNothing;  // capabilities, as bits
  unsigned callers = 0;           // AsCaller that live
};

Identity& identity() {
  static Identity the_one;
  return the_one;
}

constexpr std::uint32_t bit(unsigned capability) { return std::uint32_t{1} << capability; }

using Capabilities = std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3>;

__user_cap_header_struct header() { return {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0}; }

// Those that the process might use now; a container may have taken some from its root.
std::uint32_t permitted() {
  __user_cap_header_struct head = header();
  Capabilities capabilities{};
  return syscall(SYS_capget, &head, capabilities.data()) == 0 ? capabilities[0].permitted : kNothing;
}

bool set_capabilities(std::uint32_t effective, std::uint32_t permitted) {
  __user_cap_header_struct head = header();
  Capabilities capabilities{};
  capabilities[0].effective = effective;
  capabilities[0].permitted = permitted;
  return syscall(SYS_capset, &head, capabilities.data()) == 0;
}

// The primary one first.
std::vector<gid_t> groups_of(const passwd* user, gid_t of_directory) {
  if (user == nullptr) {
    return {of_directory};
  }
  int count = 0;
  static_cast<void>(getgrouplist(user->pw_name, user->pw_gid, nullptr, &count));
  std::vector<gid_t> groups(static_cast<std::size_t>(count));
  if (getgrouplist(user->pw_name, user->pw_gid, groups.data(), &count) < 0) {
    return {user->pw_gid, of_directory};
  }
  groups.resize(static_cast<std::size_t>(count));
  // nginx's: its files of node memory are for this group.
  groups.push_back(of_directory);
  return groups;
}

bool change_user(uid_t user, const std::vector<gid_t>& groups, std::uint32_t kept) {
  const gid_t first = groups.front();
  return setgroups(groups.size(), groups.data()) == 0 && setresgid(first, first, first) == 0 &&
         prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0 && setresuid(user, user, user) == 0 &&
         set_capabilities(kNothing, kept) && prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) == 0 &&
         prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

}  // namespace

bool is_started_by_root() { return identity().has_root_started; }

std::string works_as() { return identity().works_as; }

void become_owner(const std::filesystem::path& directory, KeptRight right, const std::vector<gid_t>& groups) {
  struct stat found {};
  if (geteuid() != 0 || stat(directory.c_str(), &found) != 0 || !S_ISDIR(found.st_mode) || found.st_uid == 0) {
    return;
  }
  static_cast<void>(current_actor());
  static_cast<void>(is_started_by_root());
  const std::uint32_t wanted =
      right == KeptRight::read ? bit(CAP_DAC_READ_SEARCH) : bit(CAP_DAC_READ_SEARCH) | bit(CAP_DAC_OVERRIDE);
  const std::uint32_t kept = wanted & permitted();
  const std::string name = user_name(found.st_uid);
  std::vector<gid_t> all = groups_of(getpwuid(found.st_uid),  // NOLINT(concurrency-mt-unsafe): there is one thread
                                     found.st_gid);
  all.insert(all.end(), groups.begin(), groups.end());
  if (!change_user(found.st_uid, all, kept)) {
    throw Failure(
        fmt::format("{0} belongs to {1}, and root cannot become {1} here ({2}); run it as {1}: sudo -u {1} "
                    "keyloader …",
                    directory.string(), name, strerrordesc_np(errno)));
  }
  identity().kept = kept;
  identity().works_as = fmt::format("keyloader works as {}, the owner of {}", name, directory.string());
  if (access(directory.c_str(), X_OK) != 0) {
    throw Failure(
        fmt::format("{0} belongs to {1}, who may not get to it: a directory above it is closed to {1}, or it "
                    "is itself. Open it, or use another directory",
                    directory.string(), name));
  }
}

void require_way_to(const std::filesystem::path& directory, uid_t user, const std::vector<gid_t>& groups) {
  if (user == 0) {
    return;
  }
  // Without a slash or a dot at its end, which would ask for a way into the directory itself: that is the user's then.
  std::filesystem::path way = std::filesystem::absolute(directory).lexically_normal();
  if (!way.has_filename()) {
    way = way.parent_path();
  }
  struct stat found {};
  const bool is_there = stat(way.c_str(), &found) == 0;
  const passwd* const entry = getpwuid(user);  // NOLINT(concurrency-mt-unsafe): there is one thread
  std::vector<gid_t> all = groups_of(entry, is_there || entry == nullptr ? found.st_gid : entry->pw_gid);
  all.insert(all.end(), groups.begin(), groups.end());
  constexpr int no_user = 2;
  const pid_t child = fork();
  if (child == 0) {
    const bool is_user = change_user(user, all, kNothing);
    const bool gets_there = is_there ? access(way.c_str(), F_OK) == 0 : access(way.parent_path().c_str(), X_OK) == 0;
    _exit(!is_user ? no_user : gets_there ? 0 : 1);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) {
    throw Failure(fmt::format("no process could be started to look whether {} may get to {}", user_name(user),
                              directory.string()));
  }
  if (WEXITSTATUS(status) == no_user) {
    throw Failure(fmt::format("root cannot become {} here, so the directory is not given away; nothing was changed",
                              user_name(user)));
  }
  if (WEXITSTATUS(status) != 0) {
    throw Failure(
        fmt::format("{} is not given to {}, who may not get to it: a directory above it is closed to {}. Open that, or "
                    "use another directory; nothing was changed",
                    directory.string(), user_name(user), user_name(user)));
  }
}

void AsCaller::raise(bool is_up) const {
  if (!is_needed_) {
    return;
  }
  Identity& we = identity();
  const bool is_outermost = is_up ? we.callers++ == 0 : --we.callers == 0;
  if (we.kept == kNothing || !is_outermost) {
    return;
  }
  const int error = errno;  // of what was opened
  static_cast<void>(set_capabilities(is_up ? we.kept : kNothing, we.kept));
  errno = error;
}

}  // namespace keyloader
