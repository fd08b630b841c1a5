// keyloader usage statement: everything that settles a dispute about one owner's month. Called by usage.cpp.
// Must name every window in which a count may be short, and every change that bore on what was allowed.
#include <fmt/format.h>

#include "audit.hpp"
#include "change_words.hpp"
#include "table.hpp"
#include "usage.hpp"
#include "usage_history.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

struct Month {
  Seconds from = 0;
  Seconds to = 0;
};

Month parse_month(const std::string& text) {
  const auto begin_of = [&](int year, int month) {
    return parse_time(fmt::format("{:04}-{:02}-01", year, month), wall_clock());
  };
  try {
    if (text.size() == 7 && text[4] == '-') {
      const int year = std::stoi(text.substr(0, 4));
      const int month = std::stoi(text.substr(5));
      return {begin_of(year, month), month == 12 ? begin_of(year + 1, 1) : begin_of(year, month + 1)};
    }
  } catch (const std::logic_error&) {
    // No number; or a month that is none, which parse_time() has said less well.
  } catch (const UsageError&) {
  }
  throw UsageError(fmt::format("\"{}\" is no month; write --month 2026-11", text));
}

struct Statement {
  OwnerId owner_id{};
  std::string owner;
  Month month;
  std::map<apikey::KeyId, UsageCounters> keys;
  UsageCounters total{};
  std::optional<UsageHistory> history;  // none: no registry here
  std::vector<UsageDoubt> doubts;
};

Statement make_statement(const Session& session, UsageStore& store, const UsageOptions& options) {
  const UsageNames names(session.dir());
  Statement statement;
  statement.owner_id = names.owner_id(options.owner);
  statement.owner = names.owner(statement.owner_id);
  statement.month = parse_month(options.month);
  const UsageFilter filter{
      .from = statement.month.from, .to = statement.month.to, .owner = statement.owner_id, .key = std::nullopt};
  {
    Transaction transaction(store.database(), Transaction::Kind::read);
    store.each_with_months(filter, [&](const UsageRecord& record) {
      add(statement.keys[record.key], record.counters);
      add(statement.total, record.counters);
    });
    statement.doubts = doubts_of(store, filter);
  }
  if (std::filesystem::exists(session.dir().registry_file())) {
    const auto registry = session.open_registry();
    statement.history = history_of(*registry, statement.owner, statement.month.from, statement.month.to);
  }
  return statement;
}

Json json_of(const Statement& statement) {
  Json keys = Json::array();
  for (const auto& [key, counters] : statement.keys) {
    Json line = to_json(counters);
    line["key"] = usage_key_text(key);
    keys.push_back(line);
  }
  Json doubts = Json::array();
  for (const UsageDoubt& doubt : statement.doubts) {
    Json line = doubt.json;
    line["sentence"] = doubt.sentence;
    doubts.push_back(line);
  }
  Json json{{"owner", statement.owner},
            {"owner_id", hex(statement.owner_id)},
            {"from", time_text(statement.month.from)},
            {"to", time_text(statement.month.to)},
            {"keys", keys},
            {"total", to_json(statement.total)},
            {"may_be_short", doubts},
            {"changes", nullptr},
            {"audit", nullptr}};
  if (statement.history) {
    json["changes"] = Json::array();
    for (const AuditEntry& entry : statement.history->entries) {
      json["changes"].push_back(to_json(entry));
      json["changes"].back()["change"] = change_words(entry);
    }
    json["audit"] = {{"whole", statement.history->broken_at == 0},
                     {"entries", statement.history->audit_entries},
                     {"hash", hex(statement.history->last_hash)}};
  }
  return json;
}

Texts count_columns(const std::string& name, const UsageCounters& counters) {
  return {name,
          std::to_string(counters[apikey::kUsageAdmitted]),
          std::to_string(counters[apikey::kUsageCost]),
          std::to_string(counters[apikey::kUsageRefunded]),
          std::to_string(refused_total(counters)),
          std::to_string(counters[apikey::kUsageBytes]),
          upstream_seconds(counters)};
}

std::string refusals_text(const UsageCounters& counters) {
  std::string text;
  for (std::size_t i = apikey::kUsageNamedCounters; i < counters.size(); ++i) {
    if (counters.at(i) != 0) {
      text += fmt::format("{}{} {}", text.empty() ? "Refused: " : ", ", usage_counter_names().at(i).substr(8),
                          counters.at(i));
    }
  }
  return text.empty() ? "Nothing was refused." : text;
}

std::string changes_text(const Statement& statement) {
  if (!statement.history) {
    return "Changes are told where the registry is; there is none here.";
  }
  const UsageHistory& history = *statement.history;
  std::vector<Texts> rows;
  for (const AuditEntry& entry : history.entries) {
    const std::string change = change_text(entry);
    rows.push_back({std::to_string(entry.seq), time_text(entry.time), actor_text(entry.actor), entry.action,
                    entry.object, change.empty() ? "-" : change});
  }
  const std::string audit =
      history.broken_at == 0
          ? fmt::format("The audit is whole: {} entries, last hash {}.", history.audit_entries, hex(history.last_hash))
          : fmt::format("The audit is broken at entry {}: changes may be missing or altered.", history.broken_at);
  return (rows.empty() ? "No plan, limit or quota was changed.\n\n"
                       : table_text({"SEQ", "TIME", "WHO", "ACTION", "OBJECT", "CHANGE"}, rows) + "\n\n") +
         audit;
}

std::string text_of(const Statement& statement) {
  std::vector<Texts> rows;
  for (const auto& [key, counters] : statement.keys) {
    rows.push_back(count_columns(usage_key_text(key), counters));
  }
  rows.push_back(count_columns("total", statement.total));
  std::string text =
      fmt::format("{} (owner id {}), {} to {}\n\n{}\n\n{}\n\n{}\n\n", shown(statement.owner), hex(statement.owner_id),
                  time_text(statement.month.from), time_text(statement.month.to),
                  table_text({"KEY", "ADMITTED", "COST", "REFUNDED", "REFUSED", "BYTES", "UPSTREAM_S"}, rows),
                  refusals_text(statement.total), changes_text(statement));
  if (statement.doubts.empty()) {
    return text + "Counts are complete.";
  }
  text += "Counts may be short:";
  for (const UsageDoubt& doubt : statement.doubts) {
    text += "\n  " + shown(doubt.sentence);
  }
  return text;
}

}  // namespace

void state_usage(const Session& session, const UsageOptions& options) {
  UsageStore store(session.dir());
  collect_if_answering(session, store, options.socket);
  const Statement statement = make_statement(session, store, options);
  session.report(text_of(statement), json_of(statement));
}

}  // namespace keyloader
