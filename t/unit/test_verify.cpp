// What a worker refuses to believe: flipped bits, cut files, and files a hostile builder sealed again.
#include "apikey/verify.hpp"

#include <lmdb.h>

#include "apikey/fold64.hpp"
#include "apikey/index.hpp"
#include "apikey/pages.hpp"
#include "publish/snapshot_sealer.hpp"
#include "snapshot_fixture.hpp"

#include "cmocka_cpp.hpp"

using apikey::Status;
using apikey::StatusCode;
using apikey::Verified;
using fixture::Bytes;

namespace {

constexpr std::size_t kPage = 4096;

Bytes snapshot_of(std::size_t count) {
  const fixture::TempDir dir;
  return fixture::read_file(fixture::build(dir, count));
}

void takes_whole_ones(void** /*state*/) {
  for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{5000}}) {
    const Bytes file = snapshot_of(count);
    Verified verified;
    const Status status = fixture::verify(file, &verified);
    if (!status.ok()) print_error("%s\n", fixture::describe(status).c_str());
    assert_true(status.ok());
    assert_int_equal(verified.meta.keys, count);
    assert_int_equal(verified.seal.length, file.size());
    assert_int_equal(verified.meta.generation, 1);
    assert_true(verified.meta.builder == "test 1");
    assert_int_equal(verified.meta.digest_count, 1);
  }
}

void refuses_every_flipped_bit(void** /*state*/) {
  Bytes file = snapshot_of(300);
  fixture::Random random(5);
  for (int round = 0; round < 4000; ++round) {
    const std::size_t at = random(file.size());
    const auto bit = static_cast<std::byte>(1U << random(8));
    file[at] ^= bit;
    assert_false(fixture::verify(file).ok());
    file[at] ^= bit;
  }
  assert_true(fixture::verify(file).ok());
}

void refuses_every_flipped_bit_of_the_seal(void** /*state*/) {
  Bytes file = snapshot_of(5);
  for (std::size_t bit = 0; bit < 256 * 8; ++bit) {
    const std::size_t at = file.size() - kPage + bit / 8;
    file[at] ^= static_cast<std::byte>(1U << (bit % 8));
    assert_false(fixture::verify(file).ok());
    file[at] ^= static_cast<std::byte>(1U << (bit % 8));
  }
}

void refuses_it_cut_off_anywhere(void** /*state*/) {
  const Bytes file = snapshot_of(500);
  for (std::size_t size = 0; size < file.size(); size += kPage) {
    const auto cut = std::span(file).first(size);
    assert_int_equal(fixture::verify(cut).code, StatusCode::damaged);
  }
  assert_false(fixture::verify(std::span(file).first(file.size() - 1)).ok());
  Bytes longer = file;
  longer.resize(file.size() + kPage);
  assert_false(fixture::verify(longer).ok());
}

// As after a partly written or partly lost file, sealed all the same.
void refuses_zeroed_pages_under_a_true_seal(void** /*state*/) {
  const Bytes good = snapshot_of(500);
  std::size_t refused = 0;
  const std::size_t pages = good.size() / kPage - 1;
  for (std::size_t page = 0; page < pages; ++page) {
    Bytes file = good;
    std::memset(file.data() + page * kPage, 0, kPage);
    fixture::reseal(file);
    refused += !fixture::verify(file).ok();
  }
  // Free pages are nobody's: those that are left of the transactions before the last may be zero.
  assert_true(refused + 8 >= pages);
}

void survives_anything_under_a_true_seal(void** /*state*/) {
  Bytes file = snapshot_of(200);
  const Bytes good = file;
  fixture::Random random(9);
  std::size_t refused = 0;
  for (int round = 0; round < 3000; ++round) {
    for (std::uint64_t i = random(4) + 1; i > 0; --i) {
      const std::size_t page = random(file.size() / kPage - 1) * kPage;
      const std::size_t at = page + (random(2) == 0 ? random(kPage) : random(160));
      file[at] = static_cast<std::byte>(random(256));
    }
    fixture::reseal(file);
    refused += !fixture::verify(file).ok();
    std::copy(good.begin(), good.end(), file.begin());
  }
  assert_true(refused > 1500);
}

std::size_t find_in(const Bytes& file, std::span<const std::byte> pattern, std::size_t from = 0) {
  const auto found =
      std::search(file.begin() + static_cast<std::ptrdiff_t>(from), file.end(), pattern.begin(), pattern.end());
  return static_cast<std::size_t>(found - file.begin());
}

