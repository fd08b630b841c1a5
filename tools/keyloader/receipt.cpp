// nginx counts the requests in flight of a key only where a limit of concurrency asks for it. Of other keys nobody
// knows.
#include "receipt.hpp"

#include <fmt/format.h>

#include <ctime>
#include <map>

#include "limit_rules.hpp"
#include "node_tables.hpp"

namespace keyloader {
namespace {

constexpr std::int64_t kNsPerMs = 1'000'000;

// Both clocks: the wall clock may be set, before and after.
struct Moment {
  timespec wall{};
  apikey::MonoNs monotonic;

  Moment() {
    static_cast<void>(clock_gettime(CLOCK_REALTIME, &wall));
    monotonic = monotonic_now();
  }
  // "2026-01-31T12:00:00.123Z"
  [[nodiscard]] std::string text() const {
    const std::string seconds = time_text(wall.tv_sec);
    return fmt::format("{}.{:03}Z", seconds.substr(0, seconds.size() - 1), wall.tv_nsec / kNsPerMs);
  }
};

// The name of a limit of concurrency that all requests of the key's family are under; empty: there is none.
std::string counted_by(Registry& registry, const Key& key) {
  for (const EffectiveLimit& each : effective_limits(registry, key)) {
    if (each.limit.kind == apikey::LimitKind::concurrency && !each.from.starts_with("owner:")) {
      return each.limit.name;
    }
  }
  return {};
}

// The limits that count, by family: two keys of one are counted together.
using Counted = std::map<apikey::KeyId, std::string>;

Json running_in(const NodeFlights& node, const Counted& counted) {
  std::uint64_t running = 0;
  for (const auto& [family, limit] : counted) {
    running += node.running(limit, family);
  }
  return node.is_readable() ? Json(running) : Json(nullptr);
}

}  // namespace

void add_receipt(const Session& session, Registry& registry, const std::vector<Key>& keys, Outcome& outcome) {
  if (!outcome.is_done() || outcome.activation.activity != Activity::active || keys.empty()) {
    return;
  }
  const Moment moment;
  Counted counted;
  Texts not_counted;
  for (const Key& key : keys) {
    const std::string limit = counted_by(registry, key);
    if (limit.empty()) {
      not_counted.push_back(text_of(key.id));
    } else {
      counted[key.family] = limit;
    }
  }
  Texts words;
  Json nodes = Json::array();
  const Nodes known(session.dir(), session.runtime);
  for (const NodeFlights& node : read_flights(known)) {
    const Json running = counted.empty() ? Json(nullptr) : running_in(node, counted);
    nodes.push_back({{"nginx", node.node()}, {"running", running}});
    if (running.is_number()) {
      const auto number = running.get<std::uint64_t>();
      words.push_back(
          fmt::format("{} that began before {} still running in {}", number, number == 1 ? "is" : "are", node.node()));
    } else if (!counted.empty()) {
      words.push_back(fmt::format("{} does not say how many are still running", node.node()));
    }
  }
  outcome.receipt =
      fmt::format("no new request with {} is let in since {}", keys.size() == 1 ? "it" : "them", moment.text());
  if (!words.empty()) {
    outcome.receipt += fmt::format("; {}", fmt::join(words, ", "));
  }
  if (!not_counted.empty()) {
    outcome.receipt += fmt::format(
        "\nrequests {}that began before may still be running: nginx counts those in flight only of keys with a limit "
        "of concurrency",
        counted.empty() ? "" : fmt::format("of {} ", fmt::join(not_counted, ", ")));
  }
  outcome.receipt_json = {{"refused_since", moment.text()},
                          {"monotonic_ns", moment.monotonic.value},
                          {"nginx", nodes},
                          {"not_counted", not_counted}};
}

}  // namespace keyloader
