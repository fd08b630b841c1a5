// Tests of adoption.cpp: claims, take-over by time, publishing, refusals, holders, and readers under eight threads.
// Times are given, so nothing here waits. Build it with the tsan preset to see that no word is read unguarded.
#include "apikey/adoption.hpp"

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

FileIdentity file(std::uint64_t n) { return {1, n, 4096 * n, n * 10, n * 11}; }

constexpr std::uint64_t kConfiguration = 3;

// A value every word of which follows from `n`, so that a torn copy shows.
AdoptedFile adopted(std::uint64_t n) {
  AdoptedFile value;
  value.identity = file(n);
  value.seal.fill(static_cast<std::uint8_t>(n));
  value.registry_id.fill(0xc0);
  value.generation = n;
  value.keys = n * 3;
  value.created = static_cast<std::int64_t>(n * 5);
  value.added = n * 7;
  value.removed = n * 4;
  value.configuration = kConfiguration;
  value.flags = n % 4;
  return value;
}

bool is_whole(const AdoptedFile& value) {
  const AdoptedFile wanted = adopted(value.generation);
  return value.identity == wanted.identity && value.seal == wanted.seal && value.registry_id == wanted.registry_id &&
         value.keys == wanted.keys && value.created == wanted.created && value.added == wanted.added &&
         value.removed == wanted.removed && value.configuration == wanted.configuration && value.flags == wanted.flags;
}

bool is_whole(const Adopted& value) {
  return (!value.has_active() || is_whole(value.active)) && (!value.has_veto() || is_whole(value.veto)) &&
         value.highest_generation >= value.active.generation && value.registry_id == value.latest().registry_id;
}

std::unique_ptr<Adoption> fresh() { return std::make_unique<Adoption>(); }

std::uint64_t claim(Adoption& state, std::uint64_t n, std::uint32_t pid, std::uint64_t now_ms) {
  return state.claim(file(n), kConfiguration, pid, now_ms);
}

bool adopt(Adoption& state, std::uint64_t attempt, std::uint64_t n, std::uint32_t pid, int fd) {
  return state.adopt(attempt, adopted(n), false, n * 1000, {pid, fd});
}

// Claims and adopts. Returns the change.
std::uint64_t put(Adoption& state, std::uint64_t n) {
  assert_true(adopt(state, claim(state, n, 1, 0), n, 1, 3));
  return state.change();
}

bool veto(Adoption& state, std::uint64_t n, const char* lack) {
  return state.veto(claim(state, n, 1, 0), adopted(n), Lack(lack), n * 1000, {1, 4});
}

Refusal refusal(std::uint64_t n, AdoptionResult result) {
  Refusal value;
  value.identity = file(n);
  value.seal.fill(static_cast<std::uint8_t>(n));
  value.generation = n;
  value.result = static_cast<std::uint64_t>(result);
  value.configuration = kConfiguration;
  value.wall_us = n * 1000;
  value.set_text("it is not what it should be");
  return value;
}

void zeroed_memory_is_an_empty_state(void**) {
  auto state = fresh();
  assert_int_equal(state->change(), 0);
  assert_int_equal(state->read().change, 0);
  Refusal none;
  assert_false(state->last_refusal(none));
  Adoption::Holder holder;
  assert_false(state->holder(0, 0, holder));
  alignas(Adoption) static std::array<unsigned char, sizeof(Adoption)> zeros{};
  assert_memory_equal(state.get(), zeros.data(), sizeof(Adoption));
}

void adopting_makes_it_active(void**) {
  auto state = fresh();
  const std::uint64_t attempt = claim(*state, 7, 100, 1000);
  assert_int_not_equal(attempt, 0);
  assert_true(adopt(*state, attempt, 7, 100, 12));
  assert_int_equal(state->change(), 1);
  const Adopted now = state->read();
  assert_int_equal(now.change, 1);
  assert_int_equal(now.active.generation, 7);
  assert_int_equal(now.since_us, 7000);
  assert_false(now.has_veto());
  assert_int_equal(now.highest_generation, 7);
  assert_true(is_whole(now));
  // It is active: nobody verifies it again; another file may be claimed at once.
  assert_int_equal(claim(*state, 7, 101, 1000), 0);
  assert_int_not_equal(claim(*state, 8, 101, 1000), 0);
}

