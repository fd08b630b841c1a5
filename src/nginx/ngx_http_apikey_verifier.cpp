// The verifying thread and the verdicts. The thread is made with all signals blocked and speaks to the event loop by
// an atomic flag and an eventfd; claims, verdicts, log lines and counters are the loop's.
#include "ngx_http_apikey_verifier.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>

#include "ngx_http_apikey_decision.hpp"
#include "ngx_http_apikey_thread.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr ngx_msec_t kStopPatience = 1000;  // the thread looks after each MiB whether it shall stop

struct Verifier {
  ngx_log_t* log = nullptr;
  OnSettled on_settled = nullptr;
  int wake_fd = -1;
  pthread_t thread{};
  bool is_running = false;
  StoreConf* store = nullptr;
  FileIdentity claimed;
  std::uint64_t attempt = 0;
  std::uint64_t begin_ns = 0;
  Candidate candidate;
  std::atomic<bool> is_done = false;
  std::atomic<bool> is_stopping = false;
};
Verifier verifier;

StoreSlot& slot_of(const StoreConf& store) noexcept { return *store.runtime->slot; }

// A file is refused under one configuration: another one may know the missing pepper, or allow more to be dropped. And
// a worker that has nothing of what is in service verifies that file although its verdict is known.
FileIdentity claimed_identity(const StoreConf& store, const FileIdentity& identity) noexcept {
  const StoreRuntime& mine = *store.runtime;
  FileIdentity claimed = identity;
  claimed.ctime_ns ^= mine.configuration << 32U;
  if (is_same_content(identity, slot_of(store).adoption.read().identity)) {
    claimed.ctime_ns = ~claimed.ctime_ns;
  }
  return claimed;
}

bool carry_on(void*) noexcept {
  return !verifier.is_stopping.load(std::memory_order_relaxed) &&
         slot_of(*verifier.store).adoption.heartbeat(verifier.attempt, monotonic_ms());
}

void* run(void*) noexcept {
  examine(verifier.candidate);
  verifier.is_done.store(true, std::memory_order_release);
  const std::uint64_t one = 1;
  if (write(verifier.wake_fd, &one, sizeof one) < 0) {
    // The worker's timer finds the result, later.
  }
  return nullptr;
}

bool start() noexcept {
  const int error = start_thread(verifier.thread, run);
  if (error != 0) {
    ngx_log_error(NGX_LOG_ERR, verifier.log, error, "apikey: a thread to verify snapshots cannot be started");
  }
  return error == 0;
}

void log_adoption(const StoreConf& store, const Adopted& adopted, std::uint64_t ns) noexcept {
  ngx_log_error(NGX_LOG_NOTICE, verifier.log, 0,
                "apikey store \"%V\": generation %uL with %uL keys is in service, verified in %uL ms", &store.name,
                adopted.generation, adopted.keys, ns / 1'000'000);
}

void log_refusal(const StoreConf& store, const Status& status, std::string_view detail) noexcept {
  std::array<char, 320> buffer;
  const std::string_view why = describe(status, buffer);
  const Adopted current = slot_of(store).adoption.read();
  if (current.change == 0) {
    ngx_log_error(NGX_LOG_ERR, verifier.log, status.error,
                  "apikey store \"%V\": %V is not taken: %*s%*s; there is no snapshot in service", &store.name,
                  &store.path, why.size(), why.data(), detail.size(), detail.data());
    return;
  }
  ngx_log_error(NGX_LOG_ERR, verifier.log, status.error,
                "apikey store \"%V\": %V is not taken: %*s%*s; generation %uL stays in service", &store.name,
                &store.path, why.size(), why.data(), detail.size(), detail.data(), current.generation);
}

// The copy becomes what this worker changes over to.
void keep_copy(StoreConf& store, Copy& copy, std::uint64_t change) noexcept {
  StoreRuntime& mine = *store.runtime;
  drop_verified(store);
  mine.verified = copy;
  mine.verified_change = change;
  copy = {};
  change_over(store, verifier.log);
}

void take_in_good(StoreConf& store, Candidate& candidate, std::uint64_t ns) noexcept {
  Adoption& adoption = slot_of(store).adoption;
  const auto pid = static_cast<std::uint32_t>(ngx_pid);
  const Adopted current = adoption.read();
  if (candidate.is_in_service_already && is_same_content(candidate.adopted.identity, current.identity)) {
    // No peer's copy could be had: this worker serves from its own, nothing changes for the others.
    ngx_log_error(NGX_LOG_NOTICE, verifier.log, 0,
                  "apikey store \"%V\": generation %uL is in service here again, verified afresh in %uL ms",
                  &store.name, current.generation, ns / 1'000'000);
    adoption.abandon(verifier.attempt);
    static_cast<void>(adoption.hold(pid, candidate.copy.fd, current.change));
    keep_copy(store, candidate.copy, current.change);
    return;
  }
  candidate.adopted.highest_generation = candidate.adopted.generation;
  if (!adoption.publish(verifier.attempt, candidate.adopted, pid, candidate.copy.fd)) {
    release_copy(candidate.copy);
    return;
  }
  slot_of(store).complaint.store(0);
  count_adoption(*store.runtime->main, store, AdoptionResult::adopted, ns);
  log_adoption(store, candidate.adopted, ns);
  keep_copy(store, candidate.copy, current.change + 1);
}

