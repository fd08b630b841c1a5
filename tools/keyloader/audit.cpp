// keyloader audit: who changed what, when; and whether anybody has tampered with that.
#include "audit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string_view>

#include "audit_anchors.hpp"
#include "change_words.hpp"
#include "nearest.hpp"
#include "registry/fields.hpp"
#include "session.hpp"
#include "values.hpp"

namespace keyloader {

std::string actor_text(const Json& actor) {
  const std::string user = actor.value("user", std::string{});
  const std::string behind = actor.value("sudo_user", std::string{});
  const std::string key = actor.value("admin", std::string{});
  const std::string who = behind.empty() ? user : fmt::format("{} as {}", behind, user);
  return key.empty() ? who : fmt::format("{} by {}", key, who);
}

const std::string& Actors::owner_of(const std::string& key) {
  const auto [found, is_new] = owners_.try_emplace(key);
  std::string& owner = found->second;
  if (!is_new) {
    return owner;
  }
  const auto id = key_id_from(key);
  const auto known = id ? registry_.key(*id) : std::nullopt;
  if (known) {
    owner = known->owner;
  } else {
    registry_.each_deletion("key.delete", [&](const AuditEntry& entry) {
      if (entry.object == key) {
        owner = string_of(field_of(entry.before, "owner"));
      }
    });
  }
  return owner;
}

std::string Actors::text(const Json& actor) {
  const std::string key = actor.value("admin", std::string{});
  const std::string owner = key.empty() ? std::string{} : owner_of(key);
  return owner.empty() ? actor_text(actor) : fmt::format("{} ({})", owner, actor_text(actor));
}

namespace {

// All that an entry can say was done. --action takes one of them, or the part before the dot.
constexpr std::array<std::string_view, 44> kActions = {
    "registry.init",      "registry.set",     "registry.owner",   "registry.reader",
    "registry.rename",    "key.admin",        "key.adopt",        "role.adopt",
    "registry.adopt",     "owner.create",     "owner.set",        "owner.suspend",
    "owner.resume",       "owner.revert",     "owner.delete",     "plan.create",
    "plan.set",           "plan.revert",      "plan.delete",      "role.create",
    "role.set",           "role.revert",      "role.delete",      "key.create",
    "key.import",         "key.set",          "key.suspend",      "key.resume",
    "key.revoke",         "key.revert",       "key.delete",       "pepper.create",
    "quota.grant",        "quota.reset",      "publish",          "snapshot.rollback",
    "audit.archive",      "audit.version",    "owner.erase",      "policy.set",
    "policy.break_glass", "approval.request", "approval.approve", "approval.refuse"};

struct AuditOptions {
  AuditFilter filter;
  std::string since;
  std::optional<std::uint64_t> last;
};

bool has_entry(Registry& registry, AuditFilter filter) {
  bool has_one = false;
  filter.most = 1;
  registry.each_audit_entry(filter, [&](const AuditEntry&) { has_one = true; });
  return has_one;
}

// Whatever was there once has an entry; so a word without one is mistyped.
void require_object(Registry& registry, const std::string& object) {
  if (object.empty() || has_entry(registry, {.object = object})) {
    return;
  }
  Texts names;
  const auto add = [&](const auto& all) {
    for (const auto& each : all) {
      names.push_back(each.name);
    }
  };
  add(registry.owners());
  add(registry.plans());
  add(registry.roles());
  throw Failure(
      fmt::format("the audit has no entry about \"{}\"; {}give the id of a key, or the name of an owner, plan, "
                  "role or pepper",
                  object, did_you_mean(object, names)));
}

void require_action(const std::string& action) {
  std::set<std::string> kinds;
  Texts names;
  for (const std::string_view each : kActions) {
    kinds.emplace(each.substr(0, each.find('.')));
    names.emplace_back(each);
  }
  names.insert(names.begin(), kinds.begin(), kinds.end());
  if (!action.empty() && std::find(names.begin(), names.end(), action) == names.end()) {
    throw UsageError(fmt::format("there is no action \"{}\"; {}there are the kinds {}, and actions such as key.revoke",
                                 action, did_you_mean(action, names), fmt::join(kinds, ", ")));
  }
}

// Nobody is listed who has not changed something.
void require_actor(Registry& registry, const std::string& actor) {
  if (actor.empty() || has_entry(registry, {.actor = actor})) {
    return;
  }
  Actors actors(registry);
  std::set<std::string> names;
  registry.each_audit_entry({}, [&](const AuditEntry& entry) {
    for (const char* name : {"user", "sudo_user"}) {
      if (const std::string user = entry.actor.value(name, std::string{}); !user.empty()) {
        names.insert(user);
      }
    }
    if (const std::string key = entry.actor.value("admin", std::string{}); !key.empty()) {
      const std::string& owner = actors.owner_of(key);
      names.insert(owner.empty() ? key : owner);
    }
  });
  throw Failure(fmt::format("the audit has no entry by \"{}\"; {}there are entries by {}", actor,
                            did_you_mean(actor, Texts(names.begin(), names.end())), fmt::join(names, ", ")));
}

void list(const Session& session, const AuditOptions& options) {
  AuditFilter filter = options.filter;
  if (!options.since.empty()) {
    filter.since = parse_past(options.since, wall_clock());
  }
  if (filter.as_chained && !session.is_json) {
    throw UsageError("--chained shows what is hashed, which is JSON; add --json");
  }
  if (options.last == std::uint64_t{0}) {
    throw UsageError("--last 0 would show nothing; leave it out for all");
  }
  filter.most = options.last.value_or(0);
  require_action(filter.action);
  const auto registry = session.open_registry();
  require_object(*registry, filter.object);
  require_actor(*registry, filter.actor);
  Actors actors(*registry);
  std::vector<Texts> rows;
  Json json = Json::array();
  registry->each_audit_entry(filter, [&](const AuditEntry& entry) {
    if (session.is_json) {
      json.push_back(to_json(entry));
      if (!filter.as_chained) {
        json.back()["change"] = change_words(entry);
      }
    } else {
      const std::string change = change_words(entry);
      rows.push_back({std::to_string(entry.seq), time_text(entry.time), actors.text(entry.actor), entry.action,
                      entry.object, change.empty() ? "-" : change});
    }
  });
  session.report_table({"SEQ", "TIME", "WHO", "ACTION", "OBJECT", "CHANGE"}, rows, json, "no entries");
}

AuditChain verify_chain(Registry& registry, const AuditVisit& visit) {
  const RegistryInfo info = registry.info();
  AuditChain chain(info.archived_seq, info.archived_hash);
  registry.each_audit_entry({.as_chained = true}, [&](const AuditEntry& entry) {
    chain.add(entry);
    registry.check_audit_values(entry);
    visit(entry);
  });
  registry.check_audit_erasures();
  return chain;
}

// "; the 120 before them are in archives". `entries`: those that are here.
std::string archived_text(const RegistryInfo& info, std::uint64_t entries, bool is_verified) {
  if (info.archived_seq == 0) {
    return {};
  }
  const std::string_view them = entries == 1 ? "it" : "them";
  const bool is_one = info.archived_seq == 1;
  const std::string before = is_one ? fmt::format("the one before {}, of", them)
                                    : fmt::format("the {} before {}, up to", info.archived_seq, them);
  const std::string_view was = is_one ? "was" : "were";
  return fmt::format("; {} {}, {} {}", before, time_text(info.archived_time), is_one ? "is" : "are",
                     is_verified ? "whole in the files that were given"
                                 : fmt::format("archived, and {} not looked at (--archive FILE does)", was));
}

struct VerifyOptions {
  Texts archives;
  bool checks_anchors = false;
};

void verify_archived(Registry& registry, const RegistryInfo& info, const Texts& files, const AuditVisit& visit) {
  const AuditChain archived = verify_archives(files, [&](const AuditEntry& entry) {
    registry.check_audit_values(entry);
    visit(entry);
  });
  if (archived.seq() != info.archived_seq || archived.hash() != info.archived_hash) {
    throw Failure(fmt::format(
        "the files end with entry {}, and the registry goes on behind entry {}{}; give all of "
        "them, the oldest first",
        archived.seq(), info.archived_seq, archived.seq() == info.archived_seq ? ", which has another hash" : ""));
  }
}

std::string anchors_text(const AuditAnchors& anchors) {
  std::string text = "; none of its entries was seen by snapshots or nginx";
  if (anchors.checked() != 0) {
    const bool is_one = anchors.checked() == 1;
    text = fmt::format("; {} of its entries {} seen by snapshots or nginx, and {} the same", anchors.checked(),
                       is_one ? "was" : "were", is_one ? "is" : "are");
  }
  if (anchors.unchecked() != 0) {
    const bool is_one = anchors.unchecked() == 1;
    text += fmt::format("; {} archived {} that they have seen {} not compared", anchors.unchecked(),
                        is_one ? "entry" : "entries", is_one ? "was" : "were");
  }
  return text;
}

void verify(const Session& session, const VerifyOptions& options) {
  const auto registry = session.open_registry();
  const RegistryInfo info = registry->info();
  std::optional<AuditAnchors> anchors;
  if (options.checks_anchors) {
    anchors.emplace(session, info.id);
  }
  const AuditVisit visit = [&](const AuditEntry& entry) {
    if (anchors) {
      anchors->check(entry.seq, entry.hash);
    }
  };
  if (!options.archives.empty()) {
    verify_archived(*registry, info, options.archives, visit);
  }
  const AuditChain chain = verify_chain(*registry, visit);
  const std::uint64_t entries = chain.seq() - info.archived_seq;
  std::string text =
      fmt::format("the audit is whole: {}, last hash {}",
                  entries == 1 ? std::string{"1 entry"} : fmt::format("{} entries", entries), hex(chain.hash())) +
      archived_text(info, entries, !options.archives.empty());
  Json json{{"ok", true}, {"entries", entries}, {"archived", info.archived_seq}, {"hash", hex(chain.hash())}};
  if (anchors) {
    anchors->check_end(chain.seq());
    text += anchors_text(*anchors);
    json["anchors"] = anchors->checked();
    json["anchors_not_checked"] = anchors->unchecked();
  }
  session.report(text, json);
}

}  // namespace

AuditChain::AuditChain(std::uint64_t seq, const Hash& hash) : seq_(seq), hash_(hash) {}

void AuditChain::add(const AuditEntry& entry) {
  if (entry.seq != seq_ + 1 || entry.prev_hash != hash_) {
    throw Failure(fmt::format("the audit is broken before entry {}: entries have been removed or replaced", entry.seq));
  }
  if (chain_hash(entry) != entry.hash) {
    throw Failure(fmt::format("entry {} of the audit has been altered", entry.seq));
  }
  seq_ = entry.seq;
  hash_ = entry.hash;
}

std::string audit_problem(Registry& registry) {
  try {
    static_cast<void>(verify_chain(registry, [](const AuditEntry&) {}));
  } catch (const Failure& failure) {
    return failure.what();
  }
  return {};
}

void add_audit_commands(Command& app, Session& session) {
  Command group = app.add_group("audit", "Who changed what");
  auto options = std::make_shared<AuditOptions>();
  Command all = group.add("list", "All changes, oldest first");
  all.option("--object", options->filter.object, "OBJECT", "Only those of this key id, owner, plan, role …");
  all.option("--action", options->filter.action, "ACTION", "Only this: key.revoke; or all of a kind: key, quota");
  all.option("--by", options->filter.actor, "WHO",
             "Only those by this user (also behind sudo), this owner's keys, or the key with this id");
  all.option("--since", options->since, "TIME", "Only those since then: 24h (ago), today, 2026-01-31");
  all.option("--last", options->last, "N", "Only this many, the newest");
  all.flag("--chained", options->filter.as_chained,
           "As the entries are hashed, with --json: names, addresses, meta and reasons as salted hashes");
  all.footer(
      "CHANGE says what was before and what is after; of what is new, what it has. --json has both as a whole.\n\n"
      "  keyloader audit list --last 20\n"
      "  keyloader audit list --action key.revoke --since 24h\n"
      "  keyloader audit list --object key_… --json");
  all.read([&session, options] { list(session, *options); });

  Command check_it = group.add("verify", "Check the chain of hashes from the first entry to the last");
  check_it.footer(
      "Each entry holds the SHA-256 of the one before it. Whoever can write registry.db can make a whole new chain or\n"
      "cut off its end; --anchors compares it with keys.mdb, history/ and nginx's memory, which name entries they "
      "saw.\n"
      "Keep the last hash elsewhere to be sure.\n\n"
      "  keyloader audit verify --anchors\n"
      "  keyloader audit verify --json | jq -r .hash\n"
      "  keyloader audit verify --archive audit-2025.ndjson");
  auto verifying = std::make_shared<VerifyOptions>();
  check_it.words("--archive", verifying->archives, "FILE",
                 "Also this file of archived entries (again for more, oldest first)");
  check_it.flag("--anchors", verifying->checks_anchors,
                "Also compare with what snapshots and nginx have seen of the audit");
  check_it.read([&session, verifying] { verify(session, *verifying); });

  add_audit_archive(group, session);

  add_audit_revert(group, session);
}

}  // namespace keyloader
