// Timers and looks. A worker looks at each store's file once a second and whenever inotify says so; whoever sees a new
// file first verifies it for all, the others wait for the result by looking at one word of shared memory.
// Runs in workers only (and in the one process of `master_process off`), on the event loop; all timers are cancelable.
#include "ngx_http_apikey_worker.hpp"

#include <cerrno>

#include "ngx_http_apikey_clocks.hpp"
#include "ngx_http_apikey_flights.hpp"
#include "ngx_http_apikey_node.hpp"
#include "ngx_http_apikey_reserve.hpp"
#include "ngx_http_apikey_rows.hpp"
#include "ngx_http_apikey_saver.hpp"
#include "ngx_http_apikey_usage.hpp"
#include "ngx_http_apikey_verifier.hpp"
#include "ngx_http_apikey_watch.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr ngx_msec_t kLookEvery = 1000;
constexpr ngx_msec_t kSoonest = 5;
constexpr ngx_msec_t kStartPatience = 1000;  // how long a new worker waits for its first snapshot …
constexpr ngx_msec_t kStep = 2;              // … looking again so often

struct Worker {
  ngx_cycle_t* cycle = nullptr;  // null: not started
  MainConf* main = nullptr;
  ngx_connection_t nowhere;  // what nginx's debug log prints of a timer
  ngx_event_t look_timer;
  ngx_event_t soon_timer;
  ngx_msec_t soon = 0;  // 0: nobody waits for another worker's verification
};
Worker worker;

template <typename F>
void for_each_store(F&& f) noexcept {
  auto** stores = static_cast<StoreConf**>(worker.main->stores.elts);
  for (ngx_uint_t i = 0; i < worker.main->stores.nelts; ++i) {
    f(*stores[i]);
  }
}

StoreRow& slot_of(const StoreConf& store) noexcept { return *store.runtime->slot; }

const char* path_of(const StoreConf& store) noexcept {
  return static_cast<const char*>(static_cast<const void*>(store.path.data));
}

void complain_of_absence(const StoreConf& store, int error) noexcept {
  const Adopted current = slot_of(store).adoption.read();
  const bool is_missing = error == ENOENT || error == ENOTDIR;
  const std::uint64_t what = (is_missing ? 0 : static_cast<std::uint64_t>(error) << 1U) + !current.has_active() + 1;
  if (!is_first_complaint(store, what)) {
    return;
  }
  ngx_log_t* log = worker.cycle->log;
  if (!is_missing) {
    ngx_log_error(NGX_LOG_ERR, log, error, "apikey store \"%V\": %V cannot be looked at by the workers", &store.name,
                  &store.path);
    count_adoption(*worker.main, store, AdoptionResult::unreadable, 0);
  } else if (current.has_active()) {
    ngx_log_error(NGX_LOG_WARN, log, 0, "apikey store \"%V\": %V has vanished; generation %uL stays active",
                  &store.name, &store.path, current.active.generation);
  } else {
    ngx_log_error(
        NGX_LOG_NOTICE, log, 0, "apikey store \"%V\": there is no snapshot yet at %V; until there is one %s",
        &store.name, &store.path,
        store.allows_on_error ? "requests pass unchecked (on_error=allow)" : "requests are answered with 503");
  }
}

void take_back_absence(const StoreConf& store) noexcept {
  std::uint64_t complaint = slot_of(store).complaint.load();
  if (complaint != 0 && complaint < kComplaintOfFile) {
    slot_of(store).complaint.compare_exchange_strong(complaint, 0);
  }
}

void warn_if_stale(const StoreConf& store) noexcept {
  const AdoptedFile active = slot_of(store).adoption.read().active;
  if (active.change == 0 || !is_stale(store, active.created) ||
      slot_of(store).stale_change.exchange(active.change) == active.change) {
    return;
  }
  ngx_log_error(NGX_LOG_WARN, worker.cycle->log, 0, "apikey store \"%V\": generation %uL is older than max_age; %s",
                &store.name, active.generation,
                store.denies_when_stale
                    ? "requests are answered with 503 until a newer one is published (on_stale=deny)"
                    : "it stays active (on_stale=serve)");
}

// The inode that was adopted last with other bytes in it: written into, unless it is a new file that got the number of
// an old one.
bool is_overwritten(const StoreConf& store, const AdoptedFile& latest, const FileState& file) noexcept {
  const StoreRuntime& mine = *store.runtime;
  return latest.change != 0 && latest.identity.device == file.identity.device &&
         latest.identity.inode == file.identity.inode && (mine.birth == 0 || mine.birth == file.birth_ns);
}

