// keyloader key set, suspend, resume, revoke, delete: changes to keys that exist, several at once in one transaction.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "audit.hpp"
#include "change_words.hpp"
#include "delivery.hpp"
#include "key.hpp"
#include "key_fields.hpp"
#include "limit_rules.hpp"
#include "names.hpp"
#include "receipt.hpp"
#include "terminal.hpp"

namespace keyloader {
namespace {

struct ChangeOptions {
  Texts ids;
  std::string owner;
  std::string duration;
  std::string reason;
  bool is_sure = false;
  DeliveryOptions delivery;
  KeyFields fields;
};

struct DeletedKey {
  std::string id;
  Seconds deleted = 0;
};

struct NamedKeys {
  std::vector<Key> keys;
  std::vector<DeletedKey> deleted;  // named, and deleted before
};

// Before the registry is opened: what is wrong with the words themselves.
void check_named(const ChangeOptions& options, bool may_name_owner) {
  if (options.ids.empty() && options.owner.empty()) {
    throw UsageError(fmt::format("which key? give one or more ids, key_…{} (`keyloader key list` shows them)",
                                 may_name_owner ? ", or --owner" : ""));
  }
  if (!options.ids.empty() && !options.owner.empty()) {
    throw UsageError("name either the ids of keys or --owner, not both");
  }
  require_key_ids(options.ids);
}

NamedKeys named_keys(Registry& registry, const ChangeOptions& options) {
  NamedKeys named;
  for (const std::string& id : sorted_once(options.ids)) {
    const auto key = registry.key(*key_id_from(id));
    const Seconds deleted = key ? 0 : registry.deleted(id, "key.delete");
    if (deleted != 0) {
      named.deleted.push_back({id, deleted});
    } else {
      named.keys.push_back(key ? *key : require_key(registry, id));
    }
  }
  if (!options.owner.empty()) {
    static_cast<void>(require_owner(registry, options.owner));
    registry.each_key({.owner = options.owner, .env = {}, .role = {}}, [&](const Key& key) {
      named.keys.push_back(key);
      return true;
    });
  }
  return named;
}

// What a command did to the keys it named, line by line.
struct Done {
  Texts lines;
  Json json = Json::array();
  bool has_changed = false;
  SuspendedOwners suspended;

