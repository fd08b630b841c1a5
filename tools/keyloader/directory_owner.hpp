// keyloader that root starts becomes the owner of the node's directory before it opens anything: what it makes there
// belongs to that user, and whatever lies there cannot make it do what only root may.
// INVARIANT: after become_owner() every user id of the process is the owner's. Of root's rights it keeps one, to read,
// and that applies only while an AsCaller lives. There is no way back.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace keyloader {

enum class KeptRight : std::uint8_t {
  read,           // files and directories of others
  read_and_write  // so that files of node memory can be removed, which are root's
};

// Does nothing where keyloader was not started by root, or the directory is root's or is not there. `groups`: which the
// process is in beside those of the user and the one of the directory. Throws Failure when it cannot.
void become_owner(const std::filesystem::path& directory, KeptRight right = KeptRight::read,
                  const std::vector<gid_t>& groups = {});

// Throws Failure where become_owner() would not get to the directory if it were that user's; where it is not there yet,
// to the one above it. Changes nothing. REQUIRES: root.
void require_way_to(const std::filesystem::path& directory, uid_t user, const std::vector<gid_t>& groups);

// Root has started keyloader, whoever it works as now.
[[nodiscard]] bool is_started_by_root();

// "keyloader works as apikey, the owner of /var/lib/apikey"; empty: it works as whoever has started it.
[[nodiscard]] std::string works_as();

// While one lives, files are found and opened with the right that is kept: what root has named on the command line,
// node memory and nginx's logs. Never what lies in the node's directory: its owner could put a link there.
class AsCaller {
 public:
  explicit AsCaller(bool is_needed = true) : is_needed_(is_needed) { raise(true); }
  ~AsCaller() { raise(false); }
  AsCaller(const AsCaller&) = delete;
  AsCaller& operator=(const AsCaller&) = delete;

 private:
  void raise(bool is_up) const;

  bool is_needed_;
};

}  // namespace keyloader