// Where a record stands: an encoding of it is looked for.
std::size_t find_record(const Bytes& file, const fixture::Keys& keys, std::size_t i) {
  return find_in(file, std::as_bytes(std::span(keys[i].first.bytes)));
}

void refuses_records_that_refer_to_nothing(void** /*state*/) {
  const fixture::TempDir dir;
  fixture::Keys keys;
  const Bytes good = fixture::read_file(fixture::build(dir, 50, &keys));
  const auto refused = [&](auto change) {
    Bytes file = good;
    apikey::Record record = keys[20].second;
    change(record);
    const std::size_t at = find_record(file, keys, 20);
    apikey::encode_record(keys[20].first, record, std::span(file).subspan(at + 32, apikey::kRecordSize));
    fixture::reseal(file);
    return fixture::verify(file).code == StatusCode::damaged;
  };
  assert_false(refused([](apikey::Record&) {}));
  assert_true(refused([](apikey::Record& r) { r.env = 1'000'000; }));
  assert_true(refused([](apikey::Record& r) { r.env = 0; }));
  assert_true(refused([](apikey::Record& r) { r.owner = 0; }));
  assert_true(refused([](apikey::Record& r) { r.owner = 8; }));
  assert_true(refused([](apikey::Record& r) { r.plan = 2; }));
  assert_true(refused([](apikey::Record& r) { r.scopes = 3; }));
  assert_true(refused([](apikey::Record& r) { r.name = 0xffffffff; }));
  assert_true(refused([](apikey::Record& r) { r.meta = 0xffffffff; }));
  assert_true(refused([](apikey::Record& r) { r.bindings = 0xffffffff; }));
  assert_true(refused([](apikey::Record& r) { r.limits = 0xffffffff; }));
  assert_true(refused([](apikey::Record& r) { r.bindings = r.env; }));  // a string that is no list of bindings
  assert_true(refused([](apikey::Record& r) { r.limits = r.env; }));
}

// Each entry of the index lost or turned elsewhere, with checks and seal that hold.
void refuses_an_index_that_disagrees(void** /*state*/) {
  const fixture::TempDir dir;
  fixture::Keys keys;
  const Bytes good = fixture::read_file(fixture::build(dir, 50, &keys));
  const std::string_view magic = "AKINDEX1";
  const std::size_t index = find_in(good, std::as_bytes(std::span(magic)));
  assert_true(index < good.size());
  const auto buckets = fixture::get<std::uint64_t>(good, index + 8);
  std::size_t changed = 0;
  for (std::uint64_t bucket = 0; bucket < buckets; ++bucket) {
    const std::size_t at = index + apikey::kIndexHeaderSize + bucket * apikey::kBucketSize;
    const auto entry = fixture::get<std::uint64_t>(good, at + 8);
    if (entry == 0) continue;
    const std::size_t offset_of_other = find_record(good, keys, 7);
    for (const std::uint64_t other : {std::uint64_t{0}, entry ^ 1, entry + (std::uint64_t{1} << 24),
                                      (entry & 0xffffff) | std::uint64_t{offset_of_other} << 24}) {
      if (other == entry) continue;
      Bytes file = good;
      fixture::put(file, at + 8, other);
      apikey::Fold64 fold(64);
      fold.word(bucket);
      fold.bytes(std::span(file).subspan(at + 8, 56));
      fixture::put(file, at, fold.value());
      fixture::reseal(file);
      assert_int_equal(fixture::verify(file).code, StatusCode::damaged);
      ++changed;
    }
  }
  assert_true(changed > 100);
}

void refuses_seal_and_meta_that_disagree(void** /*state*/) {
  Bytes file = snapshot_of(3);
  const std::size_t seal = file.size() - kPage;
  fixture::put<std::uint64_t>(file, seal + 56, 2);
  assert_int_equal(fixture::verify(file).code, StatusCode::damaged);
  fixture::put<std::uint64_t>(file, seal + 56, 1);
  fixture::put<std::uint8_t>(file, seal + 64, 1);
  assert_int_equal(fixture::verify(file).code, StatusCode::damaged);
}

