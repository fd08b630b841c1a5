// Names of owners out of the registry or the snapshot in service. Used by all commands of `keyloader usage`.
#include "usage_names.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "apikey/plain_text.hpp"
#include "nearest.hpp"
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
  registry_ = directory.open_registry();
  for (const Owner& owner : registry_->owners()) {
    names_[owner.id] = owner.name;
  }
}

const std::map<OwnerId, UsageNames::Deleted>& UsageNames::deleted_owners() const {
  if (!deleted_) {
    deleted_.emplace();
    if (registry_) {
      registry_->each_deletion("owner.delete", [&](const AuditEntry& entry) {
        const Json id = field_of(entry.before, "id");
        if (const auto bytes = id.is_string() ? bytes16_from_hex(id.get_ref<const std::string&>()) : std::nullopt) {
          (*deleted_)[*bytes] = {.name = entry.object, .time = entry.time};
        }
      });
    }
  }
  return *deleted_;
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
  if (const auto found = names_.find(id); found != names_.end()) {
    return found->second;
  }
  const auto deleted = deleted_owners().find(id);
  return deleted != deleted_owners().end() ? deleted->second.name : hex(id);
}

Seconds UsageNames::deleted(const OwnerId& id) const {
  if (id == OwnerId{} || names_.count(id) != 0) {
    return 0;
  }
  const auto found = deleted_owners().find(id);
  return found == deleted_owners().end() ? 0 : found->second.time;
}

std::string UsageNames::shown_owner(const OwnerId& id) const {
  return deleted(id) == 0 ? owner(id) : owner(id) + " (deleted)";
}

OwnerId UsageNames::owner_id(const std::string& text) const {
  const auto found = std::find_if(names_.begin(), names_.end(), [&](const auto& one) { return one.second == text; });
  if (found != names_.end()) {
    return found->first;
  }
  if (const auto id = bytes16_from_hex(text)) {
    return *id;
  }
  std::vector<std::string> ids;
  OwnerId last{};
  for (const auto& [id, owner] : deleted_owners()) {
    if (owner.name == text) {
      ids.push_back(hex(id));
      last = id;
    }
  }
  if (ids.size() > 1) {
    throw Failure(fmt::format("{} owners were called \"{}\" and deleted; name the one you mean by his id: {}",
                              ids.size(), text, fmt::join(ids, ", ")));
  }
  if (ids.empty()) {
    Texts names;
    for (const auto& [each, name] : names_) {
      names.push_back(name);
    }
    throw Failure(
        fmt::format("there is no owner \"{}\"; {}give its name or its 32-digit id", text, did_you_mean(text, names)));
  }
  return last;
}

}  // namespace keyloader
