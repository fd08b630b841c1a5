// keyloader why: what became of one request, and because of whom. Joins a line of nginx's logs with the registry.
// Must never print a key, and changes nothing.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "audit.hpp"
#include "change_words.hpp"
#include "key.hpp"
#include "limit_rules.hpp"
#include "limit_text.hpp"
#include "log_search.hpp"
#include "session.hpp"
#include "table.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kInstanceSize = 32;
constexpr std::array<std::string_view, 2> kLogs = {"/var/log/nginx/apikey.log", "/var/log/nginx/error.log"};
// The clock of an audit entry and that of a log line are read one after the other, in whole seconds.
constexpr Seconds kSlack = 1;

// What the registry has to say.
struct Background {
  std::unique_ptr<Registry> registry;
  std::string problem;     // why there is none
  std::optional<Key> key;  // as it is now
  std::optional<AuditEntry> cause;
  std::span<const std::string_view> fields;  // what of it the check looked at
  bool is_limit_known = false;               // the registry has, or had since, the limit that refused
  std::optional<AuditEntry> later;           // the newest change of the key behind the request
};

std::string quoted(const std::string& text) { return fmt::format("\"{}\"", text); }

std::string joined(const Texts& words, std::string_view between) {
  return fmt::format("{}", fmt::join(words, between));
}

std::string where(const LoggedDecision& line) {
  return line.location.empty() ? "the location" : "location " + quoted(line.location);
}

// A binding of the key, and what of the request did not match it.
std::string bound(std::string_view what, const std::string& value, const std::optional<Key>& key,
                  const Texts Key::*field) {
  const std::string request =
      value.empty() ? fmt::format("{} is not in the log line", what) : fmt::format("{} was {}", what, quoted(value));
  const std::string allowed =
      !key || ((*key).*field).empty() ? "" : fmt::format("; the key may be used with {}", joined((*key).*field, ", "));
  return fmt::format("the key is bound, and the request did not match: {}{}", request, allowed);
}

std::string scope_sentence(const LoggedDecision& line, const Background& known) {
  if (line.required.empty()) {
    return fmt::format("no apikey_scope of {} covers {}, so no key may use it there", where(line),
                       line.method.empty() ? "this method" : "the method " + line.method);
  }
  std::string has;
  if (known.key) {
    const Texts scopes = RoleScopes(*known.registry).scopes_of(*known.key);
    has = fmt::format("; the key has {}", scopes.empty() ? "none" : joined(scopes, ", "));
  }
  return fmt::format("{} needs the scope {}{}", where(line), joined(line.required, " or "), has);
}

bool is_limited(const LoggedDecision& line) {
  return line.outcome == "rate_limited" || line.outcome == "quota_exceeded" || line.outcome == "concurrency_limited";
}

std::string limit_sentence(const LoggedDecision& line, const Background& known) {
  std::string limit = line.limit.empty() ? "a limit" : "the limit " + quoted(line.limit);
  if (known.key) {
    const auto all = effective_limits(*known.registry, *known.key);
    const auto at =
        std::find_if(all.begin(), all.end(), [&](const EffectiveLimit& each) { return each.limit.name == line.limit; });
    limit += at != all.end()        ? fmt::format(" of {}, {},", source_text(*at), limit_text(at->limit))
             : known.is_limit_known ? ", which the key no longer has,"
                                    : fmt::format(" of {} (apikey_limit)", where(line));
  }
  if (line.outcome == "concurrency_limited") {
    return limit + " was reached: so many requests were in flight";
  }
  return fmt::format("{} was used up", limit);
}

std::string moment(const std::optional<Key>& key, Seconds Key::*time, std::string_view before, std::string_view else_) {
  return key && (*key).*time != 0 ? fmt::format("{} {}", before, time_text((*key).*time)) : std::string{else_};
}

