// keyloader usage merge: the counts of other nodes, out of what their `usage --export ndjson` wrote. Called by
// usage.cpp. All files are taken as a whole or not at all, and nothing is ever taken twice.
#include <fmt/format.h>
#include <openssl/evp.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "apikey/plain_text.hpp"
#include "directory_owner.hpp"
#include "usage.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kBlock = 65'536;

// What is wrong with one line.
class BadLine : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

std::ifstream open_for_reading(const std::string& file) {
  const AsCaller named_by_the_caller;
  return std::ifstream(file, std::ios::binary);
}

Hash sha256_of(const std::string& file) {
  std::ifstream in = open_for_reading(file);
  if (!in) {
    fail_errno("read", file);
  }
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  std::string block(kBlock, '\0');
  Hash hash{};
  bool is_good = context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  while (is_good && in) {
    in.read(block.data(), static_cast<std::streamsize>(block.size()));
    is_good = EVP_DigestUpdate(context.get(), block.data(), static_cast<std::size_t>(in.gcount())) == 1;
  }
  if (!is_good || EVP_DigestFinal_ex(context.get(), hash.data(), nullptr) != 1) {
    throw std::runtime_error("libcrypto could not compute a SHA-256");
  }
  if (in.bad()) {
    throw Failure(file + " could not be read to its end; nothing was merged");
  }
  return hash;
}

std::string text_of(const Json& line, const char* name) {
  const auto found = line.find(name);
  if (found == line.end() || !found->is_string()) {
    throw BadLine(fmt::format("\"{}\" is missing or no text", name));
  }
  auto text = found->get<std::string>();
  if (!apikey::is_plain_text(text)) {
    throw BadLine(fmt::format("\"{}\" holds control or invisible characters", name));
  }
  return text;
}

Seconds moment_of(const Json& line, const char* name) {
  try {
    return parse_time(text_of(line, name), 0);
  } catch (const UsageError& error) {
    throw BadLine(fmt::format("\"{}\": {}", name, error.what()));
  }
}

std::array<std::uint8_t, 16> id_of(const Json& line, const char* name) {
  const auto id = bytes16_from_hex(text_of(line, name));
  if (!id) {
    throw BadLine(fmt::format("\"{}\" is not 32 hex digits", name));
  }
  return *id;
}

std::uint64_t count_of(const Json& value, const std::string& name) {
  if (!value.is_number_unsigned() ||
      value.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    throw BadLine(fmt::format("\"{}\" is missing or no count", name));
  }
  return value.get<std::uint64_t>();
}

std::uint64_t microseconds_of(const Json& line) {
  const Json value = line.value("upstream_seconds", Json{});
  const double seconds = value.is_number() ? value.get<double>() : -1;
  if (!(seconds >= 0 && seconds < 9e9)) {
    throw BadLine("\"upstream_seconds\" is missing or no time");
  }
  return static_cast<std::uint64_t>(std::llround(seconds * 1e6));
}

void read_refused(const Json& line, UsageCounters& counters) {
  const Json refused = line.value("refused", Json{});
  if (!refused.is_object()) {
    throw BadLine("\"refused\" is missing or no object");
  }
  for (const auto& [name, value] : refused.items()) {
    const auto& names = usage_counter_names();
    const auto found = std::find(names.begin() + apikey::kUsageNamedCounters, names.end(), "refused_" + name);
    if (found == names.end()) {
      throw BadLine(fmt::format("\"refused\" has \"{}\", which this keyloader does not know; use a newer one", name));
    }
    counters.at(static_cast<std::size_t>(found - names.begin())) = count_of(value, name);
  }
}

UsageRecord record_of(const Json& line) {
  UsageRecord record{.instance = id_of(line, "instance"),
                     .row = kMergedRow,
                     .owner = id_of(line, "owner_id"),
                     .hour = moment_of(line, "hour")};
  const std::string key = text_of(line, "key");
  const auto id = key_id_from(key);
  if (!id && !key.empty()) {
    throw BadLine("\"key\" is not the id of a key");
  }
  record.key = id.value_or(apikey::KeyId{});
  if (record.hour % apikey::kUsageHour != 0) {
    throw BadLine("\"hour\" is not the begin of an hour");
  }
  for (const auto counter : {apikey::kUsageAdmitted, apikey::kUsageCost, apikey::kUsageRefunded, apikey::kUsageBytes}) {
    const std::string& name = usage_counter_names().at(counter);
    record.counters.at(counter) = count_of(line.value(name, Json{}), name);
  }
  record.counters[apikey::kUsageUpstreamUs] = microseconds_of(line);
  read_refused(line, record.counters);
  return record;
}

