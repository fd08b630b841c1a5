// From the registry to keys.mdb: the one way a change reaches nginx, and the way back to an older content.
// Called by every changing command, `publish`, `import` and `snapshot rollback`.
// INVARIANT: nothing is published that promise of this file forbids: another registry's snapshot over this one's, a
// generation that is not the highest known, keys that the registry did not count, or the loss of a key nobody deleted.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "apikey/meta.hpp"
#include "data_dir.hpp"
#include "nodes.hpp"
#include "registry/registry.hpp"

namespace keyloader {

struct Published {
  apikey::RegistryId registry_id{};
  std::uint64_t generation = 0;
  apikey::SealHash seal{};
  std::uint64_t keys = 0;
  bool is_new = false;               // else keys.mdb had everything already
  bool is_renewal = false;           // … and was published again, with a new time
  std::uint64_t dropped = 0;         // by a rollback: keys deleted since
  std::uint64_t refused_since = 0;   // by a rollback: keys revoked or suspended since
  std::uint64_t rolled_back_to = 0;  // 0: not a rollback
};

struct PublishRequest {
  bool allows_shrink = false;   // --allow-shrink: the loss of keys is intended
  bool keeps_rollback = false;  // nothing was changed: what a rollback left out may stay out
  bool renews = false;          // also when nothing is behind: nginx may refuse a snapshot that is old (max_age)
  bool only_restricts = false;  // a revocation or suspension: it goes out whatever an nginx lacks
  std::optional<std::string> take_over{};  // --take-over: the reason
  bool is_dry_run = false;                 // does all of it but for what stays
};

// Publishes a new generation when keys.mdb lacks a change of the registry, or is not what the registry published last,
// or when asked to renew.
Published publish(const DataDir& directory, Registry& registry, const Nodes& nodes, const PublishRequest& request);

struct RollbackRequest {
  std::uint64_t generation = 0;  // 0: the one before the active one
  bool allows_shrink = false;
  std::string reason{};
  bool is_dry_run = false;
};

// A new generation with the content of an older one from history/.
Published rollback(const DataDir& directory, Registry& registry, const Nodes& nodes, const RollbackRequest& request);

// Why an nginx would refuse snapshots of this registry as they are published now, with the way out; nothing: none
// would.
[[nodiscard]] std::optional<std::string> why_refused(const Nodes& nodes, const RegistryInfo& info);

}  // namespace keyloader
