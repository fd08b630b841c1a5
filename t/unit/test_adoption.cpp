// Tests of adoption.cpp: claims, take-over by time, publishing, refusals, holders, and readers under eight threads.
// Times are given, so nothing here waits. Build it with the tsan preset to see that no word is read unguarded.
#include "apikey/adoption.hpp"

#include <array>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

FileIdentity file(std::uint64_t n) { return {1, n, 4096 * n, n * 10, n * 11}; }

// A value every word of which follows from `n`, so that a torn copy shows.
Adopted adopted(std::uint64_t n) {
  Adopted value;
  value.identity = file(n);
  value.seal.fill(static_cast<std::uint8_t>(n));
  value.registry_id.fill(static_cast<std::uint8_t>(n));
  value.generation = n;
  value.keys = n * 3;
  value.created = static_cast<std::int64_t>(n * 5);
  value.is_mapped = n % 2 == 1;
  return value;
}

bool is_whole(const Adopted& value) {
  const Adopted wanted = adopted(value.generation);
  return value.identity == wanted.identity && value.seal == wanted.seal && value.registry_id == wanted.registry_id &&
         value.keys == wanted.keys && value.created == wanted.created && value.is_mapped == wanted.is_mapped &&
         value.highest_generation >= value.generation;
}

std::unique_ptr<Adoption> fresh() { return std::make_unique<Adoption>(); }

void zeroed_memory_is_an_empty_state(void**) {
  auto state = fresh();
  assert_int_equal(state->change(), 0);
  assert_int_equal(state->read().change, 0);
  FileIdentity identity;
  AdoptionResult result{};
  assert_false(state->last_refusal(identity, result));
  Adoption::Holder holder;
  assert_false(state->holder(0, 0, holder));
  alignas(Adoption) static std::array<unsigned char, sizeof(Adoption)> zeros{};
  assert_memory_equal(state.get(), zeros.data(), sizeof(Adoption));
}

void publishing_puts_into_service(void**) {
  auto state = fresh();
  const std::uint64_t attempt = state->claim(file(7), 100, 1000);
  assert_int_not_equal(attempt, 0);
  assert_true(state->publish(attempt, adopted(7), 100, 12));
  assert_int_equal(state->change(), 1);
  const Adopted now = state->read();
  assert_int_equal(now.change, 1);
  assert_int_equal(now.generation, 7);
  assert_int_equal(now.highest_generation, 7);
  assert_true(is_whole(now));
  // It is in service: nobody verifies it again; another file may be claimed at once.
  assert_int_equal(state->claim(file(7), 101, 1000), 0);
  assert_int_not_equal(state->claim(file(8), 101, 1000), 0);
}

void the_highest_generation_never_falls(void**) {
  auto state = fresh();
  assert_true(state->publish(state->claim(file(9), 1, 0), adopted(9), 1, 3));
  assert_true(state->publish(state->claim(file(4), 1, 0), adopted(4), 1, 3));
  assert_int_equal(state->read().generation, 4);
  assert_int_equal(state->read().highest_generation, 9);
  Adopted told = adopted(5);
  told.highest_generation = 50;
  assert_true(state->publish(state->claim(file(5), 1, 0), told, 1, 3));
  assert_int_equal(state->read().highest_generation, 50);
}

void one_claim_at_a_time_until_its_owner_is_silent(void**) {
  auto state = fresh();
  const std::uint64_t first = state->claim(file(1), 100, 5000);
  assert_int_not_equal(first, 0);
  assert_int_equal(state->claim(file(1), 101, 5000), 0);
  assert_int_equal(state->claim(file(2), 101, 5000), 0);
  assert_int_equal(state->claim(file(1), 101, 4000), 0);  // a worker whose clock is behind
  assert_true(state->heartbeat(first, 5900));
  assert_int_equal(state->claim(file(1), 101, 6899), 0);
  const std::uint64_t second = state->claim(file(1), 101, 6900);
  assert_int_not_equal(second, 0);
  assert_int_not_equal(second, first);
  assert_false(state->heartbeat(first, 6901));
  assert_true(state->heartbeat(second, 6901));
}

void who_was_overtaken_changes_nothing(void**) {
  auto state = fresh();
  const std::uint64_t first = state->claim(file(1), 100, 0);
  const std::uint64_t second = state->claim(file(1), 101, kClaimTimeoutMs);
  assert_false(state->publish(first, adopted(1), 100, 5));
  assert_int_equal(state->change(), 0);
  assert_false(state->refuse(first, file(1), AdoptionResult::damaged));
  state->abandon(first);
  Adoption::Holder holder;
  assert_false(state->holder(0, 1, holder));
  assert_true(state->publish(second, adopted(1), 101, 6));
  assert_false(state->publish(first, adopted(2), 100, 5));
  assert_false(state->publish(second, adopted(2), 101, 6));  // a claim serves once
  assert_int_equal(state->read().generation, 1);
  assert_false(state->publish(0, adopted(2), 100, 5));
}

