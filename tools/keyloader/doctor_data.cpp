// Registry, audit, peppers, snapshot: whether they are whole and fit each other.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "admin_roles.hpp"
#include "apikey/scope_set.hpp"
#include "approvers.hpp"
#include "audit.hpp"
#include "broken_glass.hpp"
#include "doctor.hpp"
#include "publish/snapshot_store.hpp"
#include "registry/sqlite_db.hpp"
#include "usage_store.hpp"
#include "user.hpp"

namespace keyloader {
namespace {

constexpr Seconds kDay = Seconds{24} * 3600;
constexpr Seconds kSoon = 14 * kDay;
constexpr Seconds kLongestWithoutCollection = kDay + 2 * Seconds{3600};
constexpr Seconds kClockSlack = 60;

void registry_there(Examined& examined, Findings& findings) {
  if (!examined.registry_problem.empty()) {
    wrong(findings, examined.registry_problem, {});
  } else if (const auto trace = examined.directory.trace_of_registry();
             examined.registry == nullptr && !trace.empty()) {
    wrong(
        findings,
        fmt::format("there is no registry in {}, but {} is of one: it was lost", examined.directory.path().string(),
                    trace.string()),
        "Bring registry.db back from a backup; `keyloader init` would make another one, whose snapshots nginx refuses");
  } else if (examined.registry == nullptr) {
    notice(findings,
           fmt::format("{} has a snapshot and no registry: right on a node, wrong on the machine that issues keys",
                       examined.directory.path().string()),
           "If the registry was lost, bring registry.db back from a backup; `keyloader init` would make another one, "
           "whose snapshots nginx refuses");
  }
}

void registry_integrity(Examined& examined, Findings& findings) {
  if (examined.registry == nullptr) {
    return;
  }
  Database database(examined.directory.registry_file(), false);
  Query query = database.query("PRAGMA quick_check");
  if (query.step() && query.text(0) != "ok") {
    wrong(findings, fmt::format("registry.db is damaged: {}", query.text(0)), "Bring it back from a backup");
  }
}

void audit_chain(Examined& examined, Findings& findings) {
  if (examined.registry == nullptr) {
    return;
  }
  if (const std::string problem = audit_problem(*examined.registry); !problem.empty()) {
    wrong(findings, problem, "Find out who could write registry.db; a backup shows what was there");
  }
}

void peppers_there(Examined& examined, Findings& findings) {
  if (examined.registry == nullptr) {
    return;
  }
  const Texts used = examined.registry->methods_in_use();
  for (const Pepper& pepper : examined.registry->peppers()) {
    const std::filesystem::path file = examined.directory.peppers() / pepper.id;
    std::error_code error;
    const bool is_used = std::find(used.begin(), used.end(), "hmac-sha256:" + pepper.id) != used.end();
    if ((pepper.is_current || is_used) && !std::filesystem::exists(file, error)) {
      wrong(findings, fmt::format("{} is not there", file.string()),
            is_used ? "Bring it back from a backup: keys that were made with it cannot be decided without it"
                    : "Bring it back, or make another pepper with `keyloader pepper create`");
    }
  }
}

void clock(Examined& examined, Findings& findings) {
  const Seconds now = wall_clock();
  Seconds newest = examined.snapshot != nullptr ? examined.snapshot->meta().created.value : 0;
  if (examined.registry != nullptr) {
    examined.registry->each_audit_entry({.most = 1},
                                        [&](const AuditEntry& entry) { newest = std::max(newest, entry.time); });
  }
  if (newest > now + kClockSlack) {
    wrong(findings,
          fmt::format("the latest change was made at {}, and this machine's clock says {}", time_text(newest),
                      time_text(now)),
          "Set the clock: keys begin and end by it");
  }
}

void expiring(Examined& examined, Findings& findings) {
  if (examined.registry == nullptr) {
    return;
  }
  const Seconds now = wall_clock();
  std::uint64_t count = 0;
  examined.registry->each_key({}, [&](const Key& key) {
    count += state_of(key, now) == "active" && key.expires != 0 && key.expires - now < kSoon ? 1 : 0;
    return true;
  });
  if (count != 0) {
    notice(findings, fmt::format("{} active {} within 14 days", count, count == 1 ? "key ends" : "keys end"),
           "`keyloader key list` shows when; `keyloader key set ID --expires` gives one more time");
  }
}

void snapshot_valid(Examined& examined, Findings& findings) {
  const std::filesystem::path file = examined.directory.snapshot_file();
  if (access(file.c_str(), R_OK) != 0 && errno == EACCES) {
    notice(findings, fmt::format("{} may not read {}, so nothing is known of it", user_name(geteuid()), file.string()),
           fmt::format("To see it, {}", who_may(file)));
  } else if (examined.snapshot == nullptr) {
    wrong(findings, fmt::format("{} cannot be used: {}", file.string(), examined.snapshot_problem),
          examined.registry != nullptr ? "Run `keyloader publish`; nginx goes on with what it has"
                                       : "Install it again with `keyloader snapshot install`");
  }
}

void snapshot_registry(Examined& examined, Findings& findings) {
  if (examined.registry == nullptr || examined.snapshot == nullptr) {
    return;
  }
  const RegistryInfo info = examined.registry->info();
  const apikey::Meta& meta = examined.snapshot->meta();
  if (meta.registry_id != info.id) {
    wrong(findings,
          fmt::format("keys.mdb is from registry {}, and this one is {}", hex(meta.registry_id), hex(info.id)),
          "Bring back the registry that made it. Only if this one is to replace it: `keyloader publish --take-over "
          "--reason …`");
  } else if (meta.generation > info.generation) {
    wrong(
        findings,
        fmt::format("keys.mdb is generation {}, and the registry ends at generation {}: it is an older copy, in which "
                    "keys revoked since are good",
                    meta.generation, info.generation),
        "Revoke them again, then run `keyloader publish --take-over --reason …`");
  }
}

void published(Examined& examined, Findings& findings) {
  if (examined.registry == nullptr) {
    return;
  }
  const RegistryInfo info = examined.registry->info();
  if (info.changed_seq > info.published_seq) {
    wrong(findings, "the registry has changes that are not published", "Run `keyloader publish`");
  }
}

void history(Examined& examined, Findings& findings) {
  const auto entries = apikey::publish::list_history(examined.directory.path());
  const bool is_kept =
      std::any_of(entries.begin(), entries.end(), [](const auto& entry) { return entry.is_in_service; });
  if (examined.snapshot != nullptr && !is_kept) {
    notice(findings, "history/ does not have the snapshot that is published, so it cannot be rolled back to later",
           "The next publish puts its own there");
  }
}

void collection(Examined& examined, Findings& findings) {
  const auto& nodes = examined.nodes.all();
  const bool has_nginx = std::any_of(nodes.begin(), nodes.end(), [&](const auto& node) {
    return node->problem().empty() && node->is_live() && !node->rows_of(examined.nodes.snapshot()).empty();
  });
  std::error_code error;
  if (!has_nginx || !std::filesystem::exists(examined.directory.usage_file(), error)) {
    return;  // who never collects does not bill
  }
  UsageStore store(examined.directory);
  Seconds last = 0;
  for (const UsageSource& source : store.sources()) {
    last = std::max(last, source.collected);
  }
  if (last != 0 && wall_clock() - last > kLongestWithoutCollection) {
    wrong(findings, fmt::format("usage was last collected at {}", time_text(last)),
          "Run `keyloader usage collect`, and see why its timer does not");
  }
}

Texts reserved_of(const Texts& scopes) {
  Texts reserved;
  std::copy_if(scopes.begin(), scopes.end(), std::back_inserter(reserved), apikey::is_reserved_scope);
  return reserved;
}

std::string without_effect(const std::string& holder, const Texts& reserved) {
  return fmt::format("{} has {}, which {} nothing since scopes that begin with apikey: are reserved", holder,
                     fmt::join(reserved, ", "), reserved.size() == 1 ? "gives" : "give");
}

// `command`: of what holds them, up to its name.
std::string without_reserved(const std::string& command, const Texts& scopes) {
  std::string text = command;
  for (const std::string& scope : scopes) {
    if (!apikey::is_reserved_scope(scope)) {
      text += scope.ends_with('*') ? fmt::format(" --scope '{}'", scope) : " --scope " + scope;
    }
  }
  return text == command ? command + " --scope none" : text;
}

// `whom`: what `admin adopt` is told; `effect`: what it then does. Empty: it would do nothing.
std::string adoption(const std::string& whom, const Texts& reserved, const std::string& effect) {
  const bool has_all = std::find(reserved.begin(), reserved.end(), kAllReserved) != reserved.end();
  const bool has_role = std::any_of(reserved.begin(), reserved.end(),
                                    [](const std::string& scope) { return admin_word(scope) != scope; });
  return has_all || has_role
             ? fmt::format("`keyloader admin adopt {}{} --reason …` {}; ", whom, has_all ? " --all" : "", effect)
             : std::string{};
}

std::uint64_t count_keys_of(Registry& registry, const Role& role) {
  std::uint64_t count = 0;
  registry.each_key({.owner = {}, .env = {}, .role = role.name}, [&](const Key&) {
    ++count;
    return true;
  });
  return count;
}

// Of before such scopes were reserved.
void reserved_scopes(Examined& examined, Findings& findings) {
  if (examined.registry == nullptr) {
    return;
  }
  for (const Role& role : examined.registry->roles()) {
    if (const Texts reserved = reserved_of(role.scopes); !reserved.empty()) {
      const std::uint64_t keys = count_keys_of(*examined.registry, role);
      const std::string effect = fmt::format("gives the admin scopes to the {} {} the role", keys,
                                             keys == 1 ? "key that has" : "keys that have");
      wrong(findings, without_effect("role " + role.name, reserved),
            fmt::format("{}`{}` takes {} away", adoption("--role " + role.name, reserved, effect),
                        without_reserved("keyloader role set " + role.name, role.scopes),
                        reserved.size() == 1 ? "it" : "them"));
    }
  }
  examined.registry->each_key({}, [&](const Key& key) {
    const Texts reserved = reserved_of(key.scopes);
    if (!reserved.empty() && key.revoked == 0) {
      const std::string id = text_of(key.id);
      const std::string_view them = reserved.size() == 1 ? "it" : "them";
      wrong(findings, without_effect(fmt::format("{} of {}", id, key.owner), reserved),
            fmt::format("{}`{}` takes {} away", adoption(id, reserved, fmt::format("makes {} count", them)),
                        without_reserved("keyloader key set " + id, key.scopes), them));
    }
    return true;
  });
}

constexpr Seconds kGlassDays = 7;

// So that all administrators get to know.
void glass_broken(Examined& examined, Findings& findings) {
  if (examined.registry == nullptr) {
    return;
  }
  const BrokenGlass glass = broken_glass(*examined.registry, wall_clock() - kGlassDays * 24 * 60 * 60);
  if (glass.count != 0) {
    notice(findings,
           fmt::format("the policy was passed over with --break-glass {} in the last {} days, last at {}",
                       glass.count == 1 ? "once" : fmt::format("{} times", glass.count), kGlassDays,
                       time_text(glass.last)),
           fmt::format("`keyloader audit list --action policy` says by whom and why, in entry {}", glass.last_entry));
  }
}

void approvers_there(Examined& examined, Findings& findings) {
  if (examined.registry == nullptr) {
    return;
  }
  if (std::string sentence = few_approvers(*examined.registry, examined.registry->policy()); !sentence.empty()) {
    notice(findings, std::move(sentence), "`keyloader policy show` lists what waits for a second person");
  }
}

constexpr std::array kChecks = {
    Check{"registry", "the registry is there and can be opened", registry_there},
    Check{"registry-integrity", "the registry's file is whole", registry_integrity},
    Check{"audit-chain", "nobody has altered the audit", audit_chain},
    Check{"peppers", "every pepper that is needed is there", peppers_there},
    Check{"clock", "no change was made in the future", clock},
    Check{"reserved-scopes", "nothing holds a reserved scope that does not count", reserved_scopes},
    Check{"break-glass", "nobody passed over the policy in the last 7 days", glass_broken},
    Check{"approvers", "two people can approve what waits for a second person", approvers_there},
    Check{"expiring", "no active key ends within 14 days", expiring},
    Check{"snapshot", "keys.mdb is valid and sealed", snapshot_valid},
    Check{"snapshot-registry", "keys.mdb is from this registry", snapshot_registry},
    Check{"published", "every change is published", published},
    Check{"history", "history/ has the published snapshot", history},
    Check{"collection", "usage is collected, where it ever was", collection},
};

}  // namespace

std::span<const Check> data_checks() { return kChecks; }

}  // namespace keyloader