// An LMDB file as another program might write it; `change` gets a last say before it is sealed.
struct Foreign {
  MDB_txn* txn = nullptr;
  void put(const char* database, std::string key, std::string value) const {
    MDB_dbi dbi = 0;
    MDB_val k{key.size(), key.data()};
    MDB_val v{value.size(), value.data()};
    if (mdb_dbi_open(txn, database, MDB_CREATE, &dbi) != 0 || mdb_put(txn, dbi, &k, &v, 0) != 0) std::abort();
  }
  void del(const char* database, std::string key) const {
    MDB_dbi dbi = 0;
    MDB_val k{key.size(), key.data()};
    if (mdb_dbi_open(txn, database, 0, &dbi) != 0 || mdb_del(txn, dbi, &k, nullptr) != 0) std::abort();
  }
};

template <typename Change>
Status seal_foreign(Change change, Verified* verified = nullptr) {
  const fixture::TempDir dir;
  const auto in = dir.path() / "in.mdb";
  std::filesystem::copy_file(fixture::build(dir, 20), in);
  MDB_env* env = nullptr;
  mdb_env_create(&env);
  mdb_env_set_maxdbs(env, 10);
  mdb_env_set_mapsize(env, 1U << 24);
  if (mdb_env_open(env, in.c_str(), MDB_NOSUBDIR, 0600) != 0) std::abort();
  Foreign foreign;
  mdb_txn_begin(env, nullptr, 0, &foreign.txn);
  change(foreign);
  if (mdb_txn_commit(foreign.txn) != 0) std::abort();
  mdb_env_close(env);
  apikey::Seal seal;
  Status status = apikey::publish::seal_file(in, dir.path() / "out.mdb", seal);
  Verified summary;
  if (status.ok()) status = apikey::publish::verify_file(dir.path() / "out.mdb", summary);
  if (verified != nullptr) *verified = summary;
  return status;
}

void seals_what_others_wrote(void** /*state*/) {
  Verified verified;
  const Status status = seal_foreign([](const Foreign& f) { f.put("meta", "generation", "12"); }, &verified);
  if (!status.ok()) print_error("%s\n", fixture::describe(status).c_str());
  assert_true(status.ok());
  assert_int_equal(verified.meta.generation, 12);
  assert_int_equal(verified.seal.generation, 12);
  assert_true(seal_foreign([](const Foreign& f) { f.put("notes", "a", "of a later version"); }).ok());
}

void seals_the_format_that_meta_says(void** /*state*/) {
  Verified verified;
  assert_true(seal_foreign([](const Foreign& f) { f.put("meta", "format", "1"); }, &verified).ok());
  assert_int_equal(verified.meta.format, 1);
  assert_int_equal(verified.seal.format, 1);
  assert_true(seal_foreign([](const Foreign& f) { f.put("meta", "format", "2"); }, &verified).ok());
  assert_int_equal(verified.meta.format, 2);
  assert_int_equal(verified.seal.format, 2);
}

void one_format_in_seal_and_meta(void** /*state*/) {
  const fixture::TempDir dir;
  Bytes file = fixture::read_file(fixture::build(dir, 3));
  apikey::Seal seal;
  assert_true(apikey::decode_seal(file, seal).ok());
  seal.format = 1;
  apikey::encode_seal(seal, std::span(file).last(kPage));
  std::vector<std::uint64_t> scratch(apikey::verify_scratch_words(file.size()));
  Verified verified;
  assert_int_equal(apikey::verify_snapshot(file, scratch, {}, verified).code, StatusCode::damaged);
}