  explicit Done(Registry& registry) : suspended(registry, wall_clock()) {}
  void add(const Key& key, std::string line) {
    json.push_back(to_json(key));
    json.back()["state"] = suspended.state_of(key);
    lines.push_back(std::move(line));
  }
  void add(const DeletedKey& key) {
    json.push_back({{"id", key.id}, {"state", "deleted"}, {"deleted", time_json(key.deleted)}});
    lines.push_back(fmt::format("{} was deleted already, at {}", key.id, time_text(key.deleted)));
  }
};

// Before the registry is locked, as whoever is asked may take his time. RETURNS: how many keys were named then.
std::optional<std::size_t> ask(Registry& registry, const ChangeOptions& options, std::string_view action) {
  const bool is_bulk = !options.owner.empty() || options.ids.size() > 1;
  if (!is_bulk || options.is_sure || options.delivery.is_dry_run || !is_interactive()) {
    return std::nullopt;
  }
  const NamedKeys named = named_keys(registry, options);
  const SuspendedOwners suspended(registry, wall_clock());
  const auto active = std::count_if(named.keys.begin(), named.keys.end(),
                                    [&](const Key& key) { return suspended.state_of(key) == "active"; });
  confirm(fmt::format("{} {} {}{} ({} active)?", action, named.keys.size(), named.keys.size() == 1 ? "key" : "keys",
                      options.owner.empty() ? "" : " of " + options.owner, active),
          false);
  return named.keys.size();
}

void check_unchanged(const std::optional<std::size_t>& asked_for, const NamedKeys& named) {
  if (asked_for && *asked_for != named.keys.size()) {
    throw Failure(fmt::format("it was {} keys when you were asked and is {} now; nothing was changed, say it again",
                              *asked_for, named.keys.size()));
  }
}

// With --json one object for one id, else a list.
void finish(const Session& session, Registry& registry, Change& change, const ChangeOptions& options, Effect effect,
            Done done, const std::vector<Key>& with_receipt = {}) {
  Outcome outcome = done.has_changed ? deliver(session, registry, change, options.delivery, effect)
                                     : deliver_nothing(session, registry, change, options.delivery, effect);
  add_receipt(session, registry, with_receipt, outcome);
  if (done.lines.empty()) {
    done.lines.push_back(fmt::format("owner {} has no keys", options.owner));
  }
  report(session, fmt::format("{}", fmt::join(done.lines, "\n")),
         options.ids.size() == 1 ? done.json.front() : done.json, outcome);
}

std::string name_of(const Key& key) { return fmt::format("{} of {}", text_of(key.id), key.owner); }

// "updated key_… of acme: plan basic → gold"; of a key that was stopped or let in that says it all.
std::string changed_text(const Key& before, const Key& after, std::string_view action, std::string_view did) {
  std::string text = fmt::format("{} {}", did, name_of(after));
  if (action != "set") {
    return text;
  }
  AuditEntry entry;
  entry.before = to_json(before);
  entry.after = to_json(after);
  return fmt::format("{}: {}", text, change_words(entry));
}

// RETURNS: what is so already, in which case the key is left alone, without an audit entry; empty: it was changed.
using Edit = std::function<std::string(Registry&, Key&)>;

// What every change begins with: the words are right, whoever is asked has said yes, and the keys are there.
struct Begun {
  std::unique_ptr<Registry> registry;
  std::unique_ptr<Change> change;
  NamedKeys named;
};

Begun begin(const Session& session, const ChangeOptions& options, std::string_view action, Effect effect) {
  check(options.delivery);
  check_named(options, action == "revoke");
  check_reason(options.reason);
  auto registry = session.open_registry();
  const auto asked_for = effect == Effect::restricts ? ask(*registry, options, action) : std::nullopt;
  auto change = registry->begin_change();
  if (action != "revoke") {
    change->because(options.reason);  // a revoked key keeps it itself
  }
  NamedKeys named = named_keys(*registry, options);
  check_unchanged(asked_for, named);
  return {std::move(registry), std::move(change), std::move(named)};
}

void change_keys(const Session& session, const ChangeOptions& options, std::string_view action, std::string_view did,
                 Effect effect, const Edit& edit) {
  const auto [registry, change, named] = begin(session, options, action, effect);
  if (!named.deleted.empty() && action != "revoke") {
    static_cast<void>(require_key(*registry, named.deleted.front().id));  // says when it was deleted
  }
  Done done(*registry);
  for (Key key : named.keys) {
    const Key before = key;
    const std::string is_already = edit(*registry, key);
    if (is_already.empty()) {
      change->update(key, action);
      done.has_changed = true;
    }
    done.add(key, is_already.empty() ? changed_text(before, key, action, did)
                                     : fmt::format("{} {}", name_of(key), is_already));
  }
  for (const DeletedKey& key : named.deleted) {
    done.add(key);
  }
  const bool wants_receipt = action == "revoke" && options.delivery.wait.has_value();
  finish(session, *registry, *change, options, effect, std::move(done),
         wants_receipt ? named.keys : std::vector<Key>{});
}

// "(2026-11-26T02:13:04Z by alice, reason: leak)"
std::string revocation_text(Registry& registry, const Key& key) {
  std::string by;
  registry.each_audit_entry({.object = text_of(key.id), .action = "key.revoke", .most = 1},
                            [&](const AuditEntry& entry) { by = " by " + Actors(registry).text(entry.actor); });
  return fmt::format("({}{}{})", time_text(key.revoked), by,
                     key.revoked_reason.empty() ? "" : ", reason: " + key.revoked_reason);
}

void revoke(const Session& session, const ChangeOptions& options) {
  change_keys(session, options, "revoke", "revoked", Effect::restricts, [&](Registry& registry, Key& key) {
    if (key.revoked != 0) {
      return fmt::format(
          "is revoked already {}{}", revocation_text(registry, key),
          options.reason.empty() || options.reason == key.revoked_reason ? "" : "; the new reason is not stored");
    }
    key.revoked = wall_clock();
    key.revoked_reason = options.reason;
    return std::string{};
  });
}

void suspend(const Session& session, const ChangeOptions& options) {
  const Seconds until = options.duration.empty() ? 0 : wall_clock() + parse_duration(options.duration);
  change_keys(session, options, "suspend", "suspended", Effect::restricts, [&](Registry& registry, Key& key) {
    if (key.revoked != 0) {
      return fmt::format("is revoked {}, so it stays refused; it was not suspended", revocation_text(registry, key));
    }
    if (key.is_suspended && lasts_as_long(key.suspended_until, until)) {
      return key.suspended_until == 0 ? std::string{"is suspended already, until it is resumed"}
                                      : fmt::format("is suspended already, until {}", time_text(key.suspended_until));
    }
    key.is_suspended = true;
    key.suspended_until = until;
    return std::string{};
  });
}

void resume(const Session& session, const ChangeOptions& options) {
  change_keys(session, options, "resume", "resumed", Effect::any, [&](Registry& registry, Key& key) -> std::string {
    if (key.revoked != 0) {
      throw Failure(
          fmt::format("{} is revoked {}, and a revoked key stays refused; nothing was changed. "
                      "`keyloader key create` issues a new one",
                      name_of(key), revocation_text(registry, key)));
    }
    if (!key.is_suspended) {
      return "is not suspended";
    }
    key.is_suspended = false;
    key.suspended_until = 0;
    return {};
  });
}

void set(const Session& session, const ChangeOptions& options) {
  if (options.fields.names_nothing()) {
    throw UsageError(
        "nothing to set; give at least one of --name, --plan, --scope, --role, --expires, --rate … "
        "(`keyloader key set --help`)");
  }
  change_keys(session, options, "set", "updated", Effect::any, [&](Registry& registry, Key& key) -> std::string {
    const Json before = to_json(key);
    apply(options.fields, registry, key);
    check_ref(registry, key);
    if (key.revoked != 0) {
      Session::warn(fmt::format("{} is revoked {}, and stays refused whatever is set", name_of(key),
                                revocation_text(registry, key)));
    }
    Session::warn(check_limits(registry, key, name_of(key)));
    warn_of_name(registry, key, options.fields);
    return to_json(key) == before ? "is so already" : "";
  });
}

void remove(const Session& session, const ChangeOptions& options) {
  const auto [registry, change, named] = begin(session, options, "delete", Effect::restricts);
  Done done(*registry);
  for (const Key& key : named.keys) {
    change->remove(key);
    done.has_changed = true;
    done.add(key, fmt::format("deleted {}", name_of(key)));
  }
  for (const DeletedKey& key : named.deleted) {
    done.add(key);
  }
  finish(session, *registry, *change, options, Effect::restricts, std::move(done));
}

Command add_change(Command& group, const std::string& name, const std::string& help, ChangeOptions& options) {
  Command command = group.add(name, help);
  command.arguments("ID", options.ids, "Ids of keys: key_…");
  command.option("--reason", options.reason, "TEXT", "Kept in the audit");
  command.tries(options.delivery);
  command.delivers(options.delivery);
  return command;
}

// Of those that stop keys.
void add_guards(Command& command, ChangeOptions& options) {
  command.flag("--yes", options.is_sure, "Do not ask, on a terminal, before more than one key is stopped");
}

}  // namespace

void add_key_changes(Command& group, Session& session) {
  auto options = std::make_shared<ChangeOptions>();

  Command edit = add_change(group, "set", "Change what is named; `none` clears, what is not named stays", *options);
  add_key_fields(edit, options->fields, false);
  edit.flag("--no-require-tls", options->fields.forgets_tls, "Not only over TLS any more");
  edit.footer(
      "A list that is named replaces the old one; limits are changed one by one. A limit of its own stands instead of\n"
      "the plan's of that name, until `none` removes it.\n\n"
      "  keyloader key set key_… --expires 30d --plan gold\n"
      "  keyloader key set key_… --rate 500/s --quota month=5000000/month\n"
      "  keyloader key set key_… --expires none --allow-ip none --rate none");
  edit.run([&session, options] { set(session, *options); });

  Command pause = add_change(group, "suspend", "Refuse keys for a while", *options);
  pause.option("--for", options->duration, "DURATION", "How long: 15m, 24h (default: until resumed)");
  add_guards(pause, *options);
  pause.footer("  keyloader key suspend key_… --for 15m");
  pause.run([&session, options] { suspend(session, *options); });

  Command again = add_change(group, "resume", "Let suspended keys in again", *options);
  again.footer("  keyloader key resume key_…");
  again.run([&session, options] { resume(session, *options); });

  Command end = add_change(group, "revoke", "Refuse keys for ever", *options);
  end.option("--owner", options->owner, "OWNER", "All keys of this owner");
  add_guards(end, *options);
  end.footer(
      "A revoked key stays known, so that logs can say who still uses it; `key delete` forgets it. Run again, the\n"
      "command keeps the first reason and time, and publishes what was left behind. With --wait it prints the moment\n"
      "from which no new request was let in, and how many from before still run where nginx counts them: under a\n"
      "limit of concurrency of the key or its plan.\n\n"
      "  keyloader key revoke key_… --reason 'found in a public repository'\n"
      "  keyloader key revoke key_… --wait 10s\n"
      "  keyloader key revoke --owner acme");
  end.run([&session, options] { revoke(session, *options); });

  Command away = add_change(group, "delete", "Remove keys altogether; only the audit remembers them", *options);
  add_guards(away, *options);
  away.footer("  keyloader key delete key_…");
  away.run([&session, options] { remove(session, *options); });
}

}  // namespace keyloader
