// keyloader audit revert: takes back one change of a plan, an owner, a role or a key.
// INVARIANT: nobody may do more behind it than before it. What would give access back is refused, with the command that
// would.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "apikey/scope_set.hpp"
#include "audit.hpp"
#include "change_words.hpp"
#include "delivery.hpp"
#include "hint.hpp"
#include "key.hpp"
#include "key_fields.hpp"
#include "limit_rules.hpp"
#include "names.hpp"
#include "owner.hpp"
#include "registry/access.hpp"
#include "registry/fields.hpp"
#include "session.hpp"
#include "usage_counts.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

struct RevertOptions {
  std::string entry;
  std::string reason;
  DeliveryOptions delivery;
};

std::string entry_name(const AuditEntry& entry) {
  return fmt::format("entry {} ({} by {}, {})", entry.seq, entry.action, actor_text(entry.actor),
                     time_text(entry.time));
}

std::string kind_of(const AuditEntry& entry) { return entry.action.substr(0, entry.action.find('.')); }

[[noreturn]] void refuse(const AuditEntry& entry, const std::string& why) {
  throw Failure(fmt::format("{} cannot be reverted: {}", entry_name(entry), why));
}

// Reserved scopes that `then` has and `now` has not, wherever they stand.
Texts reserved_regained(const Fields& now, const Fields& then) {
  Texts all;
  for (const char* field : {"scopes", "admin_scopes"}) {
    for (const std::string& scope : gained(texts_of(then, field), texts_of(now, field), std::equal_to<>{})) {
      if (apikey::is_reserved_scope(scope)) {
        all.push_back(scope);
      }
    }
  }
  return all;
}

void check_access(const AuditEntry& entry, const Fields& now, const Fields& then) {
  const std::string kind = kind_of(entry);
  const Access access(now, then);
  if (access.ends_revocation()) {
    refuse(entry, fmt::format("a revoked key stays revoked; `keyloader key create --owner {}` makes another",
                              shell_word(string_of(value_of(now, "owner")))));
  }
  if (access.ends_suspension()) {
    refuse(entry, fmt::format("it stopped {} {}, and a revert never gives access back; `keyloader {} resume {}` does",
                              kind, entry.object, kind, shell_word(entry.object)));
  }
  if (const Texts reserved = reserved_regained(now, then); !reserved.empty()) {
    refuse(entry,
           fmt::format("it took away {}, and a revert never gives access back; only `keyloader admin create` and "
                       "`keyloader admin set` give a key what begins with apikey:",
                       fmt::join(reserved, ", ")));
  }
  if (access.regained().empty()) {
    return;
  }
  Texts what;
  Texts options;
  std::string command = kind;
  for (const Regained& each : access.regained()) {
    what.push_back(each.what);
    command = each.is_administrators ? "admin" : command;
    if (!each.option.empty()) {
      options.push_back(each.option);
    }
  }
  refuse(entry, fmt::format("it took away {}, and a revert never gives access back. If {} {} is to have it again, say "
                            "so: `keyloader {} set {} {}`",
                            fmt::join(what, ", "), kind, entry.object, command, shell_word(entry.object),
                            fmt::join(options, " ")));
}

// The entry, and those about the same object since.
struct Found {
  AuditEntry entry;
  std::vector<AuditEntry> later;
};

Found find_entry(Registry& registry, std::uint64_t number) {
  std::optional<Found> found;
  registry.each_audit_entry({.first = number}, [&](const AuditEntry& entry) {
    if (!found && entry.seq == number) {
      found = Found{.entry = entry, .later = {}};
    } else if (found && entry.object == found->entry.object && kind_of(entry) == kind_of(found->entry)) {
      found->later.push_back(entry);
    }
  });
  if (!found) {
    throw Failure(fmt::format("the audit has no entry {}; `keyloader audit list` shows their numbers", number));
  }
  return std::move(*found);
}

bool changes(const AuditEntry& entry, const std::string& field) {
  const auto value = [&](const Json& state) { return state.is_object() ? value_of(fields_of(state), field) : Json{}; };
  return value(entry.before) != value(entry.after);
}

