// Changing the user of the process, once. See directory_owner.hpp.
#include "directory_owner.hpp"

#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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