void seals_nothing_that_is_wrong(void** /*state*/) {
  const auto code = [](auto change) { return seal_foreign(change).code; };
  assert_int_equal(code([](const Foreign& f) { f.del("meta", "generation"); }), StatusCode::damaged);
  assert_int_equal(code([](const Foreign& f) { f.put("meta", "keys", "21"); }), StatusCode::damaged);
  assert_int_equal(code([](const Foreign& f) { f.put("meta", "format", "3"); }), StatusCode::unsupported);
  assert_int_equal(code([](const Foreign& f) { f.put("meta", "audit_seq", "7"); }), StatusCode::damaged);
  assert_int_equal(code([](const Foreign& f) { f.put("meta", "base", std::string(64, 'a')); }),
                   StatusCode::unsupported);
  assert_int_equal(code([](const Foreign& f) { f.put("keys", std::string(31, 'k'), std::string(96, 'r')); }),
                   StatusCode::damaged);
  assert_int_equal(code([](const Foreign& f) { f.put("keys", std::string(32, 'k'), std::string(96, 'r')); }),
                   StatusCode::damaged);
  assert_int_equal(code([](const Foreign& f) { f.put("strings", std::string("\0\0\0\1", 4), "nothing that checks"); }),
                   StatusCode::damaged);
  assert_int_equal(code([](const Foreign& f) { f.put("strings", std::string("\0\1\0\1", 4), "after a gap"); }),
                   StatusCode::damaged);
  assert_int_equal(code([](const Foreign& f) { f.del("strings", std::string("\0\0\0\1", 4)); }), StatusCode::damaged);
  assert_int_equal(code([](const Foreign& f) { f.del("scopes", std::string("\0\0\0\0", 4)); }), StatusCode::damaged);
  assert_int_equal(code([](const Foreign& f) { f.del("owners", std::string("\0\0\0\7", 4)); }), StatusCode::damaged);
}

void wants_an_index(void** /*state*/) {
  const fixture::TempDir dir;
  const Bytes file = fixture::read_file(fixture::build(dir, 3));
  std::vector<std::uint64_t> scratch(apikey::verify_scratch_words(file.size()));
  apikey::Meta meta;
  assert_true(apikey::verify_unsealed(std::span(file).first(file.size() - kPage), scratch, {}, meta).ok());
  assert_int_equal(meta.keys, 3);
  assert_false(apikey::verify_unsealed(file, scratch, {}, meta).ok());  // the seal is no part of it
}

struct Patience {
  int left;
};

StatusCode verify_with_patience(const Bytes& file, int left) {
  std::vector<std::uint64_t> scratch(apikey::verify_scratch_words(file.size()));
  Patience patience{left};
  const apikey::VerifyControl control{
      &patience, [](void* context) noexcept { return static_cast<Patience*>(context)->left-- > 0; }};
  Verified verified;
  return apikey::verify_snapshot(file, scratch, control, verified).code;
}