// The check that decided, with what it compared. Of what a key has, the registry knows how it is now.
std::string check_sentence(const LoggedDecision& line, const Background& known) {
  const std::string& outcome = line.outcome;
  const std::optional<Key>& key = known.key;
  if (outcome == "ok") {
    return "every check was passed";
  }
  if (outcome == "missing") {
    return fmt::format("the request had no key where {} takes keys from (apikey_from)", where(line));
  }
  if (outcome == "malformed") {
    return "what was presented has not the form of a key: it was cut, mistyped (the checksum is wrong), or sent twice";
  }
  if (outcome == "unknown") {
    return "no key of this registry was presented: it is of another one, was deleted, or is made up";
  }
  if (outcome == "revoked") {
    return moment(key, &Key::revoked, "the key was revoked at", "the key was revoked");
  }
  if (outcome == "suspended") {
    return !known.cause                                ? std::string{"the key, or its owner, was suspended"}
           : known.cause->action.starts_with("owner.") ? fmt::format("its owner {} was suspended", known.cause->object)
                                                       : std::string{"the key was suspended"};
  }
  if (outcome == "not_yet_valid") {
    return moment(key, &Key::not_before, "the key is not valid before", "the key was not valid yet");
  }
  if (outcome == "expired") {
    return moment(key, &Key::expires, "the key expired at", "the key had expired");
  }
  if (outcome == "throttled") {
    return fmt::format("there were too many failed attempts from {} (apikey_fail_limit)",
                       line.address.empty() ? "this address" : line.address);
  }
  if (outcome == "wrong_environment") {
    const std::string& env = line.env.empty() && key ? key->env : line.env;
    return fmt::format("{} does not take keys of the environment {} (apikey_environment)", where(line), quoted(env));
  }
  if (outcome == "wrong_address") {
    return bound("its address", line.address, key, &Key::allow_ip);
  }
  if (outcome == "tls_required") {
    return "the key may only be used over TLS, and the request came without";
  }
  if (outcome == "wrong_origin") {
    return bound("its Origin", line.origin, key, &Key::allow_origin);
  }
  if (outcome == "wrong_method") {
    return bound("its method", line.method, key, &Key::allow_method);
  }
  if (outcome == "wrong_host") {
    return bound("its host", line.host, key, &Key::allow_host);
  }
  if (outcome == "scope") {
    return scope_sentence(line, known);
  }
  if (is_limited(line)) {
    return limit_sentence(line, known);
  }
  if (outcome == "unavailable" || outcome == "bypass") {
    return fmt::format("nginx could not decide{}; its error log says why, and `keyloader doctor` looks for it",
                       outcome == "bypass" ? " and let it pass (on_error=allow)" : "");
  }
  if (outcome == "preflight") {
    return "it is a CORS preflight, which needs no key";
  }
  if (outcome == "anonymous") {
    return fmt::format("it had no key, and {} needs none (optional)", where(line));
  }
  if (outcome == "skipped") {
    return "somebody else let it in (satisfy any)";
  }
  return "this keyloader does not know this outcome";
}

// nginx.conf alone refused: there is no scope that would have let a key in.
bool is_of_location(const LoggedDecision& line) { return line.outcome == "scope" && line.required.empty(); }

// The fields whose change may be the cause; of the key itself, its owner, its plan and its roles.
struct Fields {
  std::string_view outcome;
  std::array<std::string_view, 2> names;
};
constexpr std::array<Fields, 14> kFields = {{{"revoked", {"revoked"}},
                                             {"suspended", {"suspended", "suspended_until"}},
                                             {"not_yet_valid", {"not_before"}},
                                             {"expired", {"expires"}},
                                             {"wrong_environment", {"env"}},
                                             {"wrong_address", {"allow_ip"}},
                                             {"tls_required", {"require_tls"}},
                                             {"wrong_origin", {"allow_origin"}},
                                             {"wrong_method", {"allow_method"}},
                                             {"wrong_host", {"allow_host"}},
                                             {"scope", {"scopes", "roles"}},
                                             {"rate_limited", {"limits", "plan"}},
                                             {"quota_exceeded", {"limits", "plan"}},
                                             {"concurrency_limited", {"limits", "plan"}}}};

// The entry without the limits of other names; all of it for a decision that no limit made.
AuditEntry narrowed(const AuditEntry& entry, const std::string& limit) {
  AuditEntry narrow = entry;
  for (Json* const state : {&narrow.before, &narrow.after}) {
    if (!limit.empty() && state->is_object() && state->contains("limits")) {
      Json left = Json::array();
      for (const Json& each : state->at("limits")) {
        if (each.value("name", std::string{}) == limit) {
          left.push_back(each);
        }
      }
      (*state)["limits"] = left;
    }
  }
  return narrow;
}

