// keyloader usage: what keys and owners have used, collected from nginx and kept in usage.db; and the commands below
// it. Shows counts only; exporting, merging and statements are in files of their own.
#include "usage.hpp"

#include <fmt/format.h>

#include "nodes.hpp"
#include "table.hpp"
#include "usage_client.hpp"
#include "usage_collect.hpp"
#include "usage_top.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

UsageFilter filter_of(const UsageOptions& options, const UsageNames& names) {
  const Seconds now = wall_clock();
  UsageFilter filter;
  if (!options.from.empty()) {
    filter.from = parse_past(options.from, now) / apikey::kUsageHour * apikey::kUsageHour;
  }
  if (!options.to.empty()) {
    filter.to = parse_past(options.to, now);
  }
  if (filter.from >= filter.to) {
    throw UsageError("--from must be before --to");
  }
  if (!options.owner.empty()) {
    filter.owner = names.owner_id(options.owner);
  }
  if (!options.key.empty()) {
    filter.key = key_id_from(options.key);
    if (!filter.key) {
      throw UsageError(fmt::format("\"{}\" is not the id of a key; ids look like key_ and 20 characters", options.key));
    }
  }
  return filter;
}

// By name, so that they are shown in its order; by id, as a deleted owner's name may be another one's now.
using NamedOwner = std::pair<std::string, OwnerId>;

struct Sums {
  std::map<std::pair<NamedOwner, std::string>, UsageCounters> keys;
  std::map<NamedOwner, UsageCounters> owners;
  UsageCounters total{};
};

Sums sum_up(UsageStore& store, const UsageNames& names, const UsageFilter& filter) {
  Sums sums;
  store.each_with_months(filter, [&](const UsageRecord& record) {
    const NamedOwner owner{names.owner(record.owner), record.owner};
    add(sums.keys[{owner, usage_key_text(record.key)}], record.counters);
    add(sums.owners[owner], record.counters);
    add(sums.total, record.counters);
  });
  return sums;
}

Texts columns(const std::string& owner, const std::string& key, const UsageCounters& counters) {
  return {owner.empty() ? "-" : owner,
          key,
          std::to_string(counters[apikey::kUsageAdmitted]),
          std::to_string(counters[apikey::kUsageCost]),
          std::to_string(counters[apikey::kUsageRefunded]),
          std::to_string(refused_total(counters)),
          std::to_string(counters[apikey::kUsageBytes]),
          upstream_seconds(counters)};
}

// Each owner's keys, then what they come to together.
std::string text_of(const Sums& sums, const UsageNames& names) {
  std::vector<Texts> rows;
  for (const auto& [owner, together] : sums.owners) {
    std::size_t keys = 0;
    for (auto at = sums.keys.lower_bound({owner, {}}); at != sums.keys.end() && at->first.first == owner; ++at) {
      const std::string& key = at->first.second;
      rows.push_back(columns(names.shown_owner(owner.second), key.empty() ? "(no room for the key)" : key, at->second));
      ++keys;
    }
    if (keys > 1) {
      rows.push_back(columns(names.shown_owner(owner.second), fmt::format("({} keys)", keys), together));
    }
  }
  rows.push_back(columns("total", "", sums.total));
  return list_text({"OWNER", "KEY", "ADMITTED", "COST", "REFUNDED", "REFUSED", "BYTES", "UPSTREAM_S"}, rows, screen());
}

Json owner_json(const NamedOwner& owner, const UsageNames& names) {
  return {{"owner", owner.first},
          {"owner_id", hex(owner.second)},
          {"owner_deleted", time_json(names.deleted(owner.second))}};
}

Json json_of(const Sums& sums, const UsageNames& names, const UsageFilter& filter,
             const std::vector<UsageDoubt>& doubts) {
  Json keys = Json::array();
  for (const auto& [name, counters] : sums.keys) {
    Json line = to_json(counters);
    line.update(owner_json(name.first, names));
    line["key"] = name.second;
    keys.push_back(line);
  }
  Json owners = Json::array();
  for (const auto& [name, counters] : sums.owners) {
    Json line = to_json(counters);
    line.update(owner_json(name, names));
    owners.push_back(line);
  }
  Json may_be_short = Json::array();
  for (const UsageDoubt& doubt : doubts) {
    Json line = doubt.json;
    line["sentence"] = doubt.sentence;
    may_be_short.push_back(line);
  }
  const bool is_open = filter.to == UsageFilter{}.to;
  return {{"from", time_json(filter.from)},
          {"to", is_open ? Json(nullptr) : time_json(filter.to)},
          {"keys", keys},
          {"owners", owners},
          {"total", to_json(sums.total)},
          {"may_be_short", may_be_short}};
}

