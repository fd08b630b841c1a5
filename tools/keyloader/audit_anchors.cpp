// Gathering what snapshots and nodes have seen of the audit, and comparing.
#include "audit_anchors.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "node_view.hpp"
#include "nodes.hpp"
#include "publish/snapshot_file.hpp"
#include "publish/snapshot_store.hpp"

namespace keyloader {

AuditAnchors::AuditAnchors(const Session& session, const apikey::RegistryId& registry) {
  const DataDir directory = session.dir();
  std::vector<std::filesystem::path> files{directory.snapshot_file()};
  for (const auto& entry : apikey::publish::list_history(directory.path())) {
    files.push_back(entry.path);
  }
  for (const std::filesystem::path& path : files) {
    apikey::publish::SnapshotFile file;
    if (file.open(path).ok() && file.meta().registry_id == registry && file.meta().audit_seq != 0) {
      add(file.meta().audit_seq, file.meta().audit_head,
          fmt::format("generation {} ({})", file.meta().generation, path.string()));
    }
  }
  const Nodes nodes(directory, session.runtime);
  for (const auto& node : nodes.all()) {
    for (const apikey::Anchor& anchor : anchors_of(*node)) {
      if (anchor.registry_id == registry) {
        add(anchor.audit_seq, anchor.audit_head, fmt::format("{} with generation {}", node->name(), anchor.generation));
      }
    }
  }
}

void AuditAnchors::add(std::uint64_t seq, const Hash& hash, const std::string& where) {
  seen_[seq].try_emplace(hash, where);
}

void AuditAnchors::check(std::uint64_t seq, const Hash& hash) {
  const auto found = seen_.find(seq);
  if (found == seen_.end()) {
    return;
  }
  for (const auto& [seen, where] : found->second) {
    if (seen != hash) {
      throw Failure(fmt::format(
          "entry {} of the audit is not the one that {} has seen: the audit was written anew, or went another way in a "
          "copy of the registry",
          seq, where));
    }
  }
  ++checked_;
  seen_.erase(found);
}

void AuditAnchors::check_end(std::uint64_t last_seq) const {
  if (!seen_.empty() && seen_.rbegin()->first > last_seq) {
    const auto& [seq, seen] = *seen_.rbegin();
    throw Failure(fmt::format(
        "the audit ends with entry {}, and {} has seen entry {}: its end was cut off, or the registry is an older copy",
        last_seq, seen.begin()->second, seq));
  }
}

std::uint64_t AuditAnchors::unchecked() const { return seen_.size(); }

}  // namespace keyloader
