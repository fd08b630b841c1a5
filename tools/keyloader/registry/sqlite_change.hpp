// One changing transaction of the SQLite registry: each change and its audit entry, together or not at all.
// Made by SqliteRegistry only.
#pragma once

#include <optional>
#include <set>
#include <unordered_map>

#include "registry/approvals.hpp"
#include "registry/audit_values.hpp"
#include "registry/policy.hpp"
#include "registry/registry.hpp"
#include "registry/sqlite_db.hpp"

namespace keyloader {

class SqliteChange final : public Change {
 public:
  // Takes the write lock. `registry` reads through the same connection, and so sees what was changed here.
  SqliteChange(Database& database, Registry& registry, const Caller& caller = {});

  // The first change of all: gives a new registry its id and its home.
  void found(const apikey::RegistryId& id, const Home& home);

  // Throws Failure unless the registry is at home at `here`. One that has none yet is from now on.
  void require_home(const Home& here);
  void adopt(const Home& here, const std::string& reason);
  // From here on the chain has version 2. Written where a registry of before is taken over.
  void begin_chain_version_2();

  void because(const std::string& reason) override { reason_ = reason; }
  void create(const Owner& owner) override;
  void update(const Owner& owner, std::string_view action) override;
  void remove(const Owner& owner) override;
  void create(const Plan& plan) override;
  void update(const Plan& plan, std::string_view action) override;
  void remove(const Plan& plan) override;
  void create(const Role& role) override;
  void update(const Role& role, std::string_view action) override;
  void remove(const Role& role) override;
  void require_allowed(const Key& key, std::string_view action) override;
  void create(const Key& key, std::string_view action) override;
  void update(const Key& key, std::string_view action) override;
  void remove(const Key& key) override;
  void create(const Pepper& pepper) override;
  void adjust(const Key& key, const Adjustment& adjustment, std::string_view action,
              const std::string& reason) override;
  void adjust(const Owner& owner, const Adjustment& adjustment, std::string_view action,
              const std::string& reason) override;
  void set(const Policy& policy) override;
  void approve(std::uint64_t request) override;
  void refuse(std::uint64_t request) override;
  [[nodiscard]] Texts needs() const override { return is_approving_ ? Texts{} : decision_.needs; }
  void set_prefix(const std::string& prefix) override;
  void rename_store(const std::string& name) override;
  void settle(std::uint64_t keys_in_snapshot) override;
  void give_directory(const std::string& from, const std::string& to) override;
  void let_read(const std::string& from, const std::string& to) override;
  std::uint64_t next_generation(std::uint64_t at_least, Generation kind, const Json& note) override;
  void archive(const AuditEntry& last, const Json& note) override;
  std::uint64_t erase(const OwnerId& owner) override;
  [[nodiscard]] AuditEnd audit_end() const override { return {.seq = last_seq_, .hash = last_hash_}; }
  std::uint64_t commit() override;

 private:
  // What changed one object, so that a request can be shown and done later.
  struct Step {
    std::string_view kind;    // `key`
    std::string_view action;  // `set`
    std::string_view object;
    const Json& before;
    const Json& after;
    Json more{};  // what the states do not say
  };

  // All that is changed is judged first.
  Judge& judge();
  void take(const Decision& decision, const Step& step);
  void take(std::string_view action);  // what cannot wait for a second person
  void require(const Decision& decision) const;
  void apply_all(const Approval& approval);
  void apply(const Json& step);
  void apply_to_key(const Json& step, const std::string& action);
  void apply_to_quota(const Json& step, const std::string& action);
  template <typename Object>
  void apply_to(const Json& step, const std::string& action, std::optional<Object> now, Object made);
  [[nodiscard]] Approval require_pending(std::uint64_t request);
  void require_asker(const Approval& approval);
  std::uint64_t ask();
  void audit_request(std::string_view action, std::uint64_t number, const Json& steps, Json after);
  void note_broken_glass();

  // `owner`: whom the entry is about; null: nobody.
  void audit(std::string_view action, std::string_view object, const Json& before, const Json& after,
             const OwnerId* owner = nullptr);
  [[nodiscard]] const OwnerId* owner_id(const std::string& name);
  void set_home(const Home& home);
  void load_chain_end();
  void count_keys();
  void write_over_erased();

  Database& database_;
  Registry& registry_;
  Transaction transaction_;
  Caller caller_;
  std::optional<Judge> judge_;
  Decision decision_;  // of all changes so far
  Json steps_ = Json::array();
  bool has_too_many_steps_ = false;
  bool is_approving_ = false;
  std::uint64_t first_seq_ = 0;  // of the entries of this change
  Approvals approvals_;
  bool knows_chain_end_ = false;
  std::optional<OwnerId> erased_;
  std::set<OwnerId> owners_;  // whom the entries so far are about; two of them at most
  std::uint64_t added_ = 0;   // keys, since count_keys()
  std::uint64_t removed_ = 0;
  std::uint64_t last_seq_ = 0;
  Hash last_hash_{};
  Json actor_;
  AuditValues values_;
  std::unordered_map<std::string, OwnerId> owner_ids_;
  std::string reason_;
};

}  // namespace keyloader
