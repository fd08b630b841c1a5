// Writing to the SQLite registry: every change with its audit entry, in one transaction.
// Called through Change by the commands. Must never write a secret; an audit entry does not even hold a digest.
#include "registry/sqlite_change.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "registry/sqlite_rows.hpp"

namespace keyloader {
namespace {

std::string dump(const MetaMap& meta) { return Json(meta).dump(); }

void insert_limit(Query& query, const Limit& limit) {
  query.bind(limit.name)
      .bind(static_cast<std::int64_t>(limit.kind))
      .bind(static_cast<std::int64_t>(limit.unit))
      .bind(limit.amount)
      .bind(limit.period_ns)
      .bind(limit.burst.value_or(0))
      .bind(limit.is_dry_run)
      .run();
}

void insert_limits(Database& database, const Owner& owner) {
  for (const Limit& limit : owner.limits) {
    Query query = database.query(
        "INSERT INTO owner_limits(of, name, kind, unit, amount, period_ns, burst, dry_run)"
        " VALUES((SELECT num FROM owners WHERE id = ?), ?, ?, ?, ?, ?, ?, ?)");
    insert_limit(query.bind(owner.id), limit);
  }
}

void insert_limits(Database& database, const Plan& plan) {
  for (const Limit& limit : plan.limits) {
    Query query = database.query(
        "INSERT INTO plan_limits(of, name, kind, unit, amount, period_ns, burst, dry_run)"
        " VALUES((SELECT num FROM plans WHERE name = ?), ?, ?, ?, ?, ?, ?, ?)");
    insert_limit(query.bind(plan.name), limit);
  }
}

void insert_roles_and_limits(Database& database, const Key& key) {
  for (const std::string& role : key.roles) {
    Query query =
        database.query("INSERT INTO key_roles(digest, role) VALUES(?, (SELECT num FROM roles WHERE name = ?))");
    query.bind(key.digest.bytes).bind(role).run();
  }
  for (const Limit& limit : key.limits) {
    Query query = database.query(
        "INSERT INTO key_limits(of, name, kind, unit, amount, period_ns, burst, dry_run)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?)");
    insert_limit(query.bind(key.digest.bytes), limit);
  }
}

// The parameters that creating and updating a key have in common, in the order of both statements.
void bind_common(Query& query, const Key& key) {
  query.bind(key.plan).bind(key.name).bind(key.env).bind(join_words(key.scopes)).bind(join_words(key.allow_ip));
  query.bind(join_words(key.allow_origin)).bind(join_words(key.allow_method)).bind(join_words(key.allow_host));
  query.bind(key.requires_tls).bind(dump(key.meta)).bind(key.not_before).bind(key.expires).bind(key.is_suspended);
  query.bind(key.suspended_until).bind(key.revoked).bind(key.revoked_reason).bind(join_words(key.admin_scopes));
  query.bind(key.ref);
}

// As the audit tells it: whose quota, and what stands for it now.
Json adjustment_entry(const Json& subject, const Adjustment& adjustment) {
  Json json = to_json(adjustment);
  json.update(subject);
  return json;
}

Adjustment adjustment_of(const Adjustments& adjustments, const std::string& quota) {
  const auto found = std::find_if(adjustments.begin(), adjustments.end(),
                                  [&](const Adjustment& adjustment) { return adjustment.quota == quota; });
  return found != adjustments.end() ? *found : Adjustment{.quota = quota};
}

std::string action_of(std::string_view kind, std::string_view action) {
  return std::string{kind}.append(".").append(action);
}

[[noreturn]] void fail_vanished(const std::string& name) {
  throw Failure(name + " is not in the registry any more; nothing was changed");
}

}  // namespace

SqliteChange::SqliteChange(Database& database, Registry& registry)
    : database_(database),
      registry_(registry),
      transaction_(database, Transaction::Kind::write),
      actor_(current_actor()),
      values_(database) {}

void SqliteChange::found(const apikey::RegistryId& id, const Home& home) {
  database_.query("INSERT INTO info(one, registry_id, created, hash_seed) VALUES(1, ?, ?, randomblob(16))")
      .bind(id)
      .bind(wall_clock())
      .run();
  set_home(home);
  audit("registry.init", hex(id), nullptr, {{"registry_id", hex(id)}, {"audit_version", kAuditVersion}});
}

void SqliteChange::set_home(const Home& home) {
  Query query = database_.query("UPDATE info SET home_directory = ?, home_machine = ?, home_host = ?");
  query.bind(home.directory).bind(home.machine).bind(home.host).run();
}

void SqliteChange::require_home(const Home& here) {
  const Home home = registry_.info().home;
  if (!is_at_home(home, here)) {
    throw Failure(
        fmt::format("{}: it can be read, not changed. If it is to be the registry from now on, and the other is not "
                    "used any more, run `keyloader registry adopt --reason TEXT`",
                    elsewhere_text(home, here)));
  }
  if (home.directory.empty()) {
    set_home(here);
  }
}

void SqliteChange::adopt(const Home& here, const std::string& reason) {
  const RegistryInfo info = registry_.info();
  const auto entry = [](const Home& home) {
    return Json{{"directory", home.directory}, {"host", home.host}, {"machine", home.machine}};
  };
  Json after = entry(here);
  after["reason"] = reason;
  set_home(here);
  audit("registry.adopt", hex(info.id), entry(info.home), after);
}

void SqliteChange::begin_chain_version_2() {
  audit("audit.version", std::to_string(kAuditVersion), {{"audit_version", 1}}, {{"audit_version", kAuditVersion}});
}

void SqliteChange::set_prefix(const std::string& prefix) {
  const RegistryInfo info = registry_.info();
  database_.query("UPDATE info SET prefix = ?").bind(prefix).run();
  audit("registry.set", hex(info.id), {{"prefix", info.prefix}}, {{"prefix", prefix}});
}

void SqliteChange::give_directory(const std::string& from, const std::string& to) {
  audit("registry.owner", hex(registry_.info().id), {{"user", from}}, {{"user", to}});
}

// The name stands in the snapshot, so this wants to be published.
void SqliteChange::rename_store(const std::string& name) {
  const RegistryInfo info = registry_.info();
  database_.query("UPDATE info SET store_name = ?").bind(name).run();
  audit("registry.rename", hex(info.id), {{"name", info.name}}, {{"name", name}});
}

void SqliteChange::load_chain_end() {
  Query query = database_.query("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1");
  if (query.step()) {
    last_seq_ = query.count(0);
    query.bytes(1, last_hash_);
  }
  knows_chain_end_ = true;
}

const OwnerId* SqliteChange::owner_id(const std::string& name) {
  const auto [found, is_new] = owner_ids_.try_emplace(name);
  if (is_new) {
    Query query = database_.query("SELECT id FROM owners WHERE name = ?");
    if (!query.bind(name).step()) {
      fail_vanished(name);
    }
    query.bytes(0, found->second);
  }
  return &found->second;
}

void SqliteChange::audit(std::string_view action, std::string_view object, const Json& before, const Json& after,
                         const OwnerId* owner) {
  if (!knows_chain_end_) {
    load_chain_end();
  }
  AuditEntry entry;
  entry.seq = last_seq_ + 1;
  entry.time = wall_clock();
  entry.actor = actor_;
  entry.action = action;
  entry.object = object;
  entry.before = before;
  entry.after = after;
  if (!reason_.empty()) {
    entry.after["reason"] = reason_;  // null becomes an object
  }
  const ChainedTexts texts = values_.hide(entry, owner);
  entry.object = texts.object;
  entry.prev_hash = last_hash_;
  entry.hash = chain_hash(entry, {.actor = texts.actor, .before = texts.before, .after = texts.after});
  Query query = database_.query(
      "INSERT INTO audit(seq, time, actor, action, object, before, after, prev_hash, hash)"
      " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)");
  query.bind(entry.seq).bind(entry.time).bind(texts.actor).bind(action).bind(entry.object).bind(texts.before);
  query.bind(texts.after).bind(entry.prev_hash).bind(entry.hash).run();
  last_seq_ = entry.seq;
  last_hash_ = entry.hash;
}

void SqliteChange::create(const Owner& owner) {
  Query query = database_.query(
      "INSERT INTO owners(name, id, email, team, meta, suspended, suspended_until, created)"
      " VALUES(?, ?, ?, ?, ?, ?, ?, ?)");
  query.bind(owner.name).bind(owner.id).bind(owner.email).bind(owner.team).bind(dump(owner.meta));
  query.bind(owner.is_suspended).bind(owner.suspended_until).bind(owner.created).run();
  insert_limits(database_, owner);
  audit("owner.create", owner.name, nullptr, to_json(owner), &owner.id);
}

void SqliteChange::update(const Owner& owner, std::string_view action) {
  const auto before = registry_.owner(owner.name);
  if (!before) {
    fail_vanished(owner.name);
  }
  Query query = database_.query(
      "UPDATE owners SET email = ?, team = ?, meta = ?, suspended = ?, suspended_until = ? WHERE id = ?");
  query.bind(owner.email).bind(owner.team).bind(dump(owner.meta)).bind(owner.is_suspended);
  query.bind(owner.suspended_until).bind(owner.id).run();
  database_.query("DELETE FROM owner_limits WHERE of = (SELECT num FROM owners WHERE id = ?)").bind(owner.id).run();
  insert_limits(database_, owner);
  audit(action_of("owner", action), owner.name, to_json(*before), to_json(owner), &owner.id);
}

void SqliteChange::remove(const Owner& owner) {
  database_.query("DELETE FROM owners WHERE id = ?").bind(owner.id).run();
  owner_ids_.erase(owner.name);
  audit("owner.delete", owner.name, to_json(owner), nullptr, &owner.id);
}

void SqliteChange::create(const Plan& plan) {
  database_.query("INSERT INTO plans(name, created) VALUES(?, ?)").bind(plan.name).bind(plan.created).run();
  insert_limits(database_, plan);
  audit("plan.create", plan.name, nullptr, to_json(plan));
}

void SqliteChange::update(const Plan& plan, std::string_view action) {
  const auto before = registry_.plan(plan.name);
  if (!before) {
    fail_vanished(plan.name);
  }
  database_.query("DELETE FROM plan_limits WHERE of = (SELECT num FROM plans WHERE name = ?)").bind(plan.name).run();
  insert_limits(database_, plan);
  audit(action_of("plan", action), plan.name, to_json(*before), to_json(plan));
}

void SqliteChange::remove(const Plan& plan) {
  database_.query("DELETE FROM plans WHERE name = ?").bind(plan.name).run();
  audit("plan.delete", plan.name, to_json(plan), nullptr);
}

void SqliteChange::create(const Role& role) {
  Query query = database_.query("INSERT INTO roles(name, scopes, created) VALUES(?, ?, ?)");
  query.bind(role.name).bind(join_words(role.scopes)).bind(role.created).run();
  audit("role.create", role.name, nullptr, to_json(role));
}

void SqliteChange::update(const Role& role, std::string_view action) {
  const auto before = registry_.role(role.name);
  if (!before) {
    fail_vanished(role.name);
  }
  database_.query("UPDATE roles SET scopes = ? WHERE name = ?").bind(join_words(role.scopes)).bind(role.name).run();
  audit(action_of("role", action), role.name, to_json(*before), to_json(role));
}

void SqliteChange::remove(const Role& role) {
  database_.query("DELETE FROM roles WHERE name = ?").bind(role.name).run();
  audit("role.delete", role.name, to_json(role), nullptr);
}

void SqliteChange::create(const Key& key, std::string_view action) {
  Query query = database_.query(
      "INSERT INTO keys(plan, name, env, scopes, allow_ip, allow_origin, allow_method, allow_host, require_tls, meta,"
      " not_before, expires, suspended, suspended_until, revoked, revoked_reason, admin_scopes, ref, owner, digest, id,"
      " family, prefix, hint, created, pepper) VALUES((SELECT num FROM plans WHERE name = ?), ?, ?, ?, ?, ?, ?, ?, ?,"
      " ?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT num FROM owners WHERE name = ?), ?, ?, ?, ?, ?, ?, ?)");
  bind_common(query, key);
  query.bind(key.owner).bind(key.digest.bytes).bind(key.id.bytes).bind(key.family.bytes).bind(key.prefix);
  query.bind(key.hint).bind(key.created);
  if (key.method == kPlainMethod) {
    query.bind_null();
  } else {
    query.bind(key.method.substr(key.method.find(':') + 1));
  }
  query.run();
  ++added_;
  insert_roles_and_limits(database_, key);
  audit(action_of("key", action), text_of(key.id), nullptr, to_json(key), owner_id(key.owner));
}

void SqliteChange::update(const Key& key, std::string_view action) {
  const auto before = registry_.key(key.id);
  if (!before) {
    fail_vanished(text_of(key.id));
  }
  Query query = database_.query(
      "UPDATE keys SET plan = (SELECT num FROM plans WHERE name = ?), name = ?, env = ?, scopes = ?, allow_ip = ?,"
      " allow_origin = ?, allow_method = ?, allow_host = ?, require_tls = ?, meta = ?, not_before = ?, expires = ?,"
      " suspended = ?, suspended_until = ?, revoked = ?, revoked_reason = ?, admin_scopes = ?, ref = ? WHERE digest"
      " = ?");
  bind_common(query, key);
  query.bind(key.digest.bytes).run();
  database_.query("DELETE FROM key_roles WHERE digest = ?").bind(key.digest.bytes).run();
  database_.query("DELETE FROM key_limits WHERE of = ?").bind(key.digest.bytes).run();
  insert_roles_and_limits(database_, key);
  audit(action_of("key", action), text_of(key.id), to_json(*before), to_json(key), owner_id(key.owner));
}

void SqliteChange::remove(const Key& key) {
  database_.query("DELETE FROM keys WHERE digest = ?").bind(key.digest.bytes).run();
  Query query = database_.query(
      "DELETE FROM key_adjustments WHERE family = ?1 AND NOT EXISTS(SELECT 1 FROM keys WHERE family = ?1)");
  query.bind(key.family.bytes).run();
  ++removed_;
  audit("key.delete", text_of(key.id), to_json(key), nullptr, owner_id(key.owner));
}

void SqliteChange::create(const Pepper& pepper) {
  if (pepper.is_current) {
    database_.query("UPDATE peppers SET current = 0").run();
  }
  Query query = database_.query("INSERT INTO peppers(id, created, current) VALUES(?, ?, ?)");
  query.bind(pepper.id).bind(pepper.created).bind(pepper.is_current).run();
  audit("pepper.create", pepper.id, nullptr, to_json(pepper));
}

void SqliteChange::adjust(const Key& key, const Adjustment& adjustment, std::string_view action,
                          const std::string& reason) {
  const Json subject{{"key", text_of(key.id)}, {"family", text_of(key.family)}, {"owner", key.owner}};
  const Adjustment before = adjustment_of(registry_.adjustments(key.family), adjustment.quota);
  Query query = database_.query(
      "INSERT OR REPLACE INTO key_adjustments(family, quota, granted, granted_until, last_reset) VALUES(?, ?, ?, ?, "
      "?)");
  query.bind(key.family.bytes).bind(adjustment.quota).bind(adjustment.granted).bind(adjustment.granted_until);
  query.bind(adjustment.last_reset).run();
  Json after = adjustment_entry(subject, adjustment);
  after["reason"] = reason;
  audit(action_of("quota", action), text_of(key.id), adjustment_entry(subject, before), after, owner_id(key.owner));
}

void SqliteChange::adjust(const Owner& owner, const Adjustment& adjustment, std::string_view action,
                          const std::string& reason) {
  const Json subject{{"owner", owner.name}};
  const Adjustment before = adjustment_of(registry_.adjustments(owner), adjustment.quota);
  Query query = database_.query(
      "INSERT OR REPLACE INTO owner_adjustments(owner, quota, granted, granted_until, last_reset)"
      " VALUES((SELECT num FROM owners WHERE id = ?), ?, ?, ?, ?)");
  query.bind(owner.id).bind(adjustment.quota).bind(adjustment.granted).bind(adjustment.granted_until);
  query.bind(adjustment.last_reset).run();
  Json after = adjustment_entry(subject, adjustment);
  after["reason"] = reason;
  audit(action_of("quota", action), owner.name, adjustment_entry(subject, before), after, &owner.id);
}

// One statement for all keys of an import, not one for each.
void SqliteChange::count_keys() {
  if (added_ != 0 || removed_ != 0) {
    Query query = database_.query("UPDATE info SET added = added + ?, removed = removed + ?");
    query.bind(added_).bind(removed_).run();
    added_ = 0;
    removed_ = 0;
  }
}

void SqliteChange::settle(std::uint64_t keys_in_snapshot) {
  count_keys();
  Query query = database_.query(
      "UPDATE info SET added = added + max(0, ?1 - (added - removed)), removed = removed + max(0, added - removed - "
      "?1),"
      " withheld = (SELECT count(*) FROM keys) - ?1");
  query.bind(keys_in_snapshot).run();
}

std::uint64_t SqliteChange::next_generation(std::uint64_t at_least, Generation kind, const Json& note) {
  count_keys();
  const std::uint64_t before = registry_.info().generation;
  const std::uint64_t generation = std::max(before, at_least) + 1;
  Json after = note;
  after["generation"] = generation;
  const bool is_publish = kind == Generation::publish;
  audit(is_publish ? "publish" : "snapshot.rollback", std::to_string(generation), {{"generation", before}}, after);
  Query query = database_.query(
      "UPDATE info SET generation = ?1, published_seq = iif(?2, ?3, published_seq),"
      " rolled_back_seq = iif(?2, rolled_back_seq, ?3)");
  query.bind(generation).bind(is_publish).bind(last_seq_).run();
  return generation;
}

void SqliteChange::archive(const AuditEntry& last, const Json& note) {
  database_
      .query(
          "INSERT OR IGNORE INTO archived_deletions SELECT action, object, time, before FROM audit WHERE seq <= ? AND "
          "substr(action, -7) = '.delete'")
      .bind(last.seq)
      .run();
  audit("audit.archive", std::to_string(last.seq), nullptr, note);
  database_.query("DELETE FROM audit WHERE seq <= ?").bind(last.seq).run();
  Query query = database_.query("UPDATE info SET archived_seq = ?, archived_time = ?, archived_hash = ?");
  query.bind(last.seq).bind(last.time).bind(last.hash).run();
}

std::uint64_t SqliteChange::erase(const OwnerId& owner) {
  Query count = database_.query("SELECT count(*) FROM audit_values WHERE owner = ? AND erased = 0");
  count.bind(owner).step();
  const std::uint64_t values = count.count(0);
  if (values == 0) {
    return 0;
  }
  // Its own entry first: what is erased holds its number.
  audit("owner.erase", hex(owner), nullptr, {{"values", values}});
  Query query =
      database_.query("UPDATE audit_values SET salt = NULL, value = NULL, erased = ? WHERE owner = ? AND erased = 0");
  query.bind(last_seq_).bind(owner).run();
  has_erased_ = true;
  return values;
}

// What was erased stands in the database and its journal until the journal has been written back.
void SqliteChange::write_over_erased() {
  database_.execute("PRAGMA busy_timeout=2000");
  Query query = database_.query("PRAGMA wal_checkpoint(TRUNCATE)");
  query.step();
  if (query.number(0) != 0) {
    throw Failure(
        "the audit does not have the values any more, but another process is reading registry.db, so they still stand "
        "in its files. Any keyloader command removes them once that process has ended");
  }
}

std::uint64_t SqliteChange::commit() {
  count_keys();
  transaction_.commit();
  if (has_erased_) {
    write_over_erased();
  }
  return last_seq_;
}

}  // namespace keyloader
