// Reading the registry from SQLite, and opening and making it. Writing is in sqlite_change.cpp.
// Called through Registry by every command. Must never print a digest.
#include "registry/sqlite_registry.hpp"

#include <fmt/format.h>
#include <openssl/rand.h>

#include "registry/audit_values.hpp"
#include "registry/fields.hpp"
#include "registry/migrations.hpp"
#include "registry/sqlite_change.hpp"
#include "registry/sqlite_rows.hpp"

namespace keyloader {
namespace {

class SqliteRegistry final : public Registry {
 public:
  SqliteRegistry(const std::filesystem::path& file, bool create)
      : database_(file, create), values_(database_), here_(home_of(file)) {}

  [[nodiscard]] Database& database() { return database_; }

  std::unique_ptr<Change> begin_change() override {
    auto change = std::make_unique<SqliteChange>(database_, *this, caller_);
    change->require_home(here_);
    return change;
  }

  std::unique_ptr<Change> begin_adoption(const std::string& reason) override {
    auto change = std::make_unique<SqliteChange>(database_, *this, caller_);
    change->adopt(here_, reason);
    return change;
  }

  void act_as(const Caller& caller) override { caller_ = caller; }
  Home here() const override { return here_; }

  void with_stable_view(const std::function<void()>& read) override {
    Transaction transaction(database_, Transaction::Kind::read);
    read();
    transaction.commit();
  }

  RegistryInfo info() override {
    Query query = database_.query(
        "SELECT registry_id, generation, published_seq, created, rolled_back_seq, added, removed, withheld,"
        " coalesce((SELECT seq FROM audit WHERE action NOT IN ('publish', 'snapshot.rollback', 'audit.archive',"
        "                                                          'audit.version', 'owner.erase', 'registry.set', "
        "'registry.owner', 'registry.reader', 'policy.set', 'policy.break_glass', 'approval.request', "
        "'approval.approve', "
        "'approval.refuse')"
        "           ORDER BY seq DESC LIMIT 1), 0), home_directory, home_machine, home_host,"
        " archived_seq, archived_time, archived_hash, store_name, hash_seed, prefix FROM info");
    if (!query.step()) {
      throw Failure("registry.db is damaged (it has no id); restore it from a backup");
    }
    RegistryInfo info;
    query.bytes(0, info.id);
    info.generation = query.count(1);
    info.published_seq = query.count(2);
    info.created = query.number(3);
    info.rolled_back_seq = query.count(4);
    info.added = query.count(5);
    info.removed = query.count(6);
    info.withheld = query.number(7);
    info.changed_seq = query.count(8);
    info.home = {.directory = query.text(9), .machine = query.text(10), .host = query.text(11)};
    info.archived_seq = query.count(12);
    info.archived_time = query.number(13);
    query.bytes(14, info.archived_hash);
    info.name = query.text(15);
    query.bytes(16, info.hash_seed);
    info.prefix = query.text(17);
    info.schema_version = schema_version(database_);
    return info;
  }

  Policy policy() override {
    Query query = database_.query("SELECT policy FROM info");
    try {
      return query.step() ? policy_from(Json::parse(query.view(0))) : Policy{};
    } catch (const Json::exception&) {
      throw Failure("the policy in registry.db is damaged, so nothing is changed; restore registry.db from a backup");
    }
  }

  std::optional<Approval> approval(std::uint64_t request) override { return Approvals(database_, *this).find(request); }
  std::vector<Approval> approvals() override { return Approvals(database_, *this).all(); }

  std::optional<Owner> owner(std::string_view name) override {
    Query query = database_.query(
        "SELECT num, name, id, email, team, meta, suspended, suspended_until, created FROM owners WHERE name = ?");
    return query.bind(name).step() ? std::optional(read_owner(database_, query)) : std::nullopt;
  }

  std::vector<Owner> owners() override {
    std::vector<Owner> owners;
    Query query = database_.query(
        "SELECT num, name, id, email, team, meta, suspended, suspended_until, created FROM owners ORDER BY name");
    while (query.step()) {
      owners.push_back(read_owner(database_, query));
    }
    return owners;
  }

  std::optional<Plan> plan(std::string_view name) override {
    Query query = database_.query("SELECT num, name, created FROM plans WHERE name = ?");
    return query.bind(name).step() ? std::optional(read_plan(database_, query)) : std::nullopt;
  }

  std::vector<Plan> plans() override {
    std::vector<Plan> plans;
    Query query = database_.query("SELECT num, name, created FROM plans ORDER BY name");
    while (query.step()) {
      plans.push_back(read_plan(database_, query));
    }
    return plans;
  }

