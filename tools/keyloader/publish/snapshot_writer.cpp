// The writer: keys stream into LMDB as they come, rows wait in memory until their number is final.
// Everything is appended in order of LMDB's keys, which fills the pages and needs no search.
#include "publish/snapshot_writer.hpp"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "apikey/verify.hpp"
#include "publish/owned.hpp"
#include "publish/row_tables.hpp"
#include "publish/snapshot_file.hpp"
#include "publish/snapshot_sealer.hpp"
#include "publish/snapshot_store.hpp"

namespace apikey::publish {
namespace {

// A transaction ends when it may have filled this much; between two of them the map can grow.
constexpr std::size_t kBatchBytes = std::size_t{64} << 20;
constexpr std::size_t kMapSlack = std::size_t{8} << 20;  // meta pages, branch pages, the free list

MDB_val value_of(std::span<const std::byte> bytes) {
  return {bytes.size(), const_cast<std::byte*>(bytes.data())};  // NOLINT(cppcoreguidelines-pro-type-const-cast)
}

std::array<std::byte, 4> big_endian(std::uint32_t number) {
  return {static_cast<std::byte>(number >> 24), static_cast<std::byte>(number >> 16),
          static_cast<std::byte>(number >> 8), static_cast<std::byte>(number)};
}

std::string hex(std::span<const std::uint8_t> bytes) {
  std::string text(bytes.size() * 2, '0');
  to_hex(bytes, text);
  return text;
}

std::vector<std::pair<std::string, std::string>> meta_rows(const MetaValues& meta, std::uint64_t keys) {
  std::string digests;
  for (const std::string& name : meta.digests) digests += (digests.empty() ? "" : " ") + name;
  std::vector<std::pair<std::string, std::string>> rows = {
      {"builder", meta.builder},
      {"created", std::to_string(meta.created.value)},
      {"digests", digests},
      {"format", std::to_string(meta.format)},
      {"generation", std::to_string(meta.generation)},
      {"keys", std::to_string(keys)},
      {"registry_id", hex(meta.registry_id)},
  };
  if (meta.allow_shrink) rows.emplace_back("allow_shrink", "1");
  if (meta.rolled_back_to != 0) rows.emplace_back("rolled_back_to", std::to_string(meta.rolled_back_to));
  if (meta.has_counters) {
    rows.emplace_back("added", std::to_string(meta.added));
    rows.emplace_back("removed", std::to_string(meta.removed));
  }
  if (meta.format < 2) return rows;
  if (meta.hash_seed != HashSeed{}) rows.emplace_back("hash_seed", hex(meta.hash_seed));
  if (!meta.name.empty()) rows.emplace_back("name", meta.name);
  if (meta.audit_seq != 0) {
    rows.emplace_back("audit_seq", std::to_string(meta.audit_seq));
    rows.emplace_back("audit_head", hex(meta.audit_head));
  }
  return rows;
}

}  // namespace

struct SnapshotWriter::State {
  std::filesystem::path path;
  OwnedEnv env;
  OwnedTxn txn;
  RowTables rows;
  MDB_dbi keys_dbi = 0;
  std::uint64_t keys = 0;
  Digest last;
  std::size_t batch_bytes = 0;  // what the transaction may have filled
  std::vector<std::byte> buffer;
  Status failure;  // nothing is written any more once there is one