void take_counts(UsageStore& store, const Json& line) {
  const UsageRecord record = record_of(line);
  if (line.value("complete", Json{}) != true) {
    throw BadLine(fmt::format("the hour {} was not complete when it was exported; export again with --to {}, or later",
                              time_text(record.hour), time_text(record.hour)));
  }
  if (const Seconds pruned = store.pruned_before(); record.hour < pruned) {
    throw BadLine(
        fmt::format("the hour {} was pruned here, so nobody can tell whether these counts are in the sum of its month; "
                    "export only hours from {} on, with --from",
                    time_text(record.hour), time_text(pruned)));
  }
  if (store.has_counts(record)) {
    throw BadLine(
        fmt::format("counts of {} in the hour {} from instance {} are here already; export only hours that "
                    "were not merged yet, with --from and --to",
                    record.key == apikey::KeyId{} ? "nobody" : usage_key_text(record.key), time_text(record.hour),
                    hex(record.instance)));
  }
  store.put(UsageSource{.instance = record.instance,
                        .node = text_of(line, "node"),
                        .created = record.hour,
                        .collected = record.hour + apikey::kUsageHour,
                        .complete_to = record.hour + apikey::kUsageHour});
  store.put(record);
}

// RETURNS: whether it was a line of counts.
bool take_line(UsageStore& store, const std::string& text) {
  const Json line = Json::parse(text, nullptr, false);
  if (!line.is_object()) {
    throw BadLine("it is no JSON object; write the file with `keyloader usage --export ndjson`");
  }
  const std::string type = text_of(line, "type");
  if (type == "usage") {
    take_counts(store, line);
    return true;
  }
  if (type != "gap") {
    throw BadLine(fmt::format("its type \"{}\" is not known; use a newer keyloader", type));
  }
  store.put(UsageGap{.instance = id_of(line, "instance"),
                     .kind = text_of(line, "kind"),
                     .from = moment_of(line, "from"),
                     .to = moment_of(line, "to")});
  return false;
}

std::uint64_t merge_file(UsageStore& store, const std::string& file) {
  const Hash hash = sha256_of(file);
  if (const Seconds when = store.merged(hash); when != 0) {
    throw Failure(fmt::format("{} was merged before, at {}; nothing was merged", file, time_text(when)));
  }
  std::ifstream in = open_for_reading(file);
  std::string text;
  std::uint64_t number = 0;
  std::uint64_t rows = 0;
  try {
    while (std::getline(in, text)) {
      ++number;
      if (text.find_first_not_of(" \t\r") != std::string::npos) {
        rows += take_line(store, text) ? 1U : 0U;
      }
    }
  } catch (const BadLine& bad) {
    throw Failure(fmt::format("{}, line {}: {}. Nothing was merged", file, number, bad.what()));
  }
  if (in.bad() || !in.eof()) {
    throw Failure(file + " could not be read to its end; nothing was merged");
  }
  store.put_merged(hash, std::filesystem::path{file}.filename().string(), rows);
  return rows;
}

}  // namespace

void merge_usage(const Session& session, const std::vector<std::string>& files) {
  if (files.empty()) {
    throw UsageError("name the files to merge: what `keyloader usage --export ndjson` wrote on other nodes");
  }
  UsageStore store(session.dir());
  Transaction transaction(store.database(), Transaction::Kind::write);
  Json json = Json::array();
  std::string sentence;
  for (const std::string& file : files) {
    const std::uint64_t rows = merge_file(store, file);
    json.push_back({{"file", file}, {"rows", rows}});
    sentence += fmt::format("{}{}: {} row(s) merged", sentence.empty() ? "" : "\n", file, rows);
  }
  transaction.commit();
  session.report(sentence, {{"merged", json}});
}

}  // namespace keyloader
