// Making, adopting and replacing node memory. Runs in the master only, while it configures.
// Trusts the directory, which is its own, and believes nothing that stands in a file: sizes and places come from this
// build's region table or from a copy that was checked.
#include "ngx_http_apikey_node.hpp"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "apikey/anchors.hpp"
#include "apikey/fold64.hpp"
#include "apikey/policies.hpp"
#include "apikey/version.hpp"
#include "ngx_http_apikey_announce.hpp"
#include "ngx_http_apikey_checkpoint.hpp"
#include "ngx_http_apikey_legacy.hpp"
#include "ngx_http_apikey_rows.hpp"
#include "ngx_http_apikey_runtime.hpp"
#include "ngx_http_apikey_thread.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kMaxZoneName = 64;
constexpr std::size_t kMinWorkerRows = 64;
constexpr std::size_t kRowsPerWorker = 4;
// How long requests that old workers finish after a change of size are said to be missing from usage.
constexpr std::int64_t kDrainSeconds = 60;
// Hands the instance down to the binary of an upgrade.
constexpr const char* kParentVariable = "APIKEY_NODE";

// What this process uses; of the configuration that runs. Null before the first one.
NodeFile* current;

void on_pool_end(void* data) noexcept {
  auto& node = *static_cast<Node*>(data);
  if (node.place.directory >= 0) {
    if (node.is_new && node.file != nullptr && !node.file->has_name) {
      remove_unnamed_file(node.place);
    }
    close(std::exchange(node.place.directory, -1));
  }
  release_node_file(node.source);
  release_node_file(node.file);
}

Node* make_node(ngx_pool_t* pool) noexcept {
  ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(pool, sizeof(Node));
  if (cleanup == nullptr) {
    return nullptr;
  }
  cleanup->handler = on_pool_end;
  return ::new (cleanup->data) Node{};
}

const ngx_core_conf_t& core_conf(const ngx_cycle_t* cycle) noexcept {
  return *static_cast<ngx_core_conf_t*>(static_cast<void*>(ngx_get_conf(cycle->conf_ctx, ngx_core_module)));
}

// <zone>-<hash of nginx's pid path>
bool name_node(ngx_cycle_t* cycle, Node& node) noexcept {
  const std::uint64_t instance = fold64(std::as_bytes(std::span(view(core_conf(cycle).pid))));
  const ngx_str_t name = file_name_of(cycle->pool, view(node.zone_name));
  ngx_str_t& id = node.place.id;
  id.data = static_cast<u_char*>(ngx_pnalloc(cycle->pool, name.len + sizeof("-0123456789abcdef")));
  if (name.len == 0 || id.data == nullptr) {
    return false;
  }
  u_char* end = ngx_sprintf(id.data, "%V-%016xL", &name, instance);
  *end = '\0';
  id.len = static_cast<std::size_t>(end - id.data);
  return true;
}

// Where the file of that number lies, for people.
bool name_path(ngx_pool_t* pool, Node& node, ngx_uint_t number) noexcept {
  std::array<u_char, kMaxNodeName> name;
  node_name(node.place, number, ".state", name);
  const std::size_t length = ngx_strlen(name.data());
  node.path.data = static_cast<u_char*>(ngx_pnalloc(pool, node.place.path.len + length + 2));
  if (node.path.data == nullptr) {
    return false;
  }
  u_char* end = ngx_sprintf(node.path.data, "%V/%s", &node.place.path, name.data());
  *end = '\0';
  node.path.len = static_cast<std::size_t>(end - node.path.data);
  return true;
}

std::span<std::byte> policies_of(const NodeFile& file) noexcept {
  return file.memory.region(NodeRegion::policies, kPoliciesVersion);
}

// Where processes use the file it stays for its policies' sake: those that find no room are left out until nginx starts
// again, because a reload interrupts nobody.
std::uint64_t policies_for(const MainConf& main, const NodeFile* existing, bool may_grow) noexcept {
  const std::uint64_t had = existing == nullptr ? 0 : policies_of(*existing).size();
  const bool is_usable = had >= kMinPoliciesSize && had <= kMaxPoliciesSize;
  const bool is_enough = had >= main.policies.size() + kPoliciesHeaderSize;
  return is_usable && (is_enough || !may_grow) ? had : policies_size(main.policies.size());
}