// The hour that is running is not worth a line each time somebody looks.
bool is_worth_saying(const UsageDoubt& doubt) { return doubt.json.at("kind") != "incomplete"; }

void show(const Session& session, const UsageOptions& options) {
  if (options.top == std::uint64_t{0}) {
    throw UsageError("--top 0 would show nothing; leave it out for all");
  }
  if (!options.over.empty()) {
    if (!options.from.empty() || !options.to.empty() || !options.key.empty() || !options.format.empty() ||
        !options.by.empty() || !options.socket.empty()) {
      throw UsageError("--over is about quotas as they stand now; it goes with --owner and --top only");
    }
    show_nearly_used_up(session, options);
    return;
  }
  if (!options.format.empty() && (!options.by.empty() || options.top)) {
    throw UsageError("--export has a line for each key, owner and hour; it does not go with --by and --top");
  }
  UsageStore store(session.dir());
  const UsageNames names(session.dir());
  const UsageFilter filter = filter_of(options, names);
  collect_if_answering(session, store, options.socket);
  const std::vector<UsageDoubt> doubts = doubts_of(store, filter);
  if (!options.format.empty()) {
    export_usage(store, names, filter, options.format);
  } else if (!options.by.empty() || options.top) {
    show_groups(session, store, names, filter, options);
  } else {
    const Sums sums = sum_up(store, names, filter);
    session.report(text_of(sums, names), json_of(sums, names, filter, doubts));
  }
  for (const UsageDoubt& doubt : doubts) {
    if (is_worth_saying(doubt)) {
      Session::warn("counts may be short: " + doubt.sentence);
    }
  }
}

// Counts of an nginx that nobody here can see are missing.
std::optional<std::string> hidden_nginx(const Session& session) {
  const Nodes nodes(session.dir(), session.runtime);
  const Node* const hidden = nodes.hidden();
  const bool has_socket = std::filesystem::exists(session.dir().usage_socket());
  return hidden == nullptr || has_socket ? std::nullopt
                                         : std::optional(hidden->hidden_sentence() + "; its counts are not collected");
}

void collect(const Session& session, const UsageOptions& options) {
  UsageStore store(session.dir());
  const std::vector<Collected> all = collect_usage(session, store, options.socket);
  if (const auto hidden = hidden_nginx(session)) {
    Session::warn(*hidden);
  }
  std::string sentence;
  std::uint64_t rows = 0;
  Json from = Json::array();
  for (const Collected& each : all) {
    sentence += fmt::format("{}{} row(s) collected from {}; complete to {}", sentence.empty() ? "" : "\n", each.rows,
                            each.from, time_text(each.complete_to));
    rows += each.rows;
    from.push_back({{"from", each.from},
                    {"place", each.place},
                    {"rows", each.rows},
                    {"instance", hex(each.instance)},
                    {"complete_to", time_text(each.complete_to)}});
  }
  if (!options.is_quiet) {
    session.report(sentence, {{"rows", rows}, {"collected", from}});
  }
}

void add_show_options(Command& command, UsageOptions& options) {
  command.option("--socket", options.socket, "PATH", "An apikey_usage socket, instead of node memory");
  command.option("--from", options.from, "TIME",
                 "From the hour of this time on: 7d (ago), today, yesterday, 2026-11-25");
  command.option("--to", options.to, "TIME", "Only hours that begin before");
  command.option("--owner", options.owner, "NAME", "Only this owner's; a name or an owner id");
  command.option("--key", options.key, "ID", "Only this key's");
}

// The command line lets options of `usage` stand behind its subcommands too, where they would do nothing.
void forbid(const UsageOptions& shown) {
  const bool is_any = !shown.socket.empty() || !shown.from.empty() || !shown.to.empty() || !shown.owner.empty() ||
                      !shown.key.empty() || !shown.format.empty() || !shown.by.empty() || !shown.over.empty() ||
                      shown.top;
  if (is_any) {
    throw UsageError("an option of `keyloader usage` does nothing here; --help shows what this command knows");
  }
}

