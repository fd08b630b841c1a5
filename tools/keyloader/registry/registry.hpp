// The source of truth behind keyloader: one interface, so that SQLite (a single machine) and a database server (a
// fleet) can stand behind the same commands. Used by every command but `snapshot install|seal|verify`.
//
// Reading is free; changing goes through a Change: one transaction that takes the write lock at once, writes an audit
// entry beside each change, and does nothing at all unless commit() is reached.
// Everything here throws Failure with a sentence when it cannot be done.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "apikey/meta.hpp"
#include "registry/home.hpp"
#include "registry/model.hpp"

namespace keyloader {

// Refused or failed: exit code 1. what() is a whole sentence without "keyloader:".
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The policy does not allow a change (registry/policy.hpp). reasons(): why, without what to do about it.
class NotAllowed : public Failure {
 public:
  NotAllowed(const std::string& reasons, const std::string& remedy)
      : Failure("not allowed: " + reasons + remedy), reasons_(reasons) {}
  [[nodiscard]] const std::string& reasons() const { return reasons_; }

 private:
  std::string reasons_;
};

// Used wrongly: exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct RegistryInfo {
  apikey::RegistryId id{};
  std::uint64_t generation = 0;       // the highest ever given to a snapshot; 0: none yet
  std::uint64_t published_seq = 0;    // changes up to this audit entry are in that generation
  std::uint64_t rolled_back_seq = 0;  // the audit entry of the newest rollback; 0: there was none
  std::uint64_t changed_seq = 0;      // the newest audit entry that wants to be published
  // Keys ever added to and removed from the snapshots: added - removed + withheld is the number of keys. `withheld`:
  // those that the newest generation, a rollback, leaves out; below 0 when it holds keys that were deleted meanwhile.
  std::uint64_t added = 0;
  std::uint64_t removed = 0;
  std::int64_t withheld = 0;
  Seconds created = 0;
  std::string name;              // of the store: what people call it
  apikey::HashSeed hash_seed{};  // random, the same for ever
  Home home;
  std::string prefix;  // of new keys; empty: nobody chose one
  // The last audit entry that was archived; the first of those here follows it. 0: none was.
  std::uint64_t archived_seq = 0;
  Seconds archived_time = 0;
  Hash archived_hash{};
  int schema_version = 0;
};

// The change was not made: it waits for a second person, by this request. Thrown by Change::commit(), which has written
// the request.
class WaitsForApproval : public std::exception {
 public:
  WaitsForApproval(std::uint64_t request, Texts needs) : request_(request), needs_(std::move(needs)) {}
  [[nodiscard]] std::uint64_t request() const { return request_; }
  [[nodiscard]] const Texts& needs() const { return needs_; }
  [[nodiscard]] const char* what() const noexcept override { return "the change waits for a second person"; }

 private:
  std::uint64_t request_;
  Texts needs_;
};

// Number and hash of an audit entry: all entries before it follow from them.
struct AuditEnd {
  std::uint64_t seq = 0;
  Hash hash{};
};

// Each change is judged by the policy before it is made (registry/policy.hpp); what that refuses throws Failure.
// REQUIRES of all update_*: the object exists. Each call writes one audit entry; `action` is its second word
// (`suspend` becomes `key.suspend`).
class Change {
 public:
  Change() = default;
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;
  virtual ~Change() = default;  // rolls back what was not committed

  // Why: kept in the entries of all that follows.
  virtual void because(const std::string& reason) = 0;

  virtual void create(const Owner& owner) = 0;
  virtual void update(const Owner& owner, std::string_view action) = 0;
  virtual void remove(const Owner& owner) = 0;

  virtual void create(const Plan& plan) = 0;
  virtual void update(const Plan& plan, std::string_view action) = 0;
  virtual void remove(const Plan& plan) = 0;

  virtual void create(const Role& role) = 0;
  virtual void update(const Role& role, std::string_view action) = 0;
  virtual void remove(const Role& role) = 0;

  // Throws NotAllowed where the policy or the caller's rights refuse such a new key. Its owner may be yet to make.
  virtual void require_allowed(const Key& key, std::string_view action) = 0;
  virtual void create(const Key& key, std::string_view action) = 0;
  virtual void update(const Key& key, std::string_view action) = 0;
  virtual void remove(const Key& key) = 0;

  virtual void create(const Pepper& pepper) = 0;  // becomes the current one when it says so

  // What was done to a quota of the key's family, or of the owner. `action`: `reset` or `grant`; the entry is about the
  // key or the owner and keeps the reason.
  virtual void adjust(const Key& key, const Adjustment& adjustment, std::string_view action,
                      const std::string& reason) = 0;
  virtual void adjust(const Owner& owner, const Adjustment& adjustment, std::string_view action,
                      const std::string& reason) = 0;

  virtual void set(const Policy& policy) = 0;
  // Does what a request asks for, or ends it. Throws Failure for one that is no longer pending, and where the caller
  // may not decide it.
  virtual void approve(std::uint64_t request) = 0;
  virtual void refuse(std::uint64_t request) = 0;
  // What of this change needs a second person; empty: nothing, and commit() makes it.
  [[nodiscard]] virtual Texts needs() const = 0;

  // How new keys begin, where nothing else is said.
  virtual void set_prefix(const std::string& prefix) = 0;
  virtual void rename_store(const std::string& name) = 0;

  // Counts as added or removed what makes added - removed the number of keys in the next snapshot.
  virtual void settle(std::uint64_t keys_in_snapshot) = 0;

  // The next generation is max(the registry's, at_least) + 1. `publish`: everything changed so far will be in it.
  // `rollback`: an older content, so what has changed still wants to be published.
  enum class Generation : std::uint8_t { publish, rollback };
  virtual std::uint64_t next_generation(std::uint64_t at_least, Generation kind, const Json& note) = 0;

