// The one thread of a worker that verifies new snapshots, and what the event loop makes of its result.
// Called by the worker's timer and by inotify; the thread itself runs nothing but examine().
#pragma once

#include "ngx_http_apikey_candidate.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// `on_settled` is called on the event loop after each verification, with the store if it came to no verdict.
using OnSettled = void (*)(const StoreConf* undecided) noexcept;
void start_verifier(ngx_cycle_t* cycle, OnSettled on_settled) noexcept;
// Stops and joins the thread; its claim is free at once. `ending`: the cycle of a process that ends, which a thread
// that hangs in a read() does not keep from ending; null where the process goes on, and waits for it.
void stop_verifier(ngx_cycle_t* ending) noexcept;

[[nodiscard]] bool is_verifying() noexcept;
// Waits at most so long for the verification under way; RETURNS: true when it is settled, its result taken in.
bool wait_for_verifier(ngx_msec_t timeout) noexcept;
// Takes in the result if there is one: for when the event loop could not be told.
void collect_verified() noexcept;

// Begins to verify what lies at the store's path, if this worker may.
enum class Attempt : std::uint8_t {
  begun,
  settled,    // this very file was refused before under this configuration
  elsewhere,  // another worker is at it, or this one with another store
};
// To adopt it for all workers.
Attempt judge_file(StoreConf& store, const FileIdentity& identity) noexcept;
// To have a copy of what others have adopted, or are about to.
Attempt verify_copy(StoreConf& store) noexcept;

// Gives a verdict without reading the file: it was overwritten in place. Said and counted once by all workers together.
void refuse_overwritten(StoreConf& store, const FileIdentity& identity) noexcept;

// True when all workers together have not yet said just this of the store; they have then. Complaints below
// kComplaintOfFile are of a file that is not there, and are taken back when it is.
inline constexpr std::uint64_t kComplaintOfFile = std::uint64_t{1} << 63U;
[[nodiscard]] bool is_first_complaint(const StoreConf& store, std::uint64_t what) noexcept;

}  // namespace apikey::nginx