[[noreturn]] void refuse_conflict(const Found& found, const std::string& field) {
  const auto last = std::find_if(found.later.rbegin(), found.later.rend(),
                                 [&](const AuditEntry& each) { return changes(each, field); });
  refuse(found.entry, fmt::format("{} of {} {} has been changed since{}; `keyloader {} set` changes it", field,
                                  kind_of(found.entry), found.entry.object,
                                  last == found.later.rend() ? "" : ", by " + entry_name(*last), kind_of(found.entry)));
}

// The state of now without the change of the entry. RETURNS: nothing when there is nothing of it left.
std::optional<Fields> without(const Found& found, const Fields& now) {
  const Fields before = fields_of(found.entry.before);
  const Fields after = fields_of(found.entry.after);
  for (const char* identity : {"id", "created"}) {
    if (value_of(now, identity) != value_of(after, identity)) {
      refuse(found.entry, fmt::format("the {} {} of then was deleted, the one of today is another",
                                      kind_of(found.entry), found.entry.object));
    }
  }
  Fields all = before;
  all.insert(after.begin(), after.end());
  Fields then = now;
  for (const auto& [field, ignored] : all) {
    const Json was = value_of(before, field);
    const Json became = value_of(after, field);
    const Json is = value_of(now, field);
    if (was == became || is == was) {
      continue;
    }
    if (is != became) {
      refuse_conflict(found, field);
    }
    if (before.count(field) != 0) {
      then[field] = was;
    } else {
      then.erase(field);
    }
  }
  return then == now ? std::nullopt : std::optional(then);
}

void check_result(Registry& /*registry*/, const Role& /*role*/) {}
void check_result(Registry& registry, const Plan& plan) { Session::warn(check_limits(registry, plan)); }
void check_result(Registry& /*registry*/, const Owner& owner) { Session::warn(check_limits(owner)); }
void check_result(Registry& registry, const Key& key) {
  static_cast<void>(require_plan(registry, key.plan));
  for (const std::string& role : key.roles) {
    static_cast<void>(require_role(registry, role));
  }
  check_ref(registry, key);
  Session::warn(check_limits(registry, key, text_of(key.id)));
}

struct Revert {
  const Session& session;
  Registry& registry;
  Change& change;
  const RevertOptions& options;
  const Found& found;
};

template <typename Object>
void revert_change(const Revert& revert, Object object) {
  const AuditEntry& entry = revert.found.entry;
  const Json before = to_json(object);
  const Fields now = fields_of(before);
  const auto then = without(revert.found, now);
  if (!then) {
    report(revert.session, fmt::format("nothing is left of {}", entry_name(entry)), before,
           deliver_nothing(revert.session, revert.registry, revert.change, revert.options.delivery));
    return;
  }
  check_access(entry, now, *then);
  assign(object, *then);
  check_result(revert.registry, object);
  revert.change.update(object, "revert");
  AuditEntry made;
  made.object = entry.object;
  made.before = before;
  made.after = to_json(object);
  report(revert.session,
         fmt::format("reverted {} of {} {}: {}", entry_name(entry), kind_of(entry), entry.object, change_words(made)),
         made.after, deliver(revert.session, revert.registry, revert.change, revert.options.delivery));
}

// What nothing refers to may come back: without keys it gives nobody access.
template <typename Object>
void revert_deletion(const Revert& revert, Object object) {
  const AuditEntry& entry = revert.found.entry;
  const Fields fields = fields_of(entry.before);
  if (const Texts reserved = reserved_regained({}, fields); !reserved.empty()) {
    refuse(entry, fmt::format("it held {}, which only `keyloader admin create` gives, and to keys only",
                              fmt::join(reserved, ", ")));
  }
  object.name = entry.object;
  object.created = time_of(fields, "created");
  assign(object, fields);
  check_result(revert.registry, object);
  revert.change.create(object);
  report(revert.session,
         fmt::format("reverted {}: {} {} is there again", entry_name(entry), kind_of(entry), entry.object),
         to_json(object), deliver(revert.session, revert.registry, revert.change, revert.options.delivery));
}

