// keyloader node: the nginx instances of this machine, as their node memory shows them, and removing the files of those
// that are gone.
// INVARIANT: a file is removed only when nobody holds a lock on it, when it is node memory or the inbox beside it, and
// when it lies directly in a known runtime directory. What a file says never leads to another one.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <iostream>

#include "delivery.hpp"
#include "directory_owner.hpp"
#include "file_descriptor.hpp"
#include "node_view.hpp"
#include "nodes.hpp"
#include "output.hpp"
#include "session.hpp"
#include "usage_collect.hpp"

namespace keyloader {
namespace {

namespace fs = std::filesystem;

struct NodeOptions {
  bool is_sure = false;
  DeliveryOptions delivery;
};

Json worker_pids(const Node& node) {
  Json pids = Json::array();
  for (const WorkerView& worker : workers_of(node, 0)) {
    pids.push_back(worker.pid);
  }
  return pids;
}

Json json_of(const Node& node) {
  Json json{{"state", node.place().state.string()}, {"inbox", node.inbox().string()}};
  if (!node.problem().empty()) {
    json["problem"] = node.problem();
    return json;
  }
  Json stores = Json::array();
  for (const StoreView& store : stores_of(node)) {
    const apikey::Adopted& adopted = store.adopted;
    stores.push_back({{"path", store.path},
                      {"name", store.name},
                      {"registry_id", hex(adopted.registry_id)},
                      {"generation", adopted.has_active() ? Json(adopted.active.generation) : Json(nullptr)},
                      {"veto_generation", adopted.has_veto() ? Json(adopted.veto.generation) : Json(nullptr)},
                      {"highest_generation", adopted.highest_generation}});
  }
  json.update({{"live", node.is_live()},
               {"master_pid", node.memory().master_pid()},
               {"worker_pids", worker_pids(node)},
               {"stores", stores},
               {"size", node.memory().size()},
               {"worker_rows", node.memory().worker_count()},
               {"module", node.memory().module_version()},
               {"nginx", node.memory().server_version()}});
  return json;
}

// A line for each store of each instance.
void list(const Session& session) {
  const Nodes nodes(session.dir(), session.runtime);
  Json json = Json::array();
  std::vector<Texts> rows;
  for (const auto& node : nodes.all()) {
    json.push_back(json_of(*node));
    const std::string file = node->place().state.string();
    if (!node->problem().empty()) {
      rows.push_back({"-", "unreadable", "-", "-", "-", "-", fmt::format("{} ({})", file, node->problem())});
      continue;
    }
    const std::string pid = std::to_string(node->memory().master_pid());
    const std::string state = node->is_live() ? "live" : "gone";
    const std::string workers = std::to_string(worker_pids(*node).size());
    const std::string size = std::to_string(node->memory().size());
    const std::vector<StoreView> stores = stores_of(*node);
    for (const StoreView& store : stores) {
      rows.push_back({pid, state, workers, store.path, store.generation_text(), size, file});
    }
    if (stores.empty()) {
      rows.push_back({pid, state, workers, "-", "-", size, file});
    }
  }
  session.report_table({"PID", "STATE", "WORKERS", "STORE", "GENERATION", "BYTES", "FILE"}, rows, json,
                       "no nginx with this module is known on this machine");
}

// Takes all locks of the file first, so that no nginx begins to use it meanwhile. RETURNS: why it stays; empty:
// removed.
std::string remove_files(const Node& node) {
  const fs::path& state = node.place().state;
  const AsCaller of_root;
  const FileDescriptor directory(open(state.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  const FileDescriptor file(
      openat(directory.get(), state.filename().c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!directory.is_open() || !file.is_open()) {
    return fmt::format("it cannot be opened: {}", strerrordesc_np(errno));
  }
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (fcntl(file.get(), F_OFD_SETLK, &lock) != 0) {
    return "an nginx has begun to use it";
  }
  if (unlinkat(directory.get(), state.filename().c_str(), 0) != 0) {
    return fmt::format("it cannot be removed: {}", strerrordesc_np(errno));
  }
  static_cast<void>(unlinkat(directory.get(), node.inbox().filename().c_str(), 0));
  return {};
}

bool is_confirmed(const NodeOptions& options, const std::vector<const Node*>& gone) {
  if (options.is_sure) {
    return true;
  }
  for (const Node* node : gone) {
    print_note(fmt::format("{}{}", shown(node->place().state.string()),
                           node->is_removed() ? " (it is not there; its announcement in nodes/)" : ""));
  }
  if (isatty(STDIN_FILENO) == 0) {
    throw UsageError("these would be removed, with what they know of limits, quotas and usage; add --yes to do it");
  }
  print_note("Remove these, with what they know of limits, quotas and usage? [y/N]");
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "yes";
}

// What it has counted for bills is taken over first. RETURNS: why it stays; empty: nothing of it is left.
std::string remove_node(const Session& session, const Nodes& nodes, const Node& node) {
  try {
    static_cast<void>(collect_usage(session, nodes, node));
  } catch (const Failure& failure) {
    return fmt::format("its usage could not be collected: {}", failure.what());
  }
  std::string why = node.is_removed() ? std::string{} : remove_files(node);
  if (why.empty()) {
    nodes.forget(node);
  }
  return why;
}

void prune(const Session& session, const NodeOptions& options) {
  const Nodes nodes(session.dir(), session.runtime);
  std::vector<const Node*> gone;
  Json kept = Json::array();
  for (const auto& node : nodes.all()) {
    if (!node->is_removed() && (!node->problem().empty() || node->is_live())) {
      continue;
    }
    if (node->is_removed() || nodes.is_in_runtime(*node)) {
      gone.push_back(node.get());
      continue;
    }
    Session::warn(fmt::format("{} stays: its directory is only announced; add --runtime {} to remove it",
                              node->place().state.string(), node->place().state.parent_path().string()));
    kept.push_back(node->place().state.string());
  }
  Json removed = Json::array();
  std::string text;
  if (options.delivery.is_dry_run) {
    for (const Node* node : gone) {
      removed.push_back(node->place().state.string());
      text += fmt::format("{}{}", text.empty() ? "removed " : ", ", node->place().state.string());
    }
    report(session, text.empty() ? "nothing was removed" : text, {{"removed", removed}, {"kept", kept}}, dry_run());
    return;
  }
  if (!gone.empty() && is_confirmed(options, gone)) {
    for (const Node* node : gone) {
      const std::string path = node->place().state.string();
      if (const std::string why = remove_node(session, nodes, *node); !why.empty()) {
        Session::warn(fmt::format("{} stays: {}", path, why));
        kept.push_back(path);
        continue;
      }
      removed.push_back(path);
      text += fmt::format("{}removed {}{}", text.empty() ? "" : "\n", node->is_removed() ? "the announcement of " : "",
                          shown(path));
    }
  }
  session.report(text.empty() ? "nothing was removed" : text, {{"removed", removed}, {"kept", kept}});
}

}  // namespace

void add_node_commands(Command& app, Session& session) {
  Command group = app.add_group("node", "The nginx instances of this machine, and what they leave behind");
  auto options = std::make_shared<NodeOptions>();

  Command all = group.add("list", "Every nginx that is known: live or gone, its stores and their generations");
  all.footer(
      "Looked for in nodes/ of the directory, in /run/apikey, /dev/shm/apikey-* and --runtime. GENERATION is the one\n"
      "that decides; a veto is a newer one from which only revocations count.\n\n"
      "  keyloader node list\n"
      "  keyloader node list --json --runtime /srv/nginx/run");
  all.read([&session] { list(session); });

  Command away = group.add("prune", "Remove the files of instances that are gone");
  away.flag("--yes", options->is_sure, "Do not ask");
  away.tries(options->delivery);
  away.footer(
      "An nginx that is only stopped counts as gone: without its file it starts with full buckets, and with the\n"
      "quotas of its checkpoint (state=) if it has one. Its usage is collected first. A file whose locks are held is\n"
      "never removed. Where the file is gone already, what announces it in nodes/ of the directory is removed.\n\n"
      "  keyloader node prune\n"
      "  keyloader node prune --yes");
  away.run_on_machine(session, [&session, options] { prune(session, *options); });
}

}  // namespace keyloader