void ends_when_told(void** /*state*/) {
  const Bytes file = snapshot_of(15'000);  // two steps of a MiB for the hash, then the pages
  for (int left = 0; left < 4; ++left) assert_int_equal(verify_with_patience(file, left), StatusCode::failed);
  assert_int_equal(verify_with_patience(file, 1000), StatusCode::ok);
}

apikey::Meta next_meta(std::uint64_t generation, std::uint64_t keys) {
  apikey::Meta meta;
  meta.registry_id.fill(1);
  meta.generation = generation;
  meta.keys = keys;
  return meta;
}

void lets_follow_what_may(void** /*state*/) {
  apikey::InService now;
  assert_true(apikey::may_follow(now, next_meta(1, 0), 100).ok());  // the first one
  now.registry_id.fill(1);
  now.generation = 10;
  now.keys = 100;
  assert_true(apikey::may_follow(now, next_meta(11, 100), 50).ok());
  assert_true(apikey::may_follow(now, next_meta(11, 50), 50).ok());
  assert_int_equal(apikey::may_follow(now, next_meta(11, 49), 50).code, StatusCode::refused);
  assert_true(apikey::may_follow(now, next_meta(11, 0), 0).ok());
  assert_int_equal(apikey::may_follow(now, next_meta(10, 100), 50).code, StatusCode::refused);
  assert_int_equal(apikey::may_follow(now, next_meta(9, 100), 50).code, StatusCode::refused);
  apikey::Meta meant = next_meta(11, 0);
  meant.allow_shrink = true;
  assert_true(apikey::may_follow(now, meant, 100).ok());
  apikey::Meta foreign = next_meta(11, 100);
  foreign.registry_id.fill(2);
  assert_int_equal(apikey::may_follow(now, foreign, 0).code, StatusCode::refused);
  now.keys = ~std::uint64_t{0};
  assert_int_equal(apikey::may_follow(now, next_meta(11, now.keys / 3), 50).code, StatusCode::refused);
}

apikey::Meta counted_meta(std::uint64_t generation, std::uint64_t added, std::uint64_t removed) {
  apikey::Meta meta = next_meta(generation, added - removed);
  meta.has_added = meta.has_removed = true;
  meta.added = added;
  meta.removed = removed;
  return meta;
}

void follows_a_chain_of_intended_changes(void** /*state*/) {
  const apikey::InService ten = apikey::in_service_of(counted_meta(10, 10, 0));
  // 10 -> 6 -> 4 keys, and none at all, seen or missed on the way.
  for (const unsigned min_keep : {0U, 50U, 80U, 100U}) {
    for (const std::uint64_t removed : {0U, 4U, 6U, 10U}) {
      assert_true(apikey::may_follow(ten, counted_meta(11, 10, removed), min_keep).ok());
    }
    assert_true(apikey::may_follow(ten, counted_meta(11, 12, 8), min_keep).ok());
  }
}

void refuses_another_history(void** /*state*/) {
  const apikey::InService now = apikey::in_service_of(counted_meta(10, 12, 2));
  const auto sentence = [&](const apikey::Meta& next, unsigned min_keep) {
    const Status status = apikey::may_follow(now, next, min_keep);
    assert_int_equal(status.code, StatusCode::refused);
    return fixture::describe(status);
  };
  apikey::Meta shrinks_on_purpose = counted_meta(11, 11, 2);
  shrinks_on_purpose.allow_shrink = true;
  for (const std::string& text : {sentence(counted_meta(11, 11, 2), 0), sentence(counted_meta(11, 12, 1), 0),
                                  sentence(counted_meta(11, 11, 1), 0), sentence(shrinks_on_purpose, 0)}) {
    assert_true(text.find("publish --take-over --reason") != std::string::npos);
    assert_true(text.find("snapshot install --take-over") != std::string::npos);
  }
  assert_true(sentence(counted_meta(11, 11, 2), 0).find("added 11 keys so far") != std::string::npos);
  assert_true(sentence(counted_meta(11, 12, 1), 0).find("removed 1 keys so far") != std::string::npos);
  // A file that was not checked, or memory that changed: the keys are compared all the same.
  apikey::Meta emptied = counted_meta(11, 12, 2);
  emptied.keys = 4;
  assert_int_equal(apikey::may_follow(now, emptied, 50).code, StatusCode::refused);
}

void follows_a_snapshot_without_counters(void** /*state*/) {
  const apikey::InService uncounted{.registry_id = next_meta(1, 0).registry_id, .generation = 10, .keys = 10};
  // What the registry has removed since it began to count may still be in the active snapshot.
  assert_true(apikey::may_follow(uncounted, counted_meta(11, 10, 6), 50).ok());
  assert_true(apikey::may_follow(uncounted, counted_meta(11, 100, 100), 50).ok());
  assert_true(apikey::may_follow(uncounted, counted_meta(11, 5, 0), 50).ok());
  assert_int_equal(apikey::may_follow(uncounted, counted_meta(11, 4, 0), 50).code, StatusCode::refused);
  assert_int_equal(apikey::may_follow(uncounted, counted_meta(11, 5, 1), 50).code, StatusCode::refused);
  // And one without counters behind one with them.
  const apikey::InService counted = apikey::in_service_of(counted_meta(10, 20, 10));
  assert_true(apikey::may_follow(counted, next_meta(11, 5), 50).ok());
  assert_int_equal(apikey::may_follow(counted, next_meta(11, 4), 50).code, StatusCode::refused);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(takes_whole_ones),
      cmocka_unit_test(refuses_every_flipped_bit),
      cmocka_unit_test(refuses_every_flipped_bit_of_the_seal),
      cmocka_unit_test(refuses_it_cut_off_anywhere),
      cmocka_unit_test(refuses_zeroed_pages_under_a_true_seal),
      cmocka_unit_test(survives_anything_under_a_true_seal),
      cmocka_unit_test(refuses_records_that_refer_to_nothing),
      cmocka_unit_test(refuses_an_index_that_disagrees),
      cmocka_unit_test(refuses_seal_and_meta_that_disagree),
      cmocka_unit_test(seals_what_others_wrote),
      cmocka_unit_test(seals_the_format_that_meta_says),
      cmocka_unit_test(one_format_in_seal_and_meta),
      cmocka_unit_test(seals_nothing_that_is_wrong),
      cmocka_unit_test(wants_an_index),
      cmocka_unit_test(ends_when_told),
      cmocka_unit_test(lets_follow_what_may),
      cmocka_unit_test(follows_a_chain_of_intended_changes),
      cmocka_unit_test(refuses_another_history),
      cmocka_unit_test(follows_a_snapshot_without_counters),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
