// keyloader key create: the one moment at which a key exists as text. It goes to standard output, and nowhere else.
#include "key_create.hpp"

#include <fmt/format.h>

#include "approval.hpp"
#include "delivery.hpp"
#include "hint.hpp"
#include "key.hpp"
#include "limit_rules.hpp"
#include "names.hpp"
#include "owner.hpp"
#include "prefix.hpp"
#include "secret.hpp"

namespace keyloader {
namespace {

constexpr std::string_view kDefaultEnv = "live";

// What is likely to surprise: the key will not be let in, or is hard to tell from another.
void warn_of(Registry& registry, const Key& key, const KeyFields& fields) {
  if (const auto owner = registry.owner(key.owner); owner && is_suspended(*owner, wall_clock())) {
    Session::warn(fmt::format("owner {} is suspended, so nginx refuses this key until `keyloader owner resume {}`",
                              owner->name, shell_word(owner->name)));
  }
  if (key.env != kDefaultEnv) {
    Session::warn(
        fmt::format("nginx lets in keys of the environment live; this one is of {}, so its location needs "
                    "`apikey_environment {};`",
                    key.env, key.env));
  }
  if (!key.admin_scopes.empty() && !fields.expires) {
    Session::warn("this administrator's key never expires; give such keys an end, as with --expires 90d");
  }
  warn_of_name(registry, key, fields);
}

void ensure_owner(Registry& registry, Change& change, const CreateOptions& options) {
  if (registry.owner(options.owner)) {
    return;
  }
  if (!options.creates_owner) {
    throw Failure(no_owner(registry, options.owner, "make it with `keyloader owner create`, or add --create-owner"));
  }
  change.create(new_owner(options.owner));
}

std::string description(const Key& key) {
  std::string text = fmt::format("{} of {}, plan {}", text_of(key.id), key.owner, key.plan);
  text += key.expires == 0 ? ", never expires" : ", expires " + time_text(key.expires);
  return text + ". This is the only time the key is shown.";
}

// Of the JSON object all but its end: what became of the key is known only when nginx has been waited for, and by then
// the key must have been read.
void show_once(const Session& session, const Key& key, std::string_view secret) {
  if (!session.is_json) {
    print_out(std::string{secret} + "\n");
    return;
  }
  Json json = to_json(key);
  json["key"] = secret;
  std::string text = json_text(json);
  text.pop_back();
  print_out(text);
  apikey::wipe(std::span<char>{text.data(), text.size()});
}

void show_outcome(const Session& session, const Key& key, const Outcome& outcome) {
  if (session.is_json) {
    print_out("," + json_text(outcome.json()).substr(1) + "\n");
    return;
  }
  print_note(description(key));
  if (outcome.is_done()) {
    print_note(outcome.text());
  }
}

// Whoever keeps what was printed would keep a key that nobody lets in. The JSON object stays without its end, so that
// its reader does not take the key from it.
Outcome deliver_shown(const Session& session, Registry& registry, Change& change, const Key& key,
                      const DeliveryOptions& options) {
  try {
    return deliver(session, registry, change, options);
  } catch (const WaitsForApproval& waits) {
    // Nobody knows the key but whoever read it, and it is good once somebody else has said yes.
    if (session.is_json) {
      print_out("," + json_text(request_json(waits)).substr(1) + "\n");
    }
    throw NotActive(fmt::format("the key that was printed, {}, is good once a second person has approved it: {}",
                                text_of(key.id), request_text(session, waits)));
  } catch (const Failure& failure) {
    throw Failure(fmt::format("the key that was printed is not valid, throw it away; it could not be stored: {}",
                              failure.what()));
  }
}

}  // namespace

void create_key(const Session& session, const CreateOptions& options) {
  if (options.prefix) {
    check_prefix(*options.prefix, options.is_sure);
  }
  check(options.delivery);
  check_reason(options.reason);
  const DataDir directory = session.dir();
  const auto registry = session.open_registry();
  DigestMethods methods(directory, *registry);
  const auto change = registry->begin_change();
  change->because(options.reason);
  ensure_owner(*registry, *change, options);

  Key key;
  key.owner = options.owner;
  key.prefix = options.prefix.value_or(prefix_of(registry->info()));
  key.admin_scopes = options.admin_scopes;
  key.may_grant = options.may_grant;
  key.teams = options.teams;
  key.created = wall_clock();
  key.id = new_key_id();
  key.family = key.id;
  key.method = methods.current();
  apply(options.fields, *registry, key);
  check_ref(*registry, key);
  Session::warn(check_limits(*registry, key, "the key"));
  warn_of(*registry, key, options.fields);
  const SecretText secret = make_secret_key(key.prefix, key.env);
  key.digest = methods.digest(key.method, secret.view());
  key.hint = hint_of(secret.view());
  change->create(key, "create");
  if (options.delivery.is_dry_run) {
    Json json = to_json(key);
    json.erase("id");  // another one each time, as is the hint
    json.erase("hint");
    report(session, fmt::format("created a key of {}, plan {}", key.owner, key.plan), json,
           deliver(session, *registry, *change, options.delivery));
    return;
  }
  // Shown before it is committed: a key nobody could read is not made.
  show_once(session, key, secret.view());
  const Outcome outcome = deliver_shown(session, *registry, *change, key, options.delivery);
  show_outcome(session, key, outcome);
  settle_secret(outcome, options.delivery);
}

void add_create_options(Command& command, CreateOptions& options) {
  command.required_option("--owner", options.owner, "OWNER", "Whose key it is");
  command.flag("--create-owner", options.creates_owner, "Make the owner when it is not there");
  command.option("--prefix", options.prefix, "PREFIX", "How the key begins (default: the registry's)");
  command.flag("--yes", options.is_sure, "Allow a prefix that another vendor uses");
}

void add_key_create(Command& group, Session& session) {
  auto options = std::make_shared<CreateOptions>();
  Command command = group.add("create", "Issue a key: the key on standard output, all else on standard error");
  add_create_options(command, *options);
  command.option("--env", options->fields.env, "ENV", "Environment (default: live)");
  add_key_fields(command, options->fields, true);
  command.option("--reason", options->reason, "TEXT", "Kept in the audit");
  command.tries(options->delivery);
  command.delivers(options->delivery);
  command.footer(
      "The key is shown once, before nginx is waited for; what is kept is its digest. The exit code is 0 when the key\n"
      "exists and nginx has not refused it, also while it is not active yet; 3 then with --wait.\n\n"
      "  keyloader key create --owner acme --create-owner --scope orders:read --expires 90d\n"
      "  keyloader key create --owner shop --env test --plan gold --allow-origin https://shop.example.com\n"
      "  keyloader key create --owner acme --json | jq -r .key");
  command.run([&session, options] { create_key(session, *options); });
}

}  // namespace keyloader
