// keyloader usage --export: exact counts per key, owner and hour, for billing. Called by usage.cpp.
// What it writes as NDJSON is what `usage merge` reads; the names of columns are a promise.
#include <fmt/format.h>

#include "csv.hpp"
#include "usage.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kChunk = std::size_t{1} << 18U;

class Exporter {
 public:
  Exporter(UsageStore& store, const UsageNames& names, bool is_csv) : names_(names), is_csv_(is_csv) {
    for (const UsageSource& source : store.sources()) {
      sources_[source.instance] = source;
    }
  }

  void write_header() {
    if (is_csv_) {
      text_ = "hour,node,instance,key,owner,owner_id,admitted,cost,refunded,bytes,upstream_seconds";
      for (std::size_t i = apikey::kUsageNamedCounters; i < apikey::kUsageCounters; ++i) {
        text_ += "," + usage_counter_names().at(i);
      }
      text_ += ",complete\n";
    }
  }

  void write(const UsageRecord& record) {
    const UsageSource& source = sources_.at(record.instance);
    const bool is_complete = record.hour + apikey::kUsageHour <= source.complete_to;
    text_ += is_csv_ ? csv_line(record, source, is_complete) : json_line(record, source, is_complete);
    if (text_.size() >= kChunk) {
      flush();
    }
  }

  void write(const UsageGap& gap) {
    if (!is_csv_) {
      const auto source = sources_.find(gap.instance);
      text_ += json_text({{"type", "gap"},
                          {"instance", hex(gap.instance)},
                          {"node", source != sources_.end() ? source->second.node : std::string{}},
                          {"kind", gap.kind},
                          {"from", time_text(gap.from)},
                          {"to", time_text(gap.to)}}) +
               "\n";
    }
  }

  void flush() {
    print_out(text_);
    text_.clear();
  }

 private:
  [[nodiscard]] std::string csv_line(const UsageRecord& record, const UsageSource& source, bool is_complete) const {
    const UsageCounters& counters = record.counters;
    std::string line =
        fmt::format("{},{},{},{},{},{},{},{},{},{},{}", time_text(record.hour), csv_field(source.node),
                    hex(record.instance), usage_key_text(record.key), csv_field(names_.owner(record.owner)),
                    hex(record.owner), counters[apikey::kUsageAdmitted], counters[apikey::kUsageCost],
                    counters[apikey::kUsageRefunded], counters[apikey::kUsageBytes], upstream_seconds(counters));
    for (std::size_t i = apikey::kUsageNamedCounters; i < counters.size(); ++i) {
      line += fmt::format(",{}", counters.at(i));
    }
    return line + (is_complete ? ",true\n" : ",false\n");
  }

  [[nodiscard]] std::string json_line(const UsageRecord& record, const UsageSource& source, bool is_complete) const {
    Json line = to_json(record.counters);
    line.update({{"type", "usage"},
                 {"hour", time_text(record.hour)},
                 {"node", source.node},
                 {"instance", hex(record.instance)},
                 {"key", usage_key_text(record.key)},
                 {"owner", names_.owner(record.owner)},
                 {"owner_id", hex(record.owner)},
                 {"complete", is_complete}});
    return json_text(line) + "\n";
  }

  const UsageNames& names_;
  bool is_csv_;
  std::map<UsageInstance, UsageSource> sources_;
  std::string text_;
};

}  // namespace

void export_usage(UsageStore& store, const UsageNames& names, const UsageFilter& filter, const std::string& format) {
  // One moment of usage.db, whoever collects meanwhile.
  Transaction transaction(store.database(), Transaction::Kind::read);
  if (const Seconds pruned = store.pruned_before(); filter.from < pruned) {
    throw Failure(fmt::format(
        "counts before {} were pruned: they are kept by the month, not by the hour. Export with --from {}, or "
        "later; `keyloader usage statement` has the months before",
        time_text(pruned), time_text(pruned)));
  }
  Exporter exporter(store, names, format == "csv");
  exporter.write_header();
  store.each(filter, [&](const UsageRecord& record) { exporter.write(record); });
  for (const UsageGap& gap : store.gaps(filter.from, filter.to)) {
    exporter.write(gap);
  }
  exporter.flush();
}

}  // namespace keyloader
