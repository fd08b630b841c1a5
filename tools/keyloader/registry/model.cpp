// Values of the registry as text and JSON, and the hash that chains audit entries.
// Called by commands (output) and by each Registry (audit). Must never write a digest or a secret anywhere.
#include "registry/model.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <stdexcept>

#include "apikey/meta.hpp"
#include "apikey/rate_spec.hpp"
#include "apikey/scope_set.hpp"

namespace keyloader {
namespace {

constexpr std::array<std::string_view, 7> kUnitNames{"none", "minute", "hour", "day", "week", "month", "year"};

std::string_view kind_text(apikey::LimitKind kind) {
  switch (kind) {
    case apikey::LimitKind::rate:
      return "rate";
    case apikey::LimitKind::calendar_quota:
      return "calendar_quota";
    case apikey::LimitKind::rolling_quota:
      return "rolling_quota";
    case apikey::LimitKind::concurrency:
      return "concurrency";
    case apikey::LimitKind::adjustment:
      break;  // stands in snapshots only
  }
  return "unknown";
}

// CalendarUnit::none for a name that there is not.
apikey::CalendarUnit unit_from(std::string_view name) {
  const auto* const found = std::find(kUnitNames.begin(), kUnitNames.end(), name);
  return found == kUnitNames.end() ? apikey::CalendarUnit::none
                                   : static_cast<apikey::CalendarUnit>(found - kUnitNames.begin());
}

const char* environment_text(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): there is one thread
  return value != nullptr ? value : "";
}

Json find_actor() {
  const uid_t uid = getuid();
  const passwd* entry = getpwuid(uid);  // NOLINT(concurrency-mt-unsafe): there is one thread
  Json actor{{"uid", uid}, {"user", entry != nullptr ? entry->pw_name : std::to_string(uid)}};
  // Only whoever is root already can make these up.
  if (uid == 0 && *environment_text("SUDO_USER") != '\0') {
    actor["sudo_user"] = environment_text("SUDO_USER");
    actor["sudo_uid"] = environment_text("SUDO_UID");
  }
  return actor;
}

}  // namespace

Json current_actor() {
  static const Json actor = find_actor();
  return actor;
}

std::string user_of(const Json& actor) { return actor.value("sudo_user", actor.value("user", std::string{})); }

std::string text_of(const apikey::KeyId& id) {
  const auto text = apikey::key_id_text(id);
  return {text.data(), text.size()};
}

std::optional<apikey::KeyId> key_id_from(std::string_view text) {
  apikey::KeyId id;
  if (!apikey::parse_key_id(text, id)) {
    return std::nullopt;
  }
  return id;
}

std::string hex(const std::uint8_t* bytes, std::size_t length) {
  std::string text(2 * length, '0');
  apikey::to_hex({bytes, length}, {text.data(), text.size()});
  return text;
}

bool is_suspended(const Owner& owner, Seconds now) {
  return owner.is_suspended && (owner.suspended_until == 0 || now < owner.suspended_until);
}

Texts effective_scopes(const Key& key, const std::function<Texts(const std::string& role)>& scopes_of) {
  Texts scopes = key.scopes;
  for (const std::string& role : key.roles) {
    const Texts more = scopes_of(role);
    scopes.insert(scopes.end(), more.begin(), more.end());
  }
  std::erase_if(scopes, [](const std::string& scope) { return apikey::is_reserved_scope(scope); });
  scopes.insert(scopes.end(), key.admin_scopes.begin(), key.admin_scopes.end());
  std::sort(scopes.begin(), scopes.end());
  scopes.erase(std::unique(scopes.begin(), scopes.end()), scopes.end());
  return scopes;
}

std::string_view state_of(const Key& key, Seconds now) {
  if (key.revoked != 0) {
    return "revoked";
  }
  if (key.is_suspended && (key.suspended_until == 0 || now < key.suspended_until)) {
    return "suspended";
  }
  if (key.not_before > now) {
    return "not_yet_valid";
  }
  return key.expires != 0 && key.expires <= now ? "expired" : "active";
}

bool lasts_as_long(Seconds is, Seconds wanted) { return is == 0 || (wanted != 0 && is >= wanted); }