// Rows for this configuration's workers and three generations of old ones, and never fewer than there are.
NodeRegions regions_for(const ngx_cycle_t* cycle, const Node& node, const NodeFile* existing,
                        std::uint64_t policies) noexcept {
  const auto workers = static_cast<std::size_t>(std::max<ngx_int_t>(core_conf(cycle).worker_processes, 1));
  std::size_t rows = std::clamp(kRowsPerWorker * workers, kMinWorkerRows, kMaxNodeWorkers);
  if (existing != nullptr) {
    rows = std::max(rows, existing->memory.worker_count());
  }
  return make_regions(node.zone_size, rows, policies);
}

bool has_that_name(const Node& node, const NodeFile& file) noexcept {
  std::array<u_char, kMaxNodeName> name;
  struct stat found {};
  node_name(node.place, file.number, ".state", name);
  return fstatat(node.place.directory, text_of(name.data()), &found, AT_SYMLINK_NOFOLLOW) == 0 &&
         found.st_dev == file.device && found.st_ino == file.inode;
}

void warn_of_others(const Node& node, ngx_log_t* log) noexcept {
  ngx_log_error(
      NGX_LOG_WARN, log, 0,
      "apikey_zone \"%V\": %V belongs to another nginx that runs with the same pid path (another container?); "
      "this one takes a name of its own: give each of them a runtime directory or a pid path of its own",
      &node.zone_name, &node.path);
}

// What lies under the names of this node, from the one of `running` on. Fills source, replaces and is_running; the
// number of the name that is to be used is in `number`. RETURNS: false when no name is left.
bool find_source(ngx_cycle_t* cycle, Node& node, NodeFile* running, ngx_uint_t& number, ngx_log_t* log) noexcept {
  const char* handed_down = std::getenv(kParentVariable);
  const std::string_view parent = handed_down == nullptr ? "" : handed_down;
  for (number = running == nullptr ? 1 : running->number; number <= kMaxNodeNumber; ++number) {
    if (!name_path(cycle->pool, node, number)) {
      return false;
    }
    if (running != nullptr && has_that_name(node, *running)) {
      node.replaces = true;
      break;
    }
    NodeFile* found = new_node_file(log);
    if (found == nullptr) {
      return false;
    }
    const Claim claim = claim_node_file(node.place, number, parent, *found);
    if (claim == Claim::claimed || claim == Claim::shared) {
      node.replaces = true;
      node.is_running = claim == Claim::shared || has_living_workers(*found);
      node.source = found;
      break;
    }
    release_node_file(found);
    if (claim == Claim::taken) {
      warn_of_others(node, log);
      continue;
    }
    if (claim == Claim::not_ours) {
      node.replaces = true;
      ngx_log_error(
          NGX_LOG_WARN, log, 0,
          "apikey_zone \"%V\": %V is not a plain file of the user who starts nginx that nobody else may write: "
          "it is replaced",
          &node.zone_name, &node.path);
    }
    break;
  }
  if (running != nullptr) {
    // What the running workers count in is what counts, even if somebody has put another file in its place.
    release_node_file(node.source);
    node.source = running;
    ++running->users;
    node.is_running = true;
  }
  return number <= kMaxNodeNumber;
}

// Uses the source as it is, if it is what this configuration would make.
bool adopt(ngx_cycle_t* cycle, const MainConf& main, Node& node) noexcept {
  NodeFile* source = node.source;
  if (source == nullptr ||
      !source->memory.consists_of(regions_for(cycle, node, source, policies_for(main, source, !node.is_running))) ||
      !attach_tables(source->memory, node.tables) || !has_that_name(node, *source)) {
    return false;
  }
  node.file = std::exchange(node.source, nullptr);
  return true;
}

