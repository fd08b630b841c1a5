// keyloader usage prune: counts of old months, from one row an hour to one a month. Called by usage.cpp.
// Must never change what a key or an owner has used in a month.
#include <fmt/format.h>

#include "apikey/quota_window.hpp"
#include "usage.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

Seconds parse_before(const std::string& text) {
  const Seconds now = wall_clock();
  const Seconds before = parse_past(text, now);
  const Seconds this_month = apikey::window_at(apikey::CalendarUnit::month, {now}).begin.value;
  if (apikey::window_at(apikey::CalendarUnit::month, {before}).begin.value != before) {
    throw UsageError(
        fmt::format("--before {} is not the begin of a month (UTC), and what is pruned stays summed by the "
                    "month; write the first day of one, such as 2026-01-01",
                    text));
  }
  if (before > this_month) {
    throw UsageError(fmt::format("--before {} is later than this month, which is not over; the latest is {}", text,
                                 time_text(this_month).substr(0, std::string_view{"2026-01-01"}.size())));
  }
  return before;
}

Pruned prune(const DataDir& directory, Seconds before, bool is_sure) {
  // Looking must not make the file.
  if (!is_sure && !std::filesystem::exists(directory.usage_file())) {
    return {};
  }
  UsageStore store(directory);
  Transaction transaction(store.database(), Transaction::Kind::write);
  const Pruned pruned = store.count_prunable(before);
  if (is_sure && pruned.rows != 0) {
    store.prune(before);
    transaction.commit();
  }
  return pruned;
}

}  // namespace

void prune_usage(const Session& session, const UsageOptions& options) {
  if (options.is_dry_run == options.is_sure) {
    throw UsageError("say --dry-run to see what would be forgotten, or --yes to forget it");
  }
  const Seconds before = parse_before(options.before);
  const Pruned pruned = prune(session.dir(), before, options.is_sure);
  const Json json{{"before", time_text(before)},
                  {"rows", pruned.rows},
                  {"sums", pruned.sums},
                  {"first", time_json(pruned.first)},
                  {"done", options.is_sure}};
  if (pruned.rows == 0) {
    session.report(fmt::format("there are no counts by the hour before {}", time_text(before)), json);
    return;
  }
  session.report(fmt::format("{} {} row(s) by the hour, {} to {}; {} sum(s) of a key and month stay",
                             options.is_sure ? "pruned" : "would prune", pruned.rows, time_text(pruned.first),
                             time_text(before), pruned.sums),
                 json);
}

}  // namespace keyloader
