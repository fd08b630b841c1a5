// keyloader owner erase: the names, addresses, meta and reasons that the audit keeps of an owner that is no more. The
// chain of hashes stays whole (registry/audit_values.hpp).
#include <fmt/format.h>

#include "delivery.hpp"
#include "owner.hpp"
#include "session.hpp"
#include "terminal.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

struct EraseOptions {
  std::string name;
  std::string reason;
  bool is_sure = false;
  bool is_dry_run = false;
};

// The deleted owners that are meant. Several may have had the name, one behind the other.
std::vector<OwnerId> deleted_owners(Registry& registry, const std::string& name) {
  std::vector<OwnerId> ids = registry.owners_in_audit(name);
  for (const Owner& owner : registry.owners()) {
    if (owner.name == name || hex(owner.id) == name) {
      throw Failure(
          fmt::format("owner {} exists. `keyloader owner delete {}` removes it, then its values can be erased; a "
                      "deleted owner that had the same name is erased by its id, which `keyloader audit list --object "
                      "{} --json` shows",
                      owner.name, owner.name, owner.name));
    }
    std::erase(ids, owner.id);
  }
  return ids;
}

std::string remaining_text(std::uint64_t entries) {
  std::string text =
      "Snapshots in history/ keep the name until as many generations have been published; so do backups, exports and "
      "logs.";
  if (entries != 0) {
    text = fmt::format("{} entries from before version 2 of the audit still hold its values and cannot be erased. {}",
                       entries, text);
  }
  return text;
}

void erase(const Session& session, const EraseOptions& options) {
  check_reason(options.reason);
  const auto registry = session.dir().open_registry();
  const std::vector<OwnerId> known = deleted_owners(*registry, options.name);
  if (!options.is_dry_run && !known.empty()) {
    confirm(fmt::format("erase what the audit knows of {}? This cannot be undone", options.name), options.is_sure);
  }
  const auto change = registry->begin_change();
  change->because(options.reason);
  std::uint64_t values = 0;
  Json ids = Json::array();
  for (const OwnerId& id : deleted_owners(*registry, options.name)) {
    values += change->erase(id);
    ids.push_back(hex(id));
  }
  const std::uint64_t entries = registry->unerasable_entries(options.name);
  const Json json{
      {"owners", ids}, {"values", values}, {"unerasable_entries", entries}, {"dry_run", options.is_dry_run}};
  if (values == 0) {
    if (entries == 0) {
      throw Failure(fmt::format(
          "the audit has no values of a deleted owner \"{}\"; after an erasure only its id is known", options.name));
    }
    session.report(fmt::format("nothing was erased: {} entries name {}, all from before version 2 of the audit",
                               entries, options.name),
                   json);
    return;
  }
  const std::string sentence = fmt::format("erased {} values of owner {} ({}). {}", values, options.name,
                                           fmt::join(ids.get<Texts>(), ", "), remaining_text(entries));
  if (options.is_dry_run) {
    report(session, sentence, json, dry_run());
    return;
  }
  change->commit();
  session.report(sentence, json);
}

}  // namespace

void add_owner_erase(Command& group, Session& session) {
  auto options = std::make_shared<EraseOptions>();
  Command gone = group.add("erase", "Erase what the audit keeps of a deleted owner");
  gone.argument("NAME", options->name, "The owner, or its id of 32 hex digits");
  gone.option("--reason", options->reason, "TEXT", "Kept in the audit; do not name the owner in it");
  gone.flag("--yes", options->is_sure, "Do not ask, on a terminal");
  gone.flag("--dry-run", options->is_dry_run, "Say what would be erased, and change nothing");
  gone.footer(
      "Names, e-mail addresses, meta and reasons of the owner and its keys; `audit verify` still checks every entry.\n"
      "Bills of its time show its id. Entries from before version 2 of the audit cannot be erased.\n\n"
      "  keyloader owner erase acme --reason 'request of 12 May'");
  gone.run([&session, options] { erase(session, *options); });
}

}  // namespace keyloader
