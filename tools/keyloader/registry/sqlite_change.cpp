// Writing to the SQLite registry: every change with its audit entry, in one transaction.
// Called through Change by the commands. Must never write a secret; an audit entry does not even hold a digest.
#include "registry/sqlite_change.hpp"

#include <fmt/format.h>
#include <syslog.h>

#include <algorithm>
#include <map>

#include "disk_full.hpp"
#include "registry/fields.hpp"
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
  query.bind(key.ref).bind(join_words(key.may_grant)).bind(key.teams.empty() ? std::string{} : Json(key.teams).dump());
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

// The owner that all steps of a request are about.
struct Subject {
  std::string name;
  std::optional<OwnerId> id;  // where a step has it, as the owner may not be there yet
};

// RETURNS: nothing for several owners, or none.
std::optional<Subject> subject_of(const Json& steps) {
  std::map<std::string, std::optional<OwnerId>> owners;
  for (const Json& step : steps) {
    const bool is_owner = step.at("kind") == "owner";
    for (const char* state : {"before", "after"}) {
      const std::string name = string_of(field_of(step.at(state), is_owner ? "name" : "owner"));
      const auto id = is_owner ? owner_id_from(string_of(field_of(step.at(state), "id"))) : std::nullopt;
      if (!name.empty()) {
        auto& known = owners[name];
        known = id ? id : known;
      }
    }
  }
  return owners.size() == 1 ? std::optional(Subject{.name = owners.begin()->first, .id = owners.begin()->second})
                            : std::nullopt;
}

// Whoever asked: the owner of an administrator's key, or a user of the machine.
std::string asker_of(const Approval& approval) {
  return approval.owner.empty() ? user_of(approval.actor) : approval.owner;
}

[[noreturn]] void fail_vanished(const std::string& name) {
  throw Failure(name + " is not in the registry any more; nothing was changed");
}

}  // namespace

SqliteChange::SqliteChange(Database& database, Registry& registry, const Caller& caller)
    : database_(database),
      registry_(registry),
      transaction_(database, Transaction::Kind::write),
      caller_(caller),
      approvals_(database, registry),
      actor_(current_actor()),
      values_(database) {
  if (caller_.admin) {
    actor_["admin"] = text_of(*caller_.admin);
  }
}

// What is to wait for a second person is undone up to here.
Judge& SqliteChange::judge() {
  if (!judge_) {
    judge_.emplace(registry_, caller_);
    if (judge_->policy().asks_second_person()) {
      database_.execute("SAVEPOINT asked");
    }
  }
  return *judge_;
}

void SqliteChange::require(const Decision& decision) const {
  const bool is_against = !decision.refused.empty() || (!decision.needs.empty() && !is_approving_);
  if (is_against && caller_.breaks_glass && reason_.empty()) {
    throw UsageError("--break-glass passes over the policy, so say why with --reason: the audit keeps it");
  }
  if (!decision.refused.empty() && !caller_.breaks_glass) {
    throw NotAllowed(fmt::format("{}", fmt::join(decision.refused, "; ")),
                     caller_.admin
                         ? ""
                         : ". `keyloader policy show` lists the rules; in an emergency --break-glass --reason "
                           "TEXT passes over them");
  }
}

void SqliteChange::require_allowed(const Key& key, std::string_view action) {
  require(judge().judge(action_of("key", action), nullptr, &key));
}

void SqliteChange::take(const Decision& decision, const Step& step) {
  if (judge_->is_idle()) {
    return;
  }
  require(decision);
  decision_.add(decision);
  if (!judge_->policy().asks_second_person() || caller_.breaks_glass || is_approving_) {
    return;
  }
  has_too_many_steps_ = has_too_many_steps_ || steps_.size() == kMostSteps;
  if (!has_too_many_steps_) {
    Json json = step.more.is_object() ? step.more : Json::object();
    json["kind"] = step.kind;
    json["action"] = step.action;
    json["object"] = step.object;
    json["before"] = step.before;
    json["after"] = step.after;
    steps_.push_back(std::move(json));
  }
}

