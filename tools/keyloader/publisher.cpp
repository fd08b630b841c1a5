// Publishing: what may follow what is in service, the new generation, the build, the swap.
// Called by every changing command. keys.mdb is only ever replaced by a whole, verified, synced file.
#include "publisher.hpp"

#include <fmt/format.h>

#include <functional>
#include <optional>

#include "output.hpp"
#include "publish/snapshot_store.hpp"
#include "snapshot_builder.hpp"
#include "snapshot_copier.hpp"

namespace keyloader {
namespace {

using apikey::publish::SnapshotFile;

// keys.mdb as it is now. A damaged one counts as none: publishing is what puts that right. What keeps this process from
// reading it says nothing about the file.
std::unique_ptr<SnapshotFile> open_in_service(const DataDir& directory) {
  auto file = std::make_unique<SnapshotFile>();
  const apikey::Status status = file->open(directory.snapshot_file());
  if (status.ok()) {
    return file;
  }
  if (status.code == apikey::StatusCode::unreadable || status.code == apikey::StatusCode::failed) {
    throw Failure(fmt::format("{}: {}", directory.snapshot_file().string(), sentence_of(status)));
  }
  if (status.code != apikey::StatusCode::absent) {
    print_note(fmt::format("keyloader: {} is not an intact snapshot and will be replaced: {}",
                           directory.snapshot_file().string(), sentence_of(status)));
  }
  return nullptr;
}

void check_may_replace(const SnapshotFile& old, const RegistryInfo& info, bool allow_shrink) {
  if (old.meta().registry_id != info.id) {
    throw Failure(
        fmt::format("keys.mdb belongs to registry {}, this is registry {}: move keys.mdb away if this registry is to "
                    "take over here",
                    hex(old.meta().registry_id), hex(info.id)));
  }
  if (old.meta().generation > info.generation && !allow_shrink) {
    throw Failure(
        fmt::format("the registry ends at generation {}, keys.mdb is generation {}: the registry is an older copy, "
                    "and keys revoked since would come back. Revoke them again, then run "
                    "`keyloader publish --allow-shrink`",
                    info.generation, old.meta().generation));
  }
}

bool is_below_half(std::uint64_t before, std::uint64_t after) { return after < before - before / 2; }

void check_count(std::uint64_t before, std::uint64_t after, bool allow_shrink) {
  if (is_below_half(before, after) && !allow_shrink) {
    throw Failure(
        fmt::format("{} keys are in service and only {} would be left; if that is meant, run "
                    "`keyloader publish --allow-shrink`",
                    before, after));
  }
}

bool has_been_deleted(Registry& registry, const apikey::KeyId& id) {
  bool is_deleted = false;
  registry.each_audit_entry(text_of(id), 1,
                            [&](const AuditEntry& entry) { is_deleted = entry.action == "key.delete"; });
  return is_deleted;
}

// Promise: no live key is dropped without an audited reason.
void check_nothing_lost(Registry& registry, const SnapshotFile& old, std::uint64_t kept, Seconds now) {
  std::uint64_t good = 0;
  each_key(old, [&](const apikey::Digest&, const apikey::Record& record) { good += is_good(record, now) ? 1U : 0U; });
  if (good == kept) {
    return;
  }
  each_key(old, [&](const apikey::Digest& digest, const apikey::Record& record) {
    if (is_good(record, now) && !registry.key(digest) && !has_been_deleted(registry, record.id)) {
      throw Failure(
          fmt::format("{} is in service, but the registry does not know it and nobody deleted it; if such keys are "
                      "to go, run `keyloader publish --allow-shrink`",
                      text_of(record.id)));
    }
  });
}

apikey::publish::MetaValues meta_values(const RegistryInfo& info, std::uint64_t generation, bool allow_shrink) {
  apikey::publish::MetaValues meta;
  meta.registry_id = info.id;
  meta.generation = generation;
  meta.created = {wall_clock()};
  meta.builder = "keyloader " KEYLOADER_VERSION;
  meta.allow_shrink = allow_shrink;
  return meta;
}

void finish_and_swap(const DataDir& directory, apikey::publish::SnapshotWriter& writer,
                     const apikey::publish::MetaValues& meta) {
  apikey::publish::FinishedSnapshot finished;
  check(writer.finish(meta, finished), "the snapshot could not be written");
  const apikey::Status status = apikey::publish::swap_in(finished.path, directory.path(), finished.seal);
  if (!status.ok()) {
    std::error_code ignored;
    std::filesystem::remove(finished.path, ignored);
    check(status, "the snapshot could not be put into service");
  }
}

Published publish_locked(const DataDir& directory, Registry& registry, const Loss& loss) {
  const std::unique_ptr<SnapshotFile> old = open_in_service(directory);
  const std::uint64_t old_generation = old != nullptr ? old->meta().generation : 0;
  const std::uint64_t old_keys = old != nullptr ? old->meta().keys : 0;
  const std::uint64_t keys = registry.key_count();
  if (old != nullptr) {
    check_may_replace(*old, registry.info(), loss.is_meant);
    check_count(old_keys, keys + loss.named, loss.is_meant);
  }
  const bool allow_shrink = loss.is_meant || is_below_half(old_keys, keys);
  apikey::publish::SnapshotWriter writer;
  check(writer.open(directory.path()), "a new snapshot cannot be begun in " + directory.path().string());

  Published published;
  {
    const std::unique_ptr<Change> change = registry.begin_change();
    Json note{{"keys", keys}};
    if (allow_shrink) {
      note["allow_shrink"] = true;
    }
    published.generation = change->next_generation(old_generation, Change::Generation::publish, note);
    change->commit();
  }
  registry.with_stable_view([&] {
    const Seconds now = wall_clock();
    Built built = build_from_registry(registry, old.get(), now, writer);
    if (old != nullptr && !loss.is_meant) {
      check_nothing_lost(registry, *old, built.kept, now);
    }
    published.keys = built.keys;
    apikey::publish::MetaValues meta = meta_values(registry.info(), published.generation, allow_shrink);
    meta.digests = std::move(built.methods);
    finish_and_swap(directory, writer, meta);
  });
  return published;
}

void lock(const DataDir& directory, apikey::publish::PublishLock& publish_lock) {
  check(publish_lock.acquire(directory.path()), "publishing has to wait for another process");
}

std::filesystem::path find_in_history(const DataDir& directory, std::uint64_t generation, std::uint64_t in_service) {
  for (const auto& entry : apikey::publish::list_history(directory.path())) {
    if (generation != 0 ? entry.generation == generation : entry.generation < in_service) {
      return entry.path;
    }
  }
  if (generation == 0) {
    throw Failure("history/ holds no snapshot older than the one in service; there is nothing to roll back to");
  }
  throw Failure(
      fmt::format("history/ holds no generation {}; `keyloader snapshot list` shows what it holds", generation));
}

}  // namespace

Published publish(const DataDir& directory, Registry& registry, const Loss& loss) {
  apikey::publish::PublishLock publish_lock;
  lock(directory, publish_lock);
  return publish_locked(directory, registry, loss);
}

void publish_change(const DataDir& directory, Registry& registry, std::uint64_t seq, const Loss& loss) {
  apikey::publish::PublishLock publish_lock;
  lock(directory, publish_lock);
  const RegistryInfo info = registry.info();
  if (info.published_seq > seq) {
    // Somebody published while we waited. It counts only if that generation really went into service.
    apikey::publish::MappedFile file;
    apikey::Seal seal;
    if (file.open(directory.snapshot_file()).ok() && apikey::decode_seal(file.bytes(), seal).ok() &&
        seal.generation == info.generation) {
      return;
    }
  }
  publish_locked(directory, registry, loss);
}

Published rollback(const DataDir& directory, Registry& registry, std::uint64_t generation, bool allow_shrink) {
  apikey::publish::PublishLock publish_lock;
  lock(directory, publish_lock);
  const std::unique_ptr<SnapshotFile> current = open_in_service(directory);
  const RegistryInfo info = registry.info();
  if (current != nullptr) {
    check_may_replace(*current, info, allow_shrink);
  }
  const std::uint64_t in_service = current != nullptr ? current->meta().generation : info.generation + 1;
  const std::filesystem::path path = find_in_history(directory, generation, in_service);
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
  if (current != nullptr) {
    check_count(current->meta().keys, published.keys, allow_shrink);
  }
  const std::unique_ptr<Change> change = registry.begin_change();
  published.generation = change->next_generation(
      current != nullptr ? in_service : 0, Change::Generation::rollback,
      {{"keys", published.keys}, {"rolled_back_to", published.rolled_back_to}, {"dropped", published.dropped}});
  change->commit();
  apikey::publish::MetaValues meta = meta_values(info, published.generation, allow_shrink);
  meta.rolled_back_to = published.rolled_back_to;
  const auto digests = std::span{old.meta().digests}.first(old.meta().digest_count);
  meta.digests.assign(digests.begin(), digests.end());
  finish_and_swap(directory, writer, meta);
  return published;
}

}  // namespace keyloader
