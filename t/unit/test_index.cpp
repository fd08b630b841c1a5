// The index alone: building, finding, missing, probing past full buckets, and damage of every kind.
// Records stand in a made-up file behind their digests, as in a leaf page.
#include "apikey/index.hpp"

#include "apikey/rows.hpp"

#include "snapshot_fixture.hpp"

#include "cmocka_cpp.hpp"

using apikey::Digest;
using apikey::Index;
using apikey::IndexBuilder;
using apikey::RowCounts;
using apikey::Table;
using fixture::Bytes;

namespace {

constexpr std::size_t kIndexAt = 16;  // as behind the header of an overflow page
constexpr std::size_t kEntry = sizeof(Digest) + apikey::kRecordSize;
constexpr RowCounts kRows = {2, 1, 0, 0};

struct MadeUp {
  Bytes file;
  std::size_t index_size = 0;
  std::vector<Digest> digests;
  Index index;
};

void add_rows(MadeUp& made, IndexBuilder& builder, std::size_t at) {
  const std::string_view text = "payload of a row";
  const auto payload = std::as_bytes(std::span(text));
  const std::pair<Table, std::uint32_t> rows[] = {{Table::strings, 1}, {Table::strings, 2}, {Table::scopes, 0}};
  for (const auto& [table, number] : rows) {
    apikey::encode_row_header(table, number, payload, std::span(made.file).subspan(at, apikey::kRowHeaderSize));
    std::copy(payload.begin(), payload.end(),
              made.file.begin() + static_cast<std::ptrdiff_t>(at + apikey::kRowHeaderSize));
    assert_true(builder.add_row(table, number, at));
    at += apikey::kRowHeaderSize + payload.size();
  }
}

void make(MadeUp& made, const std::vector<Digest>& digests, std::uint64_t buckets) {
  made.digests = digests;
  made.index_size = apikey::index_size(buckets, kRows);
  const std::size_t entries_at = kIndexAt + made.index_size;
  made.file.assign(entries_at + digests.size() * kEntry + 200, std::byte{0});
  IndexBuilder builder(std::span(made.file).subspan(kIndexAt, made.index_size), buckets, kRows);
  std::size_t at = entries_at;
  for (const Digest& digest : digests) {
    apikey::Record record;
    record.env = static_cast<std::uint32_t>(at);
    record.owner = 1;
    std::memcpy(made.file.data() + at, digest.bytes.data(), digest.bytes.size());
    apikey::encode_record(digest, record, std::span(made.file).subspan(at + sizeof(Digest), apikey::kRecordSize));
    assert_true(builder.add_key(digest, at));
    at += kEntry;
  }
  add_rows(made, builder, at);
  builder.finish();
  const apikey::Status status = Index::open(made.file, kIndexAt, made.index_size, made.index);
  if (!status.ok()) print_error("%s\n", fixture::describe(status).c_str());
  assert_true(status.ok());
}

std::vector<Digest> some_digests(std::size_t count) {
  std::vector<Digest> digests;
  for (std::size_t i = 0; i < count; ++i) digests.push_back(fixture::digest_of("key " + std::to_string(i)));
  return digests;
}

void assert_all_found(const MadeUp& made) {
  std::size_t at = kIndexAt + made.index_size;
  for (const Digest& digest : made.digests) {
    std::span<const std::byte> record;
    assert_int_equal(made.index.find(digest, record), Index::Find::found);
    assert_ptr_equal(record.data(), made.file.data() + at + sizeof(Digest));
    assert_int_equal(record.size(), apikey::kRecordSize);
    at += kEntry;
  }
}

void finds_all_and_nothing_else(void** /*state*/) {
  for (const std::size_t count :
       {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{1000}, std::size_t{30'000}}) {
    MadeUp made;
    make(made, some_digests(count), apikey::index_bucket_count(count, 4096));
    assert_all_found(made);
    for (std::size_t i = 0; i < 3000; ++i) {
      std::span<const std::byte> record;
      assert_int_equal(made.index.find(fixture::digest_of("miss " + std::to_string(i)), record), Index::Find::absent);
    }
    std::uint64_t entries = 0;
    assert_true(made.index.count_entries(entries));
    assert_int_equal(entries, count);
  }
}

void is_never_smaller_than_a_page(void** /*state*/) {
  assert_int_equal(apikey::index_bucket_count(0, 4096), 64);
  assert_int_equal(apikey::index_bucket_count(0, 16384), 256);
  assert_true(apikey::index_size(apikey::index_bucket_count(0, 4096), {}) > 4096);
  assert_true(apikey::index_bucket_count(1'000'000, 4096) * apikey::kEntriesPerBucket > 1'000'000);
}

// All keys at home in the last bucket: they run over into the first ones.
void goes_round_past_the_last_bucket(void** /*state*/) {
  std::vector<Digest> digests = some_digests(20);
  for (Digest& digest : digests) std::fill_n(digest.bytes.begin(), 8, std::uint8_t{0xff});
  MadeUp made;
  make(made, digests, 64);
  assert_all_found(made);
  Digest stranger = fixture::digest_of("stranger");
  std::fill_n(stranger.bytes.begin(), 8, std::uint8_t{0xff});
  std::span<const std::byte> record;
  assert_int_equal(made.index.find(stranger, record), Index::Find::absent);
}

void holds_as_many_as_it_has_places(void** /*state*/) {
  const std::vector<Digest> digests = some_digests(7 * 4 + 1);
  Bytes value(apikey::index_size(4, {}));
  IndexBuilder builder(value, 4, {});
  for (std::size_t i = 0; i < 28; ++i) assert_true(builder.add_key(digests[i], 1000 + i));
  assert_false(builder.add_key(digests[28], 2000));
}

void takes_no_offset_of_more_than_40_bits(void** /*state*/) {
  Bytes value(apikey::index_size(64, {}));
  IndexBuilder builder(value, 64, {});
  assert_true(builder.add_key(fixture::digest_of("a"), (std::uint64_t{1} << 40) - 1));
  assert_false(builder.add_key(fixture::digest_of("b"), std::uint64_t{1} << 40));
  assert_false(builder.add_key(fixture::digest_of("c"), 0));
}

// Same bucket, same 24-bit tag, other digest: one key in 16 million has such a neighbour.
void tells_keys_of_one_tag_apart(void** /*state*/) {
  std::vector<Digest> digests = some_digests(3);
  for (Digest& digest : digests) std::fill_n(digest.bytes.begin(), 11, std::uint8_t{0x42});
  const Digest stranger = digests.back();
  digests.pop_back();
  MadeUp made;
  make(made, digests, 64);
  assert_all_found(made);
  std::span<const std::byte> record;
  assert_int_equal(made.index.find(stranger, record), Index::Find::absent);
  made.file[kIndexAt + made.index_size + 50] ^= std::byte{1};  // that neighbour is broken: nothing is known any more
  assert_int_equal(made.index.find(stranger, record), Index::Find::damaged);
}

void reads_rows_and_checks_them(void** /*state*/) {
  MadeUp made;
  make(made, some_digests(3), 64);
  std::span<const std::byte> payload;
  assert_true(made.index.row(Table::strings, 1, payload));
  assert_int_equal(payload.size(), 16);
  assert_true(made.index.row(Table::strings, 2, payload));
  assert_true(made.index.row(Table::scopes, 0, payload));
  assert_false(made.index.row(Table::strings, 0, payload));
  assert_false(made.index.row(Table::strings, 3, payload));
  assert_false(made.index.row(Table::scopes, 1, payload));
  assert_false(made.index.row(Table::plans, 1, payload));
  assert_false(made.index.row(static_cast<Table>(0), 1, payload));
  assert_false(made.index.row(static_cast<Table>(5), 1, payload));
  const std::size_t row = kIndexAt + made.index_size + 3 * kEntry;
  made.file[row + 20] ^= std::byte{1};
  assert_false(made.index.row(Table::strings, 1, payload));
}

// Any flipped bit of a bucket makes look-ups in it `damaged`; none of them makes a key unknown.
void notices_every_flipped_bit_of_a_bucket(void** /*state*/) {
  MadeUp made;
  make(made, some_digests(200), 64);
  std::span<const std::byte> record;
  for (std::size_t bit = 0; bit < 64 * 8; ++bit) {
    for (std::size_t bucket = 0; bucket < 64; ++bucket) {
      const std::size_t at = kIndexAt + apikey::kIndexHeaderSize + bucket * apikey::kBucketSize + bit / 8;
      made.file[at] ^= static_cast<std::byte>(1U << (bit % 8));
    }
    assert_int_equal(made.index.find(made.digests[bit % 200], record), Index::Find::damaged);
    std::uint64_t entries = 0;
    assert_false(made.index.count_entries(entries));
    for (std::size_t bucket = 0; bucket < 64; ++bucket) {
      const std::size_t at = kIndexAt + apikey::kIndexHeaderSize + bucket * apikey::kBucketSize + bit / 8;
      made.file[at] ^= static_cast<std::byte>(1U << (bit % 8));
    }
  }
  assert_all_found(made);
}

void refuses_a_header_with_any_bit_flipped(void** /*state*/) {
  MadeUp made;
  make(made, some_digests(20), 64);
  Index index;
  for (std::size_t bit = 0; bit < apikey::kIndexHeaderSize * 8; ++bit) {
    made.file[kIndexAt + bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    assert_false(Index::open(made.file, kIndexAt, made.index_size, index).ok());
    std::span<const std::byte> record;
    assert_int_equal(index.find(made.digests[0], record), Index::Find::damaged);
    made.file[kIndexAt + bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  }
}

void refuses_a_place_outside_the_file(void** /*state*/) {
  MadeUp made;
  make(made, some_digests(20), 64);
  Index index;
  assert_false(Index::open(made.file, made.file.size() + 1, made.index_size, index).ok());
  assert_false(Index::open(made.file, made.file.size() - 10, made.index_size, index).ok());
  assert_false(Index::open(made.file, ~std::uint64_t{0}, made.index_size, index).ok());
  assert_false(Index::open(made.file, kIndexAt, ~std::uint64_t{0}, index).ok());
  assert_false(Index::open(made.file, kIndexAt, made.index_size - 8, index).ok());
  assert_false(Index::open(made.file, kIndexAt, 8, index).ok());
}

// Entries with checks that hold but places that do not: a hostile builder's.
void follows_no_offset_out_of_the_file(void** /*state*/) {
  const Digest digest = fixture::digest_of("key");
  for (const std::uint64_t offset : {std::uint64_t{1} << 39, std::uint64_t{5000}, std::uint64_t{4096 + 200}}) {
    Bytes file(kIndexAt + apikey::index_size(64, {}), std::byte{0});
    const auto value = std::span(file).subspan(kIndexAt);
    IndexBuilder builder(value, 64, {});
    assert_true(builder.add_key(digest, offset));
    builder.finish();
    Index index;
    assert_true(Index::open(file, kIndexAt, file.size() - kIndexAt, index).ok());
    std::span<const std::byte> record;
    assert_int_equal(index.find(digest, record), Index::Find::damaged);
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(finds_all_and_nothing_else),
      cmocka_unit_test(is_never_smaller_than_a_page),
      cmocka_unit_test(goes_round_past_the_last_bucket),
      cmocka_unit_test(holds_as_many_as_it_has_places),
      cmocka_unit_test(takes_no_offset_of_more_than_40_bits),
      cmocka_unit_test(tells_keys_of_one_tag_apart),
      cmocka_unit_test(reads_rows_and_checks_them),
      cmocka_unit_test(notices_every_flipped_bit_of_a_bucket),
      cmocka_unit_test(refuses_a_header_with_any_bit_flipped),
      cmocka_unit_test(refuses_a_place_outside_the_file),
      cmocka_unit_test(follows_no_offset_out_of_the_file),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
