// keyloader key set, suspend, resume, revoke, delete: changes to keys that exist, several at once in one transaction.
#include <fmt/format.h>

#include <functional>

#include "key.hpp"
#include "key_fields.hpp"
#include "limit_rules.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kMaxReason = 512;

struct ChangeOptions {
  Texts ids;
  std::string owner;
  std::string duration;
  std::string reason;
  bool is_quiet = false;
  KeyFields fields;
};

std::vector<Key> named_keys(Registry& registry, const ChangeOptions& options) {
  if (options.ids.empty() == options.owner.empty()) {
    throw UsageError("name either the ids of keys or --owner");
  }
  std::vector<Key> keys;
  for (const std::string& id : sorted_once(options.ids)) {
    keys.push_back(require_key(registry, id));
  }
  if (!options.owner.empty()) {
    if (!registry.owner(options.owner)) {
      throw Failure(fmt::format("there is no owner \"{}\"; `keyloader owner list` shows them all", options.owner));
    }
    registry.each_key({.owner = options.owner, .env = {}, .role = {}}, [&](const Key& key) {
      keys.push_back(key);
      return true;
    });
  }
  return keys;
}

// With --json one object for one id, else a list.
void report(const Session& session, const ChangeOptions& options, const std::vector<Key>& keys, std::string_view done) {
  Json json = Json::array();
  std::string text;
  for (const Key& key : keys) {
    json.push_back(to_json(key));
    json.back()["state"] = state_of(key, wall_clock());
    text += fmt::format("{}{} of {} is {}", text.empty() ? "" : "\n", text_of(key.id), key.owner, done);
  }
  session.report(text.empty() ? "there is no such key" : text, options.ids.size() == 1 ? json.front() : json);
}

// `edit` returns false for a key that is that already: it is left alone, without an audit entry.
void change_keys(const Session& session, const ChangeOptions& options, std::string_view action, std::string_view done,
                 const std::function<bool(Registry&, Key&)>& edit) {
  const auto registry = session.dir().open_registry();
  const auto change = registry->begin_change();
  std::vector<Key> keys = named_keys(*registry, options);
  for (Key& key : keys) {
    if (edit(*registry, key)) {
      change->update(key, action);
    }
  }
  finish_change(session, *registry, *change, options.is_quiet);
  report(session, options, keys, done);
}

void revoke(const Session& session, const ChangeOptions& options) {
  if (!options.reason.empty()) {
    check_text("reason", options.reason, kMaxReason);
  }
  change_keys(session, options, "revoke", "revoked", [&](Registry&, Key& key) {
    if (key.revoked != 0) {
      return false;
    }
    key.revoked = wall_clock();
    key.revoked_reason = options.reason;
    return true;
  });
}

void suspend(const Session& session, const ChangeOptions& options) {
  const Seconds until = options.duration.empty() ? 0 : wall_clock() + parse_duration(options.duration);
  change_keys(session, options, "suspend", "suspended", [&](Registry&, Key& key) {
    key.is_suspended = true;
    key.suspended_until = until;
    return true;
  });
}

void resume(const Session& session, const ChangeOptions& options) {
  change_keys(session, options, "resume", "resumed", [&](Registry&, Key& key) {
    const bool was_suspended = key.is_suspended;
    key.is_suspended = false;
    key.suspended_until = 0;
    return was_suspended;
  });
}

void set(const Session& session, const ChangeOptions& options) {
  change_keys(session, options, "set", "changed", [&](Registry& registry, Key& key) {
    apply(options.fields, registry, key);
    check_limits(registry, key, fmt::format("{} of {}", text_of(key.id), key.owner));
    return true;
  });
}

void remove(const Session& session, const ChangeOptions& options) {
  const auto registry = session.dir().open_registry();
  const auto change = registry->begin_change();
  const std::vector<Key> keys = named_keys(*registry, options);
  for (const Key& key : keys) {
    change->remove(key);
  }
  finish_change(session, *registry, *change, options.is_quiet, keys.size());
  report(session, options, keys, "deleted");
}

Command add_change(Command& group, const std::string& name, const std::string& help, ChangeOptions& options) {
  Command command = group.add(name, help);
  command.arguments("ID", options.ids, "Ids of keys: key_…");
  command.no_publish(options.is_quiet);
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
      "A revoked key stays known, so that logs can say who still uses it; `key delete` forgets it.\n\n"
      "  keyloader key revoke key_… --reason 'found in a public repository'\n"
      "  keyloader key revoke --owner acme");
  end.run([&session, options] { revoke(session, *options); });

  Command away = add_change(group, "delete", "Remove keys altogether; only the audit remembers them", *options);
  away.footer("  keyloader key delete key_…");
  away.run([&session, options] { remove(session, *options); });
}

}  // namespace keyloader