void add_statement_command(Command& usage, Session& session, const std::shared_ptr<UsageOptions>& shown) {
  auto options = std::make_shared<UsageOptions>();
  Command command = usage.add("statement", "Everything that settles a dispute about an owner's month");
  command.required_option("--owner", options->owner, "NAME", "A name or an owner id");
  command.required_option("--month", options->month, "MONTH", "In UTC, e.g. 2026-11");
  command.option("--socket", options->socket, "PATH", "An apikey_usage socket, instead of node memory");
  command.footer(
      "The counts per key; every grant, reset, change of plan, limit or key with its audit entry; and every window in\n"
      "which counts may be short, with its bound.\n\n"
      "  keyloader usage statement --owner acme --month 2026-11\n"
      "  keyloader usage statement --owner acme --month 2026-11 --json | jq .total");
  command.read([&session, options, shown] {
    forbid(*shown);
    state_usage(session, *options);
  });
}

}  // namespace

void collect_if_answering(const Session& session, UsageStore& store, const std::string& socket) {
  try {
    static_cast<void>(collect_usage(session, store, socket));
    if (const auto hidden = socket.empty() ? hidden_nginx(session) : std::nullopt) {
      Session::warn(*hidden);
    }
  } catch (const NotAnswering& failure) {
    Session::warn(fmt::format("{}, so only what was collected before is shown", failure.what()));
  }
}

void add_usage_commands(Command& app, Session& session) {
  auto options = std::make_shared<UsageOptions>();
  Command usage = app.add("usage", "What keys and owners have used");
  add_show_options(usage, *options);
  usage.choice("--export", options->format, {"csv", "ndjson"}, "FORMAT",
               "Exact counts per key, owner and hour, for billing: csv or ndjson");
  usage.choice("--by", options->by, {"key", "owner", "plan", "day"}, "WHAT",
               "One line for each key, owner, plan (that keys have today) or day");
  usage.option("--top", options->top, "N", "Only those with the most requests admitted");
  usage.option("--over", options->over, "PART", "Instead: quotas of which so much is used now: 80%");
  usage.footer(
      "Collects from nginx first, when it answers. Counts are kept in usage.db; collecting again changes nothing.\n\n"
      "  keyloader usage --from 7d\n"
      "  keyloader usage --top 10 --by owner --from today\n"
      "  keyloader usage --over 80%\n"
      "  keyloader usage --export csv --from 2026-11-01 --to 2026-12-01 > november.csv");
  usage.read_alone([&session, options] { show(session, *options); });

  auto collected = std::make_shared<UsageOptions>();
  Command collect_now = usage.add("collect", "Take over what nginx has counted, and show nothing");
  collect_now.option("--socket", collected->socket, "PATH", "An apikey_usage socket, instead of node memory");
  collect_now.flag("--quiet", collected->is_quiet, "Say nothing where all went well");
  collect_now.footer("For a timer, every few minutes.\n\n  keyloader usage collect --quiet");
  collect_now.run_on_machine(session, [&session, collected, options] {
    forbid(*options);
    collect(session, *collected);
  });

  add_statement_command(usage, session, options);

  auto pruned = std::make_shared<UsageOptions>();
  Command prune = usage.add("prune", "Forget the hours of old months; what each key used in a month stays");
  prune.required_option("--before", pruned->before, "DATE", "The first day of a month: 2026-01-01");
  prune.flag("--dry-run", pruned->is_dry_run, "Say what would be forgotten, and do nothing");
  prune.flag("--yes", pruned->is_sure, "Do it; it cannot be undone");
  prune.footer(
      "Export what you may have to show by the hour first.\n\n"
      "  keyloader usage prune --before 2026-01-01 --dry-run\n"
      "  keyloader usage prune --before 2026-01-01 --yes");
  prune.run_on_machine(session, [&session, pruned, options] {
    forbid(*options);
    prune_usage(session, *pruned);
  });

  auto merged = std::make_shared<UsageOptions>();
  Command merge = usage.add("merge", "Take over what other nodes have exported");
  merge.arguments("FILE", merged->files, "What `keyloader usage --export ndjson` wrote there");
  merge.footer(
      "All files or none. What is here already is refused, with file and line: nothing is ever counted twice.\n\n"
      "  ssh node2 keyloader usage --export ndjson --from 2026-11-01 --to 2026-12-01 > node2.ndjson\n"
      "  keyloader usage merge node2.ndjson");
  merge.run_on_machine(session, [&session, merged, options] {
    forbid(*options);
    merge_usage(session, merged->files);
  });
}

}  // namespace keyloader