void wait_for_others() noexcept {
  worker.soon = kSoonest;
  ngx_add_timer(&worker.soon_timer, worker.soon);
}

// Where no other worker's copy is to be had: the file itself, if it still is what was adopted.
void look_for_copy(StoreConf& store, const FileState& file) noexcept {
  if (!store.runtime->needs_copy || file.error != 0) {
    return;
  }
  const Adopted adopted = slot_of(store).adoption.read();
  if (is_same_content(file.identity, adopted.active.identity) ||
      is_same_content(file.identity, adopted.veto.identity)) {
    if (verify_copy(store) == Attempt::elsewhere) {
      wait_for_others();
    }
  }
}

void judge(StoreConf& store, const FileState& file) noexcept {
  const StoreRuntime& mine = *store.runtime;
  switch (judge_file(store, file.identity)) {
    case Attempt::begun:
      return;
    case Attempt::settled:
      if (mine.verified_change == 0) {
        drop_verified(store);
      }
      return;
    case Attempt::elsewhere:
      break;
  }
  // Nobody's copy can be taken here, so this worker makes its own while another one judges.
  const bool has_own = mine.verified.fd >= 0 && mine.verified_change == 0;
  if (mine.has_closed_peers && !has_own && !is_verifying()) {
    static_cast<void>(verify_copy(store));
  }
  wait_for_others();
}

void look(StoreConf& store) noexcept {
  StoreRuntime& mine = *store.runtime;
  const FileState file = look_at(path_of(store));
  const AdoptedFile latest = slot_of(store).adoption.read().latest();
  const bool is_latest = file.error == 0 && latest.change != 0 && is_same_content(file.identity, latest.identity);
  if (is_latest) {
    mine.birth = file.birth_ns;
  }
  if (file.error == 0 && !is_latest && is_overwritten(store, latest, file)) {
    refuse_overwritten(store, file.identity);
    return;
  }
  if (file.error != 0 || file.is_empty) {
    complain_of_absence(store, file.error == 0 ? ENOENT : file.error);
    return;
  }
  take_back_absence(store);
  // What vetoes under an older configuration may be decided by under this one.
  const bool has_veto = slot_of(store).adoption.read().has_veto();
  if (!is_latest || (has_veto && latest.configuration < mine.configuration)) {
    judge(store, file);
  } else {
    look_for_copy(store, file);
  }
}

// A worker that shuts down, or whose successors have started after a reload, leaves looking for new files to them: it
// might judge by other rules than they do.
bool is_in_charge(const StoreConf& store) noexcept {
  if (is_superseded(*worker.main->node)) {  // the successors share nothing with it
    return true;
  }
  return ngx_exiting == 0 && slot_of(store).active_configuration.load() <= store.runtime->configuration;
}

// Everything that may be due.
void look_at_all() noexcept {
  collect_verified();
  for_each_store([](StoreConf& store) {
    if (!is_up_to_date(store)) {
      switch_to_adopted(store, worker.cycle->log);
    }
    if (is_in_charge(store)) {
      look(store);
      warn_if_stale(store);
    } else if (!is_up_to_date(store)) {
      look_for_copy(store, look_at(path_of(store)));
    }
  });
}

void on_change() noexcept {
  arm_watch(*worker.main);
  look_at_all();
}

// Others may have waited for the thread. An undecided store waits for the timer, or it would be tried in a circle.
void on_settled(const StoreConf* undecided) noexcept {
  for_each_store([&](StoreConf& store) {
    if (is_in_charge(store) && &store != undecided) {
      look(store);
    }
  });
}

void stop(ngx_cycle_t* ending) noexcept;

void on_look_timer(ngx_event_t* event) noexcept {
  if (ngx_cycle != worker.cycle) {  // a reload of `master_process off`: this configuration is about to be freed
    stop(nullptr);
    return;
  }
  if (ngx_exiting != 0) {
    say_draining();
  }
  arm_watch(*worker.main);
  if (!is_verifying()) {  // else the thread may need them
    fill_reserve();
  }
  look_at_all();
  release_dead_flights(*worker.main);
  tick_saver();
  forget_collected_usage(*worker.main);
  watch_clocks(*worker.main, worker.cycle->log);
  bool has_old = false;
  for_each_store([&](StoreConf& store) { has_old |= release_old(store); });
  if (has_old && !worker.soon_timer.timer_set) {
    ngx_add_timer(&worker.soon_timer, kSoonest);
  }
  ngx_add_timer(event, kLookEvery);
}

