// Adding the index: counts keys and rows, reserves one LMDB value for it and fills that in while it goes through the
// pages a second time. liblmdb writes new pages only, so what the first commit left stays where the index says.
#include "apikey/index.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "apikey/pages.hpp"
#include "publish/owned.hpp"
#include "publish/snapshot_file.hpp"
#include "publish/snapshot_sealer.hpp"

namespace apikey::publish {
namespace {

constexpr std::size_t kMapSlack = std::size_t{16} << 20;

struct Gathering {
  std::span<const std::byte> file;
  std::uint64_t keys = 0;
  RowCounts rows{};
  IndexBuilder* builder = nullptr;  // null while counting
  Status status{};
};

bool on_key(Gathering& self, std::span<const std::byte> key, std::uint64_t offset) noexcept {
  ++self.keys;
  if (self.builder == nullptr) return true;
  Digest digest;
  if (key.size() == digest.bytes.size()) {
    std::copy(key.begin(), key.end(), std::as_writable_bytes(std::span(digest.bytes)).begin());
    if (self.builder->add_key(digest, static_cast<std::uint64_t>(key.data() - self.file.data()))) return true;
  }
  self.status = {StatusCode::unsupported, "the key at byte {0} does not fit into an index (files under 1 TiB)", offset};
  return false;
}

bool on_row(Gathering& self, Table table, std::uint64_t offset) noexcept {
  std::uint32_t& count = self.rows[static_cast<std::size_t>(table) - 1];
  const std::uint32_t number = table == Table::scopes ? count : count + 1;
  ++count;
  if (self.builder == nullptr || self.builder->add_row(table, number, offset)) return true;
  self.status = {StatusCode::failed, "row {0} does not fit into the index", number};
  return false;
}

bool on_entry(void* context, std::string_view database, std::span<const std::byte> key, std::uint64_t offset,
              std::span<const std::byte> /*value*/) noexcept {
  auto& self = *static_cast<Gathering*>(context);
  if (database == "keys") return on_key(self, key, offset);
  Table table{};
  return !find_table(database, table) || on_row(self, table, offset);
}

Status gather(const LmdbHeader& header, Gathering& gathering) {
  std::vector<std::uint64_t> scratch(page_bitmap_words(header));
  const Status status = walk_pages(gathering.file, header, scratch, {&gathering, on_entry, nullptr});
  return gathering.status.ok() ? status : gathering.status;
}

// A value nobody has filled in yet, in an otherwise empty database `index`. LIFETIME: until the commit.
Status reserve(MDB_txn* txn, std::size_t size, std::span<std::byte>& value) {
  MDB_dbi dbi = 0;
  char name = '1';
  MDB_val key{1, &name};
  MDB_val room{size, nullptr};
  int result = mdb_dbi_open(txn, "index", MDB_CREATE, &dbi);
  if (result == 0) result = mdb_drop(txn, dbi, 0);
  if (result == 0) result = mdb_put(txn, dbi, &key, &room, MDB_RESERVE);
  if (result != 0) return lmdb_failure("liblmdb makes no room for the index{error}", result);
  value = {static_cast<std::byte*>(room.mv_data), size};
  return {};
}

}  // namespace

Status add_index(const std::filesystem::path& path) {
  MappedFile file;
  Status status = file.open(path);
  if (!status.ok()) return status;
  LmdbHeader header;
  status = read_lmdb_header(file.bytes(), header);
  if (!status.ok()) return status;
  Gathering counted{file.bytes()};
  status = gather(header, counted);
  if (!status.ok()) return status;

  const std::uint64_t buckets = index_bucket_count(counted.keys, header.page_size);
  const std::size_t size = index_size(buckets, counted.rows);
  OwnedEnv env;
  status = open_private_env(path.c_str(), file.bytes().size() + size + kMapSlack, env);
  if (!status.ok()) return status;
  OwnedTxn txn;
  status = begin_write(env.get(), txn);
  if (!status.ok()) return status;
  std::span<std::byte> value;
  status = reserve(txn.get(), size, value);
  if (!status.ok()) return status;

  IndexBuilder builder(value, buckets, counted.rows);
  Gathering filling{file.bytes()};
  filling.builder = &builder;
  status = gather(header, filling);
  if (!status.ok()) return status;
  builder.finish();
  return commit(txn);
}

}  // namespace apikey::publish
