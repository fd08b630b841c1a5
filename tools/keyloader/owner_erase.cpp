// keyloader owner erase: the names, addresses, meta and reasons that the audit keeps of an owner that is no more. The
// chain of hashes stays whole (registry/audit_values.hpp).
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "delivery.hpp"
#include "nearest.hpp"
#include "owner.hpp"
#include "session.hpp"
#include "terminal.hpp"
#include "usage_counts.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

struct EraseOptions {
  std::string name;
  std::string reason;
  bool is_sure = false;
  bool is_dry_run = false;
};

bool is_owner_id(std::string_view text) {
  return text.size() == 2 * OwnerId{}.size() && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Who was deleted, by the entries that say so. An erased owner is known by its id only.
struct DeletedOwner {
  OwnerId id{};
  std::string name;
  bool is_erased = false;
};

std::vector<DeletedOwner> deleted_owners(Registry& registry) {
  std::map<OwnerId, DeletedOwner> deleted;
  registry.each_deletion("owner.delete", [&](const AuditEntry& entry) {
    const Json id = field_of(entry.before, "id");
    if (const auto bytes = id.is_string() ? bytes16_from_hex(id.get<std::string>()) : std::nullopt) {
      deleted[*bytes] = {.id = *bytes, .name = entry.object, .is_erased = entry.has_erased};
    }
  });
  for (const Owner& owner : registry.owners()) {
    deleted.erase(owner.id);
  }
  std::vector<DeletedOwner> owners;
  owners.reserve(deleted.size());
  for (auto& [id, owner] : deleted) {
    owners.push_back(std::move(owner));
  }
  return owners;
}

// Whom a request for approval would have made, and nobody approved it: no entry says that there was such an owner, but
// there are values that are bound to it.
void add_never_made(Registry& registry, const std::string& wanted, std::vector<DeletedOwner>& owners) {
  for (const AbsentOwner& absent : registry.absent_owners(wanted)) {
    const bool was_deleted =
        std::any_of(owners.begin(), owners.end(), [&](const DeletedOwner& owner) { return owner.id == absent.id; });
    if (!was_deleted) {
      owners.push_back({.id = absent.id, .name = wanted, .is_erased = absent.is_erased});
    }
  }
}

// The one that is meant. Several may have had a name, one after the other.
DeletedOwner require_deleted(Registry& registry, const std::string& wanted) {
  const bool is_id = is_owner_id(wanted);
  std::vector<DeletedOwner> found;
  Texts ids;
  Texts names;
  std::vector<DeletedOwner> owners = deleted_owners(registry);
  add_never_made(registry, wanted, owners);
  for (const DeletedOwner& owner : owners) {
    if (is_id ? hex(owner.id) == wanted : !owner.is_erased && owner.name == wanted) {
      found.push_back(owner);
      ids.push_back(hex(owner.id));
    }
    if (!owner.is_erased) {
      names.push_back(owner.name);
    }
  }
  for (const Owner& owner : registry.owners()) {
    if (is_id ? hex(owner.id) == wanted : owner.name == wanted) {
      throw Failure(fmt::format(
          "owner \"{}\" exists; only what the audit keeps of a deleted owner can be erased{}", owner.name,
          ids.empty()
              ? ""
              : fmt::format(". One that was deleted had the same name: give its id, {}", fmt::join(ids, " or "))));
    }
  }
  if (found.empty()) {
    throw Failure(
        fmt::format("the audit knows no deleted owner \"{}\"; {}an erased one is known by its id, which "
                    "`keyloader audit list --action owner.erase` shows",
                    wanted, did_you_mean(wanted, names)));
  }
  if (found.size() > 1) {
    throw Failure(fmt::format("{} deleted owners were called {}; give the id of one: {}", found.size(), wanted,
                              fmt::join(ids, ", ")));
  }
  return found.front();
}

std::string remaining_text(std::uint64_t entries) {
  std::string text =
      "keys.mdb and history/ may hold the name until five more snapshots have been published; backups, exports and "
      "logs keep it";
  if (entries != 0) {
    text = fmt::format("{} {} from before version 2 of the audit still {} its values and cannot be erased; {}", entries,
                       entries == 1 ? "entry" : "entries", entries == 1 ? "holds" : "hold", text);
  }
  return text;
}

void check_reason_names_nobody(const EraseOptions& options, const DeletedOwner& owner) {
  if (!owner.is_erased && options.reason.find(owner.name) != std::string::npos) {
    throw UsageError(
        fmt::format("the reason names the owner ({}), and would stay in the audit for ever; write it without the name",
                    owner.name));
  }
}

void erase(const Session& session, const EraseOptions& options) {
  check_reason(options.reason);
  const auto registry = session.open_registry();
  const DeletedOwner owner = require_deleted(*registry, options.name);
  const std::string who = fmt::format("owner {} ({})", owner.name, hex(owner.id));
  check_reason_names_nobody(options, owner);
  if (!options.is_dry_run) {
    confirm(fmt::format("erase what the audit keeps of {}? This cannot be undone", who), options.is_sure);
  }
  const auto change = registry->begin_change();
  change->because(options.reason);
  const std::uint64_t entries = owner.is_erased ? 0 : registry->unerasable_entries(owner.name);
  const std::uint64_t values = change->erase(owner.id);
  const Json json{{"owner_id", hex(owner.id)},
                  {"values", values},
                  {"unerasable_entries", entries},
                  {"dry_run", options.is_dry_run}};
  if (values == 0) {
    if (!options.is_dry_run) {
      change->commit();  // an earlier one may not have come to its end
    }
    session.report(entries == 0 ? fmt::format("{} was erased already; nothing is left", who)
                                : fmt::format("nothing was erased of {}. {}", who, remaining_text(entries)),
                   json);
    return;
  }
  const std::string sentence = fmt::format("erased {} values of {}. {}", values, who, remaining_text(entries));
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
      "Erased are its name, e-mail address and meta, and of its keys name, ref, meta and reasons. Kept are the team,\n"
      "networks, hosts, hints, ids, and who made a change. `audit verify` still checks every entry. Entries from\n"
      "before version 2 of the audit cannot be erased.\n\n"
      "  keyloader owner erase acme --reason 'request of 12 May'");
  gone.run_on_machine(session, [&session, options] { erase(session, *options); });
}

}  // namespace keyloader