// A text of the system in one line, without its end. RETURNS: an empty one when it cannot be read.
std::string_view read_boot_id(std::span<char> buffer) noexcept {
  const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  const ssize_t length = fd < 0 ? 0 : read(fd, buffer.data(), buffer.size());
  if (fd >= 0) {
    close(fd);
  }
  const std::string_view text(buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
  return text.substr(0, text.find('\n'));
}

bool format(Node& node, std::span<const NodeRegionSpec> regions, const SipKey& seed, ngx_log_t* log) noexcept {
  NodeSpec spec;
  spec.regions = regions;
  spec.created_us = wall_us();
  spec.module_version = kVersion;
  spec.server_version = NGINX_VERSION;
  const bool is_random =
      getrandom(spec.instance.data(), sizeof spec.instance, 0) == static_cast<ssize_t>(sizeof spec.instance);
  if (is_random && format_node(node.file->mapping, spec, node.file->memory).ok() &&
      format_tables(node.file->memory, seed, node.tables)) {
    return true;
  }
  ngx_log_error(NGX_LOG_EMERG, log, 0, "apikey_zone \"%V\": no tables can be laid out in its %uL bytes; make it larger",
                &node.zone_name, node.zone_size);
  return false;
}

// The stores of a checkpoint, so that no older snapshot of theirs is taken.
void restore_stores(const Checkpoint& checkpoint, const NodeMemory& memory) noexcept {
  std::size_t row = 0;
  for (std::size_t at = 0; at < checkpoint.stores.size() && row < kNodeStores; at += sizeof(SavedStore)) {
    SavedStore saved;
    std::memcpy(&saved, checkpoint.stores.data() + at, sizeof saved);
    if (saved.key != 0) {
      Adopted before;
      before.registry_id = saved.registry_id;
      before.highest_generation = saved.highest_generation;
      before.active.seal = saved.seal;
      memory.store_row(row).adoption.seed(before);
      memory.store_row(row).key.store(saved.key);
      ++row;
    }
  }
}

// A new file: with the seed of what is to be carried over, or with what the checkpoint says.
ngx_int_t make_new(ngx_cycle_t* cycle, const MainConf& main, Node& node, ngx_uint_t number, ngx_log_t* log) noexcept {
  const NodeRegions regions = regions_for(cycle, node, node.source, policies_for(main, node.source, true));
  const std::size_t size = node_size(regions);
  node.is_new = true;
  node.file = new_node_file(log);
  if (node.file == nullptr) {
    return NGX_ERROR;
  }
  node.file->number = number;
  if (const int error = make_node_file(node.place, size, *node.file); error != 0) {
    ngx_log_error(NGX_LOG_EMERG, log, error,
                  "apikey_zone \"%V\": %uz bytes for %V cannot be had; make %V larger (docker run --shm-size), write "
                  "runtime=<directory> with another one, or make the zone smaller",
                  &node.zone_name, size, &node.path, &node.place.path);
    return NGX_ERROR;
  }
  SavedTables found;
  if (node.source != nullptr) {
    found = saved_tables(node.source->memory);
  } else {
    node.legacy = find_legacy_state(cycle->pool, node.place.id);
    found = node.legacy == nullptr ? SavedTables{} : node.legacy->tables;
  }
  if (found.quotas.size() != 0) {
    return format(node, regions, found.quotas.seed(), log) ? NGX_OK : NGX_ERROR;
  }
  SipKey seed{};
  if (getrandom(seed.data(), sizeof seed, 0) != static_cast<ssize_t>(sizeof seed)) {
    ngx_log_error(NGX_LOG_EMERG, log, ngx_errno, "getrandom() failed for apikey_zone \"%V\"", &node.zone_name);
    return NGX_ERROR;
  }
  CheckpointFile file;
  const bool is_found = read_checkpoint(cycle, main, node, log, file);
  const bool is_laid_out = format(node, regions, is_found ? file.checkpoint.head.seed : seed, log);
  if (is_found && is_laid_out) {
    restore_checkpoint(file, node, log);
    restore_stores(file.checkpoint, node.file->memory);
  }
  release_checkpoint(file);
  return is_laid_out ? NGX_OK : NGX_ERROR;
}

// Lets the new rows' workers find what the old rows' workers hold, so that a changed size interrupts nothing.
void inherit_adoption(const Adoption& old, StoreRow& row) noexcept {
  const Adopted adopted = old.read();
  for (const AdoptedFile* file : {&adopted.active, &adopted.veto}) {
    Adoption::Holder holder;
    if (file->change == 0 || !old.holder(0, file->change, holder)) {
      continue;
    }
    const std::uint64_t attempt = row.adoption.claim_again(holder.pid, 0);
    const bool is_inherited = file == &adopted.active
                                  ? row.adoption.adopt(attempt, *file, false, adopted.since_us, holder)
                                  : row.adoption.veto(attempt, *file, adopted.lack, adopted.since_us, holder);
    const std::uint64_t change = row.adoption.change();
    for (std::size_t i = 1; is_inherited && old.holder(i, file->change, holder); ++i) {
      static_cast<void>(row.adoption.hold(holder, change));
    }
  }
}

// The row that a checkpoint has filled, or a free one.
StoreRow* find_row_for(const NodeMemory& memory, std::uint64_t key) noexcept {
  for (const std::uint64_t wanted : {key, std::uint64_t{0}}) {
    for (std::size_t i = 0; i < kNodeStores; ++i) {
      if (memory.store_row(i).key.load() == wanted) {
        return &memory.store_row(i);
      }
    }
  }
  return nullptr;
}

// The stores that the source knows, each with what was adopted of it last.
void carry_stores(const Node& node) noexcept {
  const NodeMemory& to = node.file->memory;
  to.preamble().configurations.store(node.source->memory.configurations());
  StoreReport report;
  for (std::size_t i = 0; i < node.source->memory.store_count(); ++i) {
    const bool is_read = node.source->memory.read_store(i, report) && report.key != 0;
    StoreRow* row = is_read ? find_row_for(to, report.key) : nullptr;
    if (row == nullptr) {
      continue;
    }
    name_store_row(*row, report.path(), report.name());
    row->last_configuration.store(report.last_configuration);
    row->adoption.seed(report.adopted);
    if (node.is_running) {
      inherit_adoption(report.adoption(), *row);
    }
    row->key.store(report.key);
  }
}

void log_carried(const Node& node, std::uint64_t old_size, const Carried& carried, ngx_log_t* log) noexcept {
  const ngx_uint_t level = carried.lost == 0 ? NGX_LOG_NOTICE : NGX_LOG_WARN;
  ngx_log_error(
      level, log, 0,
      "apikey_zone \"%V\": %V is new with %uz bytes, the one before had %uL: %uL quotas and %uL rows of usage "
      "were carried over, %uL found no room",
      &node.zone_name, &node.path, node.file->mapping.size(), old_size, carried.quotas, carried.usage, carried.lost);
}

// Do the times in that memory count from the same moment as this system's?
bool is_of_this_boot(const NodeMemory& memory, bool is_running) noexcept {
  std::array<char, 64> buffer{};
  const std::string_view boot = read_boot_id(buffer);
  return is_running || (!boot.empty() && boot == memory.boot_id());
}

// From memory that is not used any more, or is by workers that are about to end.
void take_over(Node& node, ngx_log_t* log) noexcept {
  const NodeMemory& from = node.source->memory;
  if (!from.is_attached()) {
    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "apikey_zone \"%V\": %V is damaged: it is replaced, quotas begin with what the checkpoint says, if "
                  "there is one",
                  &node.zone_name, &node.path);
    return;
  }
  carry_stores(node);
  carry_counters(from, node.file->memory);
  carry_anchors(from.region(NodeRegion::anchors, kAnchorsVersion),
                node.file->memory.region(NodeRegion::anchors, kAnchorsVersion));
  if (is_of_this_boot(from, node.is_running)) {
    static_cast<void>(carry_buckets(from, node.file->memory, node.tables));
  }
  if (from.region(NodeRegion::head, NodeHead::kVersion).size() >= sizeof(NodeHead)) {
    node.file->memory.head().checkpoint_us.store(from.head().checkpoint_us.load());
    node.file->memory.head().checkpoint_errors.store(from.head().checkpoint_errors.load());
  }
  from.preamble().is_superseded.store(1);
  const auto now = static_cast<std::int64_t>(wall_us() / 1'000'000);
  const SavedTables saved = saved_tables(from);
  if (saved.quotas.size() == 0 && saved.usage.size() == 0) {
    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "apikey_zone \"%V\": the tables of %V are damaged or of another version of this module: it is "
                  "replaced, quotas begin with what the checkpoint says, if there is one",
                  &node.zone_name, &node.path);
    return;
  }
  log_carried(node, from.size(), carry_over(saved, {now, node.is_running ? now + kDrainSeconds : now}, node.tables),
              log);
}

