// Writes one complete snapshot into a new file: rows and keys through liblmdb in order of their keys, then the index,
// then the seal. Called by `publish` and `snapshot rollback` with a sorted stream of keys, and by tests.
// Never touches keys.mdb: the finished file goes into service by swap_in() (snapshot_store.hpp).
//
//   SnapshotWriter writer;
//   Status status = writer.open(dir);
//   Record record;
//   record.env = writer.string("live");
//   record.owner = writer.owner({.name = "acme", .id = id});
//   if (status.ok()) status = writer.key(digest, record);   // digests ascend
//   if (status.ok()) status = writer.finish(meta, finished);
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "apikey/digest.hpp"
#include "apikey/meta.hpp"
#include "apikey/record.hpp"
#include "apikey/rows.hpp"
#include "apikey/seal.hpp"
#include "apikey/status.hpp"

namespace apikey::publish {

struct MetaValues {
  std::uint32_t format = kFormatVersion;
  RegistryId registry_id{};
  std::uint64_t generation = 0;
  UnixSec created;
  std::string builder = "keyloader";
  std::vector<std::string> digests = {"sha256"};  // 1-4, in the order they are tried
  bool allow_shrink = false;
  std::uint64_t rolled_back_to = 0;
  bool has_counters = false;  // `added` and `removed` are written; added - removed is the number of keys
  std::uint64_t added = 0;
  std::uint64_t removed = 0;
  // Not written into a file of format 1.
  HashSeed hash_seed{};         // zero: not said
  std::string name{};           // of the store; empty: not said
  std::uint64_t audit_seq = 0;  // 0: not said
  AuditHash audit_head{};
};

// As LimitRow, with the name itself.
struct Limit {
  std::string name;
  LimitKind kind = LimitKind::rate;
  CalendarUnit unit = CalendarUnit::none;
  bool is_dry_run = false;
  std::uint64_t amount = 0;
  std::uint64_t period_ns = 0;
  std::uint64_t burst = 0;
};

struct Owner {
  std::string name;
  std::array<std::byte, 16> id{};  // random, stable for ever
  std::string meta{};              // JSON object of strings, or empty
  bool is_suspended = false;
  UnixSec suspended_until{};
  std::vector<Limit> limits{};
};

struct FinishedSnapshot {
  std::filesystem::path path;  // the temporary file, beside keys.mdb; the caller swaps it in or removes it
  Seal seal;
  std::uint64_t keys = 0;
};

class SnapshotWriter {
 public:
  SnapshotWriter();
  ~SnapshotWriter();  // removes the temporary file unless finish() was ok
  SnapshotWriter(const SnapshotWriter&) = delete;
  SnapshotWriter& operator=(const SnapshotWriter&) = delete;

  // Makes `<directory>/keys.mdb.new.XXXXXX` (0640, whatever the umask). RETURNS: unreadable with errno.
  Status open(const std::filesystem::path& directory);

  // Rows, in any order, before, between and after keys. Equal ones get one number; empty ones get 0 (none).
  // What does not fit the format (a string over 1 MiB, a scope that is none, 17 limits) is kept as the first failure,
  // which key() and finish() then return.
  std::uint32_t string(std::string_view bytes);                   // names, environments, meta, encoded bindings
  std::uint32_t scope_set(const std::vector<std::string>& held);  // in any order, doubles allowed
  std::uint32_t limits(const std::vector<Limit>& limits);         // a key's own
  std::uint32_t plan(std::string_view name, const std::vector<Limit>& limits);
  std::uint32_t owner(const Owner& owner);  // one number per owner id; the first call's values stand
  // Scopes the registry knows, though no key need hold them (row 0 of `scopes`; those held are added by themselves).
  void know_scope(std::string_view scope);

  // REQUIRES: digests strictly ascending, numbers in `record` from the functions above.
  Status key(const Digest& digest, const Record& record);

  // Writes rows, meta and index, seals, and verifies the whole file once more. The file is not synced yet.
  Status finish(const MetaValues& meta, FinishedSnapshot& finished);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace apikey::publish
