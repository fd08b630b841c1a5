// Reading the whole audit from its first entry: only so is it known whose a key was and which plan it had. Of
// what was archived, the first later entry about a key says it, or the registry, where there is none.
// Called by `usage statement`. Must never leave out an entry because it is not understood.
#include "usage_history.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "audit.hpp"
#include "change_words.hpp"

namespace keyloader {
namespace {

constexpr std::array<std::string_view, 13> kFields = {
    "owner",           "plan",    "limits",  "granted",    "granted_until", "last_reset", "reason", "suspended",
    "suspended_until", "revoked", "expires", "not_before", "revoked_reason"};

std::string text_field(const Json& object, std::string_view name) {
  const Json value = field_of(object, name);
  return value.is_string() ? value.get<std::string>() : std::string{};
}

class Reader {
 public:
  Reader(std::string owner, Seconds from, Seconds to) : owner_(std::move(owner)), from_(from), to_(to) {}

  // Of a key that is older than the entries that are here.
  void know(const Key& key) { plans_had_.insert(key.plan); }

  void read(const AuditEntry& entry) {
    if (entry.time >= to_) {
      return;
    }
    const bool is_ours = is_about_owner(entry);
    if (entry.time >= from_ && (is_ours || is_of(entry, "plan."))) {
      candidates_.push_back(entry);
    }
    if (is_of(entry, "key.")) {
      follow_key(entry);
    }
  }

  std::vector<AuditEntry> finish() {
    std::vector<AuditEntry> entries;
    for (const auto& [key, plan] : plans_) {
      plans_had_.insert(plan);
    }
    for (AuditEntry& entry : candidates_) {
      if (!is_of(entry, "plan.") || plans_had_.count(entry.object) != 0) {
        entries.push_back(std::move(entry));
      }
    }
    return entries;
  }

 private:
  static bool is_of(const AuditEntry& entry, std::string_view family) {
    return std::string_view{entry.action}.substr(0, family.size()) == family;
  }

  [[nodiscard]] bool is_about_owner(const AuditEntry& entry) const {
    if (is_of(entry, "owner.")) {
      return entry.object == owner_;
    }
    if (is_of(entry, "key.") || is_of(entry, "quota.")) {
      return entry.object == owner_ || plans_.count(entry.object) != 0 || text_field(entry.before, "owner") == owner_ ||
             text_field(entry.after, "owner") == owner_;
    }
    return false;
  }

  // Which plan each of the owner's keys has; what a key had in the window is kept.
  void follow_key(const AuditEntry& entry) {
    if (text_field(entry.before, "owner") == owner_) {
      plans_.try_emplace(entry.object, text_field(entry.before, "plan"));
    }
    const auto known = plans_.find(entry.object);
    if (known != plans_.end() && entry.time >= from_) {
      plans_had_.insert(known->second);
    }
    if (text_field(entry.after, "owner") == owner_) {
      plans_[entry.object] = text_field(entry.after, "plan");
    } else if (known != plans_.end()) {
      plans_.erase(known);
    }
  }

  std::string owner_;
  Seconds from_;
  Seconds to_;
  std::map<std::string, std::string> plans_;
  std::set<std::string> plans_had_;
  std::vector<AuditEntry> candidates_;
};

// What shows that a key's entry bears on use; others' entries always do.
bool bears_on_use(const AuditEntry& entry) {
  return entry.action.substr(0, 4) != "key." || !change_text(entry).empty();
}

// "2026-12" of a time in November.
std::string month_after(Seconds time) {
  const std::string text = time_text(time);  // 2026-11-28T…
  const int year = std::stoi(text.substr(0, 4));
  const int month = std::stoi(text.substr(5, 2));
  return month == 12 ? fmt::format("{:04}-01", year + 1) : fmt::format("{:04}-{:02}", year, month + 1);
}

// The entries as they are hashed, each against the one before it.
void check_chain(Registry& registry, const RegistryInfo& info, UsageHistory& history) {
  history.audit_entries = info.archived_seq;
  history.last_hash = info.archived_hash;
  const auto is_right = [&](const AuditEntry& entry) {
    try {
      AuditChain(history.audit_entries, history.last_hash).add(entry);
      registry.check_audit_values(entry);
      return true;
    } catch (const Failure&) {
      return false;
    }
  };
  registry.each_audit_entry({.as_chained = true}, [&](const AuditEntry& entry) {
    if (history.broken_at == 0 && !is_right(entry)) {
      history.broken_at = entry.seq;
    }
    history.audit_entries = entry.seq;
    history.last_hash = entry.hash;
  });
}

}  // namespace

UsageHistory history_of(Registry& registry, const std::string& owner, Seconds from, Seconds to) {
  const RegistryInfo info = registry.info();
  if (info.archived_seq != 0 && from <= info.archived_time) {
    throw Failure(fmt::format(
        "entries of the audit up to {} are archived, and a statement from {} on needs them: the first month of "
        "which there is one is {}. For an earlier one run this with --dir on a backup of the directory from "
        "before; or take the counts from `keyloader usage`, and the changes from the file of the archive",
        time_text(info.archived_time), time_text(from), month_after(info.archived_time)));
  }
  Reader reader(owner, from, to);
  if (info.archived_seq != 0) {
    registry.each_key({.owner = owner, .env = {}, .role = {}}, [&](const Key& key) {
      if (key.created <= info.archived_time) {
        reader.know(key);
      }
      return true;
    });
  }
  registry.each_audit_entry({}, [&](const AuditEntry& entry) { reader.read(entry); });
  UsageHistory history{.entries = reader.finish()};
  check_chain(registry, info, history);
  history.entries.erase(std::remove_if(history.entries.begin(), history.entries.end(),
                                       [](const AuditEntry& entry) { return !bears_on_use(entry); }),
                        history.entries.end());
  return history;
}

std::string change_text(const AuditEntry& entry) { return change_words(entry, kFields); }

}  // namespace keyloader
