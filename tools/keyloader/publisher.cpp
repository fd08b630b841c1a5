// Publishing: what may follow the active snapshot, the new generation, the build, the swap.
// Called by every changing command. keys.mdb is only ever replaced by a complete, verified, synced file.
#include "publisher.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "output.hpp"
#include "publish/snapshot_store.hpp"
#include "snapshot_builder.hpp"
#include "snapshot_copier.hpp"

namespace keyloader {
namespace {

using apikey::publish::SnapshotFile;

constexpr std::string_view kWayToTakeOver = "`keyloader publish --take-over --reason TEXT`";

// keys.mdb as it is now; nothing for one that is not there or is damaged. What keeps this process from reading it says
// nothing about the file.
std::unique_ptr<SnapshotFile> open_current(const DataDir& directory, apikey::Status& status) {
  auto file = std::make_unique<SnapshotFile>();
  status = file->open(directory.snapshot_file());
  if (status.code == apikey::StatusCode::unreadable || status.code == apikey::StatusCode::failed) {
    throw Failure(fmt::format("{}: {}", directory.snapshot_file().string(), sentence_of(status)));
  }
  return status.ok() ? std::move(file) : nullptr;
}

// Publishing puts a damaged one right.
void warn_of_damage(const DataDir& directory, const apikey::Status& status) {
  if (!status.ok() && status.code != apikey::StatusCode::absent) {
    print_note(fmt::format("keyloader: {} is not an intact snapshot and will be replaced: {}",
                           directory.snapshot_file().string(), sentence_of(status)));
  }
}

Published published_of(const SnapshotFile& file) {
  return {.registry_id = file.meta().registry_id,
          .generation = file.meta().generation,
          .seal = file.seal().sha256,
          .keys = file.meta().keys};
}

bool counts_agree(const RegistryInfo& info, std::uint64_t keys) {
  return static_cast<std::int64_t>(info.added - info.removed) + info.withheld == static_cast<std::int64_t>(keys);
}

// Whether keys.mdb lacks something. One without counters was published by an older keyloader.
bool is_behind(const SnapshotFile* file, const RegistryInfo& info, std::uint64_t keys, bool keeps_rollback) {
  if (file == nullptr || file->meta().registry_id != info.id || file->meta().generation != info.generation ||
      !file->meta().has_added || !counts_agree(info, keys)) {
    return true;
  }
  const std::uint64_t settled = std::max(info.published_seq, keeps_rollback ? info.rolled_back_seq : 0);
  const bool is_rolled_back = info.rolled_back_seq > info.published_seq;
  return info.changed_seq > settled || (is_rolled_back && !keeps_rollback);
}

void check_may_replace(const SnapshotFile& old, const RegistryInfo& info) {
  if (old.meta().registry_id != info.id) {
    throw Failure(
        fmt::format("keys.mdb belongs to registry {}, this is registry {}; if this registry is to replace it, "
                    "run {}",
                    hex(old.meta().registry_id), hex(info.id), kWayToTakeOver));
  }
  if (old.meta().generation > info.generation) {
    throw Failure(
        fmt::format("the registry ends at generation {}, keys.mdb is generation {}: the registry is an older copy, "
                    "and keys revoked since would be good again. Revoke them again, then run {}",
                    info.generation, old.meta().generation, kWayToTakeOver));
  }
}

// Promise: no live key is dropped without an audited reason.
void check_nothing_lost(Registry& registry, const SnapshotFile& old, std::uint64_t kept, Seconds now) {
  std::uint64_t good = 0;
  each_key(old, [&](const apikey::Digest&, const apikey::Record& record) { good += is_good(record, now) ? 1U : 0U; });
  if (good == kept) {
    return;
  }
  each_key(old, [&](const apikey::Digest& digest, const apikey::Record& record) {
    if (is_good(record, now) && !registry.key(digest) && registry.deleted(text_of(record.id), "key.delete") == 0) {
      throw Failure(
          fmt::format("{} is active, but the registry does not know it and nobody deleted it; if such keys are to go, "
                      "run `keyloader publish --allow-shrink`",
                      text_of(record.id)));
    }
  });
}

bool is_below_half(std::uint64_t before, std::uint64_t after) { return after < before - before / 2; }

void check_counts(Registry& registry, const SnapshotFile* old, const RegistryInfo& info, std::uint64_t keys) {
  if (counts_agree(info, keys)) {
    return;
  }
  if (old != nullptr) {
    check_nothing_lost(registry, *old, 0, wall_clock());  // names the key, if one that is active is missing
  }
  throw Failure(
      fmt::format("the registry has {} keys, but it has counted {} added and {} removed: somebody changed registry.db "
                  "by other means. If the difference is intended, run `keyloader publish --allow-shrink`",
                  keys, info.added, info.removed));
}

// The newest format that every nginx which runs here reads: in a newer one no revocation would reach the oldest.
std::uint32_t format_read_by(const Nodes& nodes) {
  const KnownStore* const oldest = nodes.oldest_reader();
  return oldest == nullptr ? apikey::kFormatVersion : std::min(oldest->newest_format, apikey::kFormatVersion);
}

std::uint32_t format_for(const Nodes& nodes) {
  const std::uint32_t format = format_read_by(nodes);
  if (format < apikey::kFormatVersion) {
    print_note("keyloader: " + Nodes::old_format_sentence(nodes.oldest_reader()->node, format));
  }
  return format;
}

// What is the same in a publication and in a rollback.
struct NewSnapshot {
  std::uint64_t generation = 0;
  AuditEnd audit{};  // the entry of this very generation
  std::uint32_t format = apikey::kFormatVersion;
  bool allows_shrink = false;
};

apikey::publish::MetaValues meta_values(const RegistryInfo& info, const NewSnapshot& made) {
  apikey::publish::MetaValues meta;
  meta.format = made.format;
  meta.registry_id = info.id;
  meta.generation = made.generation;
  meta.created = {wall_clock()};
  meta.builder = "keyloader " KEYLOADER_VERSION;
  meta.allow_shrink = made.allows_shrink;
  meta.has_counters = true;
  meta.added = info.added;
  meta.removed = info.removed;
  meta.hash_seed = info.hash_seed;
  meta.name = info.name;
  meta.audit_seq = made.audit.seq;
  meta.audit_head = made.audit.hash;
  return meta;
}

// A permission is in every inbox before the file that needs it can be seen.
void permit(const Nodes& nodes, const Published& published) {
  for (const std::string& sentence : nodes.permit(published.seal, published.registry_id, published.generation)) {
    print_note("keyloader: " + sentence);
  }
}

void finish_and_swap(const DataDir& directory, apikey::publish::SnapshotWriter& writer,
                     const apikey::publish::MetaValues& meta, const Nodes* taken_over, Published& published) {
  apikey::publish::FinishedSnapshot finished;
  check(writer.finish(meta, finished), "the snapshot could not be written");
  published.registry_id = meta.registry_id;
  published.generation = meta.generation;
  published.seal = finished.seal.sha256;
  published.is_new = true;
  if (taken_over != nullptr) {
    permit(*taken_over, published);
  }
  const apikey::Status status = apikey::publish::swap_in(finished.path, directory.path(), finished.seal);
  if (!status.ok()) {
    std::error_code ignored;
    std::filesystem::remove(finished.path, ignored);
    check(status, "the snapshot could not take the place of keys.mdb");
  }
}

void check_nodes(const Nodes& nodes, Registry& registry, const RegistryInfo& info, const PublishRequest& request) {
  if (request.take_over) {
    return;
  }
  if (const auto refused = why_refused(nodes, info)) {
    throw Failure(*refused);
  }
  if (request.only_restricts) {
    return;
  }
  if (const auto lack = nodes.lack_of({.methods = methods_of_snapshot(registry)})) {
    throw Failure(*lack);
  }
}

Json take_over_note(const std::string& reason, const SnapshotFile* old, const Nodes& nodes) {
  Json replaced = Json::array();
  if (old != nullptr) {
    replaced.push_back({{"registry_id", hex(old->meta().registry_id)}, {"generation", old->meta().generation}});
  }
  for (const KnownStore& known : nodes.stores()) {
    replaced.push_back(
        {{"nginx", known.node}, {"registry_id", hex(known.registry_id)}, {"generation", known.highest_generation}});
  }
  return {{"reason", reason}, {"replaced", replaced}};
}

struct Begun {
  RegistryInfo info;
  NewSnapshot made;
};

// Generations that a file or node memory tells of are believed up to here: a number near the last that there is would
// leave none for the snapshots to come, and so stop every revocation for good.
constexpr std::uint64_t kMostAhead = std::uint64_t{1} << 32;

std::uint64_t if_plausible(std::uint64_t generation, const RegistryInfo& info) {
  return generation <= info.generation || generation - info.generation <= kMostAhead ? generation : 0;
}

// Counts, numbers and books the next generation.
Begun begin_generation(Registry& registry, Change& change, const Nodes& nodes, const SnapshotFile* old,
                       bool allows_shrink, const PublishRequest& request) {
  Begun begun{.info = registry.info(), .made = {.allows_shrink = allows_shrink}};
  const std::uint64_t keys = registry.key_count();
  if (old != nullptr && !request.take_over) {
    check_may_replace(*old, begun.info);
  }
  if (!request.allows_shrink) {
    check_counts(registry, old, begun.info, keys);
  }
  check_nodes(nodes, registry, begun.info, request);
  Json note{{"keys", keys}};
  if (allows_shrink) {
    note["allow_shrink"] = true;
  }
  std::uint64_t at_least =
      old != nullptr && old->meta().registry_id == begun.info.id ? if_plausible(old->meta().generation, begun.info) : 0;
  if (request.take_over) {
    note["take_over"] = take_over_note(*request.take_over, old, nodes);
    at_least = std::max(at_least, if_plausible(nodes.highest_generation(begun.info.id), begun.info));
  }
  change.settle(keys);
  begun.made.generation = change.next_generation(at_least, Change::Generation::publish, note);
  begun.made.audit = change.audit_end();
  begun.made.format = format_for(nodes);
  return begun;
}

Published publish_locked(const DataDir& directory, Registry& registry, const Nodes& nodes, const SnapshotFile* old,
                         const PublishRequest& request) {
  const std::uint64_t old_keys = old != nullptr ? old->meta().keys : 0;
  // For an nginx whose active snapshot has no counters.
  const bool allows_shrink = request.allows_shrink || is_below_half(old_keys, registry.key_count());
  apikey::publish::SnapshotWriter writer;
  check(writer.open(directory.path()), "a new snapshot cannot be begun in " + directory.path().string());
  const std::unique_ptr<Change> change = registry.begin_change();
  const Begun begun = begin_generation(registry, *change, nodes, old, allows_shrink, request);
  Published published;
  const auto build = [&] {
    const Seconds now = wall_clock();
    Built built = build_from_registry(registry, old, now, writer);
    if (old != nullptr && !request.allows_shrink && !request.take_over) {
      check_nothing_lost(registry, *old, built.kept, now);
    }
    published.keys = built.keys;
    published.generation = begun.made.generation;
    if (request.is_dry_run) {
      return;
    }
    apikey::publish::MetaValues meta = meta_values(registry.info(), begun.made);
    meta.digests = std::move(built.methods);
    finish_and_swap(directory, writer, meta, request.take_over ? &nodes : nullptr, published);
  };
  if (request.is_dry_run) {
    build();  // inside of the change, which is not committed
  } else {
    change->commit();
    registry.with_stable_view(build);
  }
  return published;
}

void lock(const DataDir& directory, apikey::publish::PublishLock& publish_lock) {
  check(publish_lock.acquire(directory.path()), "publishing has to wait for another process");
}

std::filesystem::path find_in_history(const DataDir& directory, std::uint64_t generation, std::uint64_t current) {
  for (const auto& entry : apikey::publish::list_history(directory.path())) {
    if (generation != 0 ? entry.generation == generation : entry.generation < current) {
      return entry.path;
    }
  }
  if (generation == 0) {
    throw Failure("history/ holds no snapshot older than the active one; there is nothing to roll back to");
  }
  throw Failure(
      fmt::format("history/ holds no generation {}; `keyloader snapshot list` shows what it holds", generation));
}

std::optional<Published> unless_behind(const DataDir& directory, Registry& registry, const Nodes& nodes,
                                       const PublishRequest& request) {
  apikey::Status status;
  const std::unique_ptr<SnapshotFile> file = open_current(directory, status);
  const bool is_too_new = file != nullptr && file->meta().format > format_read_by(nodes);
  if (request.take_over || is_too_new ||
      is_behind(file.get(), registry.info(), registry.key_count(), request.keeps_rollback)) {
    return std::nullopt;
  }
  return published_of(*file);
}

}  // namespace

std::optional<std::string> why_refused(const Nodes& nodes, const RegistryInfo& info) {
  for (const KnownStore& known : nodes.stores()) {
    if (known.highest_generation == 0) {
      continue;
    }
    if (known.registry_id != info.id) {
      return fmt::format(
          "{} uses this keys.mdb with registry {} (generation {}) and refuses this registry, {}; if it is "
          "to replace that one, run {}",
          known.node, hex(known.registry_id), known.highest_generation, hex(info.id), kWayToTakeOver);
    }
    if (if_plausible(known.highest_generation, info) > info.generation) {
      return fmt::format(
          "{} has seen generation {} of this registry, which ends at generation {}: it is an older copy, "
          "and keys revoked since would be good again. Revoke them again, then run {}",
          known.node, known.highest_generation, info.generation, kWayToTakeOver);
    }
  }
  return std::nullopt;
}

Published publish(const DataDir& directory, Registry& registry, const Nodes& nodes, const PublishRequest& request) {
  std::optional<Published> current = unless_behind(directory, registry, nodes, request);
  if (current && !request.renews) {
    return *current;
  }
  apikey::publish::PublishLock publish_lock;
  lock(directory, publish_lock);
  // Somebody may have published while we waited.
  current = unless_behind(directory, registry, nodes, request);
  if (current && !request.renews) {
    return *current;
  }
  apikey::Status status;
  const std::unique_ptr<SnapshotFile> old = open_current(directory, status);
  warn_of_damage(directory, status);
  Published published = publish_locked(directory, registry, nodes, old.get(), request);
  published.is_renewal = current.has_value();
  return published;
}

Published rollback(const DataDir& directory, Registry& registry, const Nodes& nodes, const RollbackRequest& request) {
  apikey::publish::PublishLock publish_lock;
  lock(directory, publish_lock);
  apikey::Status status;
  const std::unique_ptr<SnapshotFile> current = open_current(directory, status);
  warn_of_damage(directory, status);
  RegistryInfo info = registry.info();
  if (current != nullptr) {
    check_may_replace(*current, info);
  }
  if (const auto refused = why_refused(nodes, info)) {
    throw Failure(*refused);
  }
  const std::uint64_t current_generation = current != nullptr ? current->meta().generation : info.generation + 1;
  const std::filesystem::path path = find_in_history(directory, request.generation, current_generation);
  SnapshotFile old;
  check(old.open(path), path.string());
  if (old.meta().registry_id != info.id) {
    throw Failure(fmt::format("{} belongs to another registry ({})", path.string(), hex(old.meta().registry_id)));
  }
  apikey::publish::SnapshotWriter writer;
  check(writer.open(directory.path()), "a new snapshot cannot be begun in " + directory.path().string());

  Published published{.rolled_back_to = old.meta().generation};
  registry.with_stable_view([&] {
    const Copied copied = build_from_snapshot(registry, old, writer);
    published.keys = copied.keys;
    published.dropped = copied.dropped;
    published.refused_since = copied.refused;
  });
  if (current != nullptr && is_below_half(current->meta().keys, published.keys) && !request.allows_shrink) {
    throw Failure(fmt::format("{} keys are active and only {} would be left; if this is intended, add --allow-shrink",
                              current->meta().keys, published.keys));
  }
  const std::unique_ptr<Change> change = registry.begin_change();
  change->because(request.reason);
  change->settle(published.keys);
  const std::uint64_t next = change->next_generation(
      current != nullptr ? current_generation : 0, Change::Generation::rollback,
      {{"keys", published.keys}, {"rolled_back_to", published.rolled_back_to}, {"dropped", published.dropped}});
  if (request.is_dry_run) {
    published.generation = next;
    return published;
  }
  NewSnapshot made{.generation = next, .audit = change->audit_end(), .format = format_for(nodes)};
  info = registry.info();
  change->commit();
  const bool has_shrunk = current != nullptr && is_below_half(current->meta().keys, published.keys);
  made.allows_shrink = request.allows_shrink || has_shrunk;
  apikey::publish::MetaValues meta = meta_values(info, made);
  meta.rolled_back_to = published.rolled_back_to;
  const auto digests = std::span{old.meta().digests}.first(old.meta().digest_count);
  meta.digests.assign(digests.begin(), digests.end());
  finish_and_swap(directory, writer, meta, nullptr, published);
  return published;
}

}  // namespace keyloader