  Status grow();
  Status room_for(std::size_t bytes);
  Status begin();
  Status open_database(const char* name, MDB_dbi& dbi);
  Status put(MDB_dbi dbi, std::span<const std::byte> key, std::span<const std::byte> value, unsigned flags);
  Status put_row(MDB_dbi dbi, Table table, std::uint32_t number, std::string_view payload);
  Status put_table(Table table);
  Status put_meta(const MetaValues& meta);
  Status write_rest(const MetaValues& meta);
  Status remember(const Status& status) {
    if (failure.ok()) failure = status;
    return status;
  }
};

// REQUIRES: no transaction. Only then may the map be exchanged for a larger one.
Status SnapshotWriter::State::grow() {
  MDB_envinfo info{};
  MDB_stat stat{};
  int result = mdb_env_info(env.get(), &info);
  if (result == 0) result = mdb_env_stat(env.get(), &stat);
  const std::size_t used = (info.me_last_pgno + 1) * stat.ms_psize;
  const std::size_t needed = used + kBatchBytes + kMapSlack + 2 * kMaxRowPayload;
  if (result == 0 && needed > info.me_mapsize) result = mdb_env_set_mapsize(env.get(), 2 * needed);
  return result == 0 ? Status{} : lmdb_failure("liblmdb cannot make the new snapshot larger (error -{0})", result);
}

Status SnapshotWriter::State::begin() {
  const Status status = grow();
  batch_bytes = 0;
  return status.ok() ? begin_write(env.get(), txn) : status;
}

// An entry takes at most twice its bytes: pages filled in order are at least half full.
Status SnapshotWriter::State::room_for(std::size_t bytes) {
  const std::size_t cost = 2 * bytes + 64;
  if (batch_bytes + cost > kBatchBytes && batch_bytes > 0) {
    Status status = commit(txn);
    if (status.ok()) status = begin();
    if (!status.ok()) return status;
  }
  batch_bytes += cost;
  return {};
}

Status SnapshotWriter::State::open_database(const char* name, MDB_dbi& dbi) {
  const int result = mdb_dbi_open(txn.get(), name, MDB_CREATE, &dbi);
  return result == 0 ? Status{} : lmdb_failure("liblmdb cannot make a database (error -{0})", result);
}

Status SnapshotWriter::State::put(MDB_dbi dbi, std::span<const std::byte> key, std::span<const std::byte> value,
                                  unsigned flags) {
  const Status status = room_for(key.size() + value.size());
  if (!status.ok()) return status;
  MDB_val k = value_of(key);
  MDB_val v = value_of(value);
  const int result = mdb_put(txn.get(), dbi, &k, &v, flags);
  return result == 0 ? Status{} : lmdb_failure("liblmdb cannot write an entry (error -{0})", result);
}

Status SnapshotWriter::State::put_row(MDB_dbi dbi, Table table, std::uint32_t number, std::string_view payload) {
  buffer.resize(kRowHeaderSize + payload.size());
  const auto bytes = std::as_bytes(std::span(payload));
  std::copy(bytes.begin(), bytes.end(), buffer.begin() + kRowHeaderSize);
  encode_row_header(table, number, bytes, std::span(buffer).first(kRowHeaderSize));
  return put(dbi, big_endian(number), buffer, MDB_APPEND);
}

Status SnapshotWriter::State::put_table(Table table) {
  MDB_dbi dbi = 0;
  Status status = open_database(kTableNames[static_cast<std::size_t>(table) - 1].data(), dbi);
  if (status.ok() && table == Table::scopes) status = put_row(dbi, table, 0, rows.known_scopes());
  std::uint32_t number = 0;
  for (const std::string_view payload : rows.payloads(table)) {
    if (!status.ok()) return status;
    status = put_row(dbi, table, ++number, payload);
  }
  return status;
}

Status SnapshotWriter::State::put_meta(const MetaValues& meta) {
  MDB_dbi dbi = 0;
  Status status = open_database("meta", dbi);
  for (const auto& [name, value] : meta_rows(meta, keys)) {
    if (!status.ok()) return status;
    status = put(dbi, std::as_bytes(std::span(name)), std::as_bytes(std::span(value)), 0);
  }
  return status;
}

Status SnapshotWriter::State::write_rest(const MetaValues& meta) {
  Status status = put_table(Table::strings);
  if (status.ok()) status = put_table(Table::scopes);
  if (status.ok()) status = put_table(Table::plans);
  if (status.ok()) status = put_table(Table::owners);
  if (status.ok()) status = put_meta(meta);
  return status.ok() ? commit(txn) : status;
}

SnapshotWriter::SnapshotWriter() : state_(std::make_unique<State>()) {}

SnapshotWriter::~SnapshotWriter() {
  if (!state_->path.empty()) (void)::unlink(state_->path.c_str());
}

Status SnapshotWriter::open(const std::filesystem::path& directory) {
  int fd = -1;
  Status status = check_lmdb();
  if (!status.ok()) return state_->remember(status);
  status = make_temporary(directory, state_->path, fd);
  if (!status.ok()) return state_->remember(status);
  (void)::close(fd);  // liblmdb opens it itself; an empty file is a new one to it
  status = open_private_env(state_->path.c_str(), kBatchBytes, state_->env);
  if (status.ok()) status = state_->begin();
  if (status.ok()) status = state_->open_database("keys", state_->keys_dbi);
  return state_->remember(status);
}

std::uint32_t SnapshotWriter::string(std::string_view bytes) { return state_->rows.string(bytes); }
std::uint32_t SnapshotWriter::scope_set(const std::vector<std::string>& held) { return state_->rows.scope_set(held); }
std::uint32_t SnapshotWriter::limits(const std::vector<Limit>& limits) { return state_->rows.limits(limits); }
std::uint32_t SnapshotWriter::plan(std::string_view name, const std::vector<Limit>& limits) {
  return state_->rows.plan(name, limits);
}
std::uint32_t SnapshotWriter::owner(const Owner& owner) { return state_->rows.owner(owner); }
void SnapshotWriter::know_scope(std::string_view scope) { state_->rows.know_scope(scope); }

Status SnapshotWriter::key(const Digest& digest, const Record& record) {
  State& state = *state_;
  if (!state.failure.ok()) return state.failure;
  if (!state.rows.failure().ok()) return state.rows.failure();
  if (state.keys > 0 && digest.bytes <= state.last.bytes) {
    return state.remember({StatusCode::bad_value,
                           "key {0} is not above the one before it: two keys of one digest, or "
                           "not sorted",
                           state.keys + 1});
  }
  std::array<std::byte, kRecordSize> bytes;
  encode_record(digest, record, bytes);
  const Status status =
      state.remember(state.put(state.keys_dbi, std::as_bytes(std::span(digest.bytes)), bytes, MDB_APPEND));
  if (status.ok()) {
    state.last = digest;
    ++state.keys;
  }
  return status;
}

Status SnapshotWriter::finish(const MetaValues& meta, FinishedSnapshot& finished) {
  State& state = *state_;
  if (!state.failure.ok()) return state.failure;
  if (!state.rows.failure().ok()) return state.rows.failure();
  if (!state.txn) return state.remember({StatusCode::failed, "the writer is not open"});
  Status status = state.write_rest(meta);
  state.txn.reset();
  state.env.reset();
  if (status.ok()) status = add_index(state.path);
  if (status.ok()) status = add_seal(state.path, finished.seal);
  Verified verified;
  if (status.ok()) status = verify_file(state.path, verified);
  if (!status.ok()) return state.remember(status);
  finished.keys = state.keys;
  finished.path = std::exchange(state.path, {});
  return {};
}

}  // namespace apikey::publish
