// The verifying thread and the verdicts. The thread is made with all signals blocked and speaks to the event loop by
// an atomic flag and an eventfd; claims, verdicts, log lines and counters are the loop's.
#include "ngx_http_apikey_verifier.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>

#include "apikey/anchors.hpp"
#include "ngx_http_apikey_decision.hpp"
#include "ngx_http_apikey_node.hpp"
#include "ngx_http_apikey_reserve.hpp"
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

StoreRow& slot_of(const StoreConf& store) noexcept { return *store.runtime->slot; }

bool carry_on(void*) noexcept {
  return !verifier.is_stopping.load(std::memory_order_relaxed) &&
         (verifier.attempt == 0 || slot_of(*verifier.store).adoption.heartbeat(verifier.attempt, monotonic_ms()));
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

void log_adoption(const StoreConf& store, const AdoptedFile& file, std::uint64_t ns, bool is_taken_over) noexcept {
  ngx_log_error(NGX_LOG_NOTICE, verifier.log, 0,
                "apikey store \"%V\": generation %uL with %uL keys is active, verified in %uL ms%s", &store.name,
                file.generation, file.keys, ns / 1'000'000,
                is_taken_over ? "; it takes over from another registry, history or generation by a permission" : "");
}

void log_veto(const StoreConf& store, const AdoptedFile& file, const Lack& lack) noexcept {
  const Adopted current = slot_of(store).adoption.read();
  const std::string_view what = lack.name();
  const bool is_pepper = what.find(':') != std::string_view::npos;
  const char* remedy = is_pepper ? "add pepper=<id>:<file> to apikey_store and reload" : "install a newer module";
  if (!current.has_active()) {
    ngx_log_error(NGX_LOG_ERR, verifier.log, 0,
                  "apikey store \"%V\": generation %uL needs \"%*s\", which this nginx does not have (%s); there is no "
                  "other snapshot, so requests are answered with 503",
                  &store.name, file.generation, what.size(), what.data(), remedy);
    return;
  }
  ngx_log_error(
      NGX_LOG_ERR, verifier.log, 0,
      "apikey store \"%V\": generation %uL needs \"%*s\", which this nginx does not have (%s); generation %uL "
      "goes on deciding, but keys that the newer one lacks, or has revoked, suspended or expired, are refused, "
      "and its new keys are answered with 503",
      &store.name, file.generation, what.size(), what.data(), remedy, current.active.generation);
}

// What the log, and who reads node memory, is told of a file that is not taken.
Refusal make_refusal(const StoreConf& store, const AdoptedFile& file, AdoptionResult result,
                     const Status& status) noexcept {
  Refusal refusal;
  refusal.identity = file.identity;
  refusal.seal = file.seal;
  refusal.registry_id = file.registry_id;
  refusal.generation = file.generation;
  refusal.result = static_cast<std::uint64_t>(result);
  refusal.configuration = store.runtime->configuration;
  refusal.wall_us = wall_us();
  const std::size_t length = describe(status, refusal.sentence).size();
  if (status.error != 0) {
    std::array<u_char, 128> reason;
    u_char* const end = ngx_strerror(status.error, reason.data(), reason.size());
    u_char* const begin = reinterpret_cast<u_char*>(refusal.sentence.data()) + length;
    ngx_snprintf(begin, refusal.sentence.size() - length, " (%d: %*s)", status.error,
                 static_cast<std::size_t>(end - reason.data()), reason.data());
  }
  return refusal;
}

void log_refusal(const StoreConf& store, const Status& status) noexcept {
  std::array<char, 320> buffer;
  const std::string_view why = describe(status, buffer);
  const Adopted current = slot_of(store).adoption.read();
  if (!current.has_active()) {
    ngx_log_error(NGX_LOG_ERR, verifier.log, status.error,
                  "apikey store \"%V\": %V is not taken: %*s; there is no active snapshot", &store.name, &store.path,
                  why.size(), why.data());
    return;
  }
  ngx_log_error(NGX_LOG_ERR, verifier.log, status.error,
                "apikey store \"%V\": %V is not taken: %*s; generation %uL stays active", &store.name, &store.path,
                why.size(), why.data(), current.active.generation);
}

const Inbox& inbox_of(const StoreConf& store) noexcept { return store.runtime->main->node->file->inbox; }

// Of this very file, for this store.
Permission permission_for(const StoreConf& store, const AdoptedFile& file) noexcept {
  return {
      .seal = file.seal, .registry_id = file.registry_id, .generation = file.generation, .store = store.runtime->key};
}

bool is_permitted(const StoreConf& store, const AdoptedFile& file) noexcept {
  return inbox_of(store).find(permission_for(store, file)) != 0;
}

// When the file that was refused has got a permission since; 0: it has not. Each is tried once by each worker, or
// somebody who writes the same one again and again would have them verify without end.
std::uint64_t find_new_permission(const StoreConf& store) noexcept {
  Refusal refusal;
  if (!slot_of(store).adoption.last_refusal(refusal) || refusal.seal == SealHash{}) {
    return 0;
  }
  AdoptedFile file;
  file.seal = refusal.seal;
  file.registry_id = refusal.registry_id;
  file.generation = refusal.generation;
  const std::uint64_t granted_us = inbox_of(store).find(permission_for(store, file));
  return granted_us != store.runtime->tried_permission ? granted_us : 0;
}

// What has been taken, with or without a permission, ends those for it and for files from before it.
void withdraw_permissions(const StoreConf& store, const AdoptedFile& file) noexcept {
  static_cast<void>(inbox_of(store).use(permission_for(store, file)));
  if (file.created > 0) {
    inbox_of(store).withdraw(store.runtime->key, static_cast<std::uint64_t>(file.created) * 1'000'000 - 1);
  }
}

// The copy was wanted by this worker only. RETURNS: false when it is of no use.
bool take_in_copy(StoreConf& store, Candidate& candidate, std::uint64_t ns) noexcept {
  Adoption& adoption = slot_of(store).adoption;
  adoption.abandon(verifier.attempt);
  const Adopted current = adoption.read();
  for (const AdoptedFile* file : {&current.active, &current.veto}) {
    if (file->change == 0 || file->seal != candidate.file.seal) {
      continue;
    }
    ngx_log_error(NGX_LOG_NOTICE, verifier.log, 0,
                  "apikey store \"%V\": this worker has generation %uL, verified by itself in %uL ms", &store.name,
                  file->generation, ns / 1'000'000);
    const bool is_held = adoption.hold({static_cast<std::uint32_t>(ngx_pid), candidate.copy.fd}, file->change);
    keep_verified(store, candidate.copy, candidate.file.seal, is_held ? file->change : 0);
    switch_to_adopted(store, verifier.log);
    return true;
  }
  if (!store.runtime->has_closed_peers) {
    release_copy(candidate.copy);
    return false;
  }
  keep_verified(store, candidate.copy, candidate.file.seal, 0);  // it may be adopted any moment
  return true;
}

// RETURNS: false when it is not a verdict on the file, which is to be tried again.
bool take_in_bad(StoreConf& store, const Candidate& candidate, std::uint64_t ns) noexcept {
  Adoption& adoption = slot_of(store).adoption;
  const AdoptionResult result = result_of(candidate.status);
  if (candidate.is_for_copy || verifier.is_stopping.load() || !adoption.heartbeat(verifier.attempt, monotonic_ms())) {
    adoption.abandon(verifier.attempt);  // somebody else's now, or the next one's
    return false;
  }
  AdoptedFile file = candidate.file;
  if (!is_final(result)) {
    file.identity = verifier.claimed;  // it may not even have been opened
  }
  if (!adoption.refuse(verifier.attempt, make_refusal(store, file, result, candidate.status))) {
    return true;
  }
  const std::uint64_t what = verifier.claimed.ctime_ns ^ static_cast<std::uint64_t>(candidate.status.error);
  // What is not the file's fault is tried again, and spoken of once.
  if (is_final(result) || is_first_complaint(store, kComplaintOfFile | what)) {
    count_adoption(*store.runtime->main, store, result, ns);
    log_refusal(store, candidate.status);
  }
  return is_final(result);
}

// Also of a veto: the node has seen it, and knows it when the registry tells another story later.
void keep_anchor_of(const StoreConf& store, const Candidate& candidate) noexcept {
  if (candidate.audit_seq != 0) {
    keep_anchor(store.runtime->main->node->file->memory.region(NodeRegion::anchors, kAnchorsVersion),
                {.store = store.runtime->key,
                 .generation = candidate.file.generation,
                 .audit_seq = candidate.audit_seq,
                 .adopted_us = wall_us(),
                 .registry_id = candidate.file.registry_id,
                 .audit_head = candidate.audit_head});
  }
}

bool take_in_good(StoreConf& store, Candidate& candidate, std::uint64_t ns) noexcept {
  Adoption& adoption = slot_of(store).adoption;
  const AdoptedFile& file = candidate.file;
  const Adoption::Holder holder{static_cast<std::uint32_t>(ngx_pid), candidate.copy.fd};
  const bool is_veto = !candidate.lack.name().empty();
  if (candidate.needs_permission && !inbox_of(store).use(permission_for(store, file))) {
    release_copy(candidate.copy);
    candidate.status = {StatusCode::refused, "its permission to take over was used by somebody else"};
    return take_in_bad(store, candidate, ns);
  }
  const bool is_taken = is_veto ? adoption.veto(verifier.attempt, file, candidate.lack, wall_us(), holder)
                                : adoption.adopt(verifier.attempt, file, candidate.needs_permission, wall_us(), holder);
  if (!is_taken) {
    release_copy(candidate.copy);
    return true;
  }
  slot_of(store).complaint.store(0);
  keep_anchor_of(store, candidate);
  withdraw_permissions(store, file);
  if (is_veto) {
    count_adoption(*store.runtime->main, store, AdoptionResult::veto, ns);
    log_veto(store, file, candidate.lack);
  } else {
    const bool is_taken_over = candidate.needs_permission;
    count_adoption(*store.runtime->main, store, is_taken_over ? AdoptionResult::taken_over : AdoptionResult::adopted,
                   ns);
    log_adoption(store, file, ns, is_taken_over);
  }
  const Adopted now = adoption.read();
  const AdoptedFile& held = is_veto ? now.veto : now.active;
  keep_verified(store, candidate.copy, file.seal, held.seal == file.seal ? held.change : 0);
  switch_to_adopted(store, verifier.log);
  return true;
}

bool begin(StoreConf& store, std::uint64_t attempt, const FileIdentity& identity, bool is_for_copy) noexcept {
  verifier.store = &store;
  verifier.claimed = identity;
  verifier.attempt = attempt;
  verifier.begin_ns = monotonic_ns();
  Candidate& candidate = verifier.candidate;
  candidate = {};
  candidate.store = &store;
  candidate.adoption = &slot_of(store).adoption;
  candidate.worker_user = store.runtime->has_root_master ? geteuid() : 0;
  candidate.configuration = store.runtime->configuration;
  candidate.is_for_copy = is_for_copy;
  candidate.is_permitted = is_permitted;
  candidate.carry_on = carry_on;
  verifier.is_done.store(false);
  verifier.is_running = start();
  if (!verifier.is_running) {
    slot_of(store).adoption.abandon(attempt);
  }
  return verifier.is_running;
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
                  "apikey: no event for verified snapshots; workers switch to them up to a second later");
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
  StoreConf& store = *verifier.store;
  Candidate& candidate = verifier.candidate;
  fill_reserve();
  bool is_verdict = false;
  if (!candidate.status.ok()) {
    is_verdict = take_in_bad(store, candidate, ns);
  } else if (candidate.is_for_copy) {
    is_verdict = take_in_copy(store, candidate, ns);
  } else {
    is_verdict = take_in_good(store, candidate, ns);
  }
  verifier.on_settled(is_verdict ? nullptr : verifier.store);
}

