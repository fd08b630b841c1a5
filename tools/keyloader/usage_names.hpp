// Who the ids in usage.db are: owners by the registry when there is one, those that were deleted by its audit; else by
// keys.mdb; else only by their id.
// Used by all commands of `keyloader usage`.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "data_dir.hpp"
#include "usage_counts.hpp"

namespace keyloader {

class UsageNames {
 public:
  explicit UsageNames(const DataDir& directory);

  // The name, also of one that was deleted, or the id as 32 hex digits; empty for the owner of overflow rows.
  [[nodiscard]] std::string owner(const OwnerId& id) const;
  // When he was deleted; 0: he was not, as far as is known.
  [[nodiscard]] Seconds deleted(const OwnerId& id) const;
  // The name, and whether he was deleted: another one may have it now.
  [[nodiscard]] std::string shown_owner(const OwnerId& id) const;
  // A name, or 32 hex digits. Throws Failure when nobody has that name, or several deleted owners had.
  [[nodiscard]] OwnerId owner_id(const std::string& text) const;

 private:
  void read_registry(const DataDir& directory);
  void read_snapshot(const DataDir& directory);
  struct Deleted {
    std::string name;
    Seconds time = 0;
  };
  [[nodiscard]] const std::map<OwnerId, Deleted>& deleted_owners() const;

  std::map<OwnerId, std::string> names_;
  std::unique_ptr<Registry> registry_;
  mutable std::optional<std::map<OwnerId, Deleted>> deleted_;  // read when somebody asks: the audit is long
};

}  // namespace keyloader
