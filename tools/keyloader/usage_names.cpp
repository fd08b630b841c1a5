// Names of owners out of the registry or the snapshot in service. Used by all commands of `keyloader usage`.
#include "usage_names.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "apikey/plain_text.hpp"
#include "publish/snapshot_file.hpp"

namespace keyloader {

UsageNames::UsageNames(const DataDir& directory) {
  if (std::filesystem::exists(directory.registry_file())) {
    read_registry(directory);
  } else if (std::filesystem::exists(directory.snapshot_file())) {
    read_snapshot(directory);
  }
}

void UsageNames::read_registry(const DataDir& directory) {
  for (const Owner& owner : directory.open_registry()->owners()) {
    names_[owner.id] = owner.name;
  }
}

void UsageNames::read_snapshot(const DataDir& directory) {
  apikey::publish::SnapshotFile file;
  if (!file.open(directory.snapshot_file()).ok()) {
    return;  // usage is told without names rather than not at all
  }
  const apikey::Snapshot& snapshot = file.snapshot();
  for (std::uint32_t number = 1; number <= snapshot.row_counts()[3]; ++number) {
    apikey::OwnerRow owner;
    std::string_view name;
    OwnerId id{};
    if (snapshot.owner(number, owner) && snapshot.string(owner.name, name) && owner.id.size() == id.size() &&
        apikey::is_plain_text(name)) {
      std::transform(owner.id.begin(), owner.id.end(), id.begin(),
                     [](std::byte byte) { return std::to_integer<std::uint8_t>(byte); });
      names_[id] = std::string{name};
    }
  }
}

std::string UsageNames::owner(const OwnerId& id) const {
  if (id == OwnerId{}) {
    return {};
  }
  const auto found = names_.find(id);
  return found != names_.end() ? found->second : hex(id);
}

OwnerId UsageNames::owner_id(const std::string& text) const {
  const auto found = std::find_if(names_.begin(), names_.end(), [&](const auto& one) { return one.second == text; });
  if (found != names_.end()) {
    return found->first;
  }
  if (const auto id = bytes16_from_hex(text)) {
    return *id;
  }
  throw Failure(fmt::format("there is no owner \"{}\"; give the name of one, or the 32 hex digits of his id", text));
}

}  // namespace keyloader