void revert_deletion(const Revert& revert) {
  const AuditEntry& entry = revert.found.entry;
  const std::string kind = kind_of(entry);
  const auto refuse_if = [&](bool is_there) {
    if (is_there) {
      refuse(entry, fmt::format("there is a {} {} again", kind, entry.object));
    }
  };
  if (kind == "key") {
    refuse(entry, fmt::format("a deleted key is forgotten; `keyloader key create --owner {}` makes another",
                              shell_word(string_of(value_of(fields_of(entry.before), "owner")))));
  }
  if (kind == "plan") {
    refuse_if(revert.registry.plan(entry.object).has_value());
    revert_deletion(revert, Plan{});
  } else if (kind == "role") {
    refuse_if(revert.registry.role(entry.object).has_value());
    revert_deletion(revert, Role{});
  } else {
    refuse_if(revert.registry.owner(entry.object).has_value());
    Owner owner = new_owner(entry.object);
    if (const auto id = bytes16_from_hex(string_of(value_of(fields_of(entry.before), "id")))) {
      owner.id = *id;  // so that what it has used stays its own
    }
    revert_deletion(revert, std::move(owner));
  }
}

std::uint64_t parse_number(const std::string& text) {
  const bool is_number =
      !text.empty() && text.size() <= 18 && text.find_first_not_of("0123456789") == std::string::npos;
  if (!is_number) {
    throw UsageError(fmt::format("\"{}\" is no number of an entry; `keyloader audit list` shows them under SEQ", text));
  }
  return std::stoull(text);
}

void revert(const Session& session, const RevertOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  const std::uint64_t number = parse_number(options.entry);
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  const Found found = find_entry(*registry, number);
  const AuditEntry& entry = found.entry;
  if (entry.has_erased) {
    refuse(entry, "values of it were erased");
  }
  change->because(fmt::format("entry {} reverted{}{}", number, options.reason.empty() ? "" : ": ", options.reason));
  const std::string kind = kind_of(entry);
  const Revert revert{session, *registry, *change, options, found};
  if (kind != "plan" && kind != "owner" && kind != "role" && kind != "key") {
    refuse(entry, "only changes of plans, owners, roles and keys can");
  }
  if (entry.action == kind + ".delete") {
    revert_deletion(revert);
  } else if (!entry.before.is_object()) {
    refuse(entry, kind == "key" ? fmt::format("it made the key; `keyloader key revoke {}` ends it", entry.object)
                                : fmt::format("it made the {}; `keyloader {} delete {}` removes it", kind, kind,
                                              shell_word(entry.object)));
  } else if (kind == "plan") {
    revert_change(revert, require_plan(*registry, entry.object));
  } else if (kind == "role") {
    revert_change(revert, require_role(*registry, entry.object));
  } else if (kind == "owner") {
    revert_change(revert, require_owner(*registry, entry.object));
  } else {
    revert_change(revert, require_key(*registry, entry.object));
  }
}

}  // namespace

void add_audit_revert(Command& group, Session& session) {
  auto options = std::make_shared<RevertOptions>();
  Command back = group.add("revert", "Take one change of a plan, an owner, a role or a key back");
  back.argument("SEQ", options->entry, "The number of the entry, as `audit list` shows it");
  back.option("--reason", options->reason, "TEXT", "Kept in the audit");
  back.tries(options->delivery);
  back.delivers(options->delivery);
  back.footer(
      "Only what that entry changed goes back; what was changed again since is named, and nothing is done. It never\n"
      "gives access back: for what was revoked, suspended or deleted, for a scope, role or network that was removed\n"
      "and for an earlier end it says the command that does.\n\n"
      "  keyloader audit list --object gold\n"
      "  keyloader audit revert 57 --dry-run\n"
      "  keyloader audit revert 57 --reason 'wrong plan'");
  back.run([&session, options] { revert(session, *options); });
}

}  // namespace keyloader
