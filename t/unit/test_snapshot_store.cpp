// The directory of a node's snapshots: swapping in, history, the publisher's lock, and what sealing refuses to touch.
#include "publish/snapshot_store.hpp"

#include <fcntl.h>
#include <lmdb.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "publish/snapshot_sealer.hpp"
#include "snapshot_fixture.hpp"

#include "cmocka_cpp.hpp"

using apikey::Status;
using apikey::StatusCode;
using apikey::publish::HistoryEntry;
using apikey::publish::PublishLock;

namespace {

namespace fs = std::filesystem;

void assert_ok(const Status& status) {
  if (!status.ok()) print_error("%s (errno %d)\n", fixture::describe(status).c_str(), status.error);
  assert_true(status.ok());
}

void publish(const fixture::TempDir& dir, std::uint64_t generation, std::size_t keep = 5) {
  const fs::path made = fixture::build(dir, 10, nullptr, generation);
  apikey::Verified verified;
  assert_ok(apikey::publish::verify_file(made, verified));
  assert_ok(apikey::publish::swap_in(made, dir.path(), verified.seal, keep));
  assert_false(fs::exists(made));
}

mode_t mode_of(const fs::path& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? info.st_mode & 07777U : 0;
}

void swaps_in_and_keeps_the_last_five(void** /*state*/) {
  const fixture::TempDir dir;
  const mode_t old_mask = ::umask(077);
  for (std::uint64_t generation = 1; generation <= 8; ++generation) publish(dir, generation);
  ::umask(old_mask);
  apikey::Verified verified;
  assert_ok(apikey::publish::verify_file(dir.path() / "keys.mdb", verified));
  assert_int_equal(verified.meta.generation, 8);
  const std::vector<HistoryEntry> history = apikey::publish::list_history(dir.path());
  assert_int_equal(history.size(), 5);
  for (std::size_t i = 0; i < history.size(); ++i) {
    assert_int_equal(history[i].generation, 8 - i);
    assert_int_equal(history[i].is_in_service, i == 0);
    assert_ok(apikey::publish::verify_file(history[i].path, verified));
    assert_int_equal(verified.meta.generation, 8 - i);
  }
  assert_true(history[0].path.filename().string().starts_with("0000000008-"));
  assert_int_equal(mode_of(dir.path() / "keys.mdb"), 0640);
  assert_int_equal(mode_of(dir.path() / "history"), 02750);
}

// A node that was given a lower generation on purpose keeps what it serves, however old it is.
void never_removes_what_is_in_service(void** /*state*/) {
  const fixture::TempDir dir;
  for (std::uint64_t generation = 11; generation <= 16; ++generation) publish(dir, generation);
  publish(dir, 3);
  const std::vector<HistoryEntry> history = apikey::publish::list_history(dir.path());
  assert_int_equal(history.size(), 6);
  assert_int_equal(history.back().generation, 3);
  assert_true(history.back().is_in_service);
}

void leaves_the_old_one_when_it_cannot_swap(void** /*state*/) {
  const fixture::TempDir dir;
  publish(dir, 1);
  apikey::Seal seal;
  const Status status = apikey::publish::swap_in(dir.path() / "keys.mdb.new.none", dir.path(), seal);
  assert_int_equal(status.code, StatusCode::unreadable);
  assert_int_equal(status.error, ENOENT);
  apikey::Verified verified;
  assert_ok(apikey::publish::verify_file(dir.path() / "keys.mdb", verified));
  assert_int_equal(verified.meta.generation, 1);
}

void lists_nothing_where_nothing_is(void** /*state*/) {
  const fixture::TempDir dir;
  assert_int_equal(apikey::publish::list_history(dir.path()).size(), 0);
  assert_int_equal(apikey::publish::list_history(dir.path() / "nowhere").size(), 0);
}

void lets_one_publisher_in_at_a_time(void** /*state*/) {
  const fixture::TempDir dir;
  {
    PublishLock first;
    assert_ok(first.acquire(dir.path(), 0));
    PublishLock second;
    assert_int_equal(second.acquire(dir.path(), 30).code, StatusCode::refused);
  }
  PublishLock third;
  assert_ok(third.acquire(dir.path(), 0));
  assert_int_equal(mode_of(dir.path() / "publish.lock"), 0600);
}

void sweeps_what_a_killed_publisher_left(void** /*state*/) {
  const fixture::TempDir dir;
  publish(dir, 1);
  const fs::path left = fixture::build(dir, 1, nullptr, 2);
  assert_true(fs::exists(left));
  PublishLock lock;
  assert_ok(lock.acquire(dir.path(), 0));
  assert_false(fs::exists(left));
  assert_true(fs::exists(dir.path() / "keys.mdb"));
}

void removes_what_was_not_finished(void** /*state*/) {
  const fixture::TempDir dir;
  {
    apikey::publish::SnapshotWriter writer;
    assert_ok(writer.open(dir.path()));
    assert_false(fs::is_empty(dir.path()));
  }
  assert_true(fs::is_empty(dir.path()));
}

void writes_nothing_unsorted_or_twice(void** /*state*/) {
  const fixture::TempDir dir;
  apikey::publish::SnapshotWriter writer;
  assert_ok(writer.open(dir.path()));
  const fixture::Keys keys = fixture::fill(writer, 3);
  assert_ok(writer.key(keys[1].first, keys[1].second));
  assert_int_equal(writer.key(keys[1].first, keys[1].second).code, StatusCode::bad_value);
  apikey::publish::FinishedSnapshot finished;
  assert_int_equal(writer.finish(fixture::meta_of(1), finished).code, StatusCode::bad_value);
}

void says_what_does_not_fit(void** /*state*/) {
  using apikey::publish::Limit;
  using apikey::publish::SnapshotWriter;
  const auto refused = [](auto add) {
    const fixture::TempDir dir;
    SnapshotWriter writer;
    assert_ok(writer.open(dir.path()));
    add(writer);
    apikey::publish::FinishedSnapshot finished;
    return writer.finish(fixture::meta_of(1), finished).code == StatusCode::bad_value;
  };
  const Limit limit{.name = "a", .amount = 1, .period_ns = 1, .burst = 1};
  assert_false(refused([&](SnapshotWriter& w) { w.plan("p", std::vector<Limit>(16, limit)); }));
  assert_true(refused([&](SnapshotWriter& w) { w.plan("p", std::vector<Limit>(17, limit)); }));
  assert_true(refused([&](SnapshotWriter& w) { w.plan("", {limit}); }));
  assert_true(refused([](SnapshotWriter& w) { w.limits({Limit{.name = "a"}}); }));
  assert_true(refused([](SnapshotWriter& w) { w.string(std::string((1U << 20) + 1, 'x')); }));
  assert_false(refused([](SnapshotWriter& w) { w.string(std::string(1U << 20, 'x')); }));
  assert_true(refused([](SnapshotWriter& w) { w.scope_set({"a b"}); }));
  assert_true(refused([](SnapshotWriter& w) { w.owner({.name = ""}); }));
}

// More scopes than a set can name: any is taken as known.
void knows_any_number_of_scopes(void** /*state*/) {
  const fixture::TempDir dir;
  apikey::publish::SnapshotWriter writer;
  assert_ok(writer.open(dir.path()));
  for (int i = 0; i < 1001; ++i) writer.know_scope("scope:" + std::to_string(i));
  apikey::publish::FinishedSnapshot finished;
  assert_ok(writer.finish(fixture::meta_of(1), finished));
  apikey::publish::SnapshotFile file;
  assert_ok(file.open(finished.path));
  apikey::ScopeSet known;
  assert_true(file.snapshot().known_scopes(known));
  assert_true(known.grants("anything:at:all"));
  assert_true(known.grants("apikey:admin"));
}

// A process with the file open through liblmdb's lock file, until the pipe is closed.
class Holder {
 public:
  explicit Holder(const fs::path& path) {
    int ready[2];
    if (::pipe(ready) != 0 || ::pipe(stop_) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) hold(path, ready[1]);
    char byte = 0;
    if (::read(ready[0], &byte, 1) != 1) std::abort();
    (void)::close(ready[0]);
    (void)::close(ready[1]);
  }
  void let_go() {
    (void)::close(stop_[1]);
    (void)::close(stop_[0]);
    (void)::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  [[noreturn]] void hold(const fs::path& path, int ready) const {
    (void)::close(stop_[1]);
    MDB_env* env = nullptr;
    if (mdb_env_create(&env) != 0 || mdb_env_open(env, path.c_str(), MDB_NOSUBDIR, 0600) != 0) ::_exit(1);
    char byte = 1;
    if (::write(ready, &byte, 1) != 1) ::_exit(1);
    while (::read(stop_[0], &byte, 1) > 0) {
    }
    ::_exit(0);
  }

  pid_t pid_ = -1;
  int stop_[2] = {-1, -1};
};

void seals_no_file_somebody_has_open(void** /*state*/) {
  const fixture::TempDir dir;
  const fs::path in = dir.path() / "in.mdb";
  fs::copy_file(fixture::build(dir, 5), in);
  Holder holder(in);
  apikey::Seal seal;
  const Status status = apikey::publish::seal_file(in, dir.path() / "out.mdb", seal);
  const pid_t pid = holder.pid();
  holder.let_go();
  assert_int_equal(status.code, StatusCode::refused);
  assert_int_equal(status.a, pid);
  assert_false(fs::exists(dir.path() / "out.mdb"));
  assert_ok(apikey::publish::seal_file(in, dir.path() / "out.mdb", seal));
  assert_int_equal(mode_of(dir.path() / "out.mdb"), 0640);
}

void leaves_nothing_behind_when_it_seals_nothing(void** /*state*/) {
  const fixture::TempDir dir;
  apikey::Seal seal;
  const fs::path in = dir.path() / "in.mdb";
  assert_int_equal(apikey::publish::seal_file(in, dir.path() / "out.mdb", seal).code, StatusCode::absent);
  fs::copy_file(fixture::build(dir, 5), in);
  assert_int_equal(apikey::publish::seal_file(in, in, seal).code, StatusCode::refused);
  fs::resize_file(in, 3 * 4096 + 5);
  const auto before = std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator());
  assert_int_equal(apikey::publish::seal_file(in, dir.path() / "out.mdb", seal).code, StatusCode::damaged);
  assert_int_equal(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), before);
}