  std::optional<Role> role(std::string_view name) override {
    Query query = database_.query("SELECT name, scopes, created FROM roles WHERE name = ?");
    return query.bind(name).step() ? std::optional(read_role(query)) : std::nullopt;
  }

  std::vector<Role> roles() override {
    std::vector<Role> roles;
    Query query = database_.query("SELECT name, scopes, created FROM roles ORDER BY name");
    while (query.step()) {
      roles.push_back(read_role(query));
    }
    return roles;
  }

  std::vector<Pepper> peppers() override {
    std::vector<Pepper> peppers;
    Query query =
        database_.query("SELECT id, created, current FROM peppers ORDER BY current DESC, created DESC, id DESC");
    while (query.step()) {
      peppers.push_back({.id = query.text(0), .created = query.number(1), .is_current = query.number(2) != 0});
    }
    return peppers;
  }

  std::optional<Key> key(const apikey::KeyId& id) override {
    Query query = database_.query("SELECT * FROM key_rows WHERE id = ?");
    return query.bind(id.bytes).step() ? std::optional(whole_key(query)) : std::nullopt;
  }

  std::optional<Key> key(const apikey::Digest& digest) override {
    Query query = database_.query("SELECT * FROM key_rows WHERE digest = ?");
    return query.bind(digest.bytes).step() ? std::optional(whole_key(query)) : std::nullopt;
  }

  void each_key(const KeyFilter& filter, const std::function<bool(const Key&)>& visit) override {
    if (!filter.owner.empty() && !filter.ref.empty()) {
      key_of_ref(filter, visit);
      return;
    }
    Query query = database_.query(
        "SELECT * FROM key_rows k WHERE (?1 = '' OR owner = (SELECT num FROM owners WHERE name = ?1))"
        " AND (?2 = '' OR env = ?2)"
        " AND (?3 = '' OR EXISTS(SELECT 1 FROM key_roles r WHERE r.digest = k.digest"
        "                        AND r.role = (SELECT num FROM roles WHERE name = ?3)))"
        " AND (?4 = '' OR name = ?4) AND (?5 = '' OR hint = ?5) AND (?6 = '' OR ref = ?6) ORDER BY id");
    query.bind(filter.owner).bind(filter.env).bind(filter.role).bind(filter.name).bind(filter.hint).bind(filter.ref);
    while (query.step()) {
      if (!visit(whole_key(query))) {
        return;
      }
    }
  }

  void each_key_with_limits(const Plan& plan, const std::function<void(const Key&)>& visit) override {
    Query query =
        database_.query("SELECT * FROM key_rows WHERE digest IN (SELECT of FROM key_limits) AND plan_name = ?");
    query.bind(plan.name);
    while (query.step()) {
      visit(whole_key(query));
    }
  }

  void each_key_by_digest(const std::function<void(const Key&)>& visit) override {
    Query keys = database_.query("SELECT * FROM key_rows ORDER BY digest");
    // Roles and limits come in the same order: three readers walk side by side.
    Query roles = database_.query(
        "SELECT k.digest, r.name FROM key_roles k CROSS JOIN roles r ON r.num = k.role ORDER BY k.digest, r.name");
    Query limits = database_.query(
        "SELECT of, name, kind, unit, amount, period_ns, burst, dry_run FROM key_limits ORDER BY of, name");
    bool has_role = roles.step();
    bool has_limit = limits.step();
    while (keys.step()) {
      Key key = read_key(keys);
      const std::string_view digest = keys.view(0);
      for (; has_role && roles.view(0) == digest; has_role = roles.step()) {
        key.roles.push_back(roles.text(1));
      }
      for (; has_limit && limits.view(0) == digest; has_limit = limits.step()) {
        key.limits.push_back(read_limit(limits));
      }
      visit(key);
    }
  }

  std::uint64_t key_count() override {
    Query query = database_.query("SELECT count(*) FROM keys");
    query.step();
    return query.count(0);
  }

  std::uint64_t key_count_of(const Owner& owner) override {
    Query query = database_.query("SELECT count(*) FROM keys WHERE owner = (SELECT num FROM owners WHERE id = ?)");
    query.bind(owner.id).step();
    return query.count(0);
  }

  Adjustments adjustments(const apikey::KeyId& family) override {
    Query query = database_.query(
        "SELECT family, quota, granted, granted_until, last_reset FROM key_adjustments WHERE family = ?"
        " ORDER BY quota");
    return read_adjustments(query.bind(family.bytes));
  }

