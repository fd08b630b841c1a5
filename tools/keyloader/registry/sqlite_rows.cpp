// From rows of registry.db to values of model.hpp. Called by sqlite_registry.cpp and sqlite_change.cpp.
// What does not parse is damage and becomes a Failure; it is never passed on half-read.
#include "registry/sqlite_rows.hpp"

#include <fmt/format.h>

#include <stdexcept>

#include "registry/registry.hpp"

namespace keyloader {
namespace {

Json parse_json(std::string_view text) {
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) {
    throw Failure("registry.db is damaged (a column that holds JSON does not); restore it from a backup");
  }
  return json;
}

MetaMap read_meta(std::string_view text) { return text == "{}" ? MetaMap{} : parse_json(text).get<MetaMap>(); }

Limits read_limits(Query& query) {
  Limits limits;
  while (query.step()) {
    limits.push_back(read_limit(query));
  }
  return limits;
}

}  // namespace

std::string join_words(const Texts& words) {
  for (const std::string& word : words) {
    if (word.empty() || word.find(' ') != std::string::npos) {
      throw std::logic_error("a list with a word that would be read back as several, or as none");
    }
  }
  return fmt::format("{}", fmt::join(words, " "));
}

Texts split_words(std::string_view text) {
  Texts words;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (end != 0) {
      words.emplace_back(text.substr(0, end));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

std::string method_name(const Query& row, int pepper_column) {
  if (row.is_null(pepper_column)) {
    return std::string{kPlainMethod};
  }
  return "hmac-sha256:" + row.text(pepper_column);
}

Owner read_owner(Database& database, const Query& row) {
  Owner owner;
  owner.name = row.text(1);
  row.bytes(2, owner.id);
  owner.email = row.text(3);
  owner.team = row.text(4);
  owner.meta = read_meta(row.view(5));
  owner.is_suspended = row.number(6) != 0;
  owner.suspended_until = row.number(7);
  owner.created = row.number(8);
  Query limits = database.query(
      "SELECT of, name, kind, unit, amount, period_ns, burst, dry_run FROM owner_limits WHERE of = ? ORDER BY name");
  owner.limits = read_limits(limits.bind(row.number(0)));
  return owner;
}

Plan read_plan(Database& database, const Query& row) {
  Plan plan{.name = row.text(1), .limits = {}, .created = row.number(2)};
  Query limits = database.query(
      "SELECT of, name, kind, unit, amount, period_ns, burst, dry_run FROM plan_limits WHERE of = ? ORDER BY name");
  plan.limits = read_limits(limits.bind(row.number(0)));
  return plan;
}

Role read_role(const Query& row) {
  return {.name = row.text(0), .scopes = split_words(row.view(1)), .created = row.number(2)};
}

Key read_key(const Query& row) {
  Key key;
  row.bytes(0, key.digest.bytes);
  key.method = method_name(row, 1);
  row.bytes(2, key.id.bytes);
  row.bytes(3, key.family.bytes);
  key.owner = row.text(4);
  key.plan = row.text(5);
  key.name = row.text(6);
  key.env = row.text(7);
  key.prefix = row.text(8);
  key.scopes = split_words(row.view(9));
  key.allow_ip = split_words(row.view(10));
  key.allow_origin = split_words(row.view(11));
  key.allow_method = split_words(row.view(12));
  key.allow_host = split_words(row.view(13));
  key.requires_tls = row.number(14) != 0;
  key.meta = read_meta(row.view(15));
  key.created = row.number(16);
  key.not_before = row.number(17);
  key.expires = row.number(18);
  key.is_suspended = row.number(19) != 0;
  key.suspended_until = row.number(20);
  key.revoked = row.number(21);
  key.revoked_reason = row.text(22);
  key.admin_scopes = split_words(row.view(24));
  key.hint = row.text(25);
  key.ref = row.text(26);
  key.may_grant = split_words(row.view(27));
  key.teams = row.view(28).empty() ? Texts{} : parse_json(row.view(28)).get<Texts>();  // a name may hold blanks
  return key;
}

Limit read_limit(const Query& row) {
  return {.name = row.text(1),
          .kind = static_cast<apikey::LimitKind>(row.number(2)),
          .unit = static_cast<apikey::CalendarUnit>(row.number(3)),
          .amount = row.count(4),
          .period_ns = row.count(5),
          .burst = row.count(6) == 0 ? std::nullopt : std::optional(row.count(6)),
          .is_dry_run = row.number(7) != 0};
}

Adjustment read_adjustment(const Query& row) {
  return {.quota = row.text(1), .granted = row.count(2), .granted_until = row.number(3), .last_reset = row.number(4)};
}

AuditEntry read_audit_entry(const Query& row) {
  AuditEntry entry;
  entry.seq = row.count(0);
  entry.time = row.number(1);
  entry.actor = parse_json(row.view(2));
  entry.action = row.text(3);
  entry.object = row.text(4);
  entry.before = parse_json(row.view(5));
  entry.after = parse_json(row.view(6));
  row.bytes(7, entry.prev_hash);
  row.bytes(8, entry.hash);
  return entry;
}

}  // namespace keyloader
