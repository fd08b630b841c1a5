// One changing transaction of the SQLite registry: each change and its audit entry, together or not at all.
// Made by SqliteRegistry only.
#pragma once

#include <unordered_map>

#include "registry/audit_values.hpp"
#include "registry/registry.hpp"
#include "registry/sqlite_db.hpp"

namespace keyloader {

class SqliteChange final : public Change {
 public:
  // Takes the write lock. `registry` reads through the same connection, and so sees what was changed here.
  SqliteChange(Database& database, Registry& registry);

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
  void create(const Key& key, std::string_view action) override;
  void update(const Key& key, std::string_view action) override;
  void remove(const Key& key) override;
  void create(const Pepper& pepper) override;
  void adjust(const Key& key, const Adjustment& adjustment, std::string_view action,
              const std::string& reason) override;
  void adjust(const Owner& owner, const Adjustment& adjustment, std::string_view action,
              const std::string& reason) override;
  void set_prefix(const std::string& prefix) override;
  void rename_store(const std::string& name) override;
  void settle(std::uint64_t keys_in_snapshot) override;
  void give_directory(const std::string& from, const std::string& to) override;
  std::uint64_t next_generation(std::uint64_t at_least, Generation kind, const Json& note) override;
  void archive(const AuditEntry& last, const Json& note) override;
  std::uint64_t erase(const OwnerId& owner) override;
  [[nodiscard]] AuditEnd audit_end() const override { return {.seq = last_seq_, .hash = last_hash_}; }
  std::uint64_t commit() override;

 private:
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
  bool knows_chain_end_ = false;
  bool has_erased_ = false;
  std::uint64_t added_ = 0;  // keys, since count_keys()
  std::uint64_t removed_ = 0;
  std::uint64_t last_seq_ = 0;
  Hash last_hash_{};
  Json actor_;
  AuditValues values_;
  std::unordered_map<std::string, OwnerId> owner_ids_;
  std::string reason_;
};

}  // namespace keyloader
