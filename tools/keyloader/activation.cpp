// Reading acknowledgements until all are there. An instance is judged row by row: first what is adopted, then who has
// acknowledged it.
#include "activation.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <thread>

#include "nodes.hpp"
#include "output.hpp"

namespace keyloader {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kPoll = 5ms;
constexpr auto kLongestVerification = 60s;

std::uint64_t now_ms() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch()).count());
}

// What is so in one instance, or in one of its stores, at this moment.
struct Verdict {
  Activity activity = Activity::active;
  std::string why;            // not active
  bool is_verifying = false;  // worth waiting longer for
  bool has_store = false;
};

bool is_worse(Activity a, Activity b) { return static_cast<int>(a) > static_cast<int>(b); }

void add(Verdict& all, const Verdict& one) {
  all.is_verifying = all.is_verifying || one.is_verifying;
  all.has_store = all.has_store || one.has_store;
  if (is_worse(one.activity, all.activity)) {
    all.activity = one.activity;
    all.why = one.why;
  }
}

// Looks for the instances anew each time: an nginx that is started or replaced meanwhile counts, too.
class Watch {
 public:
  Watch(const DataDir& directory, const std::filesystem::path& runtime, const Target& target)
      : directory_(directory),
        runtime_(runtime),
        snapshot_(directory.snapshot_file()),
        target_(target),
        report_(std::make_unique<apikey::StoreReport>()) {}

  // An nginx that does not run decides nothing: it counts only where no other one reads this keys.mdb.
  [[nodiscard]] Verdict look() {
    const Nodes nodes(directory_, runtime_);
    Verdict all;
    names_.clear();
    Texts stopped;
    for (const auto& node : nodes.all()) {
      const Verdict verdict = look_at(*node);
      add(all, verdict);
      if (verdict.has_store) {
        names_.push_back(node->name());
      }
      if (is_stopped(*node)) {
        stopped.push_back(fmt::format("nginx (pid {})", node->memory().master_pid()));
      }
    }
    if (!all.has_store && stopped.empty()) {
      return {.activity = Activity::unknown, .why = "no running nginx is known to read it"};
    }
    if (!all.has_store) {
      return {.activity = Activity::stopped,
              .why = fmt::format("{}, which {} it, {} not running and will take it at the next start",
                                 fmt::join(stopped, ", "), stopped.size() == 1 ? "reads" : "read",
                                 stopped.size() == 1 ? "is" : "are")};
    }
    return all;
  }

  // "nginx (pid 812), nginx (pid 907)"
  [[nodiscard]] std::string names() const { return fmt::format("{}", fmt::join(names_, ", ")); }

 private:
  Verdict look_at(const Node& node) {
    if (node.is_hidden()) {
      return {.activity = Activity::not_yet, .why = node.hidden_sentence(), .has_store = true};
    }
    Verdict all;
    if (!node.problem().empty() || !node.is_live()) {
      return all;
    }
    for (const std::size_t row : node.rows_of(snapshot_)) {
      if (node.memory().read_store(row, *report_)) {
        add(all, look_at(node, row));
      }
    }
    return all;
  }

  [[nodiscard]] bool is_stopped(const Node& node) const {
    return node.problem().empty() && !node.is_live() && !node.memory().is_superseded() &&
           !node.rows_of(snapshot_).empty();
  }

  Verdict look_at(const Node& node, std::size_t row) {
    Verdict verdict;
    const bool is_named =
        !node.memory().is_superseded() && report_->last_configuration >= node.memory().configurations();
    bool has_free_row = false;
    const std::vector<apikey::WorkerReport> workers = workers_of(node, row, has_free_row);
    if (!is_named && workers.empty()) {
      return verdict;  // no configuration that still runs has this store
    }
    verdict.has_store = true;
    verdict.is_verifying = report_->adoption().is_verifying(now_ms());
    const apikey::AdoptedFile* const adopted = adopted_file();
    if (adopted == nullptr) {
      return not_adopted(node, std::move(verdict));
    }
    std::uint64_t& first_change = changes_.try_emplace({node.memory().instance(), row}, adopted->change).first->second;
    first_change = std::min(first_change, adopted->change);
    for (const apikey::WorkerReport& worker : workers) {
      const apikey::Ack& ack = worker.acks.at(row);
      const bool is_acknowledged = ack.generation >= target_.generation && ack.change >= first_change;
      if (!is_acknowledged) {
        verdict.activity = Activity::not_yet;
        verdict.why = fmt::format("{} has a worker (pid {}) that has not acknowledged it: it is stopped or it hangs",
                                  node.name(), worker.pid);
        return verdict;
      }
      if (ack.state == apikey::AckState::unchecked) {
        verdict.activity = Activity::not_yet;
        verdict.why = fmt::format(
            "{} has a worker (pid {}) that cannot open it and lets requests pass unchecked (on_error=allow)",
            node.name(), worker.pid);
        return verdict;
      }
      if (ack.state == apikey::AckState::vetoed && !target_.only_restricts) {
        return vetoed(node, std::move(verdict));
      }
    }
    if (!has_free_row) {
      verdict.activity = Activity::not_yet;
      verdict.why = fmt::format(
          "in {} all {} rows for workers are taken, so there may be a worker that nobody can see; end old workers that "
          "still finish requests (worker_shutdown_timeout)",
          node.name(), node.memory().worker_count());
    }
    return verdict;
  }

