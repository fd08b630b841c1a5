// Claiming and asking about rows. The answers of others' locks are facts of the kernel; what stands in their rows is
// only used to find the row that belongs to a pid.
#include "ngx_http_apikey_rows.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "apikey/features.hpp"
#include "apikey/fold64.hpp"
#include "apikey/node_locks.hpp"
#include "ngx_http_apikey_fault.hpp"
#include "ngx_http_apikey_store.hpp"
#include "ngx_http_apikey_thread.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

// Of a worker without a row: nobody can see whether it lives, so what it holds stays held.
constexpr std::uint32_t kNobodyKnows = 0x3f'ffff;

struct Self {
  const NodeFile* file = nullptr;
  std::size_t row = kNoWorkerRow;
  std::uint64_t ticket = 0;
};
Self self;

std::uint64_t store_key(const StoreConf& store) noexcept {
  Fold64 fold(store.path.len + store.name.len);
  fold.word(fold64(std::as_bytes(std::span(view(store.path)))));
  fold.word(fold64(std::as_bytes(std::span(view(store.name)))));
  return fold.value();
}

// The row of that key, a free one, or the one of the store that has been out of use for longest. A worker so old that
// it still uses that store sees the other key and keeps what it has.
std::size_t find_store_row(const NodeMemory& memory, std::uint64_t key) noexcept {
  for (const std::uint64_t wanted : {key, std::uint64_t{0}}) {
    for (std::size_t i = 0; i < kNodeStores; ++i) {
      if (memory.store_row(i).key.load() == wanted) {
        return i;
      }
    }
  }
  std::size_t oldest = 0;
  for (std::size_t i = 1; i < kNodeStores; ++i) {
    if (memory.store_row(i).last_configuration.load() < memory.store_row(oldest).last_configuration.load()) {
      oldest = i;
    }
  }
  return oldest;
}

void empty_store_row(const NodeMemory& memory, NodeCounters& counters, std::size_t i) noexcept {
  memory.store_row(i).key.store(0);
  ngx_memzero(static_cast<void*>(&memory.store_row(i)), sizeof(StoreRow));
  ngx_memzero(static_cast<void*>(&counters.stores[i]), sizeof(StoreCounters));
  // What was acknowledged of the other store says nothing of this one.
  for (std::size_t worker = 0; worker < memory.worker_count(); ++worker) {
    acknowledge(memory.worker_row(worker), i, {});
  }
}

// For keyloader, which publishes nothing that this nginx could not read.
void say_abilities(const MainConf& main, const StoreConf& store, StoreRow& row) noexcept {
  constexpr std::string_view with_pepper = "hmac-sha256:";
  std::array<char, kMaxConfiguredMethods*(with_pepper.size() + kMaxPepperIdLength + 1)> text;
  char* end = text.data();
  for (ngx_uint_t i = 0; i < store.method_count; ++i) {
    const std::string_view pepper = main.methods[store.methods[i]].pepper_id();
    const std::string_view kind = pepper.empty() ? "sha256" : with_pepper;
    end = i == 0 ? end : std::fill_n(end, 1, ' ');
    end = std::copy(kind.begin(), kind.end(), end);
    end = std::copy(pepper.begin(), pepper.end(), end);
  }
  std::array<char, kStoreWordsSize> features{};
  char* features_end = features.data();
  for (const std::string_view name : kKnownFeatures) {
    features_end = features_end == features.data() ? features_end : std::fill_n(features_end, 1, ' ');
    features_end = std::copy(name.begin(), name.end(), features_end);
  }
  set_abilities(row, {text.data(), static_cast<std::size_t>(end - text.data())},
                {features.data(), static_cast<std::size_t>(features_end - features.data())});
}

bool is_row_held(std::size_t row) noexcept {
  return row == self.row || worker_lock(self.file->row_fd, row) != LockState::free;
}

}  // namespace

void assign_stores(MainConf& main, Node& node) noexcept {
  const NodeMemory& memory = node.file->memory;
  node.configuration = memory.preamble().configurations.fetch_add(1) + 1;
  auto** stores = static_cast<StoreConf**>(main.stores.elts);
  for (ngx_uint_t i = 0; i < main.stores.nelts; ++i) {
    const std::uint64_t key = store_key(*stores[i]);
    const std::size_t number = find_store_row(memory, key);
    StoreRow& row = memory.store_row(number);
    if (row.key.load() != key) {
      if (row.key.load() != 0) {
        empty_store_row(memory, *node.tables.counters, number);
      }
      name_store_row(row, view(stores[i]->path), view(stores[i]->name));
      row.key.store(key);
    } else if (row.path.front() == '\0') {  // a row that came from a checkpoint has no texts
      name_store_row(row, view(stores[i]->path), view(stores[i]->name));
    }
    say_abilities(main, *stores[i], row);
    set_newest_format(row, kFormatVersion);
    set_min_keep(row, stores[i]->min_keep_percent);
    row.last_configuration.store(node.configuration);
    attach_store_runtime(*stores[i], main, number);
  }
}