  Adjustments adjustments(const Owner& owner) override {
    Query query = database_.query(
        "SELECT owner, quota, granted, granted_until, last_reset FROM owner_adjustments"
        " WHERE owner = (SELECT num FROM owners WHERE id = ?) ORDER BY quota");
    return read_adjustments(query.bind(owner.id));
  }

  void each_adjustment(const std::function<void(const apikey::KeyId&, const Adjustment&)>& visit) override {
    Query query = database_.query(
        "SELECT family, quota, granted, granted_until, last_reset FROM key_adjustments ORDER BY family, quota");
    while (query.step()) {
      apikey::KeyId family;
      query.bytes(0, family.bytes);
      visit(family, read_adjustment(query));
    }
  }

  Texts methods_in_use() override {
    Texts methods;
    Query query = database_.query("SELECT DISTINCT pepper FROM keys");
    while (query.step()) {
      methods.push_back(method_name(query, 0));
    }
    return methods;
  }

  Seconds deleted(std::string_view object, std::string_view action) override {
    Query query = database_.query(
        "WITH wanted(object) AS (SELECT ?1 UNION ALL SELECT hashed FROM audit_values WHERE value = ?1)"
        " SELECT max(coalesce((SELECT max(time) FROM audit WHERE object IN wanted AND action = ?2), 0),"
        " coalesce((SELECT max(time) FROM archived_deletions WHERE object IN wanted AND action = ?2), 0))");
    query.bind(object).bind(action).step();
    return query.number(0);
  }

  void each_deletion(std::string_view action, const std::function<void(const AuditEntry&)>& visit) override {
    Query query = database_.query(
        "SELECT object, time, before, 0 FROM archived_deletions WHERE action = ?1"
        " UNION ALL SELECT object, time, before, seq FROM audit WHERE action = ?1 ORDER BY time");
    query.bind(action);
    while (query.step()) {
      AuditEntry entry;
      entry.action = action;
      entry.object = query.text(0);
      entry.time = query.number(1);
      entry.before = Json::parse(query.view(2), nullptr, false);
      entry.seq = query.count(3);
      values_.show(entry);
      visit(entry);
    }
  }

  std::vector<AbsentOwner> absent_owners(std::string_view text) override {
    std::vector<AbsentOwner> owners;
    Query query = database_.query(
        "SELECT owner, min(erased <> 0) FROM audit_values WHERE (value = ?1 OR owner = ?2) AND owner IS NOT NULL"
        " AND owner NOT IN (SELECT id FROM owners) GROUP BY owner");
    query.bind(text);
    const auto id = owner_id_from(text);
    if (id) {
      query.bind(*id);
    } else {
      query.bind_null();
    }
    while (query.step()) {
      AbsentOwner owner{.is_erased = query.number(1) != 0};
      query.bytes(0, owner.id);
      owners.push_back(owner);
    }
    return owners;
  }

  std::uint64_t unerasable_entries(std::string_view owner) override {
    Query query = database_.query(
        "SELECT (SELECT count(*) FROM audit WHERE (object = ?1 AND substr(action, 1, 6) IN ('owner.', 'quota.')"
        "                                          AND action <> 'owner.erase')"
        "        OR json_extract(before, '$.owner') = ?1 OR json_extract(after, '$.owner') = ?1)"
        " + (SELECT count(*) FROM archived_deletions WHERE (object = ?1 AND action = 'owner.delete')"
        "    OR json_extract(before, '$.owner') = ?1)");
    query.bind(owner).step();
    return query.count(0);
  }

  void check_audit_values(const AuditEntry& entry) override { values_.check(entry); }
  void check_audit_erasures() override { values_.check_all(); }

  void each_audit_entry(const AuditFilter& filter, const std::function<void(const AuditEntry&)>& visit) override {
    Query query = database_.query(
        "WITH objects(text) AS (SELECT ?1 UNION ALL SELECT hashed FROM audit_values WHERE value = ?1),"
        " users(text) AS (SELECT ?3 UNION ALL SELECT hashed FROM audit_values WHERE value = ?3 AND owner IS NULL)"
        " SELECT * FROM (SELECT seq, time, actor, action, object, before, after, prev_hash, hash FROM audit"
        " WHERE (?1 = '' OR object IN objects) AND (?2 = '' OR action = ?2"
        "        OR substr(action, 1, length(?2) + 1) = ?2 || '.')"
        " AND (?3 = '' OR json_extract(actor, '$.user') IN users OR json_extract(actor, '$.sudo_user') IN users"
        "      OR json_extract(actor, '$.admin') = ?3"
        "      OR json_extract(actor, '$.admin') IN (SELECT value FROM json_each(?7)))"
        " AND time >= ?4 AND seq >= ?5 ORDER BY seq DESC LIMIT ?6) ORDER BY seq");
    query.bind(filter.object).bind(filter.action).bind(filter.actor).bind(filter.since).bind(filter.first);
    query.bind(filter.most == 0 ? std::int64_t{-1} : static_cast<std::int64_t>(filter.most));
    query.bind(Json(keys_of(filter.actor)).dump());
    while (query.step()) {
      AuditEntry entry = read_audit_entry(query);
      if (!filter.as_chained) {
        values_.show(entry);
      }
      visit(entry);
    }
  }