void the_highest_generation_never_falls(void**) {
  auto state = fresh();
  assert_true(adopt(*state, claim(*state, 9, 1, 0), 9, 1, 3));
  assert_true(adopt(*state, claim(*state, 4, 1, 0), 4, 1, 3));
  assert_int_equal(state->read().active.generation, 4);
  assert_int_equal(state->read().highest_generation, 9);
}

void one_claim_at_a_time_until_its_owner_is_silent(void**) {
  auto state = fresh();
  const std::uint64_t first = claim(*state, 1, 100, 5000);
  assert_int_not_equal(first, 0);
  assert_int_equal(claim(*state, 1, 101, 5000), 0);
  assert_int_equal(claim(*state, 2, 101, 5000), 0);
  assert_int_equal(claim(*state, 1, 101, 4000), 0);  // a worker whose clock is behind
  assert_true(state->heartbeat(first, 5900));
  assert_int_equal(claim(*state, 1, 101, 6899), 0);
  const std::uint64_t second = claim(*state, 1, 101, 6900);
  assert_int_not_equal(second, 0);
  assert_int_not_equal(second, first);
  assert_false(state->heartbeat(first, 6901));
  assert_true(state->heartbeat(second, 6901));
}

void who_was_overtaken_changes_nothing(void**) {
  auto state = fresh();
  const std::uint64_t first = claim(*state, 1, 100, 0);
  const std::uint64_t second = claim(*state, 1, 101, kClaimTimeoutMs);
  assert_false(adopt(*state, first, 1, 100, 5));
  assert_int_equal(state->change(), 0);
  assert_false(state->refuse(first, refusal(1, AdoptionResult::damaged)));
  state->abandon(first);
  Adoption::Holder holder;
  assert_false(state->holder(0, 1, holder));
  assert_true(adopt(*state, second, 1, 101, 6));
  assert_false(adopt(*state, first, 2, 100, 5));
  assert_false(adopt(*state, second, 2, 101, 6));  // a claim serves once
  assert_int_equal(state->read().active.generation, 1);
  assert_false(adopt(*state, 0, 2, 100, 5));
}

void a_refused_file_is_not_tried_again(void**) {
  auto state = fresh();
  assert_true(adopt(*state, claim(*state, 1, 1, 0), 1, 1, 3));
  assert_true(state->refuse(claim(*state, 2, 1, 0), refusal(2, AdoptionResult::not_trusted)));
  assert_int_equal(claim(*state, 2, 2, 10), 0);
  Refusal why;
  assert_true(state->last_refusal(why));
  assert_true(why.identity == file(2));
  assert_int_equal(why.result, static_cast<int>(AdoptionResult::not_trusted));
  assert_int_equal(why.generation, 2);
  assert_int_equal(why.configuration, kConfiguration);
  assert_int_equal(why.wall_us, 2000);
  assert_true(why.seal == adopted(2).seal);
  assert_true(why.text() == "it is not what it should be");
  assert_int_equal(state->change(), 1);
  assert_int_equal(state->read().active.generation, 1);
  FileIdentity touched = file(2);
  touched.ctime_ns += 1;
  assert_int_not_equal(state->claim(touched, kConfiguration, 2, 10), 0);
}

void another_configuration_judges_again(void**) {
  auto state = fresh();
  assert_true(state->refuse(claim(*state, 2, 1, 0), refusal(2, AdoptionResult::refused)));
  assert_true(state->is_refused(file(2), kConfiguration));
  assert_int_equal(claim(*state, 2, 1, 0), 0);
  assert_false(state->is_refused(file(2), kConfiguration + 1));
  assert_int_not_equal(state->claim(file(2), kConfiguration + 1, 1, 0), 0);
}

