// keyloader status: what the registry has, what is published, and what each nginx of this machine uses, on one screen.
// Exit code 0: the published snapshot has every change, and every nginx that is known uses it. 3: not so.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "activation.hpp"
#include "node_view.hpp"
#include "publish/snapshot_file.hpp"
#include "session.hpp"
#include "usage_store.hpp"

namespace keyloader {
namespace {

constexpr Seconds kSoon = Seconds{14} * 24 * 3600;
constexpr std::uint64_t kUsPerSecond = 1'000'000;
constexpr std::uint64_t kPercent = 100;

// Lines for people, JSON for programs, and what is not as it should be.
struct Report {
  std::string text;
  Json json = Json::object();
  Texts problems;

  void line(std::string_view label, const std::string& sentence) {
    text += fmt::format("{}{:<12}{}", text.empty() ? "" : "\n", label, sentence);
  }
  void problem(const std::string& sentence) { problems.push_back(sentence); }
};

std::string time_of(std::uint64_t us) { return time_text(static_cast<Seconds>(us / kUsPerSecond)); }

std::string counted(std::uint64_t count, std::string_view one) {
  return fmt::format("{} {}{}", count, one, count == 1 ? "" : "s");
}

void report_keys(Registry& registry, Report& report) {
  std::map<std::string, bool> is_owner_suspended;
  const Seconds now = wall_clock();
  for (const Owner& owner : registry.owners()) {
    is_owner_suspended[owner.name] = owner.is_suspended && (owner.suspended_until == 0 || owner.suspended_until > now);
  }
  std::map<std::string, std::uint64_t> states;
  std::uint64_t total = 0;
  std::uint64_t soon = 0;
  registry.each_key({}, [&](const Key& key) {
    std::string state{state_of(key, now)};
    if (state == "active" && is_owner_suspended[key.owner]) {
      state = "suspended";
    }
    ++states[state];
    ++total;
    soon += state == "active" && key.expires != 0 && key.expires - now < kSoon ? 1 : 0;
    return true;
  });
  std::string text = counted(total, "key");
  std::string_view before = ": ";
  for (const auto& [state, count] : states) {
    text += fmt::format("{}{} {}", before, count, state);
    before = ", ";
  }
  if (soon != 0) {
    text += fmt::format("; {} of the active ones {} within 14 days", soon, soon == 1 ? "ends" : "end");
  }
  report.line("keys", text);
  report.json["keys"] = {{"total", total}, {"states", states}, {"expire_within_14_days", soon}};
}

void report_registry(const DataDir& directory, Registry& registry, Report& report) {
  const RegistryInfo info = registry.info();
  const bool is_behind = info.changed_seq > info.published_seq;
  const bool is_rolled_back = info.rolled_back_seq > info.published_seq;
  report.line("registry",
              fmt::format("{} in {}: generation {}, {}", hex(info.id), directory.path().string(), info.generation,
                          is_behind        ? "with changes since"
                          : is_rolled_back ? "whose content is older than the registry's"
                                           : "no change since"));
  report.json["registry"] = {{"id", hex(info.id)},
                             {"generation", info.generation},
                             {"has_unpublished", is_behind},
                             {"is_rolled_back", is_rolled_back}};
  if (is_behind) {
    report.problem("the registry has changes that are not published: run `keyloader publish`");
  }
  report_keys(registry, report);
}

// RETURNS: what nginx should be using; nothing when keys.mdb cannot be read.
std::optional<Target> report_published(const DataDir& directory, const std::optional<RegistryInfo>& info,
                                       Report& report) {
  apikey::publish::SnapshotFile file;
  if (const apikey::Status status = file.open(directory.snapshot_file()); !status.ok()) {
    const std::string sentence = sentence_of(status);
    report.line("published", fmt::format("{} cannot be used: {}", directory.snapshot_file().string(), sentence));
    report.json["published"] = {{"problem", sentence}};
    report.problem(
        fmt::format("{} cannot be used: {}; {}", directory.snapshot_file().string(), sentence,
                    info ? "run `keyloader publish`" : "install it again with `keyloader snapshot install`"));
    return std::nullopt;
  }
  const apikey::Meta& meta = file.meta();
  report.line(
      "published",
      fmt::format(
          "generation {} with {}, {}{}", meta.generation, counted(meta.keys, "key"), time_text(meta.created.value),
          meta.rolled_back_to == 0 ? "" : fmt::format(" (rolled back to the content of {})", meta.rolled_back_to)));
  report.json["published"] = {{"generation", meta.generation},
                              {"keys", meta.keys},
                              {"created", time_text(meta.created.value)},
                              {"rolled_back_to", meta.rolled_back_to == 0 ? Json(nullptr) : Json(meta.rolled_back_to)},
                              {"registry_id", hex(meta.registry_id)},
                              {"sha256", hex(file.seal().sha256)}};
  if (info && meta.registry_id != info->id) {
    report.problem(
        fmt::format("keys.mdb is from another registry ({}), not from this one ({}): `keyloader doctor` "
                    "says what to do",
                    hex(meta.registry_id), hex(info->id)));
  } else if (info && meta.generation > info->generation) {
    report.problem(
        fmt::format("keys.mdb is generation {}, and the registry ends at generation {}: it is an older copy, in which "
                    "keys revoked since are good; `keyloader doctor` says what to do",
                    meta.generation, info->generation));
  } else if (info && meta.generation < info->generation) {
    report.problem(
        fmt::format("keys.mdb is generation {}, older than generation {} of the registry: run `keyloader "
                    "publish`",
                    meta.generation, info->generation));
  } else if (info && meta.rolled_back_to != 0) {
    report.problem(
        fmt::format("generation {} was rolled back to the content of {}, which nginx uses until `keyloader publish` or "
                    "any change brings the registry's content back: put the registry right first",
                    meta.generation, meta.rolled_back_to));
  }
  return Target{.registry_id = meta.registry_id, .generation = meta.generation, .seal = file.seal().sha256};
}

Json report_workers(const Node& node, const StoreView& store, Report& report) {
  Json json = Json::array();
  std::map<std::string, Texts> pids;
  for (const WorkerView& worker : workers_of(node, store.row)) {
    const std::string_view state = state_text(worker.ack.state);
    const bool is_draining = (worker.flags & apikey::kDrainingFlag) != 0;
    json.push_back(
        {{"pid", worker.pid}, {"generation", worker.ack.generation}, {"state", state}, {"draining", is_draining}});
    pids[fmt::format("generation {}, {}{}", worker.ack.generation, state,
                     is_draining ? ", finishing its requests" : "")]
        .push_back(std::to_string(worker.pid));
  }
  for (const auto& [state, of] : pids) {
    report.line("", fmt::format("{} {}: {}", of.size() == 1 ? "worker" : "workers", fmt::join(of, ", "), state));
  }
  return json;
}

Json report_store(const Node& node, const StoreView& store, Report& report) {
  const apikey::Adopted& adopted = store.adopted;
  std::string text = adopted.has_active() || adopted.has_veto()
                         ? fmt::format("{} uses generation {} since {}", node.name(), store.generation_text(),
                                       time_of(adopted.since_us))
                         : fmt::format("{} has no snapshot", node.name());
  report.line("nginx", text);
  Json json{{"name", store.name},
            {"generation", adopted.has_active() ? Json(adopted.active.generation) : Json(nullptr)},
            {"veto_generation", adopted.has_veto() ? Json(adopted.veto.generation) : Json(nullptr)},
            {"lacks", adopted.has_veto() ? Json(shown(adopted.lack.name())) : Json(nullptr)},
            {"highest_generation", adopted.highest_generation},
            {"since", adopted.since_us == 0 ? Json(nullptr) : Json(time_of(adopted.since_us))},
            {"newest_format", store.newest_format},
            {"last_refusal", nullptr}};
  json["workers"] = report_workers(node, store, report);
  if (node.is_live() && store.newest_format < apikey::kFormatVersion) {
    report.line("", Nodes::old_format_sentence(node.name(), store.newest_format));
  }
  if (store.refusal) {
    const std::string sentence = shown(store.refusal->text());
    report.line("", fmt::format("last refused a file at {}: {}", time_of(store.refusal->wall_us), sentence));
    json["last_refusal"] = {
        {"time", time_of(store.refusal->wall_us)}, {"generation", store.refusal->generation}, {"sentence", sentence}};
  }
  return json;
}

Json report_tables(const Node& node, Report& report) {
  Json json = Json::object();
  std::string text;
  for (const TableFill& fill : fills_of(node)) {
    if (fill.slots == 0) {
      json[std::string{fill.name}] = nullptr;
      continue;
    }
    json[std::string{fill.name}] = {{"slots", fill.slots}, {"used", fill.used}};
    std::string name{fill.name};
    std::replace(name.begin(), name.end(), '_', ' ');
    text += fmt::format("{}{} {} %", text.empty() ? "" : ", ", name, fill.used * kPercent / fill.slots);
  }
  report.line("", fmt::format("memory {}: {} MiB; {}", shown(node.place().state.string()), node.memory().size() >> 20U,
                              text.empty() ? "tables of a version that this keyloader does not know" : text));
  return json;
}

void report_nginx(const Session& session, Report& report) {
  const Nodes nodes(session.dir(), session.runtime);
  Json all = Json::array();
  for (const auto& node : nodes.all()) {
    Json json{{"file", node->place().state.string()}};
    if (node->is_hidden()) {
      report.line("nginx", node->hidden_sentence());
      json["problem"] = node->hidden_sentence();
      all.push_back(json);
      continue;
    }
    const std::vector<std::size_t> rows =
        node->problem().empty() ? node->rows_of(nodes.snapshot()) : std::vector<std::size_t>{};
    if (rows.empty() || (!node->is_live() && node->memory().is_superseded())) {
      continue;
    }
    json.update({{"pid", node->memory().master_pid()},
                 {"live", node->is_live()},
                 {"module", shown(node->memory().module_version())},
                 {"nginx", shown(node->memory().server_version())},
                 {"stores", Json::array()},
                 {"audit_anchors", anchors_of(*node).size()}});
    for (const StoreView& store : stores_of(*node)) {
      if (std::find(rows.begin(), rows.end(), store.row) != rows.end()) {
        json["stores"].push_back(report_store(*node, store, report));
      }
    }
    json["tables"] = report_tables(*node, report);
    all.push_back(json);
  }
  if (all.empty()) {
    report.line("nginx", "no nginx is known that reads this directory's keys.mdb");
  }
  report.json["nginx"] = all;
}

void report_usage(const DataDir& directory, Report& report) {
  Seconds last = 0;
  if (std::filesystem::exists(directory.usage_file())) {
    UsageStore store(directory);
    for (const UsageSource& source : store.sources()) {
      last = std::max(last, source.collected);
    }
  }
  report.line("usage", last == 0 ? "never collected" : "last collected " + time_text(last));
  report.json["usage"] = {{"collected", time_json(last)}};
}

void report_activity(const Session& session, const Target& target, Report& report) {
  const Activation activation = wait_until_active(session.dir(), session.runtime, target, {});
  const bool is_known = activation.activity != Activity::unknown;
  report.json["active"] = is_known ? Json(activation.activity == Activity::active) : Json(nullptr);
  if (is_known && activation.activity != Activity::active) {
    report.problem(fmt::format("generation {} is published, but {}", target.generation, activation.sentence));
  }
}

void run(const Session& session) {
  const DataDir directory = session.dir();
  Report report;
  report.json["directory"] = directory.path().string();
  report.json["registry"] = nullptr;
  report.json["active"] = false;
  std::optional<RegistryInfo> info;
  std::error_code error;
  const bool is_only_snapshot = !std::filesystem::exists(directory.registry_file(), error) &&
                                std::filesystem::exists(directory.snapshot_file(), error);
  if (is_only_snapshot) {
    const std::string trace = directory.trace_of_registry().string();
    report.line("registry", fmt::format("none in {}: {}", directory.path().string(),
                                        trace.empty() ? "this node has only a snapshot" : "it was lost"));
    if (!trace.empty()) {
      report.problem(
          fmt::format("there is no registry in {}, but {} is of one: it was lost; bring registry.db back from a backup",
                      directory.path().string(), trace));
    }
  } else {
    const auto registry = directory.open_registry();
    info = registry->info();
    report_registry(directory, *registry, report);
  }
  const std::optional<Target> target = report_published(directory, info, report);
  report_nginx(session, report);
  if (target) {
    report_activity(session, *target, report);
  }
  report_usage(directory, report);
  report.json["problems"] = report.problems;
  session.report(report.text, report.json);
  if (!report.problems.empty()) {
    const std::string last = std::move(report.problems.back());
    report.problems.pop_back();
    Session::warn(report.problems);
    throw NotActive(last);
  }
}

}  // namespace

void add_status_command(Command& app, Session& session) {
  Command command = app.add("status", "What the registry has, what is published, and what each nginx uses");
  command.footer(
      "Exit code 0: everything is published, and every nginx that is known uses it. 3: not so, and the sentences on\n"
      "standard error say why. `keyloader doctor` looks further, and says what to do.\n\n"
      "  keyloader status\n"
      "  keyloader status --json | jq .active");
  command.read([&session] { run(session); });
}

}  // namespace keyloader
