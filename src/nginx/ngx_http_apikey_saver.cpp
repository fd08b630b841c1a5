// Who saves, and when. The right to save is a word in shared memory with a heartbeat; whoever has it runs one thread,
// which speaks to the event loop by atomics and calls nothing of nginx. Saving itself is _checkpoint.cpp's.
#include "ngx_http_apikey_saver.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "ngx_http_apikey_checkpoint.hpp"
#include "ngx_http_apikey_node.hpp"
#include "ngx_http_apikey_rows.hpp"
#include "ngx_http_apikey_thread.hpp"

namespace apikey::nginx {
namespace {

constexpr std::uint64_t kSaveEveryMs = 2000;
constexpr int kBeatEveryMs = 250;
constexpr std::uint64_t kSilentAfterMs = 1500;
constexpr std::uint64_t kSlowMs = 5000;
constexpr ngx_msec_t kLastWait = 2000;  // for others that are just writing their last
constexpr ngx_msec_t kStep = 10;
constexpr ngx_msec_t kStopPatience = 5000;  // with a disk that is writing
// In the word of the right to save: who has it will write once more and leave.
constexpr std::uint64_t kIsLastBit = std::uint64_t{1} << 63U;
constexpr std::uint64_t kAttemptStep = std::uint64_t{1} << 32U;

struct Saver {
  ngx_log_t* log = nullptr;
  const MainConf* main = nullptr;  // null: nothing is to be saved
  pthread_t thread{};
  bool is_running = false;
  int wake_fd = -1;
  ngx_connection_t* quit_watch = nullptr;  // what nginx calls when it begins to shut down
  WidePair right;                          // as this process wrote it last; of the thread while it runs
  std::atomic<bool> is_stopping = false;
  std::atomic<bool> is_done = false;
  std::atomic<std::uint64_t> outcome = 0;  // of the latest save that is to be spoken of: step + 1 << 32 | errno
};
Saver saver;

NodeHead& header() noexcept { return saver.main->node->file->memory.head(); }

std::uint32_t pid_of(const WidePair& right) noexcept { return static_cast<std::uint32_t>(right.low); }

bool is_held(const WidePair& right, std::uint64_t now_ms) noexcept {
  if (pid_of(right) == 0 || now_ms - right.high >= kSilentAfterMs) {
    return false;
  }
  return is_worker_alive(pid_of(right));
}

bool claim(std::uint64_t last_bit) noexcept {
  const std::uint64_t now = monotonic_ms();
  const WidePair seen = header().saver.peek();
  if (is_superseded(*saver.main->node) || is_held(seen, now)) {
    return false;
  }
  const std::uint64_t attempt = (seen.low & ~kIsLastBit & ~(kAttemptStep - 1)) + kAttemptStep;
  saver.right = {(attempt & ~kIsLastBit) | last_bit | static_cast<std::uint32_t>(ngx_pid), now};
  return header().saver.swap(seen, saver.right);
}

bool change_right(std::uint64_t low, std::uint64_t heartbeat_ms) noexcept {
  const WidePair next{low, heartbeat_ms};
  if (!header().saver.swap(saver.right, next)) {
    return false;
  }
  saver.right = next;
  return true;
}

// RETURNS: false when another worker has taken over, or another file has taken the place of this one.
bool beat() noexcept { return !is_superseded(*saver.main->node) && change_right(saver.right.low, monotonic_ms()); }

void give_up_right() noexcept {
  static_cast<void>(change_right(saver.right.low & ~kIsLastBit & ~(kAttemptStep - 1), 0));
}

void save(bool is_final) noexcept {
  const std::uint64_t begin_ms = monotonic_ms();
  const std::uint64_t begin_us = wall_us();
  const SaveResult result = save_checkpoint(saver.main->checkpoint, *saver.main->node, {begin_us, is_final}, beat);
  if (result.failed()) {
    header().checkpoint_errors.fetch_add(1);
    saver.outcome.store((static_cast<std::uint64_t>(result.step) + 1) << 32U |
                        static_cast<std::uint32_t>(result.error));
    return;
  }
  if (result.step == SaveStep::yielded) {
    return;
  }
  header().checkpoint_us.store(begin_us);
  const bool is_slow = monotonic_ms() - begin_ms > kSlowMs;
  saver.outcome.store((static_cast<std::uint64_t>(SaveStep::written) + 1) << 32U | (is_slow ? ETIME : 0));
}

// How many changes all stores have had: the checkpoint keeps the highest generations, and soon, or a power cut would
// let an older snapshot in.
std::uint64_t count_changes() noexcept {
  const NodeMemory& memory = saver.main->node->file->memory;
  std::uint64_t changes = 0;
  for (std::size_t i = 0; i < kNodeStores; ++i) {
    changes += memory.store_row(i).adoption.change();
  }
  return changes;
}

void* run(void*) noexcept {
  std::uint64_t next_ms = monotonic_ms();
  std::uint64_t saved_changes = 0;
  for (;;) {
    const bool is_last = saver.is_stopping.load();
    if (!beat() || (is_last && !change_right(saver.right.low | kIsLastBit, monotonic_ms()))) {
      break;
    }
    const std::uint64_t now = monotonic_ms();
    const std::uint64_t changes = count_changes();
    if (is_last || now >= next_ms || changes != saved_changes) {
      save(false);
      next_ms = now + kSaveEveryMs;
      saved_changes = changes;
    }
    if (is_last) {
      break;
    }
    pollfd wake{saver.wake_fd, POLLIN, 0};
    poll(&wake, 1, kBeatEveryMs);
  }
  give_up_right();
  saver.is_done.store(true);
  return nullptr;
}

// Of the master, when all workers have ended. REQUIRES: the right to save.
void* run_final(void*) noexcept {
  save(true);
  give_up_right();
  saver.is_done.store(true);
  return nullptr;
}

// REQUIRES: the right to save.
void start() noexcept {
  saver.is_done.store(false);
  const int error = start_thread(saver.thread, run);
  saver.is_running = error == 0;
  if (error != 0) {
    ngx_log_error(NGX_LOG_ERR, saver.log, error, "apikey: a thread to write checkpoints cannot be started");
    give_up_right();
  }
}

void ask_to_stop() noexcept {
  saver.is_stopping.store(true);
  const std::uint64_t one = 1;
  static_cast<void>(write(saver.wake_fd, &one, sizeof one) < 0);
}

void join() noexcept {
  pthread_join(saver.thread, nullptr);
  saver.is_running = false;
}

// RETURNS: false when the thread hangs; then this process ends without it.
bool join_at_end(ngx_cycle_t* ending) noexcept {
  if (!saver.is_running || ending == nullptr) {
    if (saver.is_running) {
      join();
    }
    return true;
  }
  if (join_within(saver.thread, saver.is_done, kStopPatience)) {
    saver.is_running = false;
    return true;
  }
  ngx_log_error(NGX_LOG_WARN, saver.log, 0,
                "apikey_zone \"%V\": writing the checkpoint %V does not come to an end, its disk does not answer; this "
                "process ends all the same",
                &saver.main->node->zone_name, &saver.main->checkpoint.path);
  leave_with_thread(ending);
  return false;
}

const char* name_of(SaveStep step) noexcept {
  switch (step) {
    case SaveStep::open:
      return "opened";
    case SaveStep::write:
      return "written";
    case SaveStep::sync:
      return "brought to the disk";
    default:
      return "renamed";
  }
}

// All workers together say a thing once.
void report() noexcept {
  const std::uint64_t outcome = saver.outcome.exchange(0);
  if (outcome == 0) {
    return;
  }
  const auto step = static_cast<SaveStep>((outcome >> 32U) - 1);
  const int error = static_cast<int>(static_cast<std::uint32_t>(outcome));
  const std::uint64_t complaint = error == 0 ? 0 : outcome;
  const std::uint64_t before = header().complaint.exchange(complaint);
  if (before == complaint) {
    return;
  }
  const ngx_str_t* zone = &saver.main->node->zone_name;
  const CheckpointConf& place = saver.main->checkpoint;
  if (complaint == 0) {
    ngx_log_error(NGX_LOG_NOTICE, saver.log, 0, "apikey_zone \"%V\": the checkpoint %V is written again", zone,
                  &place.path);
  } else if (step == SaveStep::written) {
    ngx_log_error(
        NGX_LOG_WARN, saver.log, 0,
        "apikey_zone \"%V\": writing the checkpoint %V took longer than 5 s; a power cut may lose more than 5 s "
        "of use: give it a faster disk",
        zone, &place.path);
  } else {
    ngx_log_error(NGX_LOG_WARN, saver.log, error,
                  "apikey_zone \"%V\": the checkpoint %V cannot be %s; requests go on, but quotas would not survive a "
                  "reboot: give the workers' user a directory of its own with room in it",
                  zone, &place.path, name_of(step));
  }
}

// A worker that goes on has the right, and will save what this one leaves.
bool is_left_to_others() noexcept {
  const WidePair right = header().saver.peek();
  return is_superseded(*saver.main->node) || (is_held(right, monotonic_ms()) && (right.low & kIsLastBit) == 0);
}

// nginx closes idle connections when a worker is told to quit, first thing. This one has no peer: it is how the saver
// learns of it at once. After 5 s Debian's stop ends with SIGTERM, and SIGKILL, whatever requests are unfinished.
void on_quit(ngx_event_t*) noexcept {
  if (saver.is_running && !saver.is_stopping.load()) {
    ask_to_stop();
  }
}

void watch_quit(ngx_cycle_t* cycle) noexcept {
  saver.quit_watch = saver.wake_fd < 0 ? nullptr : ngx_get_connection(saver.wake_fd, cycle->log);
  if (saver.quit_watch == nullptr) {
    return;  // the timer finds out, up to a second later
  }
  saver.quit_watch->idle = 1;
  saver.quit_watch->read->handler = on_quit;
  saver.quit_watch->read->log = cycle->log;
  // Never read from, and nobody's open socket when the worker ends.
  saver.quit_watch->read->channel = 1;
  saver.quit_watch->write->channel = 1;
}

void unwatch_quit() noexcept {
  if (saver.quit_watch != nullptr) {
    ngx_free_connection(saver.quit_watch);
    saver.quit_watch->fd = static_cast<ngx_socket_t>(-1);
    saver.quit_watch = nullptr;
  }
}

void save_last() noexcept {
  for (ngx_msec_t waited = 0; waited < kLastWait && !is_left_to_others(); waited += kStep) {
    if (claim(kIsLastBit)) {
      start();
      return;
    }
    ngx_msleep(kStep);
  }
}

}  // namespace

void start_saver(ngx_cycle_t* cycle, MainConf& main) noexcept {
  if (main.checkpoint.path.len == 0 || node_head(main) == nullptr) {
    return;
  }
  saver.log = cycle->log;
  saver.is_stopping.store(false);
  saver.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  saver.main = &main;
  watch_quit(cycle);
  tick_saver();
}

void tick_saver() noexcept {
  if (saver.main == nullptr) {
    return;
  }
  if (saver.is_running && saver.is_done.load()) {
    join();
  }
  report();
  if (ngx_exiting != 0 && !saver.is_stopping.load()) {
    ask_to_stop();
    return;
  }
  // A thread that is started after it was asked to stop saves once.
  if (!saver.is_running && claim(ngx_exiting != 0 ? kIsLastBit : 0)) {
    start();
  }
}

void stop_saver(ngx_cycle_t* ending) noexcept {
  if (saver.main == nullptr) {
    return;
  }
  // A thread that is asked only now saves what there is; one that was asked before may have missed something since.
  const bool saves_all = saver.is_running && !saver.is_stopping.load();
  ask_to_stop();
  unwatch_quit();
  if (!join_at_end(ending)) {
    return;
  }
  if (!saves_all) {
    save_last();
  }
  if (!join_at_end(ending)) {
    return;
  }
  report();
  if (saver.wake_fd >= 0) {
    close(saver.wake_fd);
    saver.wake_fd = -1;
  }
  saver.main = nullptr;
}

void on_exit_master(ngx_cycle_t* cycle) noexcept {
  const MainConf* main = main_conf(cycle);
  if (main == nullptr || main->checkpoint.path.len == 0 || node_head(*main) == nullptr) {
    return;
  }
  saver.log = cycle->log;
  saver.main = main;
  if (!claim(kIsLastBit)) {
    return;
  }
  saver.is_done.store(false);
  saver.is_running = start_thread(saver.thread, run_final) == 0;
  if (!saver.is_running) {
    run_final(nullptr);
  }
  if (join_at_end(cycle)) {
    report();
  }
}

}  // namespace apikey::nginx