void what_is_not_the_files_fault_is_tried_again(void**) {
  for (const AdoptionResult result : {AdoptionResult::failed, AdoptionResult::unreadable}) {
    auto state = fresh();
    assert_true(state->refuse(claim(*state, 2, 1, 0), refusal(2, result)));
    Refusal why;
    assert_true(state->last_refusal(why));
    assert_int_equal(why.result, static_cast<int>(result));
    assert_false(state->is_refused(file(2), kConfiguration));
    assert_int_not_equal(claim(*state, 2, 1, 0), 0);
  }
}

void a_permission_makes_it_claimable_again(void**) {
  auto state = fresh();
  put(*state, 9);
  assert_true(state->refuse(claim(*state, 2, 1, 0), refusal(2, AdoptionResult::refused)));
  assert_int_equal(claim(*state, 2, 1, 0), 0);
  const std::uint64_t again = state->claim_again(1, 0);
  assert_int_not_equal(again, 0);
  assert_int_equal(state->claim_again(2, 10), 0);
  AdoptedFile other = adopted(2);
  other.registry_id.fill(0xd1);
  assert_true(state->adopt(again, other, true, 5, {1, 3}));
  const Adopted now = state->read();
  assert_int_equal(now.take_overs, 1);
  assert_int_equal(now.highest_generation, 2);
  assert_true(now.registry_id == other.registry_id);
  // What comes after is of that registry, and counts from there.
  other.generation = 3;
  other.identity = file(3);
  assert_true(state->adopt(claim(*state, 3, 1, 0), other, false, 6, {1, 3}));
  assert_int_equal(state->read().highest_generation, 3);
  assert_int_equal(state->read().take_overs, 1);
}

void a_veto_leaves_the_active_one(void**) {
  auto state = fresh();
  assert_int_equal(put(*state, 5), 1);
  assert_true(veto(*state, 6, "hmac-sha256:p2"));
  Adopted now = state->read();
  assert_int_equal(now.change, 2);
  assert_int_equal(now.active.change, 1);
  assert_int_equal(now.active.generation, 5);
  assert_int_equal(now.veto.change, 2);
  assert_int_equal(now.veto.generation, 6);
  assert_int_equal(now.highest_generation, 6);
  assert_true(now.lack.name() == "hmac-sha256:p2");
  assert_true(is_whole(now));
  // Copies of both can be had.
  Adoption::Holder holder;
  assert_true(state->holder(0, 1, holder));
  assert_int_equal(holder.fd, 3);
  assert_true(state->holder(0, 2, holder));
  assert_int_equal(holder.fd, 4);
  // The file that vetoes is settled until another configuration may know what this one lacks.
  assert_int_equal(claim(*state, 6, 1, 0), 0);
  const std::uint64_t later = state->claim(file(6), kConfiguration + 1, 1, 0);
  assert_int_not_equal(later, 0);
  state->abandon(later);
  // The one that decides is not: put back in place of the newer one it has to be judged.
  const std::uint64_t back = claim(*state, 5, 1, 0);
  assert_int_not_equal(back, 0);
  state->abandon(back);
  // A later veto replaces it, a later file without a lack ends it.
  assert_true(veto(*state, 7, "deny"));
  now = state->read();
  assert_int_equal(now.active.change, 1);
  assert_int_equal(now.veto.generation, 7);
  assert_int_equal(now.veto.change, 3);
  assert_true(now.lack.name() == "deny");
  put(*state, 8);
  now = state->read();
  assert_int_equal(now.active.generation, 8);
  assert_false(now.has_veto());
  assert_true(now.lack.name().empty());
}

void a_veto_without_anything_else(void**) {
  auto state = fresh();
  assert_true(veto(*state, 6, "hmac-sha256:p2"));
  const Adopted now = state->read();
  assert_false(now.has_active());
  assert_true(now.has_veto());
  assert_int_equal(now.latest().generation, 6);
}

