// Interning and encoding of rows.
#include "publish/row_tables.hpp"

#include <algorithm>
#include <limits>

#include "apikey/scope_set.hpp"

namespace apikey::publish {
namespace {

std::span<std::byte> writable(std::string& text) { return std::as_writable_bytes(std::span(text)); }
std::span<const std::byte> readable(std::string_view text) { return std::as_bytes(std::span(text)); }
std::size_t slot_of(Table table) { return static_cast<std::size_t>(table) - 1; }

// REQUIRES: sorted, without doubles, valid.
std::string encode_set(const std::vector<std::string_view>& scopes) {
  std::string payload(encoded_scopes_size(scopes), '\0');
  encode_scopes(scopes, writable(payload));
  return payload;
}

}  // namespace

void RowTables::fail(const Status& status) {
  if (failure_.ok()) failure_ = status;
}

std::uint32_t RowTables::intern(Table table, std::string_view payload) {
  Interned& rows = tables_[slot_of(table)];
  const auto found = rows.numbers.find(payload);
  if (found != rows.numbers.end()) return found->second;
  if (payload.size() > kMaxRowPayload) {
    fail({StatusCode::bad_value, "a row of {0} bytes is too long for a snapshot; {1} bytes fit", payload.size(),
          kMaxRowPayload});
    return 0;
  }
  if (rows.payloads.size() + 2 >= std::numeric_limits<std::uint32_t>::max()) {
    fail({StatusCode::bad_value, "a table of a snapshot has room for {0} rows", rows.payloads.size()});
    return 0;
  }
  rows.payloads.emplace_back(payload);
  const auto number = static_cast<std::uint32_t>(rows.payloads.size());
  rows.numbers.emplace(rows.payloads.back(), number);
  return number;
}

std::uint32_t RowTables::string(std::string_view bytes) { return bytes.empty() ? 0 : intern(Table::strings, bytes); }

void RowTables::know_scope(std::string_view scope) {
  if (!is_valid_grant(scope)) {
    fail({StatusCode::bad_value, "a scope of {0} bytes is not made of segments of letters, digits and _ . / -",
          scope.size()});
    return;
  }
  if (known_.find(scope) == known_.end()) known_.emplace(scope);
}

std::uint32_t RowTables::scope_set(const std::vector<std::string>& held) {
  if (held.empty()) return 0;
  std::vector<std::string_view> sorted(held.begin(), held.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (const std::string_view scope : sorted) know_scope(scope);
  if (sorted.size() > kMaxScopesPerSet) {
    fail({StatusCode::bad_value, "{0} scopes are too many for one key; at most {1} fit", sorted.size(),
          kMaxScopesPerSet});
  }
  if (!failure_.ok()) return 0;
  return intern(Table::scopes, encode_set(sorted));
}

std::string RowTables::encode_limits(const std::vector<Limit>& limits) {
  static_assert(kMaxLimits == 16 && kMaxLimitRows == 32, "the sentence below says so");
  const auto adjustments = static_cast<std::size_t>(std::count_if(
      limits.begin(), limits.end(), [](const Limit& limit) { return limit.kind == LimitKind::adjustment; }));
  if (limits.size() - adjustments > kMaxLimits || limits.size() > kMaxLimitRows) {
    fail({StatusCode::bad_value,
          "{0} limits and {1} adjustments are too many for one list; 16 limits fit, and 32 of both together",
          limits.size() - adjustments, adjustments});
    return {};
  }
  std::string bytes(limits.size() * kLimitSize, '\0');
  for (std::size_t i = 0; i < limits.size(); ++i) {
    const Limit& limit = limits[i];
    const LimitRow row{string(limit.name), limit.kind,      limit.unit, limit.is_dry_run,
                       limit.amount,       limit.period_ns, limit.burst};
    encode_limit(row, writable(bytes).subspan(i * kLimitSize, kLimitSize));
  }
  LimitList ignored;
  if (!decode_limits(readable(bytes), ignored)) {
    fail({StatusCode::bad_value,
          "one of {0} limits has no name, or an amount, period or burst that does not fit its kind", limits.size()});
  }
  return bytes;
}

std::uint32_t RowTables::limits(const std::vector<Limit>& limits) { return string(encode_limits(limits)); }

std::uint32_t RowTables::plan(std::string_view name, const std::vector<Limit>& limits) {
  const std::string list = encode_limits(limits);
  std::string payload(kPlanHeaderSize, '\0');
  encode_plan_header(string(name), list.size() / kLimitSize, writable(payload));
  PlanRow ignored;
  if (!decode_plan(readable(payload + list), ignored)) {
    fail({StatusCode::bad_value, "a plan needs a name, and no adjustments"});
  }
  return intern(Table::plans, payload + list);
}

std::uint32_t RowTables::owner(const Owner& owner) {
  const std::string id(static_cast<const char*>(static_cast<const void*>(owner.id.data())), owner.id.size());
  const auto found = owner_numbers_.find(id);
  if (found != owner_numbers_.end()) return found->second;
  const std::string list = encode_limits(owner.limits);
  OwnerRow row;
  row.name = string(owner.name);
  row.meta = string(owner.meta);
  row.is_suspended = owner.is_suspended;
  row.suspended_until = owner.suspended_until;
  row.id = owner.id;
  std::string payload(kOwnerHeaderSize, '\0');
  encode_owner_header(row, list.size() / kLimitSize, writable(payload));
  payload += list;
  OwnerRow ignored;
  if (!decode_owner(readable(payload), ignored)) {
    fail({StatusCode::bad_value, "an owner needs a name, and an end of suspension only while suspended"});
  }
  const std::uint32_t number = intern(Table::owners, payload);
  owner_numbers_.emplace(id, number);
  return number;
}

std::vector<std::string_view> RowTables::payloads(Table table) const {
  const auto& rows = tables_[slot_of(table)].payloads;
  return {rows.begin(), rows.end()};
}

std::string RowTables::known_scopes() const {
  if (known_.size() > kMaxScopesPerSet) return encode_set({"*", "apikey:*"});
  return encode_set({known_.begin(), known_.end()});
}

}  // namespace apikey::publish
