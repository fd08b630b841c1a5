// Who the ids in usage.db are: owners by the registry when there is one, else by keys.mdb, else only by their id.
// Used by all commands of `keyloader usage`.
#pragma once

#include <map>
#include <string>

#include "data_dir.hpp"
#include "usage_counts.hpp"

namespace keyloader {

class UsageNames {
 public:
  explicit UsageNames(const DataDir& directory);

  // The name, or the id as 32 hex digits; empty for the owner of overflow rows.
  [[nodiscard]] std::string owner(const OwnerId& id) const;
  // A name, or 32 hex digits. Throws Failure when nobody has that name.
  [[nodiscard]] OwnerId owner_id(const std::string& text) const;

 private:
  void read_registry(const DataDir& directory);
  void read_snapshot(const DataDir& directory);

  std::map<OwnerId, std::string> names_;
};

}  // namespace keyloader