bool has_changed(const AuditEntry& entry, const Fields& fields, const std::string& limit) {
  const AuditEntry narrow = narrowed(entry, limit);
  const auto value = [](const Json& state, std::string_view name) {
    const Json found = field_of(state, name);
    return found.is_array() && found.empty() ? Json{} : found;
  };
  return std::any_of(fields.names.begin(), fields.names.end(), [&](std::string_view name) {
    return !name.empty() && value(narrow.before, name) != value(narrow.after, name);
  });
}

bool has_limit(const AuditEntry& entry, const std::string& limit) {
  const AuditEntry narrow = narrowed(entry, limit);
  return !field_of(narrow.before, "limits").empty() || !field_of(narrow.after, "limits").empty();
}

// The newest change of these fields before the request, of one object.
void look_for_cause(Registry& registry, const std::string& object, std::string_view kind, const Fields& fields,
                    const LoggedDecision& line, std::optional<AuditEntry>& cause) {
  registry.each_audit_entry({.object = object, .action = std::string{kind}}, [&](const AuditEntry& entry) {
    if ((line.time == 0 || entry.time <= line.time + kSlack) && has_changed(entry, fields, line.limit) &&
        (!cause || entry.seq > cause->seq)) {
      cause = entry;
    }
  });
}

// The newest change of it stopped it, until after the request.
bool is_suspension(const std::optional<AuditEntry>& entry, Seconds time) {
  if (!entry || field_of(entry->after, "suspended") != true) {
    return false;
  }
  const Json until = field_of(entry->after, "suspended_until");
  return !until.is_string() || time == 0 || until.get<std::string>() > time_text(time);
}

// A limit of the location is none of the registry's, and no change there is its cause.
void find_cause_of_limit(const LoggedDecision& line, const Fields& fields, Background& known) {
  Registry& registry = *known.registry;
  const std::array<std::pair<std::string, std::string_view>, 3> objects = {
      {{line.key, "key"}, {known.key->plan, "plan"}, {known.key->owner, "owner"}}};
  for (const auto& [object, kind] : objects) {
    registry.each_audit_entry({.object = object, .action = std::string{kind}}, [&](const AuditEntry& entry) {
      known.is_limit_known = known.is_limit_known || line.limit.empty() || has_limit(entry, line.limit);
    });
  }
  if (!known.is_limit_known) {
    return;
  }
  const auto all = effective_limits(registry, *known.key);
  const auto at =
      std::find_if(all.begin(), all.end(), [&](const EffectiveLimit& each) { return each.limit.name == line.limit; });
  for (const auto& [object, kind] : objects) {
    // Of a limit that it no longer has, any of the three may have been the one that had it.
    if (at == all.end() || at->from.starts_with(kind) || (kind == "key" && at->from.starts_with("plan"))) {
      look_for_cause(registry, object, kind, fields, line, known.cause);
    }
  }
}

void find_cause(const LoggedDecision& line, Background& known) {
  Registry& registry = *known.registry;
  const auto* const fields =
      std::find_if(kFields.begin(), kFields.end(), [&](const Fields& each) { return each.outcome == line.outcome; });
  if (fields != kFields.end() && !is_of_location(line)) {
    known.fields = fields->names;
    if (fields->names.front() == "limits") {
      if (known.key) {
        find_cause_of_limit(line, *fields, known);
      }
    } else {
      look_for_cause(registry, line.key, "key", *fields, line, known.cause);
    }
    if (line.outcome == "suspended" && !is_suspension(known.cause, line.time)) {
      known.cause.reset();
      if (!line.owner.empty()) {
        look_for_cause(registry, line.owner, "owner", *fields, line, known.cause);
      }
      if (!is_suspension(known.cause, line.time)) {
        known.cause.reset();
      }
    }
    if (known.key && line.outcome == "scope") {
      for (const std::string& role : known.key->roles) {
        look_for_cause(registry, role, "role", *fields, line, known.cause);
      }
    }
  }
  registry.each_audit_entry({.object = line.key, .action = "key"}, [&](const AuditEntry& entry) {
    if (line.time != 0 && entry.time > line.time + kSlack) {
      known.later = entry;
    }
  });
}

// The log may be of an nginx whose registry is elsewhere: then what the line says has to do.
Background background_of(const Session& session, const LoggedDecision& line) {
  Background known;
  try {
    known.registry = session.open_registry();
    const auto id = key_id_from(line.key);
    if (!id) {
      return known;
    }
    known.key = known.registry->key(*id);
    find_cause(line, known);
  } catch (const Failure& failure) {
    known.problem = failure.what();
  }
  return known;
}