void take_over_legacy(Node& node, ngx_log_t* log) noexcept {
  const auto now = static_cast<std::int64_t>(wall_us() / 1'000'000);
  const Carried carried = carry_over(node.legacy->tables, {now, now + kDrainSeconds}, node.tables);
  log_carried(node, node.legacy->memory.size(), carried, log);
  ngx_log_error(NGX_LOG_NOTICE, log, 0, "apikey_zone \"%V\": %V of an earlier version was taken over and is removed",
                &node.zone_name, &node.legacy->path);
}

// A file that nobody uses any more begins as a new nginx does, but for what has to outlive it.
void begin_again(Node& node) noexcept {
  const NodeMemory& memory = node.file->memory;
  for (std::size_t i = 0; i < kNodeStores; ++i) {
    StoreRow& row = memory.store_row(i);
    row.adoption.begin_again();
    row.active_configuration.store(0);
    row.complaint.store(0);
    row.stale_change.store(0);
    row.crowded_change.store(0);
  }
  forget_flights(memory, node.tables);
  if (!is_of_this_boot(memory, false)) {
    forget_buckets(memory, node.tables);
  }
}

void put_text(NodeText& out, std::string_view text) noexcept {
  out.fill('\0');
  std::copy_n(text.begin(), std::min(text.size(), out.size()), out.begin());
}