// Writers with MDB_WRITEMAP leave a file as long as their map.
void seals_a_file_longer_than_its_pages(void** /*state*/) {
  const fixture::TempDir dir;
  const fs::path in = dir.path() / "in.mdb";
  fs::copy_file(fixture::build(dir, 5), in);
  fs::resize_file(in, 1U << 26);
  apikey::Seal seal;
  assert_ok(apikey::publish::seal_file(in, dir.path() / "out.mdb", seal));
  assert_int_equal(fs::file_size(dir.path() / "out.mdb"), seal.length);
  assert_true(seal.length < 1U << 20);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(swaps_in_and_keeps_the_last_five),
      cmocka_unit_test(never_removes_what_is_in_service),
      cmocka_unit_test(leaves_the_old_one_when_it_cannot_swap),
      cmocka_unit_test(lists_nothing_where_nothing_is),
      cmocka_unit_test(lets_one_publisher_in_at_a_time),
      cmocka_unit_test(sweeps_what_a_killed_publisher_left),
      cmocka_unit_test(removes_what_was_not_finished),
      cmocka_unit_test(writes_nothing_unsorted_or_twice),
      cmocka_unit_test(says_what_does_not_fit),
      cmocka_unit_test(knows_any_number_of_scopes),
      cmocka_unit_test(seals_no_file_somebody_has_open),
      cmocka_unit_test(leaves_nothing_behind_when_it_seals_nothing),
      cmocka_unit_test(seals_a_file_longer_than_its_pages),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
