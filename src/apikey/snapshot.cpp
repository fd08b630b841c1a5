// Look-ups in a verified snapshot. The only file of the core that knows liblmdb: it opens the file, leads to `meta`
// and `index`, and with Lookup::btree answers from database `keys`.
// Must not be given a file that did not pass verify_snapshot(): liblmdb follows page pointers unchecked.
#include "apikey/snapshot.hpp"

#include <fcntl.h>
#include <lmdb.h>

#include <array>
#include <cstring>

namespace apikey {
namespace {

constexpr std::size_t kOverflowHeader = 16;  // before a value that has pages of its own

struct ProcPath {
  std::array<char, 32> text{};
};

ProcPath path_of(int fd) noexcept {
  constexpr std::string_view folder = "/proc/self/fd/";
  ProcPath path;
  std::memcpy(path.text.data(), folder.data(), folder.size());
  std::array<char, 12> digits{};
  std::size_t count = 0;
  for (unsigned rest = fd < 0 ? 0 : static_cast<unsigned>(fd); count == 0 || rest != 0; rest /= 10) {
    digits[count++] = static_cast<char>('0' + rest % 10);
  }
  char* at = path.text.data() + folder.size();
  while (count > 0) *at++ = digits[--count];
  return path;
}

// liblmdb's errors: positive ones are errno, negative ones its own.
Status lmdb_failure(const char* text, int result) noexcept {
  if (result > 0) return {StatusCode::unreadable, text, 0, 0, result};
  return {StatusCode::damaged, text, static_cast<std::uint64_t>(-result)};
}

// Where liblmdb has mapped the file: a value with pages of its own begins 16 bytes behind the number of its page.
struct Mapping {
  const std::byte* base = nullptr;

  void learn(const MDB_val& value, std::size_t page_size) noexcept {
    const auto* const page = static_cast<const std::byte*>(value.mv_data) - kOverflowHeader;
    std::uint64_t number;
    std::memcpy(&number, page, sizeof number);
    base = page - number * page_size;
  }
  // The same bytes in our own mapping. RETURNS: false when they lie outside.
  [[nodiscard]] bool translate(const MDB_val& value, std::span<const std::byte> file,
                               std::span<const std::byte>& bytes) const noexcept {
    const std::ptrdiff_t offset = static_cast<const std::byte*>(value.mv_data) - base;
    if (offset < 0 || static_cast<std::size_t>(offset) > file.size()) return false;
    if (value.mv_size > file.size() - static_cast<std::size_t>(offset)) return false;
    bytes = file.subspan(static_cast<std::size_t>(offset), value.mv_size);
    return true;
  }
};

MDB_val value_of(std::string_view text) noexcept {
  return {text.size(), const_cast<char*>(text.data())};  // NOLINT(cppcoreguidelines-pro-type-const-cast): read only
}

std::string_view as_text(std::span<const std::byte> bytes) noexcept {
  return {static_cast<const char*>(static_cast<const void*>(bytes.data())), bytes.size()};
}

Status open_index(MDB_env* env, MDB_txn* txn, std::span<const std::byte> file, Mapping& mapping,
                  Index& index) noexcept {
  MDB_dbi dbi = 0;
  MDB_stat stat{};
  MDB_val key = value_of("1");
  MDB_val value{};
  int result = mdb_env_stat(env, &stat);
  if (result == 0) result = mdb_dbi_open(txn, "index", 0, &dbi);
  if (result == 0) result = mdb_get(txn, dbi, &key, &value);
  if (result != 0) return lmdb_failure("liblmdb finds no index in the snapshot{error}", result);
  mapping.learn(value, stat.ms_psize);
  std::span<const std::byte> bytes;
  if (!mapping.translate(value, file, bytes)) return {StatusCode::damaged, "the index does not lie in the file"};
  return Index::open(file, static_cast<std::uint64_t>(bytes.data() - file.data()), bytes.size(), index);
}

Status read_meta(MDB_txn* txn, std::span<const std::byte> file, const Mapping& mapping, Meta& meta) noexcept {
  MDB_dbi dbi = 0;
  MDB_cursor* cursor = nullptr;
  int result = mdb_dbi_open(txn, "meta", 0, &dbi);
  if (result == 0) result = mdb_cursor_open(txn, dbi, &cursor);
  if (result != 0) return lmdb_failure("liblmdb cannot read meta{error}", result);
  MDB_val key{};
  MDB_val value{};
  Status status;
  while (status.ok() && (result = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
    std::span<const std::byte> name;
    std::span<const std::byte> content;
    const bool is_inside = mapping.translate(key, file, name) && mapping.translate(value, file, content);
    status = is_inside ? set_meta(meta, as_text(name), as_text(content))
                       : Status{StatusCode::damaged, "meta does not lie in the file"};
  }
  mdb_cursor_close(cursor);
  if (status.ok() && result != MDB_NOTFOUND) return lmdb_failure("liblmdb cannot read meta{error}", result);
  return status.ok() ? check_meta(meta) : status;
}

}  // namespace

static_assert(MDB_VERSION_MAJOR == 0, "snapshots are files of LMDB 0.9; LMDB 1.0 reads and writes another format");

Status check_lmdb() noexcept {
  int major = 0;
  int minor = 0;
  int patch = 0;
  static_cast<void>(mdb_version(&major, &minor, &patch));
  if (major == 0) return {};
  return {StatusCode::failed,
          "liblmdb {0}.{1} is loaded, which reads and writes another format; snapshots need liblmdb 0.9 (Debian: "
          "liblmdb0)",
          static_cast<std::uint64_t>(major), static_cast<std::uint64_t>(minor)};
}

Status Snapshot::open(int fd, std::span<const std::byte> file, Lookup lookup) noexcept {
  close();
  Status status = check_lmdb();
  if (status.ok()) status = open_with_lmdb(fd, file, lookup);
  if (!status.ok()) {
    close();
    return status;
  }
  if (lookup == Lookup::index) close_lmdb();
  file_ = file;
  return {};
}

Status Snapshot::open_with_lmdb(int fd, std::span<const std::byte> file, Lookup lookup) noexcept {
  constexpr unsigned flags = MDB_RDONLY | MDB_NOLOCK | MDB_NOSUBDIR;
  int result = mdb_env_create(&env_);
  if (result == 0) result = mdb_env_set_maxdbs(env_, 3);
  // The least it takes: liblmdb raises it to the file's last page, not to the map size of whoever wrote the file.
  if (result == 0) result = mdb_env_set_mapsize(env_, 1);
  if (result == 0) result = mdb_env_open(env_, path_of(fd).text.data(), flags, 0);
  if (result != 0) return lmdb_failure("liblmdb cannot open the snapshot{error}", result);
  int own_fd = -1;
  if (mdb_env_get_fd(env_, &own_fd) == 0) (void)fcntl(own_fd, F_SETFD, FD_CLOEXEC);  // liblmdb leaves that out
  result = mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn_);
  if (result != 0) return lmdb_failure("liblmdb cannot read the snapshot{error}", result);