std::string_view unit_text(apikey::CalendarUnit unit) { return kUnitNames.at(static_cast<std::size_t>(unit)); }

std::uint64_t burst_of(const Limit& limit) {
  if (limit.kind != apikey::LimitKind::rate) {
    return 0;
  }
  return limit.burst ? *limit.burst : apikey::default_burst({limit.amount, limit.period_ns});
}

Json to_json(const Limit& limit) {
  Json json{
      {"name", limit.name}, {"kind", kind_text(limit.kind)}, {"amount", limit.amount}, {"dry_run", limit.is_dry_run}};
  if (limit.kind == apikey::LimitKind::calendar_quota) {
    json["window"] = unit_text(limit.unit);
  }
  if (limit.period_ns != 0) {
    json["period_ns"] = limit.period_ns;
  }
  if (limit.kind == apikey::LimitKind::rate) {
    json["burst"] = burst_of(limit);
  }
  return json;
}

Json to_json(const Limits& limits) {
  Json list = Json::array();
  for (const Limit& limit : limits) {
    list.push_back(to_json(limit));
  }
  return list;
}

Json field_of(const Json& state, std::string_view name) {
  return state.is_object() ? state.value(std::string{name}, Json{}) : Json{};
}

std::optional<Limit> limit_from(const Json& json) {
  try {
    Limit limit{.name = json.at("name").get<std::string>()};
    limit.amount = json.at("amount").get<std::uint64_t>();
    limit.period_ns = json.value("period_ns", std::uint64_t{0});
    limit.is_dry_run = json.value("dry_run", false);
    const auto kind = json.at("kind").get<std::string>();
    if (kind == "rate") {
      limit.kind = apikey::LimitKind::rate;
      const auto burst = json.at("burst").get<std::uint64_t>();
      if (burst != burst_of(limit)) {
        limit.burst = burst;
      }
    } else if (kind == "rolling_quota") {
      limit.kind = apikey::LimitKind::rolling_quota;
    } else if (kind == "concurrency") {
      limit.kind = apikey::LimitKind::concurrency;
    } else if (kind == "calendar_quota") {
      limit.kind = apikey::LimitKind::calendar_quota;
      limit.unit = unit_from(json.at("window").get<std::string>());
    }
    const bool is_known =
        kind == kind_text(limit.kind) && (kind != "calendar_quota" || limit.unit != apikey::CalendarUnit::none);
    return is_known ? std::optional(limit) : std::nullopt;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

Json to_json(const Adjustment& adjustment) {
  return {{"quota", adjustment.quota},
          {"granted", adjustment.granted},
          {"granted_until", time_json(adjustment.granted_until)},
          {"last_reset", time_json(adjustment.last_reset)}};
}

Json to_json(const Owner& owner) {
  return {{"name", owner.name},
          {"id", hex(owner.id)},
          {"email", owner.email},
          {"team", owner.team},
          {"meta", owner.meta},
          {"limits", to_json(owner.limits)},
          {"suspended", owner.is_suspended},
          {"suspended_until", time_json(owner.suspended_until)},
          {"created", time_json(owner.created)}};
}

Json to_json(const Plan& plan) {
  return {{"name", plan.name}, {"limits", to_json(plan.limits)}, {"created", time_json(plan.created)}};
}

Json to_json(const Role& role) {
  return {{"name", role.name}, {"scopes", role.scopes}, {"created", time_json(role.created)}};
}

// Assigned one by one: an initializer list copies every value twice, and an import does this for each key.
Json to_json(const Key& key) {
  Json json = Json::object();
  json["id"] = text_of(key.id);
  json["family"] = text_of(key.family);
  json["digest_method"] = key.method;
  json["owner"] = key.owner;
  json["plan"] = key.plan;
  json["name"] = key.name;
  json["env"] = key.env;
  json["prefix"] = key.prefix;
  json["hint"] = key.hint;
  json["ref"] = key.ref;
  json["scopes"] = key.scopes;
  json["roles"] = key.roles;
  json["admin_scopes"] = key.admin_scopes;
  if (!key.may_grant.empty()) {
    json["may_grant"] = key.may_grant;
  }
  if (!key.teams.empty()) {
    json["teams"] = key.teams;
  }
  json["limits"] = to_json(key.limits);
  json["allow_ip"] = key.allow_ip;
  json["allow_origin"] = key.allow_origin;
  json["allow_method"] = key.allow_method;
  json["allow_host"] = key.allow_host;
  json["require_tls"] = key.requires_tls;
  json["meta"] = key.meta;
  json["created"] = time_json(key.created);
  json["not_before"] = time_json(key.not_before);
  json["expires"] = time_json(key.expires);
  json["suspended"] = key.is_suspended;
  json["suspended_until"] = time_json(key.suspended_until);
  json["revoked"] = time_json(key.revoked);
  json["revoked_reason"] = key.revoked_reason;
  return json;
}

Json to_json(const Pepper& pepper) {
  return {{"id", pepper.id}, {"created", time_json(pepper.created)}, {"current", pepper.is_current}};
}

Json to_json(const AuditEntry& entry) {
  return {{"seq", entry.seq},       {"time", time_text(entry.time)},
          {"actor", entry.actor},   {"action", entry.action},
          {"object", entry.object}, {"before", entry.before},
          {"after", entry.after},   {"prev_hash", hex(entry.prev_hash)},
          {"hash", hex(entry.hash)}};
}

Json to_json(const Policy& policy) {
  return {{"require_meta", policy.required_meta},
          {"key_name", policy.key_names},
          {"owner_name", policy.owner_names},
          {"approve_scope", policy.approve_scopes},
          {"approve_action", policy.approve_actions}};
}

Policy policy_from(const Json& json) {
  return {.required_meta = json.value("require_meta", Texts{}),
          .key_names = json.value("key_name", Texts{}),
          .owner_names = json.value("owner_name", Texts{}),
          .approve_scopes = json.value("approve_scope", Texts{}),
          .approve_actions = json.value("approve_action", Texts{})};
}

Json to_json(const Approval& approval) {
  Json json{{"request", approval.number},
            {"state", approval.state},
            {"asked", time_json(approval.created)},
            {"ends", time_json(approval.ends)},
            {"actor", approval.actor},
            {"owner", approval.owner.empty() ? Json(nullptr) : Json(approval.owner)},
            {"reason", approval.reason},
            {"needs", approval.needs},
            {"decider", approval.decider},
            {"decided", time_json(approval.decided)}};
  if (!approval.why.empty()) {
    json["why"] = approval.why;
  }
  return json;
}

std::string time_text(Seconds time) {
  const std::time_t value = time;
  std::tm parts{};
  if (gmtime_r(&value, &parts) == nullptr) {
    return std::to_string(time);
  }
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                     parts.tm_hour, parts.tm_min, parts.tm_sec);
}

Json time_json(Seconds time) { return time == 0 ? Json(nullptr) : Json(time_text(time)); }

Seconds seconds_from(const std::string& text) {
  std::tm parts{};
  const char* end = strptime(text.c_str(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return end != nullptr && *end == '\0' ? timegm(&parts) : 0;
}

Seconds wall_clock() { return std::time(nullptr); }

Hash chain_hash(const AuditEntry& entry, const AuditTexts& texts) {
  std::string bytes(entry.prev_hash.begin(), entry.prev_hash.end());
  bytes += fmt::format(R"({{"action":{},"actor":{},"after":{},"before":{},"object":{},"seq":{},"time":{}}})",
                       Json(entry.action).dump(), texts.actor, texts.after, texts.before, Json(entry.object).dump(),
                       entry.seq, entry.time);
  Hash hash{};
  if (EVP_Digest(bytes.data(), bytes.size(), hash.data(), nullptr, EVP_sha256(), nullptr) != 1) {
    throw std::runtime_error("libcrypto could not compute a SHA-256");
  }
  return hash;
}

Hash chain_hash(const AuditEntry& entry) {
  const std::string actor = entry.actor.dump();
  const std::string before = entry.before.dump();
  const std::string after = entry.after.dump();
  return chain_hash(entry, {.actor = actor, .before = before, .after = after});
}

}  // namespace keyloader
