// The page walker against files liblmdb wrote, and against the same files broken on purpose.
#include "apikey/pages.hpp"

#include <lmdb.h>

#include <map>

#include "snapshot_fixture.hpp"

#include "cmocka_cpp.hpp"

using apikey::LmdbHeader;
using apikey::StatusCode;
using fixture::Bytes;

namespace {

using Entries = std::map<std::string, std::map<std::string, std::string>>;

std::string text_of(std::span<const std::byte> bytes) {
  return {static_cast<const char*>(static_cast<const void*>(bytes.data())), bytes.size()};
}

struct Gathered {
  std::span<const std::byte> file;
  Entries entries;
  std::size_t stop_after = ~std::size_t{0};
  std::size_t pages = 0;
};

bool on_entry(void* context, std::string_view database, std::span<const std::byte> key, std::uint64_t offset,
              std::span<const std::byte> value) noexcept {
  auto& self = *static_cast<Gathered*>(context);
  if (value.data() != self.file.data() + offset) return false;
  self.entries[std::string(database)][text_of(key)] = text_of(value);
  return true;
}

bool on_page(void* context) noexcept {
  auto& self = *static_cast<Gathered*>(context);
  return ++self.pages <= self.stop_after;
}

apikey::Status walk(const Bytes& file, Gathered& gathered) {
  LmdbHeader header;
  apikey::Status status = apikey::read_lmdb_header(file, header);
  if (!status.ok()) return status;
  if (header.last_page > 1'000'000) return {StatusCode::damaged, "too many pages for a test"};
  std::vector<std::uint64_t> scratch(apikey::page_bitmap_words(header));
  gathered.file = file;
  return apikey::walk_pages(file, header, scratch, {&gathered, on_entry, on_page});
}

// As another writer would: several transactions, random order, overwriting and deleting, so that there are free pages.
Entries write_with_lmdb(const std::filesystem::path& path, std::size_t count) {
  Entries entries;
  MDB_env* env = nullptr;
  mdb_env_create(&env);
  mdb_env_set_maxdbs(env, 8);
  mdb_env_set_mapsize(env, std::size_t{256} << 20);
  if (mdb_env_open(env, path.c_str(), MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, 0600) != 0) std::abort();
  fixture::Random random(3);
  for (int round = 0; round < 5; ++round) {
    MDB_txn* txn = nullptr;
    mdb_txn_begin(env, nullptr, 0, &txn);
    for (const std::string name : {"small", "large"}) {
      MDB_dbi dbi = 0;
      mdb_dbi_open(txn, name.c_str(), MDB_CREATE, &dbi);
      for (std::size_t i = 0; i < count; ++i) {
        std::string key = "key " + std::to_string(random(count * 2));
        std::string value(name == "small" ? random(200) : random(9000), 'x');
        MDB_val k{key.size(), key.data()};
        MDB_val v{value.size(), value.data()};
        if (random(4) == 0) {
          mdb_del(txn, dbi, &k, nullptr);
          entries[name].erase(key);
        } else if (mdb_put(txn, dbi, &k, &v, 0) == 0) {
          entries[name][key] = value;
        }
      }
    }
    mdb_txn_commit(txn);
  }
  mdb_env_close(env);
  return entries;
}

void sees_what_lmdb_wrote(void** /*state*/) {
  for (const std::size_t count : {std::size_t{1}, std::size_t{50}, std::size_t{2000}}) {
    const fixture::TempDir dir;
    const Entries written = write_with_lmdb(dir.path() / "f", count);
    const Bytes file = fixture::read_file(dir.path() / "f");
    Gathered gathered;
    const apikey::Status status = walk(file, gathered);
    if (!status.ok()) print_error("%s\n", fixture::describe(status).c_str());
    assert_true(status.ok());
    for (const auto& [name, entries] : written) assert_true(gathered.entries[name] == entries);
  }
}

void stops_when_told(void** /*state*/) {
  const fixture::TempDir dir;
  write_with_lmdb(dir.path() / "f", 500);
  const Bytes file = fixture::read_file(dir.path() / "f");
  Gathered gathered;
  gathered.stop_after = 10;
  assert_int_equal(walk(file, gathered).code, StatusCode::failed);
  assert_int_equal(gathered.pages, 11);
}

void wants_enough_scratch(void** /*state*/) {
  const fixture::TempDir dir;
  write_with_lmdb(dir.path() / "f", 500);
  const Bytes file = fixture::read_file(dir.path() / "f");
  LmdbHeader header;
  assert_true(apikey::read_lmdb_header(file, header).ok());
  Gathered gathered;
  assert_int_equal(apikey::walk_pages(file, header, {}, {&gathered, on_entry, nullptr}).code, StatusCode::failed);
}

StatusCode header_code(const Bytes& file) {
  LmdbHeader header;
  return apikey::read_lmdb_header(file, header).code;
}

void tells_other_files_apart(void** /*state*/) {
  const fixture::TempDir dir;
  write_with_lmdb(dir.path() / "f", 1);
  const Bytes good = fixture::read_file(dir.path() / "f");
  assert_int_equal(header_code(good), StatusCode::ok);
  assert_int_equal(header_code({}), StatusCode::damaged);
  assert_int_equal(header_code(Bytes(100)), StatusCode::damaged);
  assert_int_equal(header_code(Bytes(100'000)), StatusCode::damaged);
  Bytes cut(good.begin(), good.begin() + 4096 + 100);
  assert_int_equal(header_code(cut), StatusCode::damaged);

  Bytes file = good;
  fixture::put<std::uint32_t>(file, 16, 0xdec0efbe);  // big-endian machine
  assert_int_equal(header_code(file), StatusCode::unsupported);
  file = good;
  fixture::put<std::uint32_t>(file, 12, 0xbeefc0de);  // 32-bit machine
  assert_int_equal(header_code(file), StatusCode::unsupported);
  file = good;
  fixture::put<std::uint32_t>(file, 20, 2);  // liblmdb 1.0
  assert_int_equal(header_code(file), StatusCode::unsupported);
}

void reads_page_sizes_of_lmdb_only(void** /*state*/) {
  for (const std::uint32_t size : {0U, 1U, 512U, 2048U, 4095U, 5000U, 65536U, 1U << 30, 0xffffffffU}) {
    Bytes file(200'000);
    fixture::put<std::uint32_t>(file, 16, 0xbeefc0de);
    fixture::put<std::uint32_t>(file, 20, 1);
    fixture::put<std::uint16_t>(file, 10, 8);
    fixture::put<std::uint32_t>(file, 40, size);
    assert_int_equal(header_code(file), StatusCode::unsupported);
  }
}

// A file of 16 KiB pages put together by hand: two meta pages, a main database of one leaf, one database of one leaf.
Bytes file_of_large_pages(std::uint32_t size) {
  Bytes file(std::size_t{4} * size);
  for (std::size_t page = 0; page < 4; ++page) fixture::put<std::uint64_t>(file, page * size, page);
  for (const std::size_t meta : {std::size_t{0}, std::size_t{size}}) {
    fixture::put<std::uint16_t>(file, meta + 10, 8);
    fixture::put<std::uint32_t>(file, meta + 16, 0xbeefc0de);
    fixture::put<std::uint32_t>(file, meta + 20, 1);
    fixture::put<std::uint32_t>(file, meta + 40, size);
    fixture::put<std::uint16_t>(file, meta + 44, 8);                  // free list: integer keys
    fixture::put<std::uint64_t>(file, meta + 80, ~std::uint64_t{0});  // no root
    fixture::put<std::uint16_t>(file, meta + 94, 1);                  // main: depth
    fixture::put<std::uint64_t>(file, meta + 104, 1);                 // leaf pages
    fixture::put<std::uint64_t>(file, meta + 120, 1);                 // entries
    fixture::put<std::uint64_t>(file, meta + 128, 2);                 // root
    fixture::put<std::uint64_t>(file, meta + 136, 3);                 // last page
    fixture::put<std::uint64_t>(file, meta + 144, meta == 0 ? 0 : 1);
  }
  const auto leaf = [&](std::size_t page, std::uint16_t flags, std::uint16_t data_size) {
    const auto node = static_cast<std::uint16_t>(size - 64);
    fixture::put<std::uint16_t>(file, page * size + 10, 2);
    fixture::put<std::uint16_t>(file, page * size + 12, 18);
    fixture::put<std::uint16_t>(file, page * size + 14, node);
    fixture::put<std::uint16_t>(file, page * size + 16, node);
    fixture::put<std::uint16_t>(file, page * size + node, data_size);
    fixture::put<std::uint16_t>(file, page * size + node + 4, flags);
    fixture::put<std::uint16_t>(file, page * size + node + 6, 2);
    fixture::put<std::uint16_t>(file, page * size + node + 8, 0x6161);  // "aa"
    return page * size + node + 10;
  };
  const std::size_t database = leaf(2, 2, 48);
  fixture::put<std::uint16_t>(file, database + 6, 1);
  fixture::put<std::uint64_t>(file, database + 16, 1);
  fixture::put<std::uint64_t>(file, database + 32, 1);
  fixture::put<std::uint64_t>(file, database + 40, 3);
  fixture::put<std::uint32_t>(file, leaf(3, 0, 4), 0x62626262);
  return file;
}

void reads_large_pages(void** /*state*/) {
  for (const std::uint32_t size : {4096U, 8192U, 16384U, 32768U}) {
    Gathered gathered;
    const Bytes file = file_of_large_pages(size);
    const apikey::Status status = walk(file, gathered);
    if (!status.ok()) print_error("%s\n", fixture::describe(status).c_str());
    assert_true(status.ok());
    assert_true(gathered.entries["aa"]["aa"] == "bbbb");
  }
}

struct Break {
  const char* what;
  std::size_t at;
  std::uint64_t value;
  std::size_t size;
};

void refuses_each_broken_number(void** /*state*/) {
  constexpr std::size_t kMeta = 4096;  // the newer one
  constexpr std::size_t kMain = 2 * 4096;
  constexpr std::size_t kLeaf = 3 * 4096;
  constexpr std::size_t kNode = 4096 - 64;
  constexpr std::size_t kDatabase = kMain + kNode + 10;
  const Break breaks[] = {
      {"last page behind the file is no fault by itself, the root there is", kMeta + 128, 4, 8},
      {"root is a meta page", kMeta + 128, 1, 8},
      {"root is far away", kMeta + 128, 1U << 30, 8},
      {"root overflows", kMeta + 128, ~std::uint64_t{0} - 1, 8},
      {"no root though there are entries", kMeta + 128, ~std::uint64_t{0}, 8},
      {"main has duplicates", kMeta + 92, 4, 2},
      {"main is deeper than it says", kMeta + 94, 2, 2},
      {"main has no depth", kMeta + 94, 0, 2},
      {"main is endless", kMeta + 94, 33, 2},
      {"main has another number of entries", kMeta + 120, 2, 8},
      {"main has another number of leaf pages", kMeta + 104, 2, 8},
      {"main has branch pages it has not", kMeta + 96, 1, 8},
      {"free list without integer keys", kMeta + 44, 0, 2},
      {"page with another page's number", kLeaf, 2, 8},
      {"leaf that is a branch", kLeaf + 10, 1, 2},
      {"leaf with fixed-size duplicates", kLeaf + 10, 0x22, 2},
      {"lower above upper", kLeaf + 14, 16, 2},
      {"odd lower", kLeaf + 12, 17, 2},
      {"lower in the header", kLeaf + 12, 14, 2},
      {"no entries", kLeaf + 12, 16, 2},
      {"upper behind the page", kLeaf + 14, 4098, 2},
      {"node in the list of nodes", kLeaf + 16, 16, 2},
      {"node behind the page", kLeaf + 16, 5000, 2},
      {"node at the very end", kLeaf + 16, 4090, 2},
      {"node at an odd place", kLeaf + 16, kNode + 1, 2},
      {"key longer than the page", kLeaf + kNode + 6, 60, 2},
      {"key longer than LMDB's longest", kLeaf + kNode + 6, 512, 2},
      {"empty key", kLeaf + kNode + 6, 0, 2},
      {"data longer than the page", kLeaf + kNode, 200, 4},
      {"data as long as can be", kLeaf + kNode, 0xffffffff, 4},
      {"entry with flags of duplicates", kLeaf + kNode + 4, 4, 2},
      {"database inside a database", kLeaf + kNode + 4, 2, 2},
      {"overflow page that is none", kLeaf + kNode + 4, 1, 2},
      {"plain entry in the main database", kMain + kNode + 4, 0, 2},
      {"description of a database cut short", kMain + kNode, 47, 4},
      {"database with duplicates", kDatabase + 4, 4, 2},
      {"database with its own main database as root", kDatabase + 40, 2, 8},
      {"database with a meta page as root", kDatabase + 40, 0, 8},
      {"database behind the file", kDatabase + 40, 4, 8},
      {"database with another number of entries", kDatabase + 32, 7, 8},
      {"database with another depth", kDatabase + 6, 3, 2},
  };
  for (const Break& b : breaks) {
    Bytes file = file_of_large_pages(4096);
    std::memcpy(file.data() + b.at, &b.value, b.size);
    Gathered gathered;
    const apikey::Status status = walk(file, gathered);
    if (status.ok()) print_error("taken: %s\n", b.what);
    assert_false(status.ok());
    assert_int_not_equal(status.code, StatusCode::failed);
  }
}

// Branches that lead to themselves, their neighbour, a meta page, behind the end. Branch pages of older transactions
// lie around unused and may point anywhere: so not every change must be refused, but many, and none may hang.
void refuses_cycles_and_shared_pages(void** /*state*/) {
  const fixture::TempDir dir;
  write_with_lmdb(dir.path() / "f", 600);
  Bytes file = fixture::read_file(dir.path() / "f");
  const std::size_t pages = file.size() / 4096;
  std::size_t refused = 0;
  for (std::size_t page = 2; page < pages; ++page) {
    if (fixture::get<std::uint16_t>(file, page * 4096 + 10) != 1) continue;
    const std::size_t node = page * 4096 + fixture::get<std::uint16_t>(file, page * 4096 + 18);  // the second child
    const auto child = fixture::get<std::uint32_t>(file, node);
    for (const std::size_t target : {page, page + 1, std::size_t{0}, std::size_t{2}, pages}) {
      fixture::put<std::uint32_t>(file, node, static_cast<std::uint32_t>(target));
      Gathered gathered;
      refused += !walk(file, gathered).ok();
    }
    fixture::put<std::uint32_t>(file, node, child);
  }
  assert_true(refused >= 10);
  Gathered gathered;
  assert_true(walk(file, gathered).ok());
}

void survives_anything(void** /*state*/) {
  const fixture::TempDir dir;
  write_with_lmdb(dir.path() / "f", 40);
  const Bytes good = fixture::read_file(dir.path() / "f");
  fixture::Random random(11);
  for (int round = 0; round < 2000; ++round) {
    Bytes file = good;
    for (std::uint64_t i = random(8) + 1; i > 0; --i) {
      // Mostly the first bytes of pages, where the structure is.
      const std::size_t at = random(2) == 0 ? random(file.size()) : random(file.size() / 4096) * 4096 + random(200);
      file[at] = static_cast<std::byte>(random(256));
    }
    if (random(5) == 0) file.resize(random(file.size()));
    Gathered gathered;
    (void)walk(file, gathered);
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(sees_what_lmdb_wrote),
      cmocka_unit_test(stops_when_told),
      cmocka_unit_test(wants_enough_scratch),
      cmocka_unit_test(tells_other_files_apart),
      cmocka_unit_test(reads_page_sizes_of_lmdb_only),
      cmocka_unit_test(reads_large_pages),
      cmocka_unit_test(refuses_each_broken_number),
      cmocka_unit_test(refuses_cycles_and_shared_pages),
      cmocka_unit_test(survives_anything),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
