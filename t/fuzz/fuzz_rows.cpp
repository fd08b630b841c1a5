// What stands in a snapshot: records, rows, scope sets, limits, plans, owners. Raw bytes, and bytes behind a right
// check.
#include <vector>

#include "apikey/record.hpp"
#include "apikey/rows.hpp"
#include "apikey/scope_set.hpp"
#include "fuzz_input.hpp"

using apikey::Table;

namespace {

using Bytes = std::span<const std::byte>;

void record_from(FuzzInput& input) {
  const auto digest = input.value<apikey::Digest>();
  apikey::Record record;
  record.flags = input.byte();
  record.env = input.value<std::uint32_t>();
  record.owner = input.value<std::uint32_t>();
  record.plan = input.value<std::uint32_t>();
  record.scopes = input.value<std::uint32_t>();
  record.id = input.value<apikey::KeyId>();
  record.family = input.value<apikey::KeyId>();
  record.expires.value = input.value<std::int64_t>();
  record.suspended_until.value = input.value<std::int64_t>();
  std::array<std::byte, apikey::kRecordSize> bytes;
  apikey::encode_record(digest, record, bytes);
  apikey::Record decoded;
  if (apikey::decode_record(digest, bytes, decoded)) {
    std::array<std::byte, apikey::kRecordSize> again;
    apikey::encode_record(digest, decoded, again);
    require(again == bytes);
    require(decoded.env != 0 && decoded.owner != 0);
  }
  const std::size_t bit = input.value<std::uint16_t>() % (8 * bytes.size());
  bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  require(!apikey::decode_record(digest, bytes, decoded));
  require(!apikey::decode_record(digest, input.remaining_bytes(), decoded));
}

void limits_in(const apikey::LimitList& limits) {
  require(limits.size() <= apikey::kMaxLimitRows);
  std::size_t adjustments = 0;
  for (std::size_t i = 0; i < limits.size(); ++i) {
    adjustments += limits[i].kind == apikey::LimitKind::adjustment ? 1U : 0U;
    require(limits[i].name != 0 && (limits[i].amount != 0 || limits[i].kind == apikey::LimitKind::adjustment));
    std::array<std::byte, apikey::kLimitSize> again;
    apikey::encode_limit(limits[i], again);
    const auto bytes = limits.bytes.subspan(i * apikey::kLimitSize, apikey::kLimitSize);
    require(std::equal(again.begin(), again.end(), bytes.begin()));
  }
  require(limits.size() - adjustments <= apikey::kMaxLimits);
}

void payload(Bytes bytes) {
  apikey::PlanRow plan;
  if (apikey::decode_plan(bytes, plan)) {
    limits_in(plan.limits);
  }
  apikey::OwnerRow owner;
  if (apikey::decode_owner(bytes, owner)) {
    require(owner.id.size() == 16);
    limits_in(owner.limits);
  }
  apikey::LimitList limits;
  if (apikey::decode_limits(bytes, limits)) {
    limits_in(limits);
  }
}

void row(Table table, std::uint32_t number, Bytes bytes) {
  Bytes found;
  if (apikey::decode_row(table, number, bytes, found)) {
    require(found.size() + apikey::kRowHeaderSize <= bytes.size());
    payload(found);
  }
  std::vector<std::byte> whole(apikey::kRowHeaderSize + bytes.size());
  std::copy(bytes.begin(), bytes.end(), whole.begin() + apikey::kRowHeaderSize);
  apikey::encode_row_header(table, number, bytes, std::span(whole).first(apikey::kRowHeaderSize));
  require(apikey::decode_row(table, number, whole, found));
  require(found.size() == bytes.size());
  payload(found);
}

void scopes(std::string_view required, Bytes bytes) {
  apikey::ScopeSet set;
  if (!apikey::ScopeSet::decode(bytes, set)) {
    return;
  }
  std::vector<std::string_view> names;
  bool is_granted = false;
  for (auto it = set.begin(); it != set.end(); ++it) {
    names.push_back(*it);
    is_granted = is_granted || apikey::scope_grants(*it, required);
  }
  require(names.size() == set.size());
  // Only what may be required is promised to be found.
  require(!apikey::is_valid_scope(required) || set.grants(required) == is_granted);
  std::vector<std::byte> again(apikey::encoded_scopes_size(names));
  apikey::encode_scopes(names, again);
  require(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzInput input(data, size);
  switch (input.byte() % 3) {
    case 0:
      record_from(input);
      break;
    case 1: {
      const auto table = static_cast<Table>(1 + input.byte() % apikey::kTableCount);
      const auto number = input.value<std::uint32_t>();
      row(table, number, input.remaining_bytes());
      break;
    }
    default: {
      const std::string_view required = input.text();
      scopes(required, input.remaining_bytes());
      break;
    }
  }
  return 0;
}
