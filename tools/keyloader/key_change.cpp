// keyloader key set, suspend, resume, revoke, delete: changes to keys that exist, several at once in one transaction.
#include <fmt/format.h>

#include <functional>

#include "delivery.hpp"
#include "key.hpp"
#include "key_fields.hpp"
#include "limit_rules.hpp"
#include "receipt.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kMaxReason = 512;

struct ChangeOptions {
  Texts ids;
  std::string owner;
  std::string duration;
  std::string reason;
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

NamedKeys named_keys(Registry& registry, const ChangeOptions& options) {
  if (!options.ids.empty() && !options.owner.empty()) {
    throw UsageError("name either the ids of keys or --owner, not both");
  }
  if (options.ids.empty() && options.owner.empty()) {
    throw UsageError("which key? give one or more ids, key_… (`keyloader key list` shows them)");
  }
  NamedKeys named;
  for (const std::string& id : sorted_once(options.ids)) {
    const auto key = registry.key(require_key_id(id));
    const Seconds deleted = key ? 0 : registry.deleted(id, "key.delete");
    if (deleted != 0) {
      named.deleted.push_back({id, deleted});
    } else {
      named.keys.push_back(key ? *key : require_key(registry, id));
    }
  }
  if (!options.owner.empty()) {
    if (!registry.owner(options.owner)) {
      throw Failure(fmt::format("there is no owner \"{}\"; `keyloader owner list` shows them all", options.owner));
    }
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

  void add(const Key& key, std::string line) {
    json.push_back(to_json(key));
    json.back()["state"] = state_of(key, wall_clock());
    lines.push_back(std::move(line));
  }
  void add(const DeletedKey& key) {
    json.push_back({{"id", key.id}, {"state", "deleted"}, {"deleted", time_json(key.deleted)}});
    lines.push_back(fmt::format("{} was deleted already, at {}", key.id, time_text(key.deleted)));
  }
};

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

// RETURNS: what is so already, in which case the key is left alone, without an audit entry; empty: it was changed.
using Edit = std::function<std::string(Registry&, Key&)>;

void change_keys(const Session& session, const ChangeOptions& options, std::string_view action, std::string_view did,
                 Effect effect, const Edit& edit) {
  check(options.delivery);
  const auto registry = session.dir().open_registry();
  const auto change = registry->begin_change();
  const NamedKeys named = named_keys(*registry, options);
  if (!named.deleted.empty() && action != "revoke") {
    static_cast<void>(require_key(*registry, named.deleted.front().id));  // says when it was deleted
  }
  Done done;
  for (Key key : named.keys) {
    const std::string is_already = edit(*registry, key);
    if (is_already.empty()) {
      change->update(key, action);
      done.has_changed = true;
    }
    done.add(key, is_already.empty() ? fmt::format("{} {}", did, name_of(key))
                                     : fmt::format("{} {}", name_of(key), is_already));
  }
  for (const DeletedKey& key : named.deleted) {
    done.add(key);
  }
  const bool wants_receipt = action == "revoke" && options.delivery.wait.has_value();
  finish(session, *registry, *change, options, effect, std::move(done),
         wants_receipt ? named.keys : std::vector<Key>{});
}

void revoke(const Session& session, const ChangeOptions& options) {
  if (!options.reason.empty()) {
    check_text("reason", options.reason, kMaxReason);
  }
  change_keys(session, options, "revoke", "revoked", Effect::restricts, [&](Registry&, Key& key) {
    if (key.revoked != 0) {
      return fmt::format("is revoked already, since {}{}", time_text(key.revoked),
                         key.revoked_reason.empty() ? "" : fmt::format(" ({})", key.revoked_reason));
    }
    key.revoked = wall_clock();
    key.revoked_reason = options.reason;
    return std::string{};
  });
}

void suspend(const Session& session, const ChangeOptions& options) {
  const Seconds until = options.duration.empty() ? 0 : wall_clock() + parse_duration(options.duration);
  change_keys(session, options, "suspend", "suspended", Effect::restricts, [&](Registry&, Key& key) {
    if (key.is_suspended && key.suspended_until == until) {
      return until == 0 ? std::string{"is suspended already, until it is resumed"}
                        : fmt::format("is suspended already, until {}", time_text(until));
    }
    key.is_suspended = true;
    key.suspended_until = until;
    return std::string{};
  });
}

void resume(const Session& session, const ChangeOptions& options) {
  change_keys(session, options, "resume", "resumed", Effect::any, [&](Registry&, Key& key) -> std::string {
    if (key.revoked != 0) {
      throw Failure(
          fmt::format("{} is revoked, since {}, and a revoked key stays refused; nothing was changed. "
                      "`keyloader key create` issues a new one",
                      name_of(key), time_text(key.revoked)));
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
    throw UsageError("there is nothing to set; name what is to change, such as --plan gold");
  }
  change_keys(session, options, "set", "updated", Effect::any, [&](Registry& registry, Key& key) -> std::string {
    const Json before = to_json(key);
    apply(options.fields, registry, key);
    check_limits(registry, key, name_of(key));
    return to_json(key) == before ? "is so already" : "";
  });
}

void remove(const Session& session, const ChangeOptions& options) {
  check(options.delivery);
  const auto registry = session.dir().open_registry();
  const auto change = registry->begin_change();
  const NamedKeys named = named_keys(*registry, options);
  Done done;
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
  command.delivers(options.delivery);
  return command;
}

}  // namespace

void add_key_changes(Command& group, Session& session) {
  auto options = std::make_shared<ChangeOptions>();

  Command edit = add_change(group, "set", "Change what is named; `none` clears, what is not named stays", *options);
  add_key_fields(edit, options->fields);
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
  pause.footer("  keyloader key suspend key_… --for 15m");
  pause.run([&session, options] { suspend(session, *options); });

  Command again = add_change(group, "resume", "Let suspended keys in again", *options);
  again.footer("  keyloader key resume key_…");
  again.run([&session, options] { resume(session, *options); });

  Command end = add_change(group, "revoke", "Refuse keys for ever", *options);
  end.option("--owner", options->owner, "OWNER", "All keys of this owner");
  end.option("--reason", options->reason, "TEXT", "Kept in the audit");
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
  away.footer("  keyloader key delete key_…");
  away.run([&session, options] { remove(session, *options); });
}

}  // namespace keyloader