std::string done_word(std::string_view action) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 6> words = {{{"create", "created"},
                                                                                   {"set", "changed"},
                                                                                   {"suspend", "suspended"},
                                                                                   {"resume", "resumed"},
                                                                                   {"revoke", "revoked"},
                                                                                   {"delete", "deleted"}}};
  const auto* const found =
      std::find_if(words.begin(), words.end(), [&](const auto& each) { return each.first == action; });
  return std::string{found == words.end() ? action : found->second};
}

std::string with_reason(const std::string& text, const Json& reason) {
  return reason.is_string() && reason != "" ? fmt::format("{}, reason: {}", text, reason.get<std::string>()) : text;
}

// "revoked by alice at 2026-11-27T02:13:00Z, reason: leak"; of what is not the key itself: "plan gold changed by …".
std::string entry_text(const AuditEntry& entry, std::span<const std::string_view> only) {
  const std::string_view action = entry.action;
  const std::string_view kind = action.substr(0, action.find('.'));
  const std::string_view did = action.substr(std::min(kind.size() + 1, action.size()));
  std::string text = kind == "key" ? "" : fmt::format("{} {} ", kind, entry.object);
  text += fmt::format("{} by {} at {}", done_word(did), actor_text(entry.actor), time_text(entry.time));
  if (did == "revoke") {
    return with_reason(text, field_of(entry.after, "revoked_reason"));
  }
  if (did == "delete") {
    const std::string was = change_words(entry, only);  // which says the reason too
    return was.empty() ? text : fmt::format("{}: {}", text, was);
  }
  AuditEntry change = entry;
  if (change.after.is_object()) {
    change.after.erase("reason");
  }
  const std::string words = change_words(change, only);
  return with_reason(words.empty() ? text : fmt::format("{}: {}", text, words), field_of(entry.after, "reason"));
}

std::string key_text(const LoggedDecision& line, const Background& known) {
  if (line.key.empty()) {
    return "none of the registry was presented";
  }
  std::string text = line.owner.empty() ? line.key : fmt::format("{} of {}", line.key, line.owner);
  if (known.key && !known.key->name.empty()) {
    text += fmt::format(", {}", quoted(known.key->name));
  }
  if (known.registry != nullptr && known.problem.empty() && !known.key) {
    const Seconds deleted = known.registry->deleted(line.key, "key.delete");
    text += deleted != 0 ? fmt::format(" (deleted at {})", time_text(deleted))
                         : " (the registry of this directory does not know it: it is another one's)";
  }
  return text;
}

std::string read_text(const ReadLog& log) {
  if (log.problem.empty()) {
    return fmt::format("{} ({} {})", log.path.string(), log.lines, log.lines == 1 ? "line" : "lines");
  }
  return fmt::format("{} ({})", log.path.string(), log.problem);
}

std::string result_text(const LoggedDecision& line) {
  const bool is_let_in = line.outcome == "ok" || line.outcome == "anonymous" || line.outcome == "preflight" ||
                         line.outcome == "bypass" || line.outcome == "skipped";
  if (line.is_dry_run) {
    return fmt::format("let in by a dry run (apikey_dry_run); else it would have been refused: {}", line.outcome);
  }
  return fmt::format("{}{}: {}", is_let_in ? "let in" : "refused",
                     line.status.empty() ? "" : fmt::format(", answered {}", line.status), line.outcome);
}

Json json_of(const LoggedDecision& line, const Background& known, const ReadLog& log, const std::string& instance,
             const std::string& check) {
  const auto entry_json = [](const std::optional<AuditEntry>& entry) {
    Json json = entry ? to_json(*entry) : Json{};
    if (entry) {
      json["change"] = change_words(*entry);
    }
    return json;
  };
  return {{"instance", instance},
          {"time", line.time != 0 ? time_json(line.time) : Json(line.time_text)},
          {"outcome", line.outcome},
          {"dry_run", line.is_dry_run},
          {"status", line.status},
          {"check", check},
          {"key", line.key},
          {"owner", line.owner},
          {"env", line.env},
          {"required", line.required},
          {"limit", line.limit},
          {"location", line.location},
          {"generation", line.generation},
          {"address", line.address},
          {"method", line.method},
          {"host", line.host},
          {"origin", line.origin},
          {"request", line.request},
          {"cause", entry_json(known.cause)},
          {"later", entry_json(known.later)},
          {"registry_problem", known.problem},
          {"log", {{"file", log.path.string()}, {"lines", log.lines}}}};
}

