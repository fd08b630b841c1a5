// From words to a key's fields, each checked. Called by `key create`, `key set` and import.
// Must never let through what a snapshot could not hold or the module would read differently.
#include "key_fields.hpp"

#include <fmt/format.h>

#include "apikey/key_form.hpp"
#include "bindings.hpp"
#include "names.hpp"
#include "session.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kMaxKeyName = 256;
constexpr std::size_t kMaxRef = 64;

void set_list(Texts& field, std::string_view what, const Texts& words, std::string (*tidy)(const std::string&)) {
  if (words.empty()) {
    return;
  }
  Texts list;
  if (!clears(what, words)) {
    for (const std::string& word : words) {
      list.push_back(tidy(word));
    }
  }
  field = sorted_once(std::move(list));
}

void set_plan(Registry& registry, const std::string& name, Key& key) {
  const std::string plan = is_none(name) ? std::string{kDefaultPlan} : name;
  if (!registry.plan(plan)) {
    throw Failure(no_plan(registry, plan, "make it with `keyloader plan create`"));
  }
  key.plan = plan;
}

void set_roles(Registry& registry, const Texts& words, Key& key) {
  if (words.empty()) {
    return;
  }
  Texts roles;
  if (!clears("roles", words)) {
    roles = sorted_once(words);
  }
  for (const std::string& role : roles) {
    if (!registry.role(role)) {
      throw Failure(no_role(registry, role, "make it with `keyloader role create`"));
    }
  }
  key.roles = std::move(roles);
}

void set_name(const std::string& name, Key& key) {
  if (!is_none(name)) {
    check_text("name of a key", name, kMaxKeyName);
  }
  key.name = is_none(name) ? std::string{} : name;
}

void set_ref(const std::string& ref, Key& key) {
  if (!is_none(ref)) {
    check_text("ref of a key", ref, kMaxRef);
  }
  key.ref = is_none(ref) ? std::string{} : ref;
}

void set_env(const std::string& env, Key& key) {
  if (!apikey::is_valid_env(env)) {
    throw UsageError(
        fmt::format("\"{}\" is no environment: 1-{} of a-z 0-9, such as live or test", env, apikey::kMaxEnvLength));
  }
  key.env = env;
}

}  // namespace

bool KeyFields::names_nothing() const {
  const bool has_text = name || ref || plan || env || expires || not_before;
  const bool has_list = !scopes.empty() || !roles.empty() || !allow_ip.empty() || !allow_origin.empty() ||
                        !allow_method.empty() || !allow_host.empty() || !meta.empty();
  return !has_text && !has_list && limits.names_nothing() && !requires_tls && !forgets_tls;
}

void apply(const KeyFields& fields, Registry& registry, Key& key) {
  const Seconds now = wall_clock();
  if (fields.name) {
    set_name(*fields.name, key);
  }
  if (fields.ref) {
    set_ref(*fields.ref, key);
  }
  if (fields.plan) {
    set_plan(registry, *fields.plan, key);
  }
  if (fields.env) {
    set_env(*fields.env, key);
  }
  if (fields.expires) {
    key.expires = parse_end(*fields.expires, now).value_or(0);
  }
  if (fields.not_before) {
    key.not_before = parse_start(*fields.not_before, now).value_or(0);
  }
  if (key.expires != 0 && key.not_before >= key.expires) {
    throw UsageError(fmt::format("the key would expire ({}) before it becomes valid ({})", time_text(key.expires),
                                 time_text(key.not_before)));
  }
  apply_limits(key.limits, fields.limits, LimitHolder::key);
  if (!fields.scopes.empty()) {
    key.scopes = clears("scopes", fields.scopes) ? Texts{} : tidy_scopes(fields.scopes);
  }
  set_roles(registry, fields.roles, key);
  set_list(key.allow_ip, "networks", fields.allow_ip, tidy_network);
  set_list(key.allow_origin, "origins", fields.allow_origin, tidy_origin);
  set_list(key.allow_method, "methods", fields.allow_method, tidy_method);
  set_list(key.allow_host, "hosts", fields.allow_host, tidy_host);
  apply_meta(key.meta, fields.meta);
  key.requires_tls = (key.requires_tls || fields.requires_tls) && !fields.forgets_tls;
  static_cast<void>(encode_bindings(key));  // refuses what would not fit
}

std::optional<Key> key_with_ref_of(Registry& registry, const Key& key) {
  std::optional<Key> found;
  if (key.ref.empty()) {
    return found;
  }
  registry.each_key({.owner = key.owner, .env = {}, .role = {}, .ref = key.ref}, [&](const Key& other) {
    if (other.id != key.id) {
      found = other;
    }
    return !found;
  });
  return found;
}

std::string ref_taken(const Key& other, std::string_view ref) {
  return fmt::format(
      "{} of {}{} has {} already; choose another, or take it away with `keyloader key set {} --ref none`",
      text_of(other.id), other.owner, other.revoked == 0 ? "" : ", which is revoked,", ref, text_of(other.id));
}

void check_ref(Registry& registry, const Key& key) {
  if (const auto other = key_with_ref_of(registry, key)) {
    throw Failure(ref_taken(*other, fmt::format("the ref \"{}\"", key.ref)));
  }
}

void warn_of_name(Registry& registry, const Key& key, const KeyFields& fields) {
  if (!fields.name || key.name.empty()) {
    return;
  }
  registry.each_key({.owner = key.owner, .env = {}, .role = {}, .name = key.name}, [&](const Key& other) {
    const bool is_namesake = other.id != key.id && other.revoked == 0;
    if (is_namesake) {
      Session::warn(fmt::format("{} of {} is called \"{}\", too; commands tell keys apart by their ids only",
                                text_of(other.id), other.owner, other.name));
    }
    return !is_namesake;
  });
}

void add_key_fields(Command& command, KeyFields& fields, bool is_new) {
  command.option("--name", fields.name, "NAME", "What it is for, for people");
  command.option("--ref", fields.ref, "REF", "Your own name or number for it, unique per owner: 1-64 bytes");
  command.words("--scope", fields.scopes, "SCOPE", "A scope it holds: orders:read, orders:* (again for more)");
  command.words("--role", fields.roles, "ROLE", "A role whose scopes it holds (again for more)");
  command.option("--plan", fields.plan, "PLAN", "The plan that limits it (default: default)");
  add_limit_options(command, fields.limits, LimitHolder::key);
  if (!is_new) {
    add_enforce_option(command, fields.limits);
  }
  command.option("--expires", fields.expires, "WHEN", "90d, 24h, 2027-01-31, 2027-01-31T12:00:00Z, none");
  command.option("--not-before", fields.not_before, "WHEN", "Good from then on: a time, as with --expires");
  command.words("--allow-ip", fields.allow_ip, "CIDR", "Only from this network (again for more)");
  command.words("--allow-origin", fields.allow_origin, "ORIGIN", "Only from pages of this origin (again for more)");
  command.words("--allow-method", fields.allow_method, "METHOD",
                "Only with this method; GET includes HEAD (again for more)");
  command.words("--allow-host", fields.allow_host, "HOST", "Only to this host (again for more)");
  command.words("--meta", fields.meta, "NAME=VALUE",
                is_new ? "A value for $apikey_meta_<name>" : "A value for $apikey_meta_<name>; name= removes it");
  command.flag("--require-tls", fields.requires_tls, "Only over TLS");
}

}  // namespace keyloader
