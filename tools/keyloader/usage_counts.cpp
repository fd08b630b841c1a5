// Names and sums of usage counters, and how they are shown. Called by all files of `keyloader usage`.
#include "usage_counts.hpp"

#include <fmt/format.h>

#include <charconv>
#include <numeric>

namespace keyloader {
namespace {

constexpr std::uint64_t kUsPerSecond = 1'000'000;

std::string refusal_name(std::size_t i) { return std::string{apikey::outcome_name(apikey::kUsageRefusals.at(i))}; }

}  // namespace

const std::array<std::string, apikey::kUsageCounters>& usage_counter_names() {
  static const std::array<std::string, apikey::kUsageCounters> names = [] {
    std::array<std::string, apikey::kUsageCounters> made{"admitted", "cost", "refunded", "bytes", "upstream_us"};
    for (std::size_t i = 0; i < apikey::kUsageRefusals.size(); ++i) {
      made.at(apikey::kUsageNamedCounters + i) = "refused_" + refusal_name(i);
    }
    return made;
  }();
  return names;
}

void add(UsageCounters& sum, const UsageCounters& more) {
  for (std::size_t i = 0; i < sum.size(); ++i) {
    sum.at(i) += more.at(i);
  }
}

std::uint64_t refused_total(const UsageCounters& counters) {
  return std::accumulate(counters.begin() + apikey::kUsageNamedCounters, counters.end(), std::uint64_t{0});
}

Json to_json(const UsageCounters& counters) {
  Json refused = Json::object();
  for (std::size_t i = 0; i < apikey::kUsageRefusals.size(); ++i) {
    if (const std::uint64_t count = counters.at(apikey::kUsageNamedCounters + i); count != 0) {
      refused[refusal_name(i)] = count;
    }
  }
  return {{"admitted", counters[apikey::kUsageAdmitted]},
          {"cost", counters[apikey::kUsageCost]},
          {"refunded", counters[apikey::kUsageRefunded]},
          {"refused", refused},
          {"bytes", counters[apikey::kUsageBytes]},
          {"upstream_seconds", static_cast<double>(counters[apikey::kUsageUpstreamUs]) / kUsPerSecond}};
}

std::string upstream_seconds(const UsageCounters& counters) {
  const std::uint64_t us = counters[apikey::kUsageUpstreamUs];
  std::string text = fmt::format("{}.{:06}", us / kUsPerSecond, us % kUsPerSecond);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') {
    text.pop_back();
  }
  return text;
}

std::string usage_key_text(const apikey::KeyId& key) { return key == apikey::KeyId{} ? std::string{} : text_of(key); }

std::optional<std::array<std::uint8_t, 16>> bytes16_from_hex(std::string_view text) {
  std::array<std::uint8_t, 16> bytes{};
  if (text.size() != 2 * bytes.size()) {
    return std::nullopt;
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const char* begin = text.data() + 2 * i;
    const auto [end, error] = std::from_chars(begin, begin + 2, bytes.at(i), 16);
    if (error != std::errc{} || end != begin + 2) {
      return std::nullopt;
    }
  }
  return bytes;
}

}  // namespace keyloader