// Who uses it from now on.
void sign(const NodeMemory& memory) noexcept {
  NodePreamble& preamble = memory.preamble();
  std::array<char, 64> buffer{};
  put_text(preamble.boot_id, read_boot_id(buffer));
  put_text(preamble.module_version, kVersion);
  put_text(preamble.server_version, NGINX_VERSION);
  preamble.master_pid.store(static_cast<std::uint64_t>(ngx_getpid()));
  memory.head().wall_us.store(wall_us());
  memory.head().monotonic_us.store(monotonic_ms() * 1000);
}

// So that the binary of an upgrade, which nginx starts with a clean environment, knows which file is its parent's.
void hand_down(ngx_cycle_t* cycle, const Node& node) noexcept {
  auto& core = const_cast<ngx_core_conf_t&>(core_conf(cycle));
  const InstanceText text = instance_text(node.file->memory.instance());
  const std::size_t name = ngx_strlen(kParentVariable);
  auto* value = static_cast<u_char*>(ngx_pnalloc(cycle->pool, name + 1 + text.size() + 1));
  auto* entry = static_cast<ngx_str_t*>(ngx_array_push(&core.env));
  if (entry == nullptr) {
    return;
  }
  if (value == nullptr) {
    core.env.nelts -= 1;
    return;
  }
  *ngx_sprintf(value, "%s=%*s", kParentVariable, text.size(), text.data()) = '\0';
  *entry = {name, value};
}

void say_policies(const MainConf& main, const Node& node, ngx_log_t* log) noexcept {
  const std::span<std::byte> region = policies_of(*node.file);
  publish_policies(region, main.policies, node.configuration, wall_us());
  if (main.policies.size() > region.size() - kPoliciesHeaderSize) {
    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "apikey_zone \"%V\": what the locations ask for needs %uz bytes in node memory, which has room for "
                  "%uz: `keyloader locations` and `keyloader check` know it again when nginx is started anew",
                  &node.zone_name, main.policies.size(), region.size() - kPoliciesHeaderSize);
  }
}

