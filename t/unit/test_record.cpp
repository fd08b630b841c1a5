// record.cpp: one record byte by byte (made by an independent program), and that nothing else is taken for one.
#include "apikey/record.hpp"

#include "apikey/fold64.hpp"
#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::decode_record;
using apikey::Digest;
using apikey::kRecordSize;
using apikey::Record;

namespace {

using Bytes = std::array<std::byte, kRecordSize>;

// Worked out by a Python program from the byte map: digest 00..1f.
constexpr Bytes kEncoded = bytes_of<kRecordSize>(
    "010660000101010102020202030303030404040405050505060606060707070708080808"
    "101112131415161718191a1b10303132333435363738393a3b20000000f153650000000000d2496b"
    "0000000080e14e680000000006216a8604bf306d");

Digest digest() {
  Digest digest;
  for (std::size_t i = 0; i < digest.bytes.size(); ++i) {
    digest.bytes[i] = static_cast<std::uint8_t>(i);
  }
  return digest;
}

Record record() {
  Record record;
  record.flags = apikey::kFlagSuspended | apikey::kFlagRequireTls;
  record.env = 0x01010101;
  record.owner = 0x02020202;
  record.plan = 0x03030303;
  record.scopes = 0x04040404;
  record.name = 0x05050505;
  record.meta = 0x06060606;
  record.bindings = 0x07070707;
  record.limits = 0x08080808;
  record.id.bytes = {0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x10};
  record.family.bytes = {0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x3b, 0x20};
  record.not_before.value = 1'700'000'000;
  record.expires.value = 1'800'000'000;
  record.suspended_until.value = 1'750'000'000;
  return record;
}

// Puts a right check behind whatever the bytes say.
Bytes checked(Bytes bytes) {
  apikey::Fold64 fold(32 + kRecordSize - 8);
  const Digest key = digest();
  fold.bytes(std::as_bytes(std::span(key.bytes)));
  fold.bytes(std::span(bytes).first(kRecordSize - 8));
  const std::uint64_t check = fold.value();
  std::memcpy(bytes.data() + kRecordSize - 8, &check, sizeof check);
  return bytes;
}

bool decodes(std::span<const std::byte> bytes) {
  Record decoded;
  return decode_record(digest(), bytes, decoded);
}

bool decodes_with(std::size_t offset, std::uint8_t value) {
  Bytes bytes = kEncoded;
  bytes[offset] = static_cast<std::byte>(value);
  return decodes(checked(bytes));
}

void the_bytes_are_those_of_the_map(void**) {
  Bytes bytes;
  bytes.fill(std::byte{0xee});
  encode_record(digest(), record(), bytes);
  expect_bytes(bytes, kEncoded);
}

void every_field_comes_back(void**) {
  Record decoded;
  assert_true(decode_record(digest(), kEncoded, decoded));
  const Record expected = record();
  assert_int_equal(decoded.flags, expected.flags);
  assert_int_equal(decoded.env, expected.env);
  assert_int_equal(decoded.owner, expected.owner);
  assert_int_equal(decoded.plan, expected.plan);
  assert_int_equal(decoded.scopes, expected.scopes);
  assert_int_equal(decoded.name, expected.name);
  assert_int_equal(decoded.meta, expected.meta);
  assert_int_equal(decoded.bindings, expected.bindings);
  assert_int_equal(decoded.limits, expected.limits);
  assert_true(decoded.id == expected.id);
  assert_true(decoded.family == expected.family);
  assert_true(decoded.not_before == expected.not_before);
  assert_true(decoded.expires == expected.expires);
  assert_true(decoded.suspended_until == expected.suspended_until);
}

void every_flipped_bit_is_noticed(void**) {
  for (std::size_t bit = 0; bit < 8 * kRecordSize; ++bit) {
    Bytes bytes = kEncoded;
    bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    assert_false(decodes(bytes));
  }
  assert_true(decodes(kEncoded));
}

void a_record_belongs_to_its_digest(void**) {
  for (std::size_t bit = 0; bit < 8 * sizeof(Digest); ++bit) {
    Digest other = digest();
    other.bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
    Record decoded;
    assert_false(decode_record(other, kEncoded, decoded));
  }
}

void only_one_size_is_a_record(void**) {
  std::array<std::byte, kRecordSize + 1> longer{};
  std::copy(kEncoded.begin(), kEncoded.end(), longer.begin());
  for (std::size_t size = 0; size <= longer.size(); ++size) {
    assert_int_equal(decodes(std::span(longer).first(size)), size == kRecordSize);
  }
}

void blank_pages_are_no_records(void**) {
  Bytes bytes{};
  assert_false(decodes(bytes));
  bytes.fill(std::byte{0xff});
  assert_false(decodes(bytes));
}

// The check is right in all of these: what they say is wrong.
void contradictions_are_refused(void**) {
  assert_true(decodes_with(1, apikey::kFlagSuspended | apikey::kFlagRevoked));
  assert_false(decodes_with(0, 0));
  assert_false(decodes_with(0, 2));
  for (const std::uint8_t flag : std::array<std::uint8_t, 5>{8, 16, 32, 64, 128}) {
    assert_false(decodes_with(1, apikey::kFlagSuspended | flag));
  }
  assert_false(decodes_with(1, 0));  // suspended until, but not suspended
  assert_false(decodes_with(2, 95));
  assert_false(decodes_with(3, 1));
  assert_false(decodes_with(48, 0x11));  // an id has 100 bits
  assert_false(decodes_with(61, 0x21));
  assert_false(decodes_with(62, 1));
  assert_false(decodes_with(63, 1));
  for (const std::size_t number : std::array<std::size_t, 2>{4, 8}) {  // no environment, no owner
    Bytes bytes = kEncoded;
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(number), 4, std::byte{0});
    assert_false(decodes(checked(bytes)));
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(the_bytes_are_those_of_the_map), cmocka_unit_test(every_field_comes_back),
      cmocka_unit_test(every_flipped_bit_is_noticed),   cmocka_unit_test(a_record_belongs_to_its_digest),
      cmocka_unit_test(only_one_size_is_a_record),      cmocka_unit_test(blank_pages_are_no_records),
      cmocka_unit_test(contradictions_are_refused),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