void on_soon_timer(ngx_event_t* event) noexcept {
  bool has_old = false;
  bool has_changed = false;
  for_each_store([&](StoreConf& store) {
    if (slot_of(store).adoption.change() != store.runtime->tried) {
      switch_to_adopted(store, worker.cycle->log);
      has_changed = true;
    }
    has_old |= release_old(store);
  });
  worker.soon = has_changed || worker.soon >= kLookEvery ? 0 : worker.soon * 2;
  if (has_old || worker.soon != 0) {
    ngx_add_timer(event, has_old ? kSoonest : worker.soon);
  }
}

void prepare_timer(ngx_event_t& timer, void (*handler)(ngx_event_t*) noexcept) noexcept {
  timer = {};
  timer.handler = handler;
  timer.data = &worker.nowhere;
  timer.log = worker.cycle->log;
  timer.cancelable = 1;
}

// True while this worker has nothing, though a file is there that may still become its snapshot.
bool is_snapshot_coming(const StoreConf& store) noexcept {
  const Adoption& adoption = slot_of(store).adoption;
  // Nothing but a copy of what is adopted can still be had by waiting.
  if (adoption.change() != 0 && (is_up_to_date(store) || !store.runtime->needs_copy)) {
    return false;
  }
  const FileState file = look_at(path_of(store));
  return file.error == 0 && !file.is_empty && slot_of(store).complaint.load() == 0 &&
         !adoption.is_refused(file.identity, store.runtime->configuration);
}

// Before the first request is accepted the snapshot shall be there, if it is to be had soon: a restart or an upgrade
// then answers nobody with 503.
void wait_for_first() noexcept {
  for (ngx_msec_t waited = 0; waited < kStartPatience && !ngx_terminate && !ngx_quit; waited += kStep) {
    bool is_coming = false;
    for_each_store([&](StoreConf& store) { is_coming |= is_snapshot_coming(store); });
    if (!is_coming) {
      return;
    }
    if (is_verifying()) {
      static_cast<void>(wait_for_verifier(kStep));
    } else {
      ngx_msleep(kStep);
    }
    look_at_all();
  }
}

void start(ngx_cycle_t* cycle) noexcept {
  auto* main = main_conf(cycle);
  if (main == nullptr || main->zone == nullptr || main->stores.nelts == 0) {
    return;
  }
  worker.cycle = cycle;
  worker.main = main;
  worker.nowhere.fd = static_cast<ngx_socket_t>(-1);
  prepare_timer(worker.look_timer, on_look_timer);
  prepare_timer(worker.soon_timer, on_soon_timer);
  claim_row(cycle, *main);
  fill_reserve();
  start_flights(*main);
  start_saver(cycle, *main);
  start_verifier(cycle, on_settled);
  start_watch(cycle, on_change);
  arm_watch(*main);
  for_each_store([](StoreConf& store) {
    slot_of(store).active_configuration.store(store.runtime->configuration);
    forget_dead(store);
    slot_of(store).adoption.drop_all(static_cast<std::uint32_t>(ngx_pid));  // of an earlier process with this pid
    switch_to_adopted(store, worker.cycle->log);
  });
  look_at_all();
  wait_for_first();
  ngx_add_timer(&worker.look_timer, kLookEvery);
}

// `ending`: null where the process goes on.
void stop(ngx_cycle_t* ending) noexcept {
  if (worker.cycle == nullptr) {
    return;
  }
  stop_verifier(ending);
  stop_saver(ending);
  stop_watch();
  for (ngx_event_t* timer : {&worker.look_timer, &worker.soon_timer}) {
    if (timer->timer_set) {
      ngx_del_timer(timer);
    }
  }
  for_each_store([](StoreConf& store) { close_all(store); });
  release_row();
  spend_reserve();
  worker.cycle = nullptr;
}

}  // namespace

ngx_int_t on_init_process(ngx_cycle_t* cycle) noexcept {
  // Whatever this process is for: the lock that says that the master lives has to end with the master.
  if (const MainConf* main = main_conf(cycle); main != nullptr && ngx_process != NGX_PROCESS_SINGLE) {
    leave_master(*main);
  }
  if (ngx_process == NGX_PROCESS_WORKER || ngx_process == NGX_PROCESS_SINGLE) {
    start(cycle);
  }
  return NGX_OK;
}

void on_exit_process(ngx_cycle_t* cycle) noexcept { stop(cycle); }

}  // namespace apikey::nginx