std::string request_text(const LoggedDecision& line) {
  return fmt::format("{}{}", line.request.empty() ? "-" : line.request,
                     line.address.empty() ? "" : " from " + line.address);
}

void explain(const Session& session, const LogSearch& search, const std::string& instance) {
  const LoggedDecision& line = *search.found;
  const Background known = background_of(session, line);
  const std::string check = check_sentence(line, known);
  if (session.is_json) {
    print_out(json_text(json_of(line, known, search.logs.back(), instance, check)) + "\n");
    return;
  }
  std::vector<Texts> rows{{"time", line.time != 0 ? time_text(line.time) : line.time_text},
                          {"request", request_text(line)},
                          {"key", key_text(line, known)},
                          {"check", check},
                          {"location", line.location.empty() ? "-" : line.location},
                          {"generation", line.generation.empty() ? "-" : line.generation}};
  if (known.cause) {
    rows.push_back({"cause", entry_text(narrowed(*known.cause, line.limit), known.fields)});
  } else if (known.problem.empty() &&
             (is_of_location(line) || (known.key && is_limited(line) && !known.is_limit_known))) {
    rows.push_back({"cause", "nginx's configuration"});
  }
  if (known.later) {
    rows.push_back({"changed since", entry_text(*known.later, {})});
  }
  if (!known.problem.empty()) {
    rows.push_back({"registry", known.problem});
  }
  if (line.outcome == "unavailable" && !line.words.empty()) {
    rows.push_back({"nginx said", line.words});
  }
  rows.push_back({"read in", read_text(search.logs.back())});
  print_out(table_text({"result", result_text(line)}, rows) + "\n");
}

[[noreturn]] void fail_not_found(const LogSearch& search, const std::string& instance) {
  Texts read;
  for (const ReadLog& log : search.logs) {
    read.push_back(read_text(log));
  }
  throw Failure(fmt::format(
      "no line about {} in {}. Was it answered by this machine's nginx, and is its log elsewhere (--log FILE)? "
      "Refusals are in the error log from apikey_log_level on; `include snippets/apikey-log.conf;` in http "
      "logs every decision",
      instance, joined(read, ", ")));
}

std::string require_instance(const std::string& text) {
  std::string instance = lower_case(text);
  if (instance.size() != kInstanceSize || instance.find_first_not_of("0123456789abcdef") != std::string::npos) {
    throw UsageError(fmt::format("{} is no request id; write the 32 digits that the refusal's body shows as `instance`",
                                 quoted(without_keys(text))));
  }
  return instance;
}

struct WhyOptions {
  std::string instance;
  std::string log;
};

void why(const Session& session, const WhyOptions& options) {
  const std::string instance = require_instance(options.instance);
  std::vector<std::filesystem::path> logs(kLogs.begin(), kLogs.end());
  if (!options.log.empty()) {
    logs = {options.log};
  }
  const LogSearch search = search_logs(logs, instance);
  if (!search.found) {
    fail_not_found(search, instance);
  }
  explain(session, search, instance);
}

}  // namespace

void add_why_command(Command& app, Session& session) {
  auto options = std::make_shared<WhyOptions>();
  Command command = app.add("why", "Explain what became of a request, by the `instance` its answer showed");
  command.argument("INSTANCE", options->instance, "The request id: 32 digits, in the body of a refusal");
  command.option("--log", options->log, "FILE", "Where to look (default: apikey.log and error.log in /var/log/nginx)");
  command.footer(
      "Reads the access log of snippets/apikey-log.conf or the error log, with the rotated and compressed files "
      "beside\n"
      "it. What it says of a key beyond the log line is how the registry has it now.\n\n"
      "  keyloader why 4f1c0a52b7d84c9c8c1d5a3e2b60f7a9\n"
      "  keyloader why 4f1c0a52b7d84c9c8c1d5a3e2b60f7a9 --log /srv/nginx/logs/error.log --json");
  command.read([&session, options] { why(session, *options); });
}

}  // namespace keyloader