Attempt judge_file(StoreConf& store, const FileIdentity& identity) noexcept {
  Adoption& adoption = slot_of(store).adoption;
  StoreRuntime& mine = *store.runtime;
  const bool is_refused = adoption.is_refused(identity, mine.configuration);
  const std::uint64_t permission = is_refused ? find_new_permission(store) : 0;
  if (is_refused && permission == 0) {
    return Attempt::settled;
  }
  if (verifier.is_running) {
    return Attempt::elsewhere;
  }
  const auto pid = static_cast<std::uint32_t>(ngx_pid);
  const std::uint64_t attempt = is_refused ? adoption.claim_again(pid, monotonic_ms())
                                           : adoption.claim(identity, mine.configuration, pid, monotonic_ms());
  if (attempt == 0 || !begin(store, attempt, identity, false)) {
    return Attempt::elsewhere;
  }
  mine.tried_permission = is_refused ? permission : mine.tried_permission;
  return Attempt::begun;
}

Attempt verify_copy(StoreConf& store) noexcept {
  if (verifier.is_running) {
    return Attempt::elsewhere;
  }
  std::uint64_t attempt = 0;
  if (!store.runtime->has_closed_peers) {  // one verifies, and the others take it from there
    attempt = slot_of(store).adoption.claim_again(static_cast<std::uint32_t>(ngx_pid), monotonic_ms());
    if (attempt == 0) {
      return Attempt::elsewhere;
    }
  }
  return begin(store, attempt, {}, true) ? Attempt::begun : Attempt::elsewhere;
}

void refuse_overwritten(StoreConf& store, const FileIdentity& identity) noexcept {
  Adoption& adoption = slot_of(store).adoption;
  const std::uint64_t attempt =
      adoption.claim(identity, store.runtime->configuration, static_cast<std::uint32_t>(ngx_pid), monotonic_ms());
  const Status status = {
      StatusCode::refused,
      "it was overwritten in place, as cp does; publish with keyloader, or write a new file and rename it"};
  AdoptedFile file;
  file.identity = identity;
  if (adoption.refuse(attempt, make_refusal(store, file, AdoptionResult::refused, status))) {
    count_adoption(*store.runtime->main, store, AdoptionResult::refused, 0);
    log_refusal(store, status);
  }
}

bool is_first_complaint(const StoreConf& store, std::uint64_t what) noexcept {
  return slot_of(store).complaint.exchange(what) != what;
}

}  // namespace apikey::nginx