void use_rows_of(const NodeFile& file) noexcept { self.file = &file; }

void leave_master(const MainConf& main) noexcept {
  if (main.node != nullptr && main.node->file != nullptr && main.node->file->lock_fd >= 0) {
    close(std::exchange(main.node->file->lock_fd, -1));
  }
}

void claim_row(ngx_cycle_t* cycle, const MainConf& main) noexcept {
  NodeFile* file = main.node->file;
  self = {file};
  WorkerStart start;
  start.pid = static_cast<std::uint32_t>(ngx_pid);
  start.configuration = main.node->configuration;
  start.started_us = wall_us();
  start.flags = ngx_process == NGX_PROCESS_SINGLE ? kSingleFlag : 0;
  // Who may write the inbox may also cut it.
  if (!file->inbox_mapping.empty() && !guard(file->inbox_mapping)) {
    file->inbox = {};
  }
  self.row = claim_worker_row(file->row_fd, file->memory, start, self.ticket);
  if (self.row == kNoWorkerRow) {
    ngx_log_error(
        NGX_LOG_ALERT, cycle->log, 0,
        "apikey_zone \"%V\": all %uz rows for workers are taken, so nobody can see what this one does; end old "
        "workers that still finish requests, see worker_shutdown_timeout",
        &main.node->zone_name, file->memory.worker_count());
  }
  // daemon() gave the master another pid after it had written the first.
  file->memory.preamble().master_pid.store(
      static_cast<std::uint64_t>(ngx_process == NGX_PROCESS_SINGLE ? ngx_pid : ngx_parent));
}

void release_row() noexcept {
  if (self.row != kNoWorkerRow) {
    release_worker_row(self.file->row_fd, self.row);
    self = {};
  }
}

FlightHolder own_holder() noexcept {
  return self.row == kNoWorkerRow
             ? FlightHolder{kNobodyKnows, static_cast<std::uint16_t>(ngx_pid)}
             : FlightHolder{static_cast<std::uint32_t>(self.row), static_cast<std::uint16_t>(self.ticket)};
}

void say_draining() noexcept {
  if (self.row != kNoWorkerRow) {
    self.file->memory.worker_row(self.row).flags.fetch_or(kDrainingFlag);
  }
}

void acknowledge(const StoreConf& store, const Ack& ack) noexcept {
  if (self.row != kNoWorkerRow) {
    acknowledge(self.file->memory.worker_row(self.row), store.runtime->row_number, ack);
  }
}

std::size_t count_fenced(const StoreConf& store) noexcept {
  std::size_t count = 0;
  const NodeMemory& memory = self.file->memory;
  for (std::size_t row = 0; row < memory.worker_count(); ++row) {
    const WideWord& ack = memory.worker_row(row).acks[store.runtime->row_number];
    const auto state = static_cast<AckState>(static_cast<std::uint8_t>(ack.high()));
    const bool is_fenced = state == AckState::fenced || state == AckState::unchecked;
    count += is_fenced && is_row_held(row) ? 1 : 0;
  }
  return count;
}

bool is_worker_alive(std::uint32_t pid) noexcept {
  if (self.file == nullptr || pid == static_cast<std::uint32_t>(ngx_pid)) {
    return true;
  }
  const NodeMemory& memory = self.file->memory;
  for (std::size_t row = 0; row < memory.worker_count(); ++row) {
    if (memory.worker_row(row).owner.low() == pid && is_row_held(row)) {
      return true;
    }
  }
  return false;
}

bool is_holder_alive(FlightHolder holder) noexcept {
  if (self.file == nullptr || holder.row == kNobodyKnows) {
    return true;
  }
  const NodeMemory& memory = self.file->memory;
  return holder.row < memory.worker_count() &&
         static_cast<std::uint16_t>(memory.worker_row(holder.row).owner.high()) == holder.mark &&
         is_row_held(holder.row);
}

}  // namespace apikey::nginx