void put_in_place(Node& node, ngx_cycle_t* cycle) noexcept {
  finish_node(node.file->memory);
  if (node.source != nullptr && node.is_running) {
    keep_replaced_file(node.place, *node.source);
  }
  const ngx_uint_t wanted = node.file->number;
  const int error = name_node_file(node.place, node.replaces, *node.file);
  if (error != 0) {
    ngx_log_error(NGX_LOG_ERR, cycle->log, error,
                  "apikey_zone \"%V\": %V cannot be put in place; quotas will not survive a restart", &node.zone_name,
                  &node.path);
  } else if (node.file->number != wanted) {
    warn_of_others(node, cycle->log);
    static_cast<void>(name_path(cycle->pool, node, node.file->number));
  }
}

}  // namespace

ngx_str_t file_name_of(ngx_pool_t* pool, std::string_view zone_name) noexcept {
  ngx_str_t name = copy_to_pool(pool, zone_name.substr(0, kMaxZoneName));
  std::replace_if(
      name.data, name.data + name.len,
      [](u_char c) {
        const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        const bool is_plain = is_letter || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
        return !is_plain;
      },
      u_char{'_'});
  return name;
}

ngx_int_t prepare_node(ngx_cycle_t* cycle, MainConf& main, const ngx_str_t& zone_name, std::uint64_t zone_size,
                       ngx_log_t* log) noexcept {
  if (ngx_test_config) {
    return NGX_OK;
  }
  Node* node = main.node = make_node(cycle->pool);
  if (node == nullptr) {
    return NGX_ERROR;
  }
  node->place.directory = -1;
  node->zone_name = zone_name;
  node->zone_size = zone_size;
  node->place.group = node_group(cycle->pool, main);
  if (!name_node(cycle, *node)) {
    return NGX_ERROR;
  }
  node->place.directory = open_runtime_dir(cycle->pool, main, log, node->place.path);
  ngx_uint_t number = 1;
  if (node->place.directory < 0) {
    return NGX_ERROR;
  }
  if (!find_source(cycle, *node, current, number, log)) {
    ngx_log_error(
        NGX_LOG_EMERG, log, 0,
        "apikey_zone \"%V\": there is no name left in %V, %ui other nginx with this pid path have them; write "
        "runtime=<directory> with another one",
        &zone_name, &node->place.path, kMaxNodeNumber);
    return NGX_ERROR;
  }
  return adopt(cycle, main, *node) ? NGX_OK : make_new(cycle, main, *node, number, log);
}

ngx_int_t on_init_module(ngx_cycle_t* cycle) noexcept {
  MainConf* main = ngx_test_config ? nullptr : main_conf(cycle);
  Node* node = main == nullptr ? nullptr : main->node;
  if (node == nullptr || node->file == nullptr) {
    return NGX_OK;
  }
  if (node->is_new) {
    if (node->source != nullptr) {
      take_over(*node, cycle->log);
    } else if (node->legacy != nullptr) {
      take_over_legacy(*node, cycle->log);
    }
    put_in_place(*node, cycle);
  } else if (!node->is_running) {
    begin_again(*node);
  }
  if (node->legacy != nullptr) {
    remove_legacy_state(*node->legacy);
  }
  if (node->file->inbox_mapping.empty() && node->file->has_name) {
    open_inbox(node->place, *node->file);
  }
  sign(node->file->memory);
  assign_stores(*main, *node);
  say_policies(*main, *node, cycle->log);
  current = node->file;
  use_rows_of(*current);
  release_node_file(std::exchange(node->source, nullptr));
  remove_kept_files(node->place);
  hand_down(cycle, *node);
  announce_node(cycle, *main, *node);
  return NGX_OK;
}

const QuotaTable& quota_table(const MainConf& conf) noexcept { return conf.node->tables.quotas; }

const UsageTable& usage_table(const MainConf& conf) noexcept { return conf.node->tables.usage; }

}  // namespace apikey::nginx
