// Locks on the state file, between processes: who lives is seen, who died is not.
#include "apikey/node_locks.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <new>

#include "cmocka_cpp.hpp"

using namespace apikey;

namespace {

std::array<NodeRegionSpec, 3> regions(std::size_t workers) {
  return {NodeRegionSpec{NodeRegion::head, NodeHead::kVersion, sizeof(NodeHead)},
          NodeRegionSpec{NodeRegion::stores, kStoreRowsVersion, node_rows_size(sizeof(StoreRow), kNodeStores)},
          NodeRegionSpec{NodeRegion::workers, kWorkerRowsVersion, node_rows_size(sizeof(WorkerRow), workers)}};
}

// A state file without a name, which any process opens again by its descriptor.
struct StateFile {
  int fd = memfd_create("state", MFD_CLOEXEC);
  NodeMemory node;
  std::size_t size = 0;
  void* memory = nullptr;

  explicit StateFile(std::size_t workers = 3) {
    const auto specs = regions(workers);
    size = node_size(specs);
    assert_true(fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0);
    memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(format_node({static_cast<std::byte*>(memory), size}, {.regions = specs}, node).ok());
    finish_node(node);
  }
  [[nodiscard]] int open_again(int flags) const {
    std::array<char, 32> path;
    std::snprintf(path.data(), path.size(), "/proc/self/fd/%d", fd);
    const int other = open(path.data(), flags | O_CLOEXEC);
    assert_true(other >= 0);
    return other;
  }
};

// A child that does something, says so, and sleeps until it is killed.
struct Child {
  pid_t pid = -1;
  template <typename F>
  explicit Child(F&& f) {
    std::array<int, 2> said;
    assert_int_equal(pipe(said.data()), 0);
    pid = fork();
    if (pid == 0) {
      const char answer = f() ? 'y' : 'n';
      if (write(said[1], &answer, 1) == 1) {
        pause();
      }
      _exit(1);
    }
    char answer = 0;
    assert_int_equal(read(said[0], &answer, 1), 1);
    assert_int_equal(answer, 'y');
    close(said[0]);
    close(said[1]);
  }
  void end() {
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, nullptr, 0), pid);
  }
};

void test_one_of_two_masters_has_the_lock(void**) {
  const StateFile file;
  const int mine = file.open_again(O_RDWR);
  const int reader = file.open_again(O_RDONLY);
  assert_true(master_lock(reader) == LockState::free);
  assert_true(claim_master_lock(mine) == LockState::free);
  assert_true(master_lock(reader) == LockState::held);
  const int other = file.open_again(O_RDWR);
  assert_true(claim_master_lock(other) == LockState::held);
  // The child of a binary upgrade shares it, through a descriptor that cannot write.
  const int shared = file.open_again(O_RDONLY);
  assert_true(share_master_lock(shared));
  close(mine);
  assert_true(master_lock(reader) == LockState::held);
  close(shared);
  assert_true(master_lock(reader) == LockState::free);
  assert_true(claim_master_lock(other) == LockState::free);
}

void test_the_masters_lock_outlives_its_fork(void**) {
  const StateFile file;
  const int reader = file.open_again(O_RDONLY);
  int mine = file.open_again(O_RDWR);
  assert_true(claim_master_lock(mine) == LockState::free);
  Child daemon([] { return true; });
  close(mine);
  assert_true(master_lock(reader) == LockState::held);
  daemon.end();
  assert_true(master_lock(reader) == LockState::free);
}

// Workers inherit the mapping: it must not keep the lock of a master that has died.
void test_a_mapping_keeps_no_lock_that_was_given_back(void**) {
  const StateFile file;
  const int reader = file.open_again(O_RDONLY);
  const int mapped = file.open_again(O_RDWR);
  const int held = file.open_again(O_RDONLY);
  assert_true(claim_master_lock(mapped) == LockState::free && share_master_lock(held));
  void* memory = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, mapped, 0);
  assert_true(memory != MAP_FAILED);
  drop_master_lock(mapped);
  close(mapped);
  assert_true(master_lock(reader) == LockState::held);
  close(held);
  assert_true(master_lock(reader) == LockState::free);
  munmap(memory, 4096);
}