  Mapping mapping;
  Status status = open_index(env_, txn_, file, mapping, index_);
  if (status.ok()) status = read_meta(txn_, file, mapping, meta_);
  if (!status.ok() || lookup == Lookup::index) return status;
  result = mdb_dbi_open(txn_, "keys", 0, &keys_dbi_);
  if (result != 0) return lmdb_failure("liblmdb finds no keys in the snapshot{error}", result);
  return {};
}

void Snapshot::close_lmdb() noexcept {
  if (txn_ != nullptr) mdb_txn_abort(txn_);
  if (env_ != nullptr) mdb_env_close(env_);
  txn_ = nullptr;
  env_ = nullptr;
}

void Snapshot::close() noexcept {
  close_lmdb();
  file_ = {};
  meta_ = Meta{};
  index_ = Index{};
}

Snapshot::Find Snapshot::find_bytes(const Digest& digest, std::span<const std::byte>& bytes) const noexcept {
  if (txn_ == nullptr) {
    const Index::Find found = index_.find(digest, bytes);
    if (found == Index::Find::found) return Find::found;
    return found == Index::Find::absent ? Find::absent : Find::damaged;
  }
  Digest copy = digest;  // liblmdb takes no pointer to const
  MDB_val key{copy.bytes.size(), copy.bytes.data()};
  MDB_val value{};
  const int result = mdb_get(txn_, keys_dbi_, &key, &value);
  if (result != 0) return result == MDB_NOTFOUND ? Find::absent : Find::damaged;
  bytes = {static_cast<const std::byte*>(value.mv_data), value.mv_size};
  return Find::found;
}

Snapshot::Find Snapshot::find(const Digest& digest, Record& record) const noexcept {
  std::span<const std::byte> bytes;
  const Find found = find_bytes(digest, bytes);
  if (found != Find::found) return found;
  return decode_record(digest, bytes, record) ? Find::found : Find::damaged;
}

Snapshot::Find Snapshot::find_life(const Digest& digest, Life& life, OwnerLife& owner) const noexcept {
  std::span<const std::byte> bytes;
  const Find found = find_bytes(digest, bytes);
  if (found != Find::found) return found;
  std::span<const std::byte> payload;
  const bool is_sound = decode_life(digest, bytes, life) && index_.row(Table::owners, life.owner, payload) &&
                        decode_owner_life(payload, owner);
  return is_sound ? Find::found : Find::damaged;
}

bool Snapshot::bytes(std::uint32_t number, std::span<const std::byte>& bytes) const noexcept {
  bytes = {};
  return number == 0 || index_.row(Table::strings, number, bytes);
}

bool Snapshot::string(std::uint32_t number, std::string_view& text) const noexcept {
  std::span<const std::byte> found;
  const bool is_there = bytes(number, found);
  text = as_text(found);
  return is_there;
}

bool Snapshot::scopes(std::uint32_t number, ScopeSet& set) const noexcept {
  set = ScopeSet{};
  std::span<const std::byte> payload;
  return number == 0 || (index_.row(Table::scopes, number, payload) && ScopeSet::decode(payload, set));
}

bool Snapshot::plan(std::uint32_t number, PlanRow& plan) const noexcept {
  plan = PlanRow{};
  std::span<const std::byte> payload;
  return number == 0 || (index_.row(Table::plans, number, payload) && decode_plan(payload, plan));
}

bool Snapshot::owner(std::uint32_t number, OwnerRow& owner) const noexcept {
  owner = OwnerRow{};
  std::span<const std::byte> payload;
  return index_.row(Table::owners, number, payload) && decode_owner(payload, owner);
}

bool Snapshot::known_scopes(ScopeSet& set) const noexcept {
  set = ScopeSet{};
  if (row_counts()[static_cast<std::size_t>(Table::scopes) - 1] == 0) return true;
  std::span<const std::byte> payload;
  return index_.row(Table::scopes, 0, payload) && ScopeSet::decode(payload, set);
}

}  // namespace apikey
