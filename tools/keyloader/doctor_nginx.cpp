// What runs: each nginx of this machine that reads our keys.mdb, as its node memory shows it.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>

#include "activation.hpp"
#include "doctor.hpp"
#include "node_view.hpp"
#include "policy_view.hpp"

namespace keyloader {
namespace {

constexpr std::uint64_t kFull = 80;  // percent
constexpr std::uint64_t kPercent = 100;
constexpr std::int64_t kUsPerSecond = 1'000'000;
constexpr std::int64_t kMostDrift = 5;  // seconds

template <typename Visit>
void each_live(Examined& examined, Visit visit) {
  for (const auto& node : examined.nodes.all()) {
    if (!node->problem().empty() || !node->is_live()) {
      continue;
    }
    const std::vector<std::size_t> rows = node->rows_of(examined.nodes.snapshot());
    if (!rows.empty()) {
      visit(*node, rows);
    }
  }
}

// The newest configuration's stores that are our keys.mdb.
template <typename Visit>
void each_store(Examined& examined, Visit visit) {
  each_live(examined, [&](const Node& node, const std::vector<std::size_t>& rows) {
    for (const StoreView& store : stores_of(node)) {
      const bool is_ours = std::find(rows.begin(), rows.end(), store.row) != rows.end();
      if (is_ours && store.last_configuration >= node.memory().configurations()) {
        visit(node, store);
      }
    }
  });
}

// Those that read our keys.mdb.
struct Running {
  bool is_any_live = false;
  std::vector<const Node*> gone;
};
Running running(Examined& examined) {
  Running found;
  for (const auto& node : examined.nodes.all()) {
    if (!node->problem().empty() || node->rows_of(examined.nodes.snapshot()).empty()) {
      continue;
    }
    if (node->is_live()) {
      found.is_any_live = true;
    } else {
      found.gone.push_back(node.get());
    }
  }
  return found;
}

void known(Examined& examined, Findings& findings) {
  const Running found = running(examined);
  if (!found.is_any_live && found.gone.empty()) {
    notice(findings, fmt::format("no running nginx of this machine reads {}", examined.nodes.snapshot().string()),
           "If one should, see that `apikey_store` names this file, that it was reloaded, and that you may read its "
           "runtime directory (--runtime names another)");
  }
}

void hidden(Examined& examined, Findings& findings) {
  for (const auto& node : examined.nodes.all()) {
    if (node->is_hidden()) {
      wrong(findings, node->hidden_sentence(), {});
    }
  }
}

// One that was stopped beside one that runs is what an upgrade or a move leaves. Where none runs, nobody decides.
void gone(Examined& examined, Findings& findings) {
  const Running found = running(examined);
  for (const Node* const node : found.gone) {
    const std::string option = examined.nodes.is_in_runtime(*node)
                                   ? ""
                                   : fmt::format(" --runtime {}", shown(node->place().state.parent_path().string()));
    const std::string remedy =
        fmt::format("Start it, or forget it with `keyloader node prune{}` after `keyloader usage collect`", option);
    const std::string state = shown(node->place().state.string());
    if (found.is_any_live) {
      notice(findings, fmt::format("{} belongs to an nginx that does not run", state), remedy);
    } else {
      wrong(findings,
            fmt::format("no nginx that reads {} runs: {} belongs to the one that did",
                        examined.nodes.snapshot().string(), state),
            remedy);
    }
  }
}

void active(Examined& examined, Findings& findings) {
  if (examined.snapshot == nullptr) {
    return;
  }
  const Target target{.registry_id = examined.snapshot->meta().registry_id,
                      .generation = examined.snapshot->meta().generation,
                      .seal = examined.snapshot->seal().sha256};
  const Activation activation = wait_until_active(examined.directory, examined.session.runtime, target, {});
  if (activation.activity == Activity::not_yet || activation.activity == Activity::refused) {
    wrong(findings, fmt::format("generation {} is published, but {}", target.generation, activation.sentence),
          activation.activity == Activity::refused
              ? "docs/operations.md, \"A snapshot is refused\", has the way back"
              : "Look at nginx's error log and at what that process does; `kill -CONT` wakes one that was stopped, and "
                "one that hangs has to be ended: until then it decides by what it has");
  }
}

void workers(Examined& examined, Findings& findings) {
  each_store(examined, [&](const Node& node, const StoreView& store) {
    for (const WorkerView& worker : workers_of(node, store.row)) {
      if (worker.ack.state == apikey::AckState::fenced) {
        wrong(findings,
              fmt::format("worker {} of {} cannot open the snapshot and answers 503", worker.pid, node.name()),
              "nginx's error log says why; most often it has no descriptors left: raise worker_rlimit_nofile");
      } else if (worker.ack.state == apikey::AckState::unchecked) {
        wrong(findings,
              fmt::format("worker {} of {} cannot open the snapshot and lets requests pass unchecked", worker.pid,
                          node.name()),
              "nginx's error log says why; on_error=allow asks for this");
      }
    }
  });
}

void veto(Examined& examined, Findings& findings) {
  each_store(examined, [&](const Node& node, const StoreView& store) {
    if (store.adopted.has_veto()) {
      wrong(findings,
            fmt::format("{} lacks {}, so it takes only revocations from generation {}", node.name(),
                        shown(store.adopted.lack.name()), store.adopted.veto.generation),
            "Add the pepper to its apikey_store, or upgrade the module, and reload it");
    }
  });
}

void peppers(Examined& examined, Findings& findings) {
  if (examined.registry == nullptr) {
    return;
  }
  if (const auto lack = examined.nodes.lack_of({.methods = examined.registry->methods_in_use()})) {
    wrong(findings, *lack, {});
  }
}

void versions(Examined& examined, Findings& findings) {
  each_live(examined, [&](const Node& node, const auto&) {
    if (node.memory().module_version() != KEYLOADER_VERSION) {
      notice(findings,
             fmt::format("{} has the module {}, and keyloader is {}", node.name(),
                         shown(node.memory().module_version()), KEYLOADER_VERSION),
             "Upgrade the older one; the module first");
    }
  });
}

void snapshot_format(Examined& examined, Findings& findings) {
  if (const KnownStore* const oldest = examined.nodes.oldest_reader();
      oldest != nullptr && oldest->newest_format < apikey::kFormatVersion) {
    notice(findings, Nodes::old_format_sentence(oldest->node, oldest->newest_format),
           "Upgrade its module and restart it; the next publish writes the newest format");
  }
}

void tables(Examined& examined, Findings& findings) {
  each_live(examined, [&](const Node& node, const auto&) {
    for (const TableFill& fill : fills_of(node)) {
      if (fill.slots != 0 && fill.used * kPercent / fill.slots >= kFull) {
        const bool is_usage = fill.name == "usage";
        wrong(findings,
              fmt::format("the table \"{}\" of {} is {} % full ({} of {})", fill.name, node.name(),
                          fill.used * kPercent / fill.slots, fill.used, fill.slots),
              is_usage ? "Run `keyloader usage collect`, which makes room; do it every five minutes"
                       : "Give apikey_zone a larger size and reload nginx");
      }
    }
  });
}

void zone_size(Examined& examined, Findings& findings) {
  if (examined.snapshot == nullptr) {
    return;
  }
  const std::uint64_t keys = examined.snapshot->meta().keys;
  each_live(examined, [&](const Node& node, const auto&) {
    const std::vector<TableFill> fills = fills_of(node);
    if (fills.front().slots != 0 && fills.front().slots < keys) {
      notice(findings,
             fmt::format("{} has room for {} token buckets, and there are {} keys", node.name(), fills.front().slots,
                         keys),
             "If most of them are used at the same time, give apikey_zone a larger size (docs/limits.md, Sizes)");
    }
  });
}

// What the registry deletes is counted and never taken for a loss, so no min_keep is too high for what keyloader
// publishes.
void min_keep(Examined& examined, Findings& findings) {
  each_store(examined, [&](const Node& node, const StoreView& store) {
    if (store.min_keep == std::uint64_t{0}) {
      notice(findings,
             fmt::format("{} has min_keep=0% for the store {}: it takes a snapshot that has lost its keys, and then "
                         "refuses everybody",
                         node.name(), shown(store.name)),
             "Take min_keep= out of its apikey_store (50% is the default) and reload nginx; `keyloader publish "
             "--allow-shrink` lets a snapshot in that is meant to be smaller");
    }
  });
}

void debug_log(Examined& examined, Findings& findings) {
  each_live(examined, [&](const Node& node, const auto&) {
    for (const ServerView& server : policies_of(node).servers) {
      Texts names;
      for (const LocationView& location : server.locations) {
        if (location.is(apikey::kPolicyOn) && location.is(apikey::kPolicyDebugLog)) {
          names.push_back(shown(location.name()));
        }
      }
      if (!names.empty()) {
        wrong(findings,
              fmt::format("{} writes the headers of requests, keys included, to an error log at level debug: {} of {}",
                          node.name(), fmt::join(names, ", "), shown(server.name())),
              "Give that error_log the level notice or a higher one, reload nginx, and destroy what it has written");
      }
    }
  });
}

std::int64_t us_of(clockid_t clock) {
  timespec now{};
  static_cast<void>(clock_gettime(clock, &now));
  return std::int64_t{now.tv_sec} * kUsPerSecond + now.tv_nsec / 1000;
}

// A copy of the fields that are wanted; the rest of the region is other programs' business.
struct HeadView {
  std::uint64_t checkpoint_us = 0;
  std::uint64_t checkpoint_errors = 0;
  std::int64_t wall_us = 0;
  std::int64_t monotonic_us = 0;
};
std::optional<HeadView> head_of(const Node& node) {
  const auto region = node.memory().region(apikey::NodeRegion::head, apikey::NodeHead::kVersion);
  if (region.size() < sizeof(apikey::NodeHead)) {
    return std::nullopt;
  }
  HeadView view;
  std::memcpy(&view.checkpoint_us, region.data() + offsetof(apikey::NodeHead, checkpoint_us), sizeof(std::uint64_t));
  std::memcpy(&view.checkpoint_errors, region.data() + offsetof(apikey::NodeHead, checkpoint_errors),
              sizeof(std::uint64_t));
  std::memcpy(&view.wall_us, region.data() + offsetof(apikey::NodeHead, wall_us), sizeof(std::int64_t));
  std::memcpy(&view.monotonic_us, region.data() + offsetof(apikey::NodeHead, monotonic_us), sizeof(std::int64_t));
  return view;
}

void checkpoint(Examined& examined, Findings& findings) {
  each_live(examined, [&](const Node& node, const auto&) {
    const auto head = head_of(node);
    if (head && head->checkpoint_errors != 0) {
      wrong(findings,
            fmt::format("{} could not write {} checkpoints of its quotas", node.name(), head->checkpoint_errors),
            "nginx's error log says why; look at the directory of apikey_zone … state=");
    } else if (head && head->checkpoint_us == 0) {
      notice(
          findings,
          fmt::format("{} keeps no checkpoint: a reboot forgets quotas, usage and the highest generation", node.name()),
          "Give apikey_zone a state= directory");
    }
  });
}

void clocks(Examined& examined, Findings& findings) {
  each_live(examined, [&](const Node& node, const auto&) {
    const auto head = head_of(node);
    if (!head || head->wall_us == 0) {
      return;
    }
    const std::int64_t drift =
        ((us_of(CLOCK_REALTIME) - head->wall_us) - (us_of(CLOCK_MONOTONIC) - head->monotonic_us)) / kUsPerSecond;
    if (drift > kMostDrift || drift < -kMostDrift) {
      notice(findings,
             fmt::format("since {} started, the wall clock has moved by {} s against the monotonic one", node.name(),
                         drift),
             "See that the time service steps the clock at boot only: windows of quotas follow the wall clock");
    }
  });
}

constexpr std::array kChecks = {
    Check{"nginx-known", "an nginx that runs reads this keys.mdb", known},
    Check{"nginx-hidden", "every nginx that announced itself can be seen", hidden},
    Check{"nginx-gone", "no nginx has left its files behind", gone},
    Check{"nginx-active", "every nginx uses what is published", active},
    Check{"nginx-workers", "every worker has the snapshot open", workers},
    Check{"nginx-veto", "every nginx knows what the snapshot needs", veto},
    Check{"nginx-peppers", "every nginx is configured for the peppers in use", peppers},
    Check{"nginx-version", "module and keyloader have one version", versions},
    Check{"snapshot-format", "every nginx reads the newest format of snapshots", snapshot_format},
    Check{"min-keep", "every nginx refuses a snapshot that has lost its keys", min_keep},
    Check{"debug-log", "no nginx writes keys to a log at level debug", debug_log},
    Check{"tables", "no table of node memory is nearly full", tables},
    Check{"zone-size", "the zone has a bucket for every key", zone_size},
    Check{"checkpoint", "quotas survive a reboot", checkpoint},
    Check{"clocks", "the wall clock has not been moved", clocks},
};

}  // namespace

std::span<const Check> nginx_checks() { return kChecks; }

}  // namespace keyloader