void the_next_file_is_compared_with_the_latest(void**) {
  auto state = fresh();
  put(*state, 5);
  assert_true(veto(*state, 6, "deny"));
  const InService known = in_service_of(state->read());
  assert_int_equal(known.generation, 6);
  assert_int_equal(known.keys, 18);
  assert_int_equal(known.added, 42);
  assert_int_equal(known.removed, 24);
  assert_false(known.has_counters);  // flags of 6: 2
  put(*state, 7);
  assert_true(in_service_of(state->read()).has_counters);
}

void what_is_known_from_before(void**) {
  auto before = fresh();
  put(*before, 40);
  auto state = fresh();
  state->seed(before->read());
  Adopted now = state->read();
  assert_int_equal(now.change, 0);
  assert_false(now.has_active());
  assert_int_equal(now.highest_generation, 40);
  assert_true(now.registry_id == adopted(1).registry_id);
  assert_true(now.latest().seal == adopted(40).seal);
  assert_int_equal(in_service_of(now).generation, 40);
  assert_int_equal(in_service_of(now).keys, 120);
  // It is not adopted: whoever comes first verifies.
  const std::uint64_t attempt = claim(*state, 40, 1, 0);
  assert_int_not_equal(attempt, 0);
  assert_true(adopt(*state, attempt, 40, 1, 3));
  put(*state, 41);
  assert_int_equal(state->read().highest_generation, 41);
}

void what_is_known_from_before_decides_nothing(void**) {
  auto before = fresh();
  put(*before, 40);
  auto state = fresh();
  state->seed(before->read());
  assert_true(veto(*state, 41, "deny"));
  assert_false(state->read().has_active());
  assert_int_equal(state->read().active.generation, 0);
  // What vetoed before is what the file has to be, or to follow.
  auto later = fresh();
  later->seed(state->read());
  assert_true(later->read().latest().seal == adopted(41).seal);
  assert_int_equal(later->read().highest_generation, 41);
}

// What an nginx that starts anew finds, whatever was adopted before: a copy, since it may not be killed half-way here.
void check_known_after_a_start(const Adoption& state, std::uint64_t n) {
  const Adopted now = state.read();
  Refusal refused;
  Adoption::Holder holder;
  assert_int_equal(now.change, 0);
  assert_false(now.has_active());
  assert_int_equal(now.highest_generation, n);
  assert_true(now.latest().seal == adopted(n).seal);
  assert_false(state.last_refusal(refused));
  assert_false(state.holder(0, n, holder));
  assert_false(state.is_verifying(0));
}

void a_start_keeps_what_was_known(void**) {
  auto state = fresh();
  for (std::uint64_t n = 1; n <= 3; ++n) {  // in both buffers
    put(*state, n);
    assert_true(state->refuse(claim(*state, 50 + n, 1, 0), refusal(50 + n, AdoptionResult::refused)));
    auto copy = fresh();
    std::memcpy(static_cast<void*>(copy.get()), state.get(), sizeof(Adoption));
    copy->begin_again();
    check_known_after_a_start(*copy, n);
    copy->begin_again();  // was killed before it could adopt anything
    check_known_after_a_start(*copy, n);
    put(*copy, n + 10);
    assert_true(is_whole(copy->read()));
    assert_int_equal(copy->read().highest_generation, n + 10);
  }
  auto veto_state = fresh();
  put(*veto_state, 4);
  assert_true(veto(*veto_state, 5, "deny"));
  veto_state->begin_again();
  check_known_after_a_start(*veto_state, 5);
}

void a_seeded_generation_is_lowered_by_a_permission_only(void**) {
  auto state = fresh();
  Adopted before;
  before.highest_generation = 40;
  before.registry_id = adopted(1).registry_id;
  state->seed(before);
  const std::uint64_t attempt = claim(*state, 7, 1, 0);
  assert_true(state->adopt(attempt, adopted(7), true, 1, {1, 3}));
  assert_int_equal(state->read().highest_generation, 7);
}

