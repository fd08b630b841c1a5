// rows.cpp: one row byte by byte (made by an independent program), broken lengths, flipped bits, limits that make
// sense.
#include "apikey/rows.hpp"

#include <vector>

#include "apikey/flight_table.hpp"
#include "apikey/little_endian.hpp"
#include "apikey/quota_table.hpp"
#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using apikey::CalendarUnit;
using apikey::decode_row;
using apikey::kLimitSize;
using apikey::kRowHeaderSize;
using apikey::LimitKind;
using apikey::LimitList;
using apikey::LimitRow;
using apikey::OwnerRow;
using apikey::PlanRow;
using apikey::Table;

namespace {

using Bytes = std::vector<std::byte>;

// Worked out by a Python program from the byte map: row 7 of `strings`, "orders".
constexpr auto kEncoded = bytes_of<22>("07000000060000007aa3a0f8064638c46f7264657273");

constexpr LimitRow kRate = {3, LimitKind::rate, CalendarUnit::none, true, 100, 1'000'000'000, 200};
constexpr LimitRow kReset = {3, LimitKind::adjustment, CalendarUnit::none, false, 0, 0, 1'900'000'000};

Bytes row_of(Table table, std::uint32_t number, std::span<const std::byte> payload) {
  Bytes row(kRowHeaderSize + payload.size());
  std::copy(payload.begin(), payload.end(), row.begin() + kRowHeaderSize);
  apikey::encode_row_header(table, number, payload, std::span(row).first(kRowHeaderSize));
  return row;
}

bool decodes(Table table, std::uint32_t number, std::span<const std::byte> bytes) {
  std::span<const std::byte> payload;
  return decode_row(table, number, bytes, payload);
}

Bytes limit_bytes(const LimitRow& limit) {
  Bytes bytes(kLimitSize, std::byte{0xee});
  apikey::encode_limit(limit, bytes);
  return bytes;
}

bool is_limit(const LimitRow& limit) {
  LimitList list;
  return apikey::decode_limits(limit_bytes(limit), list);
}

Bytes plan_bytes(std::size_t limits) {
  Bytes bytes(apikey::kPlanHeaderSize);
  apikey::encode_plan_header(5, limits, bytes);
  for (std::size_t i = 0; i < limits; ++i) {
    const Bytes limit = limit_bytes(kRate);
    bytes.insert(bytes.end(), limit.begin(), limit.end());
  }
  return bytes;
}

constexpr auto kOwnerId = bytes_of<16>("000102030405060708090a0b0c0d0e0f");

Bytes owner_bytes(bool is_suspended, std::int64_t until) {
  OwnerRow owner;
  owner.name = 9;
  owner.meta = 4;
  owner.is_suspended = is_suspended;
  owner.suspended_until.value = until;
  owner.id = kOwnerId;
  Bytes bytes(apikey::kOwnerHeaderSize, std::byte{0xee});
  apikey::encode_owner_header(owner, 1, bytes);
  const Bytes limit = limit_bytes(kRate);
  bytes.insert(bytes.end(), limit.begin(), limit.end());
  return bytes;
}

void a_row_byte_by_byte(void**) {
  const auto payload = std::span(kEncoded).subspan(kRowHeaderSize);
  expect_bytes(row_of(Table::strings, 7, payload), kEncoded);
  std::span<const std::byte> found;
  assert_true(decode_row(Table::strings, 7, kEncoded, found));
  assert_ptr_equal(found.data(), kEncoded.data() + kRowHeaderSize);
  assert_int_equal(found.size(), 6);
}

void a_row_belongs_to_its_table_and_number(void**) {
  for (const Table table : {Table::scopes, Table::plans, Table::owners}) {
    assert_false(decodes(table, 7, kEncoded));
  }
  assert_false(decodes(Table::strings, 6, kEncoded));
}

void every_flipped_bit_is_noticed(void**) {
  for (std::size_t bit = 0; bit < 8 * kEncoded.size(); ++bit) {
    auto bytes = kEncoded;
    bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    assert_false(decodes(Table::strings, 7, bytes));
  }
}

void a_row_cut_off_is_refused_and_a_longer_one_is_not(void**) {
  for (std::size_t size = 0; size < kEncoded.size(); ++size) {
    const Bytes cut(kEncoded.begin(), kEncoded.begin() + static_cast<std::ptrdiff_t>(size));
    assert_false(decodes(Table::strings, 7, cut));
  }
  Bytes longer(kEncoded.begin(), kEncoded.end());
  longer.resize(100);
  std::span<const std::byte> payload;
  assert_true(decode_row(Table::strings, 7, longer, payload));
  assert_int_equal(payload.size(), 6);
}

void payloads_from_nothing_to_the_most(void**) {
  for (const std::size_t size : std::array<std::size_t, 4>{0, 1, 9, apikey::kMaxRowPayload}) {
    assert_true(decodes(Table::strings, 1, row_of(Table::strings, 1, Bytes(size, std::byte{'x'}))));
  }
  assert_false(decodes(Table::strings, 1, row_of(Table::strings, 1, Bytes(apikey::kMaxRowPayload + 1))));
  assert_false(decodes(Table::strings, 0, Bytes(64)));  // a zeroed page
}

void limits_come_back(void**) {
  const Bytes bytes = limit_bytes(kRate);
  const auto expected = bytes_of<kLimitSize>("0300000001000100640000000000000000ca9a3b00000000c800000000000000");
  expect_bytes(bytes, expected);
  LimitList list;
  assert_true(apikey::decode_limits(bytes, list));
  assert_int_equal(list.size(), 1);
  const LimitRow limit = list[0];
  assert_int_equal(limit.name, 3);
  assert_true(limit.kind == LimitKind::rate && limit.unit == CalendarUnit::none && limit.is_dry_run);
  assert_int_equal(limit.amount, 100);
  assert_int_equal(limit.period_ns, 1'000'000'000);
  assert_int_equal(limit.burst, 200);
}

void limits_make_sense(void**) {
  const auto rate = [](std::uint64_t amount, std::uint64_t period, std::uint64_t burst) {
    return is_limit({1, LimitKind::rate, CalendarUnit::none, false, amount, period, burst});
  };
  assert_true(rate(1, 1, 1));
  assert_true(rate(1'000'000'000, 1, 1'000'000'000));
  assert_false(rate(0, 1, 1));
  assert_false(rate(1, 0, 1));
  assert_false(rate(1, 1, 0));
  assert_false(rate(1'000'000'001, 1, 1));
  assert_false(rate(1, 1, 1'000'000'001));
  assert_false(is_limit({1, LimitKind::rate, CalendarUnit::day, false, 1, 1, 1}));
  assert_false(is_limit({0, LimitKind::rate, CalendarUnit::none, false, 1, 1, 1}));

  assert_true(is_limit({1, LimitKind::calendar_quota, CalendarUnit::minute, false, 1, 0, 0}));
  assert_true(is_limit({1, LimitKind::calendar_quota, CalendarUnit::year, false, apikey::kMaxQuotaAmount, 0, 0}));
  assert_false(is_limit({1, LimitKind::calendar_quota, CalendarUnit::year, false, apikey::kMaxQuotaAmount + 1, 0, 0}));
  assert_false(is_limit({1, LimitKind::calendar_quota, CalendarUnit::minute, false, 0, 0, 0}));
  assert_false(is_limit({1, LimitKind::calendar_quota, CalendarUnit::none, false, 1, 0, 0}));
  assert_false(is_limit({1, LimitKind::calendar_quota, CalendarUnit{7}, false, 1, 0, 0}));
  assert_false(is_limit({1, LimitKind::calendar_quota, CalendarUnit::day, false, 1, 1, 0}));
  assert_false(is_limit({1, LimitKind::calendar_quota, CalendarUnit::day, false, 1, 0, 1}));

  assert_true(is_limit({1, LimitKind::rolling_quota, CalendarUnit::none, false, 5, 60, 0}));
  assert_false(is_limit({1, LimitKind::rolling_quota, CalendarUnit::none, false, 5, 0, 0}));
  assert_false(is_limit({1, LimitKind::rolling_quota, CalendarUnit::none, false, 0, 60, 0}));
  assert_true(is_limit({1, LimitKind::rolling_quota, CalendarUnit::none, false, apikey::kMaxQuotaAmount,
                        apikey::kMaxRollingPeriodNs, 0}));
  assert_false(is_limit({1, LimitKind::rolling_quota, CalendarUnit::none, false, apikey::kMaxQuotaAmount + 1, 60, 0}));
  assert_false(
      is_limit({1, LimitKind::rolling_quota, CalendarUnit::none, false, 5, apikey::kMaxRollingPeriodNs + 1, 0}));
  assert_true(is_limit({1, LimitKind::concurrency, CalendarUnit::none, false, 5, 0, 0}));
  assert_false(is_limit({1, LimitKind::concurrency, CalendarUnit::none, false, 5, 1, 0}));
  assert_true(is_limit({1, LimitKind::concurrency, CalendarUnit::none, false, apikey::kMaxConcurrency, 0, 0}));
  assert_false(is_limit({1, LimitKind::concurrency, CalendarUnit::none, false, apikey::kMaxConcurrency + 1, 0, 0}));
  assert_false(is_limit({1, LimitKind::concurrency, CalendarUnit::none, false, 0, 0, 0}));
  assert_false(is_limit({1, LimitKind{0}, CalendarUnit::none, false, 1, 1, 1}));
  assert_false(is_limit({1, LimitKind{6}, CalendarUnit::none, false, 1, 1, 1}));

  Bytes flagged = limit_bytes(kRate);
  flagged[6] = std::byte{2};
  LimitList list;
  assert_false(apikey::decode_limits(flagged, list));
}

void adjustments_make_sense(void**) {
  const auto adjustment = [](std::uint64_t granted, std::uint64_t until, std::uint64_t reset) {
    return is_limit({1, LimitKind::adjustment, CalendarUnit::none, false, granted, until, reset});
  };
  assert_true(adjustment(5, 1'900'000'000, 0));
  assert_true(adjustment(0, 0, 1'900'000'000));
  assert_true(adjustment(apikey::kMaxQuotaAmount, apikey::kMaxAdjustmentTime, apikey::kMaxAdjustmentTime));
  assert_false(adjustment(0, 0, 0));  // nothing was done
  assert_false(adjustment(5, 0, 1));  // a grant without an end
  assert_false(adjustment(0, 1, 1));  // an end without a grant
  assert_false(adjustment(apikey::kMaxQuotaAmount + 1, 1, 0));
  assert_false(adjustment(1, apikey::kMaxAdjustmentTime + 1, 0));
  assert_false(adjustment(0, 0, apikey::kMaxAdjustmentTime + 1));
  assert_false(is_limit({1, LimitKind::adjustment, CalendarUnit::none, true, 5, 1, 0}));
  assert_false(is_limit({1, LimitKind::adjustment, CalendarUnit::day, false, 5, 1, 0}));
  assert_false(is_limit({0, LimitKind::adjustment, CalendarUnit::none, false, 5, 1, 0}));
}

void a_list_has_whole_limits_and_not_too_many(void**) {
  LimitList list;
  assert_true(apikey::decode_limits({}, list));
  assert_int_equal(list.size(), 0);
  Bytes bytes;
  for (std::size_t i = 0; i < apikey::kMaxLimits; ++i) {
    const Bytes limit = limit_bytes(kRate);
    bytes.insert(bytes.end(), limit.begin(), limit.end());
  }
  assert_true(apikey::decode_limits(bytes, list));
  assert_int_equal(list.size(), apikey::kMaxLimits);
  assert_false(apikey::decode_limits(std::span(bytes).first(bytes.size() - 1), list));
  const Bytes sixteen = bytes;
  bytes.insert(bytes.end(), bytes.begin(), bytes.begin() + kLimitSize);
  assert_false(apikey::decode_limits(bytes, list));

  // As many adjustments have room beside them.
  const Bytes adjustment = limit_bytes(kReset);
  bytes = sixteen;
  for (std::size_t i = apikey::kMaxLimits; i < apikey::kMaxLimitRows; ++i) {
    bytes.insert(bytes.end(), adjustment.begin(), adjustment.end());
  }
  assert_true(apikey::decode_limits(bytes, list));
  assert_int_equal(list.size(), apikey::kMaxLimitRows);
  bytes.insert(bytes.end(), adjustment.begin(), adjustment.end());
  assert_false(apikey::decode_limits(bytes, list));
  bytes.resize(apikey::kMaxLimitRows * kLimitSize);
  const Bytes limit = limit_bytes(kRate);
  std::copy(limit.begin(), limit.end(), bytes.end() - kLimitSize);  // a 17th limit
  assert_false(apikey::decode_limits(bytes, list));
}

void plans(void**) {
  PlanRow plan;
  for (const std::size_t limits : std::array<std::size_t, 3>{0, 1, apikey::kMaxLimits}) {
    const Bytes bytes = plan_bytes(limits);
    assert_true(apikey::decode_plan(bytes, plan));
    assert_int_equal(plan.name, 5);
    assert_int_equal(plan.limits.size(), limits);
    assert_false(apikey::decode_plan(std::span(bytes).first(bytes.size() - 1), plan));
  }
  Bytes bytes = plan_bytes(2);
  bytes.push_back(std::byte{0});
  assert_false(apikey::decode_plan(bytes, plan));
  bytes = plan_bytes(2);
  bytes[4] = std::byte{1};  // says one limit, has two
  assert_false(apikey::decode_plan(bytes, plan));
  bytes[4] = bytes[5] = std::byte{0xff};
  assert_false(apikey::decode_plan(bytes, plan));
  bytes = plan_bytes(2);
  bytes[6] = std::byte{1};
  assert_false(apikey::decode_plan(bytes, plan));
  bytes = plan_bytes(2);
  bytes[0] = std::byte{0};  // no name
  assert_false(apikey::decode_plan(bytes, plan));
  bytes = plan_bytes(1);
  const Bytes adjustment = limit_bytes(kReset);  // those are for keys and owners
  std::copy(adjustment.begin(), adjustment.end(), bytes.end() - kLimitSize);
  assert_false(apikey::decode_plan(bytes, plan));
}

void owners(void**) {
  const Bytes bytes = owner_bytes(true, 77);
  OwnerRow owner;
  assert_true(apikey::decode_owner(bytes, owner));
  assert_int_equal(owner.name, 9);
  assert_int_equal(owner.meta, 4);
  assert_true(owner.is_suspended);
  assert_int_equal(owner.suspended_until.value, 77);
  expect_bytes(owner.id, kOwnerId);
  assert_int_equal(owner.limits.size(), 1);
  assert_true(apikey::decode_owner(owner_bytes(false, 0), owner));
  assert_false(owner.is_suspended);
  assert_false(apikey::decode_owner(owner_bytes(false, 77), owner));
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const Bytes cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    assert_false(apikey::decode_owner(cut, owner));
  }
  // flags, the zero byte, the count, the zero word
  for (const std::size_t offset : std::array<std::size_t, 5>{8, 9, 11, 12, 15}) {
    Bytes broken = bytes;
    broken[offset] |= std::byte{2};
    assert_false(apikey::decode_owner(broken, owner));
  }
  Bytes nameless = bytes;
  nameless[0] = std::byte{0};
  assert_false(apikey::decode_owner(nameless, owner));
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(a_row_byte_by_byte),
      cmocka_unit_test(a_row_belongs_to_its_table_and_number),
      cmocka_unit_test(every_flipped_bit_is_noticed),
      cmocka_unit_test(a_row_cut_off_is_refused_and_a_longer_one_is_not),
      cmocka_unit_test(payloads_from_nothing_to_the_most),
      cmocka_unit_test(limits_come_back),
      cmocka_unit_test(limits_make_sense),
      cmocka_unit_test(adjustments_make_sense),
      cmocka_unit_test(a_list_has_whole_limits_and_not_too_many),
      cmocka_unit_test(plans),
      cmocka_unit_test(owners),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