void SqliteChange::take(std::string_view action) {
  const Decision decision = judge().judge(action);
  take(decision, {.kind = "registry", .action = action, .object = {}, .before = nullptr, .after = nullptr});
}

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
  reason_ = reason;
  take("registry.adopt");
  set_home(here);
  audit("registry.adopt", hex(info.id), entry(info.home), after);
}

void SqliteChange::begin_chain_version_2() {
  audit("audit.version", std::to_string(kAuditVersion), {{"audit_version", 1}}, {{"audit_version", kAuditVersion}});
}

void SqliteChange::set_prefix(const std::string& prefix) {
  const RegistryInfo info = registry_.info();
  const Json before{{"prefix", info.prefix}};
  const Json after{{"prefix", prefix}};
  const std::string id = hex(info.id);
  take(judge().judge("registry.set"),
       {.kind = "registry", .action = "set", .object = id, .before = before, .after = after});
  database_.query("UPDATE info SET prefix = ?").bind(prefix).run();
  audit("registry.set", id, before, after);
}

void SqliteChange::give_directory(const std::string& from, const std::string& to) {
  audit("registry.owner", hex(registry_.info().id), {{"user", from}}, {{"user", to}});
}

void SqliteChange::let_read(const std::string& from, const std::string& to) {
  audit("registry.reader", hex(registry_.info().id), {{"group", from}}, {{"group", to}});
}

