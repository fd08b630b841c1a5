// Users and groups by their names, and whose a file is. Called where opening something fails, by `doctor` and by
// `init`.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>

namespace keyloader {

// The number where it has no name.
[[nodiscard]] std::string user_name(uid_t uid);
[[nodiscard]] std::string group_name(gid_t gid);

// "it belongs to apikey, and you are bob; run it as apikey: sudo -u apikey keyloader …"
[[nodiscard]] std::string who_may(const std::filesystem::path& path);

}  // namespace keyloader
