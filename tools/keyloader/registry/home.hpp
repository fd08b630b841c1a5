// Where a registry belongs: its directory, on one machine. A copy elsewhere can be read, but two that are changed would
// both give out generations of the same registry.
// Called by SqliteRegistry; shown by `status` and `doctor`.
#pragma once

#include <filesystem>
#include <string>

namespace keyloader {

struct Home {
  std::string directory;  // absolute, without links; empty: it belongs nowhere yet
  std::string machine;    // 32 hex digits made of /etc/machine-id; empty: the machine has none
  std::string host;       // its name, for people
};

[[nodiscard]] Home home_of(const std::filesystem::path& file);

// A machine without an id is taken for any: a container may have none.
[[nodiscard]] bool is_at_home(const Home& home, const Home& here);

// "this registry belongs to /var/lib/apikey on web-1; here, in /srv/copy on web-2, it is a copy".
[[nodiscard]] std::string elsewhere_text(const Home& home, const Home& here);

}  // namespace keyloader