// The name stands in the snapshot, so this wants to be published.
void SqliteChange::rename_store(const std::string& name) {
  const RegistryInfo info = registry_.info();
  const Json before{{"name", info.name}};
  const Json after{{"name", name}};
  const std::string id = hex(info.id);
  take(judge().judge("registry.rename"),
       {.kind = "registry", .action = "rename", .object = id, .before = before, .after = after});
  database_.query("UPDATE info SET store_name = ?").bind(name).run();
  audit("registry.rename", id, before, after);
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
  if (owner != nullptr && owners_.size() < 2) {
    owners_.insert(*owner);
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
  first_seq_ = first_seq_ == 0 ? entry.seq : first_seq_;
}

void SqliteChange::create(const Owner& owner) {
  const Json after = to_json(owner);
  take(judge().judge("owner.create", nullptr, &owner),
       {.kind = "owner", .action = "create", .object = owner.name, .before = nullptr, .after = after});
  Query query = database_.query(
      "INSERT INTO owners(name, id, email, team, meta, suspended, suspended_until, created)"
      " VALUES(?, ?, ?, ?, ?, ?, ?, ?)");
  query.bind(owner.name).bind(owner.id).bind(owner.email).bind(owner.team).bind(dump(owner.meta));
  query.bind(owner.is_suspended).bind(owner.suspended_until).bind(owner.created).run();
  insert_limits(database_, owner);
  audit("owner.create", owner.name, nullptr, after, &owner.id);
}

void SqliteChange::update(const Owner& owner, std::string_view action) {
  const auto before = registry_.owner(owner.name);
  if (!before) {
    fail_vanished(owner.name);
  }
  const Json was = to_json(*before);
  const Json is = to_json(owner);
  take(judge().judge(action_of("owner", action), &*before, &owner),
       {.kind = "owner", .action = action, .object = owner.name, .before = was, .after = is});
  Query query = database_.query(
      "UPDATE owners SET email = ?, team = ?, meta = ?, suspended = ?, suspended_until = ? WHERE id = ?");
  query.bind(owner.email).bind(owner.team).bind(dump(owner.meta)).bind(owner.is_suspended);
  query.bind(owner.suspended_until).bind(owner.id).run();
  database_.query("DELETE FROM owner_limits WHERE of = (SELECT num FROM owners WHERE id = ?)").bind(owner.id).run();
  insert_limits(database_, owner);
  audit(action_of("owner", action), owner.name, was, is, &owner.id);
}

void SqliteChange::remove(const Owner& owner) {
  const Json before = to_json(owner);
  take(judge().judge("owner.delete", &owner, nullptr),
       {.kind = "owner", .action = "delete", .object = owner.name, .before = before, .after = nullptr});
  database_.query("DELETE FROM owners WHERE id = ?").bind(owner.id).run();
  owner_ids_.erase(owner.name);
  audit("owner.delete", owner.name, before, nullptr, &owner.id);
}

void SqliteChange::create(const Plan& plan) {
  const Json after = to_json(plan);
  take(judge().judge("plan.create", nullptr, &plan),
       {.kind = "plan", .action = "create", .object = plan.name, .before = nullptr, .after = after});
  database_.query("INSERT INTO plans(name, created) VALUES(?, ?)").bind(plan.name).bind(plan.created).run();
  insert_limits(database_, plan);
  audit("plan.create", plan.name, nullptr, after);
}

void SqliteChange::update(const Plan& plan, std::string_view action) {
  const auto before = registry_.plan(plan.name);
  if (!before) {
    fail_vanished(plan.name);
  }
  const Json was = to_json(*before);
  const Json is = to_json(plan);
  take(judge().judge(action_of("plan", action), &*before, &plan),
       {.kind = "plan", .action = action, .object = plan.name, .before = was, .after = is});
  database_.query("DELETE FROM plan_limits WHERE of = (SELECT num FROM plans WHERE name = ?)").bind(plan.name).run();
  insert_limits(database_, plan);
  audit(action_of("plan", action), plan.name, was, is);
}

void SqliteChange::remove(const Plan& plan) {
  const Json before = to_json(plan);
  take(judge().judge("plan.delete", &plan, nullptr),
       {.kind = "plan", .action = "delete", .object = plan.name, .before = before, .after = nullptr});
  database_.query("DELETE FROM plans WHERE name = ?").bind(plan.name).run();
  audit("plan.delete", plan.name, before, nullptr);
}

void SqliteChange::create(const Role& role) {
  const Json after = to_json(role);
  take(judge().judge("role.create", nullptr, &role),
       {.kind = "role", .action = "create", .object = role.name, .before = nullptr, .after = after});
  Query query = database_.query("INSERT INTO roles(name, scopes, created) VALUES(?, ?, ?)");
  query.bind(role.name).bind(join_words(role.scopes)).bind(role.created).run();
  audit("role.create", role.name, nullptr, after);
}

void SqliteChange::update(const Role& role, std::string_view action) {
  const auto before = registry_.role(role.name);
  if (!before) {
    fail_vanished(role.name);
  }
  const Json was = to_json(*before);
  const Json is = to_json(role);
  take(judge().judge(action_of("role", action), &*before, &role),
       {.kind = "role", .action = action, .object = role.name, .before = was, .after = is});
  database_.query("UPDATE roles SET scopes = ? WHERE name = ?").bind(join_words(role.scopes)).bind(role.name).run();
  audit(action_of("role", action), role.name, was, is);
}

void SqliteChange::remove(const Role& role) {
  const Json before = to_json(role);
  take(judge().judge("role.delete", &role, nullptr),
       {.kind = "role", .action = "delete", .object = role.name, .before = before, .after = nullptr});
  database_.query("DELETE FROM roles WHERE name = ?").bind(role.name).run();
  audit("role.delete", role.name, before, nullptr);
}

void SqliteChange::create(const Key& key, std::string_view action) {
  const Json after = to_json(key);
  const std::string id = text_of(key.id);
  take(judge().judge(action_of("key", action), nullptr, &key), {.kind = "key",
                                                                .action = action,
                                                                .object = id,
                                                                .before = nullptr,
                                                                .after = after,
                                                                .more = {{"digest", hex(key.digest.bytes)}}});
  Query query = database_.query(
      "INSERT INTO keys(plan, name, env, scopes, allow_ip, allow_origin, allow_method, allow_host, require_tls, meta,"
      " not_before, expires, suspended, suspended_until, revoked, revoked_reason, admin_scopes, ref, may_grant, teams,"
      " owner, digest, id, family, prefix, hint, created, pepper) VALUES((SELECT num FROM plans WHERE name = ?), ?, ?, "
      "?,"
      " ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT num FROM owners WHERE name = ?), ?, ?, ?, ?, ?, ?, ?)");
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
  audit(action_of("key", action), id, nullptr, after, owner_id(key.owner));
}

void SqliteChange::update(const Key& key, std::string_view action) {
  const auto before = registry_.key(key.id);
  if (!before) {
    fail_vanished(text_of(key.id));
  }
  const Json was = to_json(*before);
  const Json is = to_json(key);
  const std::string id = text_of(key.id);
  take(judge().judge(action_of("key", action), &*before, &key),
       {.kind = "key", .action = action, .object = id, .before = was, .after = is});
  Query query = database_.query(
      "UPDATE keys SET plan = (SELECT num FROM plans WHERE name = ?), name = ?, env = ?, scopes = ?, allow_ip = ?,"
      " allow_origin = ?, allow_method = ?, allow_host = ?, require_tls = ?, meta = ?, not_before = ?, expires = ?,"
      " suspended = ?, suspended_until = ?, revoked = ?, revoked_reason = ?, admin_scopes = ?, ref = ?, may_grant = ?,"
      " teams = ? WHERE digest = ?");
  bind_common(query, key);
  query.bind(key.digest.bytes).run();
  database_.query("DELETE FROM key_roles WHERE digest = ?").bind(key.digest.bytes).run();
  database_.query("DELETE FROM key_limits WHERE of = ?").bind(key.digest.bytes).run();
  insert_roles_and_limits(database_, key);
  audit(action_of("key", action), id, was, is, owner_id(key.owner));
}

void SqliteChange::remove(const Key& key) {
  const Json before = to_json(key);
  const std::string id = text_of(key.id);
  take(judge().judge("key.delete", &key, nullptr),
       {.kind = "key", .action = "delete", .object = id, .before = before, .after = nullptr});
  database_.query("DELETE FROM keys WHERE digest = ?").bind(key.digest.bytes).run();
  Query query = database_.query(
      "DELETE FROM key_adjustments WHERE family = ?1 AND NOT EXISTS(SELECT 1 FROM keys WHERE family = ?1)");
  query.bind(key.family.bytes).run();
  ++removed_;
  audit("key.delete", id, before, nullptr, owner_id(key.owner));
}

void SqliteChange::create(const Pepper& pepper) {
  take("pepper.create");
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
  const auto owner = registry_.owner(key.owner);
  if (!owner) {
    fail_vanished(key.owner);
  }
  const std::string id = text_of(key.id);
  const Json before = adjustment_entry(subject, adjustment_of(registry_.adjustments(key.family), adjustment.quota));
  Json after = adjustment_entry(subject, adjustment);
  after["reason"] = reason;
  take(judge().judge_quota(action_of("quota", action), *owner, &key),
       {.kind = "quota", .action = action, .object = id, .before = before, .after = after});
  Query query = database_.query(
      "INSERT OR REPLACE INTO key_adjustments(family, quota, granted, granted_until, last_reset) VALUES(?, ?, ?, ?, "
      "?)");
  query.bind(key.family.bytes).bind(adjustment.quota).bind(adjustment.granted).bind(adjustment.granted_until);
  query.bind(adjustment.last_reset).run();
  audit(action_of("quota", action), id, before, after, owner_id(key.owner));
}

void SqliteChange::adjust(const Owner& owner, const Adjustment& adjustment, std::string_view action,
                          const std::string& reason) {
  const Json subject{{"owner", owner.name}};
  const Json before = adjustment_entry(subject, adjustment_of(registry_.adjustments(owner), adjustment.quota));
  Json after = adjustment_entry(subject, adjustment);
  after["reason"] = reason;
  take(judge().judge_quota(action_of("quota", action), owner, nullptr),
       {.kind = "quota", .action = action, .object = owner.name, .before = before, .after = after});
  Query query = database_.query(
      "INSERT OR REPLACE INTO owner_adjustments(owner, quota, granted, granted_until, last_reset)"
      " VALUES((SELECT num FROM owners WHERE id = ?), ?, ?, ?, ?)");
  query.bind(owner.id).bind(adjustment.quota).bind(adjustment.granted).bind(adjustment.granted_until);
  query.bind(adjustment.last_reset).run();
  audit(action_of("quota", action), owner.name, before, after, &owner.id);
}

void SqliteChange::set(const Policy& policy) {
  const Json before = to_json(registry_.policy());
  const Json after = to_json(policy);
  const std::string id = hex(registry_.info().id);
  take(judge().judge("policy.set"),
       {.kind = "policy", .action = "set", .object = id, .before = before, .after = after});
  database_.query("UPDATE info SET policy = ?").bind(after.dump()).run();
  audit("policy.set", id, before, after);
}

Approval SqliteChange::require_pending(std::uint64_t request) {
  const auto approval = approvals_.find(request);
  if (!approval) {
    throw Failure(fmt::format("there is no request {}; `keyloader approval list` shows them", request));
  }
  if (approval->state != "pending") {
    throw Failure(fmt::format("request {} is {} already{}", request, approval->state,
                              approval->why.empty() ? "" : ": " + approval->why));
  }
  return *approval;
}

// The key that asked may have ended since, which no audit entry says.
void SqliteChange::require_asker(const Approval& approval) {
  if (const auto asked = key_id_from(string_of(field_of(approval.actor, "admin")))) {
    static_cast<void>(Judge(registry_, {.admin = *asked}));  // throws when it is not good now
  }
}

void SqliteChange::approve(std::uint64_t request) {
  const Approval approval = require_pending(request);
  const std::string asker = asker_of(approval);
  if (!caller_.admin) {
    throw Failure("an approval takes the key of a second person: give --key-file, with the key of an administrator");
  }
  if (judge().person() == asker) {
    throw Failure(fmt::format("{} asked for this change, so somebody else has to approve it", asker));
  }
  require_asker(approval);
  is_approving_ = true;
  actor_["request"] = request;
  audit("approval.approve", std::to_string(request), nullptr, {{"request", request}});
  reason_ = approval.reason;
  apply_all(approval);
  approvals_.decide(request, "approved", actor_);
}

void SqliteChange::refuse(std::uint64_t request) {
  const Approval approval = require_pending(request);
  if (!judge().may_refuse(asker_of(approval))) {
    throw NotAllowed(
        fmt::format("{} may refuse own requests only; others take apikey:issue for all teams", judge_->caller_text()),
        "");
  }
  audit_request("approval.refuse", request, approval.operations, {{"request", request}});
  approvals_.decide(request, "refused", actor_);
}

template <typename Object>
void SqliteChange::apply_to(const Json& step, const std::string& action, std::optional<Object> now, Object made) {
  if (step.at("before").is_null()) {
    create(made);
    return;
  }
  if (!now) {
    fail_vanished(string_of(step.at("object")));
  }
  if (step.at("after").is_null()) {
    remove(*now);
    return;
  }
  assign(*now, fields_of(step.at("after")));
  update(*now, action);
}

void SqliteChange::apply_to_key(const Json& step, const std::string& action) {
  if (step.at("before").is_null()) {
    Key key = key_from(step.at("after"));
    if (!apikey::from_hex(string_of(step.at("digest")), key.digest.bytes)) {
      throw Failure("the request holds a key without its digest");
    }
    create(key, action);
    return;
  }
  const auto id = key_id_from(string_of(step.at("object")));
  auto key = id ? registry_.key(*id) : std::nullopt;
  if (!key) {
    fail_vanished(string_of(step.at("object")));
  }
  if (step.at("after").is_null()) {
    remove(*key);
    return;
  }
  assign(*key, fields_of(step.at("after")));
  update(*key, action);
}

void SqliteChange::apply_to_quota(const Json& step, const std::string& action) {
  const Json& after = step.at("after");
  const Adjustment adjustment{.quota = string_of(after.at("quota")),
                              .granted = after.at("granted").get<std::uint64_t>(),
                              .granted_until = seconds_from(string_of(after.at("granted_until"))),
                              .last_reset = seconds_from(string_of(after.at("last_reset")))};
  const std::string reason = string_of(after.at("reason"));
  const auto id = key_id_from(string_of(field_of(after, "key")));
  const auto key = id ? registry_.key(*id) : std::nullopt;
  const auto owner = registry_.owner(string_of(after.at("owner")));
  if (!owner || key.has_value() != id.has_value()) {
    fail_vanished(string_of(step.at("object")));
  }
  if (key) {
    adjust(*key, adjustment, action, reason);
  } else {
    adjust(*owner, adjustment, action, reason);
  }
}

void SqliteChange::apply(const Json& step) {
  const std::string kind = string_of(step.at("kind"));
  const std::string action = string_of(step.at("action"));
  const std::string object = string_of(step.at("object"));
  const Json& after = step.at("after");
  if (kind == "owner") {
    apply_to(step, action, registry_.owner(object), after.is_null() ? Owner{} : owner_from(after));
  } else if (kind == "plan") {
    apply_to(step, action, registry_.plan(object), after.is_null() ? Plan{} : plan_from(after));
  } else if (kind == "role") {
    apply_to(step, action, registry_.role(object), after.is_null() ? Role{} : role_from(after));
  } else if (kind == "key") {
    apply_to_key(step, action);
  } else if (kind == "quota") {
    apply_to_quota(step, action);
  } else if (kind == "policy") {
    set(policy_from(after));
  } else if (kind == "registry" && action == "rename") {
    rename_store(string_of(after.at("name")));
  } else if (kind == "registry" && action == "set") {
    set_prefix(string_of(after.at("prefix")));
  } else {
    throw Failure(fmt::format("the request holds a change that this keyloader does not know, {}.{}", kind, action));
  }
}

// The registry may have changed in ways that do not touch the request, but do not leave room for it.
void SqliteChange::apply_all(const Approval& approval) {
  try {
    for (const Json& step : approval.operations) {
      apply(step);
    }
  } catch (const DoesNotFit&) {
    throw Failure(
        fmt::format("request {0} cannot be made any more: a ref that it gives is taken by now, or what it "
                    "removes is in use. `keyloader approval refuse {0}` ends it, then the command can be "
                    "given again",
                    approval.number));
  } catch (const Json::exception&) {
    throw Failure(
        fmt::format("request {0} holds what is no change; `keyloader approval refuse {0}` ends it", approval.number));
  }
}

// Undoes the change and writes the request for it instead. RETURNS: its number.
std::uint64_t SqliteChange::ask() {
  if (has_too_many_steps_) {
    throw Failure(
        fmt::format("this needs a second person ({}), and it is more than the {} changes that one request "
                    "may hold; do it in parts",
                    fmt::join(decision_.needs, ", "), kMostSteps));
  }
  database_.execute("ROLLBACK TO asked");
  values_.forget();
  owner_ids_.clear();
  knows_chain_end_ = false;
  added_ = 0;
  removed_ = 0;
  approvals_.sweep();
  if (approvals_.is_full()) {
    throw Failure(
        fmt::format("this needs a second person ({}), and as many requests are waiting as may ({}, or {} changes "
                    "in all); `keyloader approval list` shows them. Approve or refuse some first",
                    fmt::join(decision_.needs, ", "), kMostPending, kMostPendingSteps));
  }
  const Seconds now = wall_clock();
  Approval approval;
  approval.created = now;
  approval.ends = now + kApprovalTime;
  approval.actor = actor_;
  approval.owner = judge_->is_admin() ? judge_->person() : std::string{};
  approval.reason = reason_;
  approval.needs = decision_.needs;
  approval.operations = steps_;
  const std::uint64_t number = approvals_.add(approval, caller_.admin ? &*caller_.admin : nullptr);
  if (!subject_of(steps_)) {
    reason_.clear();  // it stands in the entries of the changes, once they are made, each of which is about one owner
  }
  audit_request("approval.request", number, steps_,
                {{"request", number}, {"needs", decision_.needs}, {"changes", steps_.size()}});
  approvals_.set_entry(number, last_seq_);
  return number;
}

// What a request is about goes when its owner is erased.
void SqliteChange::audit_request(std::string_view action, std::uint64_t number, const Json& steps, Json after) {
  const auto subject = subject_of(steps);
  if (!subject) {
    audit(action, std::to_string(number), nullptr, after);
    return;
  }
  std::optional<OwnerId> id = subject->id;
  if (const auto owner = id ? std::nullopt : registry_.owner(subject->name)) {
    id = owner->id;
  }
  after["owner"] = subject->name;
  audit(action, std::to_string(number), nullptr, after, id ? &*id : nullptr);
}

void SqliteChange::note_broken_glass() {
  Texts rules = decision_.rules;
  if (!decision_.needs.empty()) {
    rules.emplace_back("approval");
  }
  // As of a request: the reason goes with the owner, and of several it stands in their entries alone.
  if (owners_.size() > 1) {
    reason_.clear();
  }
  audit("policy.break_glass", std::to_string(first_seq_), nullptr,
        {{"rules", rules}, {"entries", {first_seq_, last_seq_}}}, owners_.size() == 1 ? &*owners_.begin() : nullptr);
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
  if (kind == Generation::rollback) {
    take("snapshot.rollback");
  }
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
  take("audit.archive");
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
  take("owner.erase");
  approvals_.forget_ended();
  erased_ = owner;
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
  return values;
}

// secure_delete clears the cells that go, not the copies that SQLite leaves in the gaps of a page when it splits or
// balances it: only a file that was written anew is free of them. And what was erased stands in the database and its
// journal until the journal has been written back.
void SqliteChange::write_over_erased() {
  const auto fail = [this](const std::string& why) {
    throw Failure(fmt::format(
        "the audit does not have the values any more, but registry.db could not be written anew, so remains "
        "of them may still stand in its free space: {}. Then run `keyloader owner erase {}` again",
        why, hex(*erased_)));
  };
  try {
    database_.execute("VACUUM");
  } catch (const DiskFull&) {
    fail("that takes as much room again as registry.db has, beside it and where temporary files go. Make room");
  } catch (const Failure& failure) {
    const std::string_view why = failure.what();
    fail(std::string{why.substr(0, why.find(';'))});  // what follows says that nothing was changed
  }
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
  if (!decision_.needs.empty() && !is_approving_ && !caller_.breaks_glass) {
    const std::uint64_t request = ask();
    transaction_.commit();
    throw WaitsForApproval(request, decision_.needs);
  }
  count_keys();
  approvals_.end_by_time();
  const bool breaks_glass =
      caller_.breaks_glass && (!decision_.refused.empty() || (!decision_.needs.empty() && !is_approving_));
  if (breaks_glass) {
    note_broken_glass();
  }
  transaction_.commit();
  if (breaks_glass) {
    syslog(LOG_AUTHPRIV | LOG_ALERT, "keyloader: the policy was passed over with --break-glass, audit entry %llu",
           static_cast<unsigned long long>(last_seq_));
  }
  if (erased_) {
    write_over_erased();
  }
  return last_seq_;
}

}  // namespace keyloader
