// Feeding a SnapshotWriter from an older snapshot, less what was revoked, suspended or deleted since.
// Called by publisher.cpp. Must never bring back a key the registry has taken away.
#include "snapshot_copier.hpp"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "apikey/scope_set.hpp"
#include "data_dir.hpp"
#include "progress.hpp"
#include "snapshot_builder.hpp"
#include "snapshot_limits.hpp"

namespace keyloader {
namespace {

using apikey::publish::SnapshotFile;
using apikey::publish::SnapshotWriter;

// The rows of one snapshot, copied into another: old numbers become new ones.
class CopiedTables {
 public:
  CopiedTables(Registry& registry, Seconds now, const apikey::Snapshot& from, SnapshotWriter& to)
      : from_(from), to_(to), now_(now), adjustments_(family_adjustments(registry)) {
    for (const Owner& owner : registry.owners()) {
      owners_today_[owner.id] = {owner, registry.adjustments(owner)};
    }
    apikey::ScopeSet known;
    require(from.known_scopes(known));
    for (auto it = known.begin(); it != known.end(); ++it) {
      to.know_scope(*it);
    }
  }

  // `admin_scopes`: the key's of today. A reserved scope that it does not hold any more does not come back.
  [[nodiscard]] apikey::Record copy(const apikey::Record& old, const Texts& admin_scopes) {
    apikey::Record record = old;
    record.env = text(old.env);
    record.owner = owner(old.owner);
    record.plan = plan(old.plan);
    record.scopes = scopes(old.scopes, admin_scopes);
    record.name = text(old.name);
    record.meta = text(old.meta);
    record.bindings = text(old.bindings);
    record.limits = own_limits(old);
    return record;
  }

 private:
  static void require(bool is_read) {
    if (!is_read) {
      throw Failure("the older snapshot is damaged; nothing was published");
    }
  }

  std::string string_at(std::uint32_t number) {
    std::string_view text;
    require(from_.string(number, text));
    return std::string{text};
  }

  std::uint32_t text(std::uint32_t number) { return number == 0 ? 0 : to_.string(string_at(number)); }

  // Without adjustments: what has been granted and reset since is not rolled back, so today's are taken.
  LimitRows limits(const apikey::LimitList& list) {
    LimitRows limits;
    for (std::size_t i = 0; i < list.size(); ++i) {
      const apikey::LimitRow row = list[i];
      if (row.kind == apikey::LimitKind::adjustment) {
        continue;
      }
      limits.push_back({.name = string_at(row.name),
                        .kind = row.kind,
                        .unit = row.unit,
                        .is_dry_run = row.is_dry_run,
                        .amount = row.amount,
                        .period_ns = row.period_ns,
                        .burst = row.burst});
    }
    return limits;
  }

  std::uint32_t own_limits(const apikey::Record& old) {
    std::span<const std::byte> bytes;
    apikey::LimitList list;
    require(from_.bytes(old.limits, bytes) && apikey::decode_limits(bytes, list));
    LimitRows rows = limits(list);
    if (const auto found = adjustments_.find(old.family); found != adjustments_.end()) {
      apikey::PlanRow plan;
      require(from_.plan(old.plan, plan));
      LimitRows applying = limits(plan.limits);
      applying.insert(applying.end(), rows.begin(), rows.end());
      add_adjustments(rows, found->second, applying, now_);
    }
    return rows.empty() ? 0 : to_.limits(rows);
  }

  std::uint32_t plan(std::uint32_t number) {
    if (number == 0) {
      return 0;
    }
    auto [it, is_new] = plans_.try_emplace(number, 0);
    if (is_new) {
      apikey::PlanRow row;
      require(from_.plan(number, row));
      it->second = to_.plan(string_at(row.name), limits(row.limits));
    }
    return it->second;
  }

  std::uint32_t scopes(std::uint32_t number, const Texts& admin_scopes) {
    if (number == 0) {
      return 0;
    }
    auto [it, is_new] = scopes_.try_emplace({number, admin_scopes}, 0);
    if (is_new) {
      apikey::ScopeSet set;
      require(from_.scopes(number, set));
      Texts held;
      for (auto scope = set.begin(); scope != set.end(); ++scope) {
        const bool is_held_today = std::any_of(admin_scopes.begin(), admin_scopes.end(), [&](const std::string& today) {
          return apikey::scope_grants(today, *scope);
        });
        if (!apikey::is_reserved_scope(*scope) || is_held_today) {
          held.emplace_back(*scope);
        }
      }
      it->second = held.empty() ? 0 : to_.scope_set(held);
    }
    return it->second;
  }

  std::uint32_t owner(std::uint32_t number) {
    auto [it, is_new] = owners_.try_emplace(number, 0);
    if (is_new) {
      apikey::OwnerRow row;
      require(from_.owner(number, row));
      it->second = to_.owner(owner_of(row));
    }
    return it->second;
  }

  apikey::publish::Owner owner_of(const apikey::OwnerRow& row) {
    apikey::publish::Owner owner;
    owner.name = string_at(row.name);
    std::copy(row.id.begin(), row.id.end(), owner.id.begin());
    owner.meta = row.meta == 0 ? std::string{} : string_at(row.meta);
    owner.is_suspended = row.is_suspended;
    owner.suspended_until = row.suspended_until;
    owner.limits = limits(row.limits);
    OwnerId id{};
    std::transform(row.id.begin(), row.id.end(), id.begin(),
                   [](std::byte b) { return std::to_integer<std::uint8_t>(b); });
    const auto today = owners_today_.find(id);
    if (today != owners_today_.end()) {
      owner.is_suspended = today->second.owner.is_suspended;
      owner.suspended_until = {today->second.owner.suspended_until};
      add_adjustments(owner.limits, today->second.adjustments, LimitRows(owner.limits), now_);
    }
    return owner;
  }

  const apikey::Snapshot& from_;
  SnapshotWriter& to_;
  struct OwnerToday {
    Owner owner;
    Adjustments adjustments;
  };

  Seconds now_;
  FamilyAdjustments adjustments_;
  std::map<OwnerId, OwnerToday> owners_today_;
  std::unordered_map<std::uint32_t, std::uint32_t> owners_;
  std::unordered_map<std::uint32_t, std::uint32_t> plans_;
  std::map<std::pair<std::uint32_t, Texts>, std::uint32_t> scopes_;
};

}  // namespace

Copied build_from_snapshot(Registry& registry, const SnapshotFile& old, SnapshotWriter& writer) {
  Copied result;
  CopiedTables tables(registry, wall_clock(), old.snapshot(), writer);
  Progress progress("rolling back", old.meta().keys);
  each_key(old, [&](const apikey::Digest& digest, const apikey::Record& before) {
    progress.advance();
    const std::optional<Key> today = registry.key(digest);
    if (!today) {
      ++result.dropped;
      return;
    }
    apikey::Record record = tables.copy(before, today->admin_scopes);
    const unsigned state =
        flag_if(today->revoked != 0, apikey::kFlagRevoked) | flag_if(today->is_suspended, apikey::kFlagSuspended);
    const unsigned kept = record.flags & ~unsigned{apikey::kFlagSuspended};
    record.flags = static_cast<std::uint8_t>(kept | state);
    record.suspended_until = {today->is_suspended ? today->suspended_until : 0};
    result.refused += record.flags != before.flags && state != 0 ? 1U : 0U;
    check(writer.key(digest, record), "the snapshot could not be written");
    ++result.keys;
  });
  return result;
}

}  // namespace keyloader
