// Processes that enter and leave in shared memory and are killed at any moment: what they held is let go of, all of it
// and no more. Not for ThreadSanitizer, whose sixteen-byte compare-and-swap takes a lock of its process.
#include "apikey/flight_table.hpp"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <ctime>

#include "table_fixture.hpp"

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

constexpr SipKey kSeed = {0x0123456789abcdef, 0xfedcba9876543210};

std::uint64_t subject_of(const FlightTable& table, std::uint64_t number) {
  std::array<std::uint8_t, 8> id{};
  std::memcpy(id.data(), &number, id.size());
  return table.subject("concurrency", id);
}

// Here a process's pid stands for its row.
bool is_running(FlightHolder holder) { return kill(static_cast<pid_t>(holder.row), 0) == 0; }

// A child: enters and leaves until it is killed.
[[noreturn]] void work(const FlightTable& table, std::uint64_t seed) {
  Random random(seed);
  const FlightHolder self = {static_cast<std::uint32_t>(getpid()), static_cast<std::uint16_t>(seed)};
  std::array<FlightLease, 16> leases;
  while (true) {
    FlightLease& lease = leases[random.below(leases.size())];
    if (lease.is_held()) {
      table.leave(lease, self);
    } else {
      static_cast<void>(table.enter(subject_of(table, random.below(3)), 1000, self, lease));
    }
  }
}

// Killed at any moment, over and over, in memory that is shared as nginx's zones are.
void killed_processes_are_let_go_of(void**) {
  constexpr std::size_t children = 4;
  const std::size_t size = FlightTable::bytes_for(64);
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(memory != MAP_FAILED);
  FlightTable table;
  assert_true(FlightTable::format({static_cast<std::byte*>(memory), size}, kSeed, table).ok());
  const FlightHolder self = {static_cast<std::uint32_t>(getpid()), 1};
  FlightLease own;
  assert_true(table.enter(subject_of(table, 0), 1000, self, own).status == FlightResult::Status::admitted);
  std::array<pid_t, children> pids{};
  std::uint64_t seed = 0;
  std::uint64_t released = 0;
  for (int round = 0; round < 300; ++round) {
    pid_t& pid = pids[static_cast<std::size_t>(round) % children];
    if (pid != 0) {
      assert_int_equal(kill(pid, SIGKILL), 0);
      assert_int_equal(waitpid(pid, nullptr, 0), pid);
      released += table.release_dead(self, is_running);
    }
    ++seed;
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
      work(table, seed);
    }
    const timespec a_moment = {0, 300'000};
    nanosleep(&a_moment, nullptr);
  }
  for (const pid_t pid : pids) {
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, nullptr, 0), pid);
  }
  released += table.release_dead(self, is_running);
  print_message("%ju leases of killed processes\n", std::uintmax_t{released});
  assert_true(released > 300);
  assert_int_equal(table.usage().in_flight, 1);
  table.leave(own, self);
  assert_int_equal(table.usage().in_flight, 0);
  munmap(memory, size);
}

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(killed_processes_are_let_go_of),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