void test_a_row_is_of_one_living_process(void**) {
  StateFile file;
  const int fd = file.open_again(O_RDONLY);
  std::uint64_t ticket = 0;
  Child first([&] { return claim_worker_row(fd, file.node, {.pid = 1}, ticket) == 0 && ticket == 1; });
  Child second([&] { return claim_worker_row(fd, file.node, {.pid = 2}, ticket) == 1; });
  assert_int_equal(claim_worker_row(fd, file.node, {.pid = 3}, ticket), 2);
  assert_int_equal(claim_worker_row(fd, file.node, {.pid = 3}, ticket), 2);  // one's own lock is no hindrance
  Child late([&] { return claim_worker_row(fd, file.node, {.pid = 4}, ticket) == kNoWorkerRow; });
  assert_true(worker_lock(fd, 0) == LockState::held);
  first.end();
  assert_true(worker_lock(fd, 0) == LockState::free);
  assert_true(worker_lock(fd, 1) == LockState::held);

  WorkerReport report;
  assert_true(file.node.read_worker(0, report));
  assert_int_equal(report.ticket, 1);
  Child third([&] { return claim_worker_row(fd, file.node, {.pid = 5}, ticket) == 0 && ticket == 2; });
  assert_true(file.node.read_worker(0, report));
  assert_int_equal(report.pid, 5);

  release_worker_row(fd, 2);
  Child fourth([&] { return claim_worker_row(fd, file.node, {.pid = 6}, ticket) == 2; });
  for (Child* child : {&second, &late, &third, &fourth}) {
    child->end();
  }
}

// Workers are forked one right after the other and do the same things at the same time.
void test_all_who_come_at_once_get_a_row(void**) {
  constexpr std::size_t kWorkers = 4;
  constexpr std::size_t kRows = 64;
  for (int round = 0; round < 200; ++round) {
    StateFile file(kRows);
    const int fd = file.open_again(O_RDONLY);
    void* memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    auto& arrived = *::new (memory) std::atomic<std::size_t>{0};
    std::array<pid_t, kWorkers> children{};
    for (pid_t& child : children) {
      child = fork();
      if (child == 0) {
        std::uint64_t ticket = 0;
        arrived.fetch_add(1);
        while (arrived.load() < kWorkers) {
        }
        const auto pid = static_cast<std::uint32_t>(getpid());
        const std::size_t row = claim_worker_row(fd, file.node, {.pid = pid}, ticket);
        arrived.fetch_add(1);
        while (arrived.load() < 2 * kWorkers) {  // nobody's row is free again before all have one
        }
        _exit(row == kNoWorkerRow ? 255 : static_cast<int>(row));
      }
    }
    std::array<bool, kRows> is_taken{};
    for (const pid_t child : children) {
      int status = 0;
      assert_int_equal(waitpid(child, &status, 0), child);
      const auto row = static_cast<std::size_t>(WEXITSTATUS(status));
      assert_true(row < kRows);
      assert_false(is_taken[row]);
      is_taken[row] = true;
    }
    munmap(memory, 4096);
    close(fd);
    munmap(file.memory, file.size);
    close(file.fd);
  }
}

void test_workers_and_masters_do_not_meet(void**) {
  StateFile file;
  const int fd = file.open_again(O_RDONLY);
  std::uint64_t ticket = 0;
  Child worker([&] { return claim_worker_row(fd, file.node, {.pid = 1}, ticket) == 0; });
  const int mine = file.open_again(O_RDWR);
  assert_true(claim_master_lock(mine) == LockState::free);
  assert_true(worker_lock(fd, 0) == LockState::held);
  worker.end();
  assert_true(worker_lock(fd, 0) == LockState::free);
  assert_true(master_lock(fd) == LockState::held);
}

void test_what_cannot_be_asked_is_unknown(void**) {
  assert_true(master_lock(-1) == LockState::unknown);
  assert_true(worker_lock(-1, 0) == LockState::unknown);
  assert_true(claim_master_lock(-1) == LockState::unknown);
  assert_false(share_master_lock(-1));
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(test_one_of_two_masters_has_the_lock),
      cmocka_unit_test(test_the_masters_lock_outlives_its_fork),
      cmocka_unit_test(test_a_row_is_of_one_living_process),
      cmocka_unit_test(test_all_who_come_at_once_get_a_row),
      cmocka_unit_test(test_workers_and_masters_do_not_meet),
      cmocka_unit_test(test_a_mapping_keeps_no_lock_that_was_given_back),
      cmocka_unit_test(test_what_cannot_be_asked_is_unknown),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
