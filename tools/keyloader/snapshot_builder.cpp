// Feeding a SnapshotWriter from the registry: owners, plans, roles expanded, keys in order.
// Called by publisher.cpp. Must never write a record that grants more than the registry says.
#include "snapshot_builder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <exception>
#include <set>
#include <unordered_map>

#include "apikey/scope_set.hpp"
#include "bindings.hpp"
#include "data_dir.hpp"
#include "key.hpp"
#include "progress.hpp"
#include "snapshot_limits.hpp"

namespace keyloader {
namespace {

using apikey::publish::SnapshotFile;
using apikey::publish::SnapshotWriter;
using Numbers = std::unordered_map<std::string, std::uint32_t>;

std::string meta_text(const MetaMap& meta) { return meta.empty() ? std::string{} : Json(meta).dump(); }

apikey::publish::Owner owner_row(const Owner& owner, const Adjustments& adjustments, Seconds now) {
  apikey::publish::Owner row;
  row.name = owner.name;
  std::transform(owner.id.begin(), owner.id.end(), row.id.begin(), [](std::uint8_t byte) { return std::byte{byte}; });
  row.meta = meta_text(owner.meta);
  row.is_suspended = owner.is_suspended;
  row.suspended_until = {owner.suspended_until};
  row.limits = limit_rows(owner.limits);
  add_adjustments(row.limits, adjustments, limit_rows(owner.limits), now);
  return row;
}

// Writes what keys refer to, and knows its numbers.
class RegistryTables {
 public:
  RegistryTables(Registry& registry, Seconds now, SnapshotWriter& writer)
      : writer_(writer), now_(now), adjustments_(family_adjustments(registry)), roles_(registry) {
    for (const Owner& owner : registry.owners()) {
      owners_[owner.name] = writer.owner(owner_row(owner, registry.adjustments(owner), now));
    }
    for (const Plan& plan : registry.plans()) {
      plan_limits_[plan.name] = limit_rows(plan.limits);
      plans_[plan.name] = writer.plan(plan.name, plan_limits_[plan.name]);
    }
    for (const Role& role : registry.roles()) {
      for (const std::string& scope : role.scopes) {
        if (!apikey::is_reserved_scope(scope)) {
          writer.know_scope(scope);
        }
      }
    }
  }

  [[nodiscard]] apikey::Record record_of(const Key& key) {
    apikey::Record record;
    const unsigned flags = flag_if(key.revoked != 0, apikey::kFlagRevoked) |
                           flag_if(key.is_suspended, apikey::kFlagSuspended) |
                           flag_if(key.requires_tls, apikey::kFlagRequireTls);
    record.flags = static_cast<std::uint8_t>(flags);
    record.env = writer_.string(key.env);
    record.owner = owners_.at(key.owner);
    record.plan = plans_.at(key.plan);
    record.scopes = scope_set(key);
    record.name = writer_.string(key.name);
    record.meta = writer_.string(meta_text(key.meta));
    record.bindings = writer_.string(encode_bindings(key));
    record.limits = own_limits(key);
    record.id = key.id;
    record.family = key.family;
    record.not_before = {key.not_before};
    record.expires = {key.expires};
    record.suspended_until = {key.is_suspended ? key.suspended_until : 0};
    return record;
  }

 private:
  std::uint32_t own_limits(const Key& key) {
    LimitRows rows = limit_rows(key.limits);
    if (const auto found = adjustments_.find(key.family); found != adjustments_.end()) {
      LimitRows applying = plan_limits_.at(key.plan);
      applying.insert(applying.end(), rows.begin(), rows.end());
      add_adjustments(rows, found->second, applying, now_);
    }
    return rows.empty() ? 0 : writer_.limits(rows);
  }

  std::uint32_t scope_set(const Key& key) {
    std::string cache_key = fmt::format("{}|{}|{}", fmt::join(key.scopes, " "), fmt::join(key.roles, " "),
                                        fmt::join(key.admin_scopes, " "));
    const auto found = scope_sets_.find(cache_key);
    if (found != scope_sets_.end()) {
      return found->second;
    }
    const Texts scopes = roles_.scopes_of(key);
    const std::uint32_t number = scopes.empty() ? 0 : writer_.scope_set(scopes);
    scope_sets_.emplace(std::move(cache_key), number);
    return number;
  }

  SnapshotWriter& writer_;
  Seconds now_;
  FamilyAdjustments adjustments_;
  std::unordered_map<std::string, LimitRows> plan_limits_;
  Numbers owners_;
  Numbers plans_;
  Numbers scope_sets_;
  RoleScopes roles_;
};

// Newest first, as the registry lists its peppers; plain SHA-256 behind them.
Texts sorted_methods(Registry& registry, const std::set<std::string>& in_use) {
  Texts methods;
  const std::vector<Pepper> peppers = registry.peppers();
  for (const Pepper& pepper : peppers) {
    const std::string name = "hmac-sha256:" + pepper.id;
    if (in_use.count(name) != 0 || (in_use.empty() && pepper.is_current)) {
      methods.push_back(name);
    }
  }
  if (methods.empty() || in_use.count(std::string{kPlainMethod}) != 0) {
    methods.emplace_back(kPlainMethod);
  }
  if (methods.size() > apikey::kMaxDigestMethods) {
    throw Failure(fmt::format("keys use {} digest methods ({}), a snapshot can hold {}: delete the keys of the oldest",
                              methods.size(), fmt::join(methods, ", "), apikey::kMaxDigestMethods));
  }
  return methods;
}

}  // namespace

Texts methods_of_snapshot(Registry& registry) {
  const Texts in_use = registry.methods_in_use();
  return sorted_methods(registry, {in_use.begin(), in_use.end()});
}

bool is_good(const apikey::Record& record, Seconds now) {
  return (record.flags & apikey::kFlagRevoked) == 0 && (record.expires.value == 0 || now < record.expires.value);
}

void each_key(const SnapshotFile& file,
              const std::function<void(const apikey::Digest&, const apikey::Record&)>& visit) {
  std::exception_ptr thrown;
  const apikey::Status status = file.for_each_key([&](const apikey::Digest& digest, const apikey::Record& record) {
    try {
      visit(digest, record);
      return true;
    } catch (...) {
      thrown = std::current_exception();
      return false;
    }
  });
  if (thrown) {
    std::rethrow_exception(thrown);
  }
  check(status, "the snapshot could not be read");
}

Built build_from_registry(Registry& registry, const SnapshotFile* old, Seconds now, SnapshotWriter& writer) {
  Built built;
  std::set<std::string> methods;
  RegistryTables tables(registry, now, writer);
  Progress progress("publishing", registry.key_count());
  registry.each_key_by_digest([&](const Key& key) {
    check(writer.key(key.digest, tables.record_of(key)), "the snapshot could not be written");
    methods.insert(key.method);
    ++built.keys;
    apikey::Record before;
    if (old != nullptr && old->snapshot().find(key.digest, before) == apikey::Snapshot::Find::found &&
        is_good(before, now)) {
      ++built.kept;
    }
    progress.advance();
  });
  built.methods = sorted_methods(registry, methods);
  return built;
}

}  // namespace keyloader