void a_refused_file_is_not_tried_again(void**) {
  auto state = fresh();
  assert_true(state->publish(state->claim(file(1), 1, 0), adopted(1), 1, 3));
  assert_true(state->refuse(state->claim(file(2), 1, 0), file(2), AdoptionResult::not_trusted));
  assert_int_equal(state->claim(file(2), 2, 10), 0);
  FileIdentity identity;
  AdoptionResult result{};
  assert_true(state->last_refusal(identity, result));
  assert_true(identity == file(2));
  assert_true(result == AdoptionResult::not_trusted);
  assert_int_equal(state->change(), 1);
  assert_int_equal(state->read().generation, 1);
  FileIdentity touched = file(2);
  touched.ctime_ns += 1;
  assert_int_not_equal(state->claim(touched, 2, 10), 0);
}

void abandoning_lets_the_next_begin_at_once(void**) {
  auto state = fresh();
  const std::uint64_t first = state->claim(file(1), 100, 0);
  state->abandon(first);
  assert_false(state->heartbeat(first, 0));
  assert_int_not_equal(state->claim(file(1), 101, 0), 0);
}

std::uint32_t dead_pid = 0;
bool is_alive(std::uint32_t pid) noexcept { return pid != dead_pid; }

void holders_come_and_go(void**) {
  auto state = fresh();
  assert_true(state->hold(10, 5, 1));
  assert_true(state->hold(11, 0, 1));
  assert_true(state->hold(10, 6, 2));
  Adoption::Holder holder;
  assert_true(state->holder(0, 1, holder));
  assert_int_equal(holder.pid, 10);
  assert_int_equal(holder.fd, 5);
  assert_true(state->holder(1, 1, holder));
  assert_int_equal(holder.pid, 11);
  assert_int_equal(holder.fd, 0);
  assert_false(state->holder(2, 1, holder));
  dead_pid = 11;
  assert_int_equal(state->oldest_held(is_alive), 1);
  state->drop(10, 1);
  assert_int_equal(state->oldest_held(is_alive), 2);
  state->drop_all(10);
  assert_int_equal(state->oldest_held(is_alive), 0);
  assert_true(state->holder(0, 1, holder));
  assert_int_equal(holder.pid, 11);
}

void a_full_table_of_holders_says_so(void**) {
  auto state = fresh();
  for (std::uint32_t i = 0; i < kMaxHolders; ++i) {
    assert_true(state->hold(i + 1, 3, 1));
  }
  assert_false(state->hold(9999, 3, 1));
  state->drop_all(77);
  assert_true(state->hold(9999, 3, 1));
  // Publishing works all the same.
  assert_true(state->publish(state->claim(file(1), 1, 0), adopted(1), 1, 3));
}

// Four threads claim and publish (and let themselves be overtaken), four read. Nobody ever sees a mixture.
void no_reader_sees_a_torn_copy(void**) {
  auto state = fresh();
  std::atomic<std::uint64_t> clock_ms{0};
  std::atomic<bool> is_over{false};
  std::atomic<std::uint64_t> published{0};
  std::atomic<std::uint64_t> torn{0};
  std::vector<std::thread> threads;
  for (std::uint32_t worker = 1; worker <= 4; ++worker) {
    threads.emplace_back([&, worker] {
      for (std::uint64_t n = 1; n <= 4000; ++n) {
        const std::uint64_t number = n * 8 + worker;
        // Every step of the clock is a timeout, so that claims are taken over all the time.
        const std::uint64_t attempt = state->claim(file(number), worker, clock_ms.fetch_add(kClaimTimeoutMs / 2));
        if (attempt != 0 && state->publish(attempt, adopted(number), worker, 4)) {
          published.fetch_add(1);
        }
        state->drop_all(worker);
      }
    });
  }
  for (int reader = 0; reader < 4; ++reader) {
    threads.emplace_back([&] {
      std::uint64_t last = 0;
      while (!is_over.load()) {
        const Adopted seen = state->read();
        torn.fetch_add((seen.change != 0 && !is_whole(seen)) || seen.change < last ? 1 : 0);
        last = seen.change;
      }
    });
  }
  for (std::size_t i = 0; i < 4; ++i) {
    threads[i].join();
  }
  is_over.store(true);
  for (std::size_t i = 4; i < threads.size(); ++i) {
    threads[i].join();
  }
  assert_int_equal(torn.load(), 0);
  assert_true(published.load() > 100);
  assert_int_equal(state->change(), published.load());
}

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(zeroed_memory_is_an_empty_state),
      cmocka_unit_test(publishing_puts_into_service),
      cmocka_unit_test(the_highest_generation_never_falls),
      cmocka_unit_test(one_claim_at_a_time_until_its_owner_is_silent),
      cmocka_unit_test(who_was_overtaken_changes_nothing),
      cmocka_unit_test(a_refused_file_is_not_tried_again),
      cmocka_unit_test(abandoning_lets_the_next_begin_at_once),
      cmocka_unit_test(holders_come_and_go),
      cmocka_unit_test(a_full_table_of_holders_says_so),
      cmocka_unit_test(no_reader_sees_a_torn_copy),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
