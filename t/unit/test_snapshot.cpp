// Whole snapshots as a worker uses them: what was written is found, by index and by B-tree alike, and nothing else.
#include "apikey/snapshot.hpp"

#include <fcntl.h>

#include "snapshot_fixture.hpp"

#include "cmocka_cpp.hpp"

using apikey::Lookup;
using apikey::Record;
using apikey::Snapshot;
using apikey::publish::SnapshotFile;

namespace {

void assert_ok(const apikey::Status& status) {
  if (!status.ok()) print_error("%s\n", fixture::describe(status).c_str());
  assert_true(status.ok());
}

void assert_same(const Record& a, const Record& b) {
  assert_true(a.id == b.id && a.family == b.family && a.flags == b.flags);
  assert_true(a.env == b.env && a.owner == b.owner && a.plan == b.plan && a.scopes == b.scopes && a.name == b.name);
  assert_true(a.meta == b.meta && a.bindings == b.bindings && a.limits == b.limits);
}

void check_snapshot(std::size_t count, Lookup lookup) {
  const fixture::TempDir dir;
  fixture::Keys keys;
  const auto path = fixture::build(dir, count, &keys);
  SnapshotFile file;
  assert_ok(file.open(path, lookup));
  assert_int_equal(file.meta().keys, count);
  assert_int_equal(file.snapshot().meta().generation, 1);
  for (const auto& [digest, record] : keys) {
    Record found;
    assert_int_equal(file.snapshot().find(digest, found), Snapshot::Find::found);
    assert_same(found, record);
  }
  for (std::size_t i = 0; i < 5000; ++i) {
    Record found;
    const auto stranger = fixture::digest_of("stranger " + std::to_string(i));
    assert_int_equal(file.snapshot().find(stranger, found), Snapshot::Find::absent);
  }
  std::size_t seen = 0;
  assert_ok(file.for_each_key([&](const apikey::Digest& digest, const Record& record) {
    const bool is_same = digest == keys[seen].first && record.id == keys[seen].second.id;
    ++seen;
    return is_same;
  }));
  assert_int_equal(seen, count);
}

void finds_no_key_in_an_empty_one(void** /*state*/) {
  check_snapshot(0, Lookup::index);
  check_snapshot(0, Lookup::btree);
}
void finds_the_only_key(void** /*state*/) {
  check_snapshot(1, Lookup::index);
  check_snapshot(1, Lookup::btree);
}
void finds_thousands_by_index(void** /*state*/) { check_snapshot(20'000, Lookup::index); }
void finds_thousands_by_btree(void** /*state*/) { check_snapshot(20'000, Lookup::btree); }

void reads_the_rows(void** /*state*/) {
  const fixture::TempDir dir;
  fixture::Keys keys;
  const auto path = fixture::build(dir, 60, &keys);
  SnapshotFile file;
  assert_ok(file.open(path));
  const Snapshot& snapshot = file.snapshot();
  for (const auto& [digest, record] : keys) {
    std::string_view text;
    assert_true(snapshot.string(record.env, text));
    assert_true(text == "live" || text == "test");
    apikey::OwnerRow owner;
    assert_true(snapshot.owner(record.owner, owner));
    assert_true(snapshot.string(owner.name, text) && text.starts_with("owner "));
    assert_int_equal(owner.id.size(), 16);
    apikey::PlanRow plan;
    assert_true(snapshot.plan(record.plan, plan));
    assert_int_equal(plan.limits.size(), record.plan == 0 ? 0 : 1);
    apikey::ScopeSet scopes;
    assert_true(snapshot.scopes(record.scopes, scopes));
    assert_true(scopes.grants("orders:read") && !scopes.grants("orders:delete"));
    std::span<const std::byte> limits;
    assert_true(snapshot.bytes(record.limits, limits));
    assert_int_equal(limits.size(), record.limits == 0 ? 0 : apikey::kLimitSize);
  }
  apikey::ScopeSet known;
  assert_true(snapshot.known_scopes(known));
  assert_int_equal(known.size(), 3);
}

void knows_no_row_behind_the_last(void** /*state*/) {
  const fixture::TempDir dir;
  SnapshotFile file;
  assert_ok(file.open(fixture::build(dir, 10)));
  const Snapshot& snapshot = file.snapshot();
  const apikey::RowCounts counts = snapshot.row_counts();
  std::string_view text;
  apikey::OwnerRow owner;
  apikey::PlanRow plan;
  apikey::ScopeSet set;
  for (const std::uint32_t beyond : {1U, 2U, 1000U, 0x7fffffffU}) {
    assert_false(snapshot.string(counts[0] + beyond, text));
    assert_false(snapshot.scopes(counts[1] - 1 + beyond, set));
    assert_false(snapshot.plan(counts[2] + beyond, plan));
    assert_false(snapshot.owner(counts[3] + beyond, owner));
  }
  assert_false(snapshot.owner(0, owner));
  assert_true(snapshot.string(0, text) && text.empty());
  assert_true(snapshot.scopes(0, set) && set.size() == 0);
}

// Two snapshots open at once, one closed: as during a change-over.
void lives_beside_another(void** /*state*/) {
  const fixture::TempDir dir;
  fixture::Keys few;
  fixture::Keys many;
  SnapshotFile old_one;
  assert_ok(old_one.open(fixture::build(dir, 50, &few), Lookup::btree));
  Record found;
  {
    SnapshotFile new_one;
    assert_ok(new_one.open(fixture::build(dir, 500, &many, 2), Lookup::btree));
    assert_int_equal(new_one.snapshot().find(many[400].first, found), Snapshot::Find::found);
  }
  assert_int_equal(old_one.snapshot().find(few[40].first, found), Snapshot::Find::found);
}

void opens_again_after_close(void** /*state*/) {
  const fixture::TempDir dir;
  const auto path = fixture::build(dir, 5);
  const fixture::Bytes bytes = fixture::read_file(path);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  Snapshot snapshot;
  for (int i = 0; i < 3; ++i) {
    assert_ok(snapshot.open(fd, bytes, Lookup::index));
    assert_true(snapshot.is_open());
    snapshot.close();
    assert_false(snapshot.is_open());
    Record record;
    assert_int_equal(snapshot.find(fixture::digest_of("key 0"), record), Snapshot::Find::damaged);
  }
  (void)::close(fd);
}

// memory=mapped: bytes that change after they were verified must never make a good key unknown.
void never_says_absent_of_a_key_whose_page_was_overwritten(void** /*state*/) {
  const fixture::TempDir dir;
  fixture::Keys keys;
  const auto path = fixture::build(dir, 3000, &keys);
  fixture::Bytes bytes = fixture::read_file(path);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  Snapshot snapshot;
  assert_ok(snapshot.open(fd, bytes, Lookup::index));
  (void)::close(fd);
  const fixture::Bytes original = bytes;
  fixture::Random random(7);
  std::size_t damaged = 0;
  for (std::size_t round = 0; round < 200; ++round) {
    const std::size_t page = random(bytes.size() / 4096) * 4096;
    const auto filler = static_cast<int>(random(3)) * 0x55;
    std::memset(bytes.data() + page, filler, 4096);
    for (std::size_t i = 0; i < 100; ++i) {
      Record record;
      const Snapshot::Find found = snapshot.find(keys[random(keys.size())].first, record);
      assert_int_not_equal(found, Snapshot::Find::absent);
      damaged += found == Snapshot::Find::damaged;
    }
    std::copy_n(original.begin() + static_cast<std::ptrdiff_t>(page), 4096,
                bytes.begin() + static_cast<std::ptrdiff_t>(page));
  }
  assert_true(damaged > 0);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(finds_no_key_in_an_empty_one),
      cmocka_unit_test(finds_the_only_key),
      cmocka_unit_test(finds_thousands_by_index),
      cmocka_unit_test(finds_thousands_by_btree),
      cmocka_unit_test(reads_the_rows),
      cmocka_unit_test(knows_no_row_behind_the_last),
      cmocka_unit_test(lives_beside_another),
      cmocka_unit_test(opens_again_after_close),
      cmocka_unit_test(never_says_absent_of_a_key_whose_page_was_overwritten),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