// RETURNS: false when it is no verdict on the file, which is to be tried again.
bool take_in_bad(StoreConf& store, const Candidate& candidate, std::uint64_t ns) noexcept {
  Adoption& adoption = slot_of(store).adoption;
  const AdoptionResult result = result_of(candidate.status);
  if (verifier.is_stopping.load() || !adoption.heartbeat(verifier.attempt, monotonic_ms())) {
    adoption.abandon(verifier.attempt);  // somebody else's now, or the next one's
    return false;
  }
  if (result != AdoptionResult::failed && result != AdoptionResult::unreadable) {
    if (adoption.refuse(verifier.attempt, verifier.claimed, result)) {
      count_adoption(*store.runtime->main, store, result, ns);
      log_refusal(store, candidate.status, candidate.detail);
    }
    return true;
  }
  // Not the file's fault: it is tried again, and spoken of once.
  adoption.abandon(verifier.attempt);
  const std::uint64_t what = candidate.adopted.identity.ctime_ns ^ static_cast<std::uint64_t>(candidate.status.error);
  if (is_first_complaint(store, kComplaintOfFile | what)) {
    count_adoption(*store.runtime->main, store, result, ns);
    log_refusal(store, candidate.status, candidate.detail);
  }
  return false;
}

void on_wake(ngx_event_t* event) noexcept {
  const auto* connection = static_cast<ngx_connection_t*>(event->data);
  std::uint64_t count = 0;
  if (read(connection->fd, &count, sizeof count) > 0) {
    collect_verified();
  }
}

}  // namespace

void start_verifier(ngx_cycle_t* cycle, OnSettled on_settled) noexcept {
  verifier.log = cycle->log;
  verifier.on_settled = on_settled;
  verifier.is_stopping.store(false);
  verifier.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (verifier.wake_fd < 0 || ngx_add_channel_event(cycle, verifier.wake_fd, NGX_READ_EVENT, on_wake) != NGX_OK) {
    ngx_log_error(NGX_LOG_WARN, cycle->log, ngx_errno,
                  "apikey: no event for verified snapshots; they come into service up to a second later");
  }
}

void stop_verifier(ngx_cycle_t* ending) noexcept {
  verifier.is_stopping.store(true);
  if (verifier.is_running) {
    verifier.is_running = false;
    slot_of(*verifier.store).adoption.abandon(verifier.attempt);
    if (ending == nullptr) {
      pthread_join(verifier.thread, nullptr);
    } else if (!join_within(verifier.thread, verifier.is_done, kStopPatience)) {
      ngx_log_error(NGX_LOG_WARN, verifier.log, 0,
                    "apikey store \"%V\": reading %V does not come to an end, its file system does not answer; this "
                    "process ends all the same",
                    &verifier.store->name, &verifier.store->path);
      leave_with_thread(ending);
      return;
    }
    release_copy(verifier.candidate.copy);
  }
  if (verifier.wake_fd >= 0) {
    close(verifier.wake_fd);
    verifier.wake_fd = -1;
  }
}

bool is_verifying() noexcept { return verifier.is_running; }

bool wait_for_verifier(ngx_msec_t timeout) noexcept {
  if (!verifier.is_running) {
    return true;
  }
  pollfd wake{verifier.wake_fd, POLLIN, 0};
  poll(&wake, 1, static_cast<int>(timeout));
  collect_verified();
  return !verifier.is_running;
}

void collect_verified() noexcept {
  if (!verifier.is_running || !verifier.is_done.load(std::memory_order_acquire)) {
    return;
  }
  pthread_join(verifier.thread, nullptr);
  verifier.is_running = false;
  const std::uint64_t ns = monotonic_ns() - verifier.begin_ns;
  Candidate& candidate = verifier.candidate;
  bool is_verdict = true;
  if (candidate.status.ok()) {
    take_in_good(*verifier.store, candidate, ns);
  } else {
    is_verdict = take_in_bad(*verifier.store, candidate, ns);
  }
  verifier.on_settled(is_verdict ? nullptr : verifier.store);
}

Attempt verify_store(StoreConf& store, const FileIdentity& identity) noexcept {
  Adoption& adoption = slot_of(store).adoption;
  const FileIdentity claimed = claimed_identity(store, identity);
  FileIdentity refused;
  AdoptionResult result{};
  if (adoption.last_refusal(refused, result) && refused == claimed) {
    return Attempt::settled;
  }
  const std::uint64_t attempt =
      verifier.is_running ? 0 : adoption.claim(claimed, static_cast<std::uint32_t>(ngx_pid), monotonic_ms());
  if (attempt == 0) {
    return Attempt::elsewhere;
  }
  verifier.store = &store;
  verifier.claimed = claimed;
  verifier.attempt = attempt;
  verifier.begin_ns = monotonic_ns();
  verifier.candidate = {};
  verifier.candidate.store = &store;
  verifier.candidate.adoption = &adoption;
  verifier.candidate.worker_user = store.runtime->has_root_master ? geteuid() : 0;
  verifier.candidate.carry_on = carry_on;
  verifier.is_done.store(false);
  verifier.is_running = start();
  if (!verifier.is_running) {
    adoption.abandon(attempt);
    return Attempt::elsewhere;
  }
  return Attempt::begun;
}

void refuse_overwritten(StoreConf& store, const FileIdentity& identity) noexcept {
  Adoption& adoption = slot_of(store).adoption;
  const FileIdentity claimed = claimed_identity(store, identity);
  const std::uint64_t attempt = adoption.claim(claimed, static_cast<std::uint32_t>(ngx_pid), monotonic_ms());
  if (adoption.refuse(attempt, claimed, AdoptionResult::refused)) {
    count_adoption(*store.runtime->main, store, AdoptionResult::refused, 0);
    log_refusal(store,
                {StatusCode::refused,
                 "it was overwritten in place, as cp does; publish with keyloader, or write a new file and rename it"},
                {});
  }
}

bool is_first_complaint(const StoreConf& store, std::uint64_t what) noexcept {
  return slot_of(store).complaint.exchange(what) != what;
}

}  // namespace apikey::nginx