 private:
  // Of an owner, those that were deleted too; of anybody else none.
  Texts keys_of(const std::string& owner) {
    Texts keys;
    if (owner.empty()) {
      return keys;
    }
    each_key({.owner = owner, .env = {}, .role = {}}, [&](const Key& key) {
      keys.push_back(text_of(key.id));
      return true;
    });
    each_deletion("key.delete", [&](const AuditEntry& entry) {
      if (field_of(entry.before, "owner") == owner) {
        keys.push_back(entry.object);
      }
    });
    return keys;
  }

  // An import asks this for each line, so it has a statement of its own, which finds the key by its index.
  void key_of_ref(const KeyFilter& filter, const std::function<bool(const Key&)>& visit) {
    Query query = database_.query(
        "SELECT * FROM key_rows WHERE owner = (SELECT num FROM owners WHERE name = ?) AND ref = ? AND ref <> ''");
    if (!query.bind(filter.owner).bind(filter.ref).step()) {
      return;
    }
    const Key key = whole_key(query);
    const auto fits = [](const std::string& wanted, const std::string& is) { return wanted.empty() || wanted == is; };
    const bool has_role =
        filter.role.empty() || std::find(key.roles.begin(), key.roles.end(), filter.role) != key.roles.end();
    if (has_role && fits(filter.env, key.env) && fits(filter.name, key.name) && fits(filter.hint, key.hint)) {
      visit(key);
    }
  }

  static Adjustments read_adjustments(Query& query) {
    Adjustments adjustments;
    while (query.step()) {
      adjustments.push_back(read_adjustment(query));
    }
    return adjustments;
  }

  Key whole_key(Query& row) {
    Key key = read_key(row);
    Query roles = database_.query(
        "SELECT r.name FROM key_roles k JOIN roles r ON r.num = k.role WHERE k.digest = ? ORDER BY r.name");
    roles.bind(key.digest.bytes);
    while (roles.step()) {
      key.roles.push_back(roles.text(0));
    }
    Query limits = database_.query(
        "SELECT of, name, kind, unit, amount, period_ns, burst, dry_run FROM key_limits WHERE of = ? ORDER BY name");
    limits.bind(key.digest.bytes);
    while (limits.step()) {
      key.limits.push_back(read_limit(limits));
    }
    return key;
  }

  Database database_;
  AuditValues values_;
  Home here_;
  Caller caller_;
};

}  // namespace

std::unique_ptr<Registry> open_sqlite_registry(const std::filesystem::path& file) {
  auto registry = std::make_unique<SqliteRegistry>(file, false);
  Database& database = registry->database();
  const int version = schema_version(database);
  if (version == 0) {
    throw Failure(fmt::format("{} holds no registry; make one with `keyloader init`", file.string()));
  }
  if (version > newest_schema_version()) {
    throw Failure(fmt::format("{} has schema {}, this keyloader knows schemas up to {}: use the newer keyloader",
                              file.string(), version, newest_schema_version()));
  }
  if (version < newest_schema_version()) {
    SqliteChange change(database, *registry);
    const int before = schema_version(database);  // nobody else is taking it over now
    migrate(database);
    if (before < kAuditValuesSchema) {
      change.begin_chain_version_2();
    }
    change.commit();
  }
  return registry;
}

std::unique_ptr<Registry> create_sqlite_registry(const std::filesystem::path& file,
                                                 const std::function<void(Change&)>& fill) {
  auto registry = std::make_unique<SqliteRegistry>(file, true);
  Database& database = registry->database();
  SqliteChange change(database, *registry);
  if (schema_version(database) != 0) {
    throw Failure(fmt::format("{} is a registry already; nothing was changed", file.string()));
  }
  migrate(database);
  apikey::RegistryId id{};
  if (RAND_bytes(id.data(), static_cast<int>(id.size())) != 1) {
    throw Failure("libcrypto has no random bytes to give");
  }
  change.found(id, registry->here());
  change.create(Plan{.name = std::string{kDefaultPlan}, .limits = {}, .created = wall_clock()});
  fill(change);
  change.commit();
  return registry;
}

}  // namespace keyloader