  // The file of our registry and at least our generation that this nginx has taken; null: none yet. A copy of the
  // registry gives out the same numbers with other contents.
  [[nodiscard]] const apikey::AdoptedFile* adopted_file() const {
    for (const apikey::AdoptedFile* file : {&report_->adopted.active, &report_->adopted.veto}) {
      if (file->change != 0 && file->registry_id == target_.registry_id &&
          (file->generation > target_.generation || is_target(*file))) {
        return file;
      }
    }
    return nullptr;
  }

  [[nodiscard]] bool is_target(const apikey::AdoptedFile& file) const {
    return file.generation == target_.generation && file.seal == target_.seal;
  }

  [[nodiscard]] Verdict vetoed(const Node& node, Verdict verdict) const {
    verdict.activity = Activity::refused;
    verdict.why = fmt::format(
        "{} lacks {}, so it takes only revocations, suspensions and deletions from this snapshot and decides the rest "
        "with generation {}; configure it and reload nginx",
        node.name(), shown(report_->adopted.lack.name()), report_->adopted.active.generation);
    return verdict;
  }

  Verdict not_adopted(const Node& node, Verdict verdict) {
    verdict.activity = Activity::not_yet;
    const std::uint64_t used = report_->adopted.active.change != 0 ? report_->adopted.active.generation : 0;
    if (used == target_.generation && report_->adopted.active.registry_id == target_.registry_id) {
      verdict.why = fmt::format(
          "{} uses another generation {} of this registry: a copy of it is published, too. Use one of them only",
          node.name(), used);
      return verdict;
    }
    const std::string uses = used != 0 ? fmt::format("still uses generation {}", used) : "has no snapshot";
    apikey::Refusal refusal;
    if (report_->adoption().last_refusal(refusal) && is_about_ours(refusal) &&
        refusal.configuration >= report_->last_configuration) {
      const bool is_settled = apikey::is_final(static_cast<apikey::AdoptionResult>(refusal.result));
      verdict.activity = is_settled ? Activity::refused : Activity::not_yet;
      verdict.why = fmt::format("{} {}: {}", node.name(), uses, shown(refusal.text()));
      return verdict;
    }
    verdict.why = fmt::format("{} {}: {}", node.name(), uses,
                              verdict.is_verifying ? "it is still verifying the new one"
                                                   : "it has not looked at the new one: it is stopped or it hangs");
    return verdict;
  }

  [[nodiscard]] bool is_about_ours(const apikey::Refusal& refusal) const {
    if (refusal.seal == target_.seal) {
      return true;
    }
    struct stat found {};
    if (refusal.seal != apikey::SealHash{} || stat(snapshot_.c_str(), &found) != 0) {
      return false;
    }
    const std::uint64_t mtime_ns = static_cast<std::uint64_t>(found.st_mtim.tv_sec) * 1'000'000'000U +
                                   static_cast<std::uint64_t>(found.st_mtim.tv_nsec);
    return refusal.identity.device == found.st_dev && refusal.identity.inode == found.st_ino &&
           refusal.identity.mtime_ns == mtime_ns;
  }

  // Those that decide by this store: an acknowledgement shows it, or their configuration is the newest that names it.
  // `has_free_row`: there is none that works without a row of its own.
  [[nodiscard]] std::vector<apikey::WorkerReport> workers_of(const Node& node, std::size_t row,
                                                             bool& has_free_row) const {
    std::vector<apikey::WorkerReport> workers;
    apikey::WorkerReport worker;
    for (std::size_t i = 0; i < node.memory().worker_count(); ++i) {
      const bool is_live = node.has_live_worker(i);
      has_free_row = has_free_row || !is_live;
      if (!is_live || !node.memory().read_worker(i, worker) || row >= worker.acks.size()) {
        continue;
      }
      if (worker.acks.at(row).state != apikey::AckState::none || worker.configuration == report_->last_configuration) {
        workers.push_back(worker);
      }
    }
    return workers;
  }

  const DataDir& directory_;
  const std::filesystem::path& runtime_;
  const std::filesystem::path snapshot_;
  const Target& target_;
  std::unique_ptr<apikey::StoreReport> report_;
  // By instance and row: the change that made it active there.
  std::map<std::pair<apikey::NodeInstance, std::size_t>, std::uint64_t> changes_;
  Texts names_;
};

}  // namespace

Activation wait_until_active(const DataDir& directory, const std::filesystem::path& runtime, const Target& target,
                             const Patience& patience) {
  Watch watch(directory, runtime, target);
  const Clock::time_point begin = Clock::now();
  const std::chrono::milliseconds wait{patience.wait_ms};
  Clock::time_point deadline = begin + wait;
  while (true) {
    const Verdict verdict = watch.look();
    if (verdict.activity == Activity::active) {
      return {Activity::active, "active in " + watch.names()};
    }
    const Clock::time_point now = Clock::now();
    if (verdict.is_verifying) {
      deadline = std::max(deadline, std::min(now + wait, begin + kLongestVerification));
    }
    const bool may_change = verdict.activity != Activity::refused && (verdict.has_store || patience.waits_for_nginx);
    if (!may_change || now >= deadline) {
      return {verdict.activity, verdict.why};
    }
    std::this_thread::sleep_for(kPoll);
  }
}

}  // namespace keyloader
