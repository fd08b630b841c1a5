// Windows in which counts may be short, and their bounds. Called by all commands that show counts.
// Must never leave one out: a count that may be short and does not say so is a wrong count.
#include <fmt/format.h>

#include <algorithm>

#include "apikey/quota_window.hpp"
#include "usage.hpp"

namespace keyloader {
namespace {

std::string node_of(UsageStore& store, const UsageInstance& instance) {
  const auto source = store.source(instance);
  return source ? source->node : hex(instance);
}

bool is_begin_of_month(Seconds time) {
  return apikey::window_at(apikey::CalendarUnit::month, {time}).begin.value == time;
}

std::string sentence_of(const UsageGap& gap, const std::string& node) {
  const std::string window = fmt::format("{} to {} on {}", time_text(gap.from), time_text(gap.to), node);
  if (gap.kind == "restored") {
    return fmt::format(
        "{}: nginx's counts came back from a checkpoint of the first of these times; what was counted after it and not "
        "collected is missing: at most what ended in that window while nginx ran, which is 5 seconds after a power cut",
        window);
  }
  if (gap.kind == "elsewhere") {
    return fmt::format(
        "{}: another collector has taken these hours, or usage.db is older than it was; merge the export of the other "
        "one. All counts of that window may be missing",
        window);
  }
  return fmt::format(
      "{}: nginx lost its counts and began anew; what was counted since the first of these times, when it was "
      "collected last, is missing: at most all of that window",
      window);
}

UsageDoubt doubt_of(const UsageGap& gap, const std::string& node) {
  return {sentence_of(gap, node),
          {{"kind", gap.kind},
           {"node", node},
           {"instance", hex(gap.instance)},
           {"from", time_text(gap.from)},
           {"to", time_text(gap.to)}}};
}

// What is there, but of nobody: exact in total, and so an exact bound for each key.
void add_overflows(UsageStore& store, const UsageFilter& filter, std::vector<UsageDoubt>& doubts) {
  UsageFilter nobody{.from = filter.from, .to = filter.to, .owner = OwnerId{}, .key = apikey::KeyId{}};
  store.each(nobody, [&](const UsageRecord& record) {
    const std::string node = node_of(store, record.instance);
    Json json = to_json(record.counters);
    json.update({{"kind", "no_room"},
                 {"node", node},
                 {"instance", hex(record.instance)},
                 {"from", time_text(record.hour)},
                 {"to", time_text(record.hour + apikey::kUsageHour)}});
    doubts.push_back(
        {fmt::format("{} to {} on {}: nginx's memory had no room for all keys; {} admitted and {} refused requests, of "
                     "cost {}, are counted without their key. Make apikey_zone larger, or collect more often",
                     time_text(record.hour), time_text(record.hour + apikey::kUsageHour), node,
                     record.counters[apikey::kUsageAdmitted], refused_total(record.counters),
                     record.counters[apikey::kUsageCost]),
         json});
  });
}

// Hours that nginx may still count in, or of which it has not been asked since they ended.
void add_incomplete(const UsageSource& source, const UsageFilter& filter, std::vector<UsageDoubt>& doubts) {
  const Seconds from = std::max(source.complete_to, filter.from);
  const Seconds to = std::min(filter.to, wall_clock());
  if (source.socket.empty() || from >= to) {
    return;
  }
  doubts.push_back({fmt::format("{} to {} on {}: not complete yet; nginx was asked last at {}. Collect again later",
                                time_text(from), time_text(to), source.node, time_text(source.collected)),
                    {{"kind", "incomplete"},
                     {"node", source.node},
                     {"instance", hex(source.instance)},
                     {"from", time_text(from)},
                     {"to", time_text(to)},
                     {"collected", time_json(source.collected)}}});
}

// Of a month that was pruned only all of it can be told.
void add_pruned(UsageStore& store, const UsageFilter& filter, std::vector<UsageDoubt>& doubts) {
  const Seconds pruned = store.pruned_before();
  const bool is_open = filter.to >= pruned;
  const bool begins_within = filter.from != 0 && filter.from < pruned && !is_begin_of_month(filter.from);
  const bool ends_within = !is_open && !is_begin_of_month(filter.to);
  if (pruned == 0 || filter.from >= pruned || (!begins_within && !ends_within)) {
    return;
  }
  doubts.push_back({fmt::format("counts before {} are kept by the month only; of a month that is asked for in part "
                                "nothing is counted in",
                                time_text(pruned)),
                    {{"kind", "pruned"}, {"to", time_text(pruned)}}});
}

}  // namespace

std::vector<UsageDoubt> doubts_of(UsageStore& store, const UsageFilter& filter) {
  std::vector<UsageDoubt> doubts;
  add_pruned(store, filter, doubts);
  for (const UsageGap& gap : store.gaps(filter.from, filter.to)) {
    doubts.push_back(doubt_of(gap, node_of(store, gap.instance)));
  }
  add_overflows(store, filter, doubts);
  for (const UsageSource& source : store.sources()) {
    // One that has been replaced is told of by its gap.
    const auto latest = store.source_at(source.socket);
    if (latest && latest->instance == source.instance) {
      add_incomplete(source, filter, doubts);
    }
    if (source.unplaced != 0) {
      doubts.push_back({fmt::format("on {}, since {}: {} requests are counted without key and hour: nginx's memory was "
                                    "full, and nobody collected for days",
                                    source.node, time_text(source.created), source.unplaced),
                        {{"kind", "unplaced"},
                         {"node", source.node},
                         {"instance", hex(source.instance)},
                         {"requests", source.unplaced}}});
    }
  }
  return doubts;
}

}  // namespace keyloader
