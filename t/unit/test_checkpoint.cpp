// The bytes of a checkpoint: what is written is read again, and nothing else is.
#include <cstring>
#include <vector>

#include "apikey/checkpoint.hpp"
#include "cmocka_cpp.hpp"

using namespace apikey;

namespace {

std::span<const std::byte> bytes_of(const auto& object) { return std::as_bytes(std::span(&object, 1)); }

void append(std::vector<std::byte>& file, std::span<const std::byte> bytes) {
  file.insert(file.end(), bytes.begin(), bytes.end());
}

void seal(std::vector<std::byte>& file, CheckpointHead head) {
  Fold64 fold(0);
  fold.bytes(std::span<const std::byte>(file).subspan(kCheckpointHeadSize));
  head.body_check = fold.value();
  encode_checkpoint_head(head, std::span(file).first(kCheckpointHeadSize));
}

CheckpointHead make_head() {
  CheckpointHead head;
  head.written_us = 1'800'000'000'000'000;
  head.seed = {11, 12};
  head.quotas.rows = 3;
  head.usage.rows = 2;
  head.stores.rows = 2;
  return head;
}

std::vector<std::byte> make_file(const CheckpointHead& head) {
  std::vector<std::byte> file(kCheckpointHeadSize);
  for (std::uint64_t i = 1; i <= 3; ++i) {
    append(file, bytes_of(QuotaTable::Saved{i, 10 * i, 100 * i}));
  }
  UsageHead usage;
  usage.acknowledged = 77;
  append(file, bytes_of(usage));
  for (std::uint64_t i = 1; i <= 2; ++i) {
    UsageRow row;
    row.row = i;
    append(file, bytes_of(row));
  }
  for (std::uint64_t i = 1; i <= 2; ++i) {
    SavedStore store;
    store.key = i;
    store.highest_generation = 40 + i;
    store.registry_id.fill(static_cast<std::uint8_t>(i));
    append(file, bytes_of(store));
  }
  seal(file, head);
  return file;
}

void put(std::vector<std::byte>& file, std::size_t offset, std::uint64_t word) {
  std::memcpy(file.data() + offset, &word, sizeof word);
}

// As it was written before there were rows of stores.
std::vector<std::byte> make_file_of_format_1() {
  const auto made = make_file(make_head());
  std::vector<std::byte> file(made.begin(), made.begin() + 112);
  file[8] = std::byte{1};
  file.resize(128);
  file.insert(file.end(), made.begin() + kCheckpointHeadSize, made.end() - 2 * sizeof(SavedStore));
  Fold64 fold(0);
  fold.bytes(std::span<const std::byte>(file).subspan(128));
  put(file, 112, fold.value());
  put(file, 120, fold64(std::span<const std::byte>(file).first(120)));
  return file;
}

void expect_code(const std::vector<std::byte>& file, StatusCode code) {
  Checkpoint checkpoint;
  checkpoint.head.written_us = 5;
  assert_int_equal(decode_checkpoint(file, checkpoint).code, code);
  assert_int_equal(checkpoint.head.written_us, 5);
}

void test_what_is_written_is_read(void**) {
  CheckpointHead head = make_head();
  head.is_final = true;
  const auto file = make_file(head);
  Checkpoint checkpoint;
  assert_true(decode_checkpoint(file, checkpoint).ok());
  assert_true(checkpoint.head.is_final);
  assert_int_equal(checkpoint.head.written_us, head.written_us);
  assert_true(checkpoint.head.seed == head.seed);
  assert_true(checkpoint.head.quotas == head.quotas);
  assert_true(checkpoint.head.usage == head.usage);
  assert_int_equal(checkpoint.quotas.size(), 3 * 24);
  assert_int_equal(checkpoint.usage_head.size(), 312);
  assert_int_equal(checkpoint.usage.size(), 2 * 216);
  QuotaTable::Saved last;
  std::memcpy(&last, checkpoint.quotas.data() + 48, sizeof last);
  assert_int_equal(last.low, 3);
  assert_int_equal(last.high, 30);
  assert_int_equal(last.expires, 300);
  assert_int_equal(checkpoint.stores.size(), 2 * 64);
  SavedStore store;
  std::memcpy(&store, checkpoint.stores.data() + 64, sizeof store);
  assert_int_equal(store.key, 2);
  assert_int_equal(store.registry_id[15], 2);
  assert_int_equal(store.highest_generation, 42);
}

void test_format_1_is_still_read(void**) {
  const auto file = make_file_of_format_1();
  Checkpoint checkpoint;
  assert_true(decode_checkpoint(file, checkpoint).ok());
  assert_int_equal(checkpoint.head.written_us, make_head().written_us);
  assert_int_equal(checkpoint.quotas.size(), 3 * 24);
  assert_int_equal(checkpoint.usage.size(), 2 * 216);
  assert_true(checkpoint.stores.empty());
  for (std::size_t bit = 0; bit < 8 * file.size(); ++bit) {
    auto broken = file;
    broken[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    assert_false(decode_checkpoint(broken, checkpoint).ok());
  }
}

void test_the_bytes_are_as_drawn(void**) {
  const auto file = make_file(make_head());
  assert_memory_equal(file.data(), "AKSTATE1", 8);
  const auto at = [&](std::size_t offset) {
    std::uint64_t word;
    std::memcpy(&word, file.data() + offset, sizeof word);
    return word;
  };
  assert_int_equal(at(8), 2);
  assert_int_equal(at(24), 11);
  assert_int_equal(at(40), QuotaTable::kLayout);
  assert_int_equal(at(48), 24);
  assert_int_equal(at(56), 3);
  assert_int_equal(at(72), 312);
  assert_int_equal(at(96), 216);
  assert_int_equal(at(104), 2);
  assert_int_equal(at(112), 1);
  assert_int_equal(at(120), 64);
  assert_int_equal(at(128), 2);
  assert_int_equal(at(160), 1);
}

void test_every_flipped_bit_is_found(void**) {
  const auto file = make_file(make_head());
  for (std::size_t bit = 0; bit < 8 * file.size(); ++bit) {
    auto broken = file;
    broken[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    Checkpoint checkpoint;
    assert_false(decode_checkpoint(broken, checkpoint).ok());
  }
}

void test_other_lengths_are_damaged(void**) {
  const auto file = make_file(make_head());
  for (std::size_t size = 0; size < file.size(); ++size) {
    expect_code({file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size)}, StatusCode::damaged);
  }
  auto longer = file;
  longer.resize(file.size() + 8);
  expect_code(longer, StatusCode::damaged);
}

void test_counts_that_overflow_are_damaged(void**) {
  for (const std::uint64_t rows : {std::uint64_t{4}, UINT64_MAX, UINT64_MAX / 24, UINT64_MAX / 24 + 1}) {
    CheckpointHead head = make_head();
    head.quotas.rows = rows;
    expect_code(make_file(head), StatusCode::damaged);
  }
  CheckpointHead head = make_head();
  head.usage_head.rows = 0;
  expect_code(make_file(head), StatusCode::damaged);
}

void test_other_versions_are_unsupported(void**) {
  CheckpointHead head = make_head();
  head.quotas.layout += 1;
  expect_code(make_file(head), StatusCode::unsupported);
  head = make_head();
  head.usage.row_size = 0;
  expect_code(make_file(head), StatusCode::unsupported);
  head = make_head();
  head.stores.layout += 1;
  expect_code(make_file(head), StatusCode::unsupported);
  auto file = make_file(make_head());
  file[8] = std::byte{3};
  put(file, 152, fold64(std::span<const std::byte>(file).first(152)));
  expect_code(file, StatusCode::unsupported);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(test_what_is_written_is_read),        cmocka_unit_test(test_format_1_is_still_read),
      cmocka_unit_test(test_the_bytes_are_as_drawn),         cmocka_unit_test(test_every_flipped_bit_is_found),
      cmocka_unit_test(test_other_lengths_are_damaged),      cmocka_unit_test(test_counts_that_overflow_are_damaged),
      cmocka_unit_test(test_other_versions_are_unsupported),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