  // Removes the entries up to `last`, which are kept in a file; `note`: which. What they say of deletions stays.
  virtual void archive(const AuditEntry& last, const Json& note) = 0;

  // Erases the personal values of the audit's entries about an owner that is no more, and all requests for approval
  // that have ended. commit() then writes the file anew, also where nothing was left to erase.
  // RETURNS: how many values there were; 0: no entry was written.
  virtual std::uint64_t erase(const OwnerId& owner) = 0;
  // Writes down that the node's directory was given to another user. Nothing else changes, and no policy is asked.
  virtual void give_directory(const std::string& from, const std::string& to) = 0;
  // The last audit entry of this change; REQUIRES: one was written.
  [[nodiscard]] virtual AuditEnd audit_end() const = 0;

  // RETURNS: the number of the last audit entry written. Throws WaitsForApproval where it only wrote a request.
  virtual std::uint64_t commit() = 0;

  // Writes down which group may read the registry ("none"), like give_directory().
  virtual void let_read(const std::string& from, const std::string& to) = 0;
};

// An owner that was deleted, or never made as a request for it was refused.
struct AbsentOwner {
  OwnerId id{};
  bool is_erased = false;
};

class Registry {
 public:
  Registry() = default;
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;
  virtual ~Registry() = default;

  // Throws Failure for a copy of the registry, which belongs elsewhere (registry/home.hpp).
  [[nodiscard]] virtual std::unique_ptr<Change> begin_change() = 0;
  // The change that makes such a copy the registry: from it on it belongs here. REQUIRES: a reason.
  [[nodiscard]] virtual std::unique_ptr<Change> begin_adoption(const std::string& reason) = 0;
  // Who asks for the changes to come; before it is called, whoever may write the file.
  virtual void act_as(const Caller& caller) = 0;
  // Where this registry is, which need not be where it belongs.
  [[nodiscard]] virtual Home here() const = 0;

  // Runs `read` on one unchanging state of the registry, whatever others change meanwhile.
  virtual void with_stable_view(const std::function<void()>& read) = 0;

  [[nodiscard]] virtual RegistryInfo info() = 0;

  [[nodiscard]] virtual std::optional<Owner> owner(std::string_view name) = 0;
  [[nodiscard]] virtual std::vector<Owner> owners() = 0;
  [[nodiscard]] virtual std::optional<Plan> plan(std::string_view name) = 0;
  [[nodiscard]] virtual std::vector<Plan> plans() = 0;
  [[nodiscard]] virtual std::optional<Role> role(std::string_view name) = 0;
  [[nodiscard]] virtual std::vector<Role> roles() = 0;
  [[nodiscard]] virtual std::vector<Pepper> peppers() = 0;  // newest first

  [[nodiscard]] virtual std::optional<Key> key(const apikey::KeyId& id) = 0;
  [[nodiscard]] virtual std::optional<Key> key(const apikey::Digest& digest) = 0;
  // In order of creation. `visit` returns false to stop.
  virtual void each_key(const KeyFilter& filter, const std::function<bool(const Key&)>& visit) = 0;
  // Those keys of a plan that have limits of their own, in no order.
  virtual void each_key_with_limits(const Plan& plan, const std::function<void(const Key&)>& visit) = 0;
  // All keys in ascending order of their digests: what a snapshot is built from.
  virtual void each_key_by_digest(const std::function<void(const Key&)>& visit) = 0;
  [[nodiscard]] virtual std::uint64_t key_count() = 0;
  [[nodiscard]] virtual std::uint64_t key_count_of(const Owner& owner) = 0;
  [[nodiscard]] virtual Adjustments adjustments(const apikey::KeyId& family) = 0;
  [[nodiscard]] virtual Adjustments adjustments(const Owner& owner) = 0;
  // Those of all families, one family behind the other.
  virtual void each_adjustment(
      const std::function<void(const apikey::KeyId& family, const Adjustment& adjustment)>& visit) = 0;
  // Names of the methods that keys have, in no order.
  [[nodiscard]] virtual Texts methods_in_use() = 0;

  [[nodiscard]] virtual Policy policy() = 0;
  [[nodiscard]] virtual std::optional<Approval> approval(std::uint64_t request) = 0;
  [[nodiscard]] virtual std::vector<Approval> approvals() = 0;  // oldest first

  // When the object (the id of a key, a name) was last deleted; `action`: `key.delete`. 0: never.
  [[nodiscard]] virtual Seconds deleted(std::string_view object, std::string_view action) = 0;
  // All deletions of this kind, oldest first: of an entry object, time and before.
  virtual void each_deletion(std::string_view action, const std::function<void(const AuditEntry&)>& visit) = 0;

  // Entries of before chain version 2 that name this owner; their values stand in the chain itself.
  [[nodiscard]] virtual std::uint64_t unerasable_entries(std::string_view owner) = 0;
  // Throws Failure unless the values beside this entry, which is as_chained, are those that were hashed, or were
  // erased.
  virtual void check_audit_values(const AuditEntry& entry) = 0;
  // Throws Failure unless entries account for all values that were erased.
  virtual void check_audit_erasures() = 0;

  // Oldest first; those that were archived are no longer here.
  virtual void each_audit_entry(const AuditFilter& filter, const std::function<void(const AuditEntry&)>& visit) = 0;
  // Owners that are not here, of whom the audit has values: those with this name or reason, or this id.
  [[nodiscard]] virtual std::vector<AbsentOwner> absent_owners(std::string_view text) = 0;
};

}  // namespace keyloader
