// Expiry, quotas and max_age go by the wall clock, rates by the monotonic one: a clock that is set changes the first
// and not the second, which somebody who reads the log later has to know.
#include "ngx_http_apikey_clocks.hpp"

#include "ngx_http_apikey_node.hpp"
#include "ngx_http_apikey_thread.hpp"

namespace apikey::nginx {
namespace {

constexpr std::int64_t kTolerance = 5'000'000;  // microseconds
constexpr std::int64_t kUsPerSec = 1'000'000;
constexpr std::uint64_t kOneLookMs = 1000;  // the two clocks are read as one only within this

}  // namespace

void watch_clocks(const MainConf& main, ngx_log_t* log) noexcept {
  std::atomic<std::int64_t>& shared = node_head(main)->clock_offset_us;
  const std::uint64_t monotonic = monotonic_ms();
  const auto offset = static_cast<std::int64_t>(wall_us()) - static_cast<std::int64_t>(monotonic) * 1000;
  if (monotonic_ms() - monotonic > kOneLookMs) {
    return;
  }
  std::int64_t before = shared.load();
  if (before == 0) {
    shared.compare_exchange_strong(before, offset);
    return;
  }
  const std::int64_t moved = offset - before;
  const bool is_ahead = moved > 0;
  if ((is_ahead ? moved : -moved) <= kTolerance || !shared.compare_exchange_strong(before, offset)) {
    return;
  }
  ngx_log_error(NGX_LOG_WARN, log, 0,
                "apikey: the wall clock moved %L s %s against the monotonic clock: it was set, or the machine was "
                "suspended; expiry and quotas follow the wall clock, rates do not",
                (is_ahead ? moved : -moved) / kUsPerSec, is_ahead ? "ahead" : "back");
}

}  // namespace apikey::nginx
