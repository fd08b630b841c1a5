// keyloader audit: who changed what, when; and whether anybody has tampered with that.
#include "audit.hpp"

#include <fmt/format.h>

#include "session.hpp"

namespace keyloader {

std::string actor_text(const Json& actor) {
  const std::string user = actor.value("user", std::string{});
  const std::string behind = actor.value("sudo_user", std::string{});
  return behind.empty() ? user : fmt::format("{} as {}", behind, user);
}

namespace {

// The fields that differ: `expires: null → "2027-…"`.
std::string difference(const Json& before, const Json& after) {
  if (!before.is_object() || !after.is_object()) {
    return {};
  }
  std::string text;
  for (const auto& [name, value] : after.items()) {
    const Json old = before.value(name, Json(nullptr));
    if (old != value) {
      text += fmt::format("{}{}: {} → {}", text.empty() ? "" : ", ", name, json_text(old), json_text(value));
    }
  }
  return text;
}

void list(const Session& session, const std::string& object, std::uint64_t most) {
  std::vector<Texts> rows;
  Json json = Json::array();
  session.dir().open_registry()->each_audit_entry(object, most, [&](const AuditEntry& entry) {
    if (session.is_json) {
      json.push_back(to_json(entry));
    } else {
      rows.push_back({std::to_string(entry.seq), time_text(entry.time), actor_text(entry.actor), entry.action,
                      entry.object, difference(entry.before, entry.after)});
    }
  });
  session.report_table({"SEQ", "TIME", "WHO", "ACTION", "OBJECT", "CHANGE"}, rows, json, "no entries");
}

// RETURNS: the last entry. Throws for a chain that is broken.
AuditEntry verify_chain(Registry& registry) {
  AuditEntry last;
  registry.each_audit_entry({}, 0, [&](const AuditEntry& entry) {
    if (entry.seq != last.seq + 1 || entry.prev_hash != last.hash) {
      throw Failure(
          fmt::format("the audit is broken before entry {}: entries have been removed or replaced", entry.seq));
    }
    if (chain_hash(entry) != entry.hash) {
      throw Failure(fmt::format("entry {} of the audit has been altered", entry.seq));
    }
    last = entry;
  });
  return last;
}

void verify(const Session& session) {
  const AuditEntry last = verify_chain(*session.dir().open_registry());
  session.report(fmt::format("the audit is whole: {} entries, last hash {}", last.seq, hex(last.hash)),
                 {{"ok", true}, {"entries", last.seq}, {"hash", hex(last.hash)}});
}

}  // namespace

std::string audit_problem(Registry& registry) {
  try {
    static_cast<void>(verify_chain(registry));
  } catch (const Failure& failure) {
    return failure.what();
  }
  return {};
}

void add_audit_commands(Command& app, Session& session) {
  Command group = app.add_group("audit", "Who changed what");
  auto object = std::make_shared<std::string>();
  auto most = std::make_shared<std::uint64_t>(0);
  Command all = group.add("list", "All changes, oldest first");
  all.option("--object", *object, "OBJECT", "Only those of this key id, owner, plan, role …");
  all.option("--last", *most, "N", "Only this many, the newest");
  all.footer("  keyloader audit list --last 20\n  keyloader audit list --object key_… --json");
  all.read([&session, object, most] { list(session, *object, *most); });

  Command check_it = group.add("verify", "Check the chain of hashes from the first entry to the last");
  check_it.footer(
      "Each entry holds the SHA-256 of the one before it. Keep the last hash elsewhere to notice a cut-off end.\n\n"
      "  keyloader audit verify --json | jq -r .hash");
  check_it.read([&session] { verify(session); });
}

}  // namespace keyloader