void who_verifies_gives_signs_of_life(void**) {
  auto state = fresh();
  assert_false(state->is_verifying(0));
  const std::uint64_t attempt = claim(*state, 1, 7, 1000);
  assert_true(state->is_verifying(1999));
  assert_false(state->is_verifying(2000));
  assert_true(state->heartbeat(attempt, 2000));
  assert_true(state->is_verifying(2000));
  state->abandon(attempt);
  assert_false(state->is_verifying(2000));
}

void a_notice_is_given_once(void**) {
  auto state = fresh();
  assert_true(state->is_first_notice(Notice::peers_are_closed, 5));
  assert_false(state->is_first_notice(Notice::peers_are_closed, 5));
  assert_true(state->is_first_notice(Notice::peers_are_closed, 6));
}

void texts_are_cut_off(void**) {
  Refusal why;
  why.set_text(std::string(1000, 'x'));
  assert_int_equal(why.text().size(), 320);
  why.set_text("short");
  assert_true(why.text() == "short");
  assert_int_equal(Lack(std::string(100, 'y')).name().size(), 64);
}

void abandoning_lets_the_next_begin_at_once(void**) {
  auto state = fresh();
  const std::uint64_t first = claim(*state, 1, 100, 0);
  state->abandon(first);
  assert_false(state->heartbeat(first, 0));
  assert_int_not_equal(claim(*state, 1, 101, 0), 0);
}

std::uint32_t dead_pid = 0;
bool is_alive(std::uint32_t pid) noexcept { return pid != dead_pid; }

void holders_come_and_go(void**) {
  auto state = fresh();
  assert_true(state->hold({10, 5}, 1));
  assert_true(state->hold({11, 0}, 1));
  assert_true(state->hold({10, 6}, 2));
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
    assert_true(state->hold({i + 1, 3}, 1));
  }
  assert_false(state->hold({9999, 3}, 1));
  state->drop_all(77);
  assert_true(state->hold({9999, 3}, 1));
  // Publishing works all the same.
  assert_true(adopt(*state, claim(*state, 1, 1, 0), 1, 1, 3));
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
        const std::uint64_t attempt = claim(*state, number, worker, clock_ms.fetch_add(kClaimTimeoutMs / 2));
        const bool is_veto = number % 3 == 0;
        if (attempt != 0 && (is_veto ? state->veto(attempt, adopted(number), Lack("deny"), 1, {worker, 4})
                                     : adopt(*state, attempt, number, worker, 4))) {
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
      cmocka_unit_test(adopting_makes_it_active),
      cmocka_unit_test(the_highest_generation_never_falls),
      cmocka_unit_test(one_claim_at_a_time_until_its_owner_is_silent),
      cmocka_unit_test(who_was_overtaken_changes_nothing),
      cmocka_unit_test(a_refused_file_is_not_tried_again),
      cmocka_unit_test(another_configuration_judges_again),
      cmocka_unit_test(what_is_not_the_files_fault_is_tried_again),
      cmocka_unit_test(a_permission_makes_it_claimable_again),
      cmocka_unit_test(a_veto_leaves_the_active_one),
      cmocka_unit_test(a_veto_without_anything_else),
      cmocka_unit_test(the_next_file_is_compared_with_the_latest),
      cmocka_unit_test(what_is_known_from_before),
      cmocka_unit_test(what_is_known_from_before_decides_nothing),
      cmocka_unit_test(a_start_keeps_what_was_known),
      cmocka_unit_test(a_seeded_generation_is_lowered_by_a_permission_only),
      cmocka_unit_test(who_verifies_gives_signs_of_life),
      cmocka_unit_test(a_notice_is_given_once),
      cmocka_unit_test(texts_are_cut_off),
      cmocka_unit_test(abandoning_lets_the_next_begin_at_once),
      cmocka_unit_test(holders_come_and_go),
      cmocka_unit_test(a_full_table_of_holders_says_so),
      cmocka_unit_test(no_reader_sees_a_torn_copy),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
