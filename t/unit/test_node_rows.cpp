// Rows of node memory: what their writers write is what readers see, and nothing half-written is.
#include "apikey/node_rows.hpp"

#include <cstring>
#include <memory>
#include <new>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using namespace apikey;

namespace {

// Zeroed, as it lies in the file.
template <typename Row>
struct Zeroed {
  alignas(Row) std::array<std::byte, sizeof(Row)> bytes{};
  Row& row = *::new (bytes.data()) Row{};
};

void test_a_store_row_is_read(void**) {
  const auto stored = std::make_unique<Zeroed<StoreRow>>();
  StoreRow& row = stored->row;
  const auto report = std::make_unique<StoreReport>();
  assert_true(read_store_row(stored->bytes.data(), sizeof row, *report));
  assert_int_equal(report->key, 0);

  name_store_row(row, "/var/lib/apikey/keys.mdb", "main");
  row.key.store(77);
  row.last_configuration.store(2);
  row.active_configuration.store(1);
  AdoptedFile file;
  file.generation = 41;
  file.registry_id.fill(3);
  const std::uint64_t attempt = row.adoption.claim({1, 2, 3, 4, 5}, 6, 100, 1000);
  assert_true(row.adoption.adopt(attempt, file, false, 12, {100, 9}));
  Refusal refusal;
  refusal.set_text("generation 41 is not higher than generation 42, which was active");
  assert_true(row.adoption.refuse(row.adoption.claim({1, 2, 3, 4, 6}, 6, 100, 1000), refusal));
  set_abilities(row, "sha256 hmac-sha256:2026", "base deny");
  assert_true(read_store_row(stored->bytes.data(), sizeof row, *report));
  assert_false(report->min_keep.has_value());
  assert_int_equal(report->newest_format, 1);  // a module that did not say it
  set_min_keep(row, 0);
  set_newest_format(row, 2);

  assert_true(read_store_row(stored->bytes.data(), sizeof row, *report));
  assert_int_equal(report->key, 77);
  expect_text(report->path(), "/var/lib/apikey/keys.mdb");
  expect_text(report->name(), "main");
  assert_int_equal(report->last_configuration, 2);
  assert_int_equal(report->active_configuration, 1);
  assert_int_equal(report->adopted.active.generation, 41);
  assert_int_equal(report->adopted.since_us, 12);
  assert_int_equal(report->adopted.change, 1);
  assert_int_equal(report->adoption().change(), 1);
  Refusal found;
  assert_true(report->adoption().last_refusal(found));
  expect_text(found.text(), refusal.text());
  expect_text(report->methods(), "sha256 hmac-sha256:2026");
  expect_text(report->features(), "base deny");
  assert_true(report->min_keep == std::uint64_t{0});
  assert_int_equal(report->newest_format, 2);
  row.newest_format.store(UINT64_MAX);  // anybody may have written it
  assert_true(read_store_row(stored->bytes.data(), sizeof row, *report));
  assert_true(report->newest_format == UINT32_MAX);
}

void test_texts_that_fill_their_place_are_read_whole(void**) {
  const auto stored = std::make_unique<Zeroed<StoreRow>>();
  const std::string path(kStorePathSize + 5, 'p');
  const std::string name(kStoreNameSize, 'n');
  name_store_row(stored->row, path, name);
  const auto report = std::make_unique<StoreReport>();
  assert_true(read_store_row(stored->bytes.data(), sizeof(StoreRow), *report));
  expect_text(report->path(), std::string_view(path).substr(0, kStorePathSize));
  expect_text(report->name(), name);
}

void test_words_that_do_not_fit_are_left_out(void**) {
  const auto stored = std::make_unique<Zeroed<StoreRow>>();
  const std::string first(200, 'a');
  const auto report = std::make_unique<StoreReport>();
  set_abilities(stored->row, first + " " + std::string(55, 'b'), first + " " + std::string(56, 'c'));
  assert_true(read_store_row(stored->bytes.data(), sizeof(StoreRow), *report));
  expect_text(report->methods(), first + " " + std::string(55, 'b'));
  expect_text(report->features(), first + " +");
  set_abilities(stored->row, std::string(300, 'd'), {});
  assert_true(read_store_row(stored->bytes.data(), sizeof(StoreRow), *report));
  expect_text(report->methods(), "+");
}

void test_a_worker_row_is_read(void**) {
  const auto stored = std::make_unique<Zeroed<WorkerRow>>();
  WorkerReport report;
  read_worker_row(stored->bytes.data(), sizeof(WorkerRow), report);
  assert_int_equal(report.ticket, 0);

  const std::uint64_t first = begin_worker_row(stored->row, {.pid = 10, .configuration = 1, .started_us = 5});
  acknowledge(stored->row, 3, {.generation = 41, .change = 2, .state = AckState::fenced});
  read_worker_row(stored->bytes.data(), sizeof(WorkerRow), report);
  assert_int_equal(report.pid, 10);
  assert_int_equal(report.ticket, first);
  assert_int_equal(report.acks[3].generation, 41);
  assert_int_equal(report.acks[3].change, 2);
  assert_true(report.acks[3].state == AckState::fenced);
  assert_true(report.acks[2].state == AckState::none);

  // Whoever comes next has acknowledged nothing, and is another one though its pid may be the same.
  const std::uint64_t second =
      begin_worker_row(stored->row, {.pid = 10, .configuration = 2, .started_us = 6, .flags = kSingleFlag});
  assert_true(second != first);
  read_worker_row(stored->bytes.data(), sizeof(WorkerRow), report);
  assert_int_equal(report.configuration, 2);
  assert_int_equal(report.flags, kSingleFlag);
  assert_true(report.acks[3].state == AckState::none);
}

void test_short_rows_end_in_zeros(void**) {
  const auto stored = std::make_unique<Zeroed<WorkerRow>>();
  begin_worker_row(stored->row, {.pid = 10, .configuration = 1});
  acknowledge(stored->row, 0, {.generation = 41, .change = 2, .state = AckState::open});
  acknowledge(stored->row, 1, {.generation = 42, .change = 2, .state = AckState::open});
  WorkerReport report;
  read_worker_row(stored->bytes.data(), 128 + 16, report);
  assert_int_equal(report.acks[0].generation, 41);
  assert_true(report.acks[1].state == AckState::none);
}

void test_an_unknown_state_is_none(void**) {
  const auto stored = std::make_unique<Zeroed<WorkerRow>>();
  stored->row.acks[0].set({41, 2U << 8U | 200U});
  WorkerReport report;
  read_worker_row(stored->bytes.data(), sizeof(WorkerRow), report);
  assert_true(report.acks[0].state == AckState::none);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(test_a_store_row_is_read),
      cmocka_unit_test(test_texts_that_fill_their_place_are_read_whole),
      cmocka_unit_test(test_words_that_do_not_fit_are_left_out),
      cmocka_unit_test(test_a_worker_row_is_read),
      cmocka_unit_test(test_short_rows_end_in_zeros),
      cmocka_unit_test(test_an_unknown_state_is_none),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
