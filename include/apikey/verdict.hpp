// The outcomes of a decision: DESIGN's table, in its order. Names are what $apikey_status, logs and metrics show.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace apikey {

enum class Outcome : std::uint8_t {
  off,          // no apikey here
  skipped,      // `satisfy any`: somebody else let the request in
  preflight,    // CORS preflight, passes without a key
  missing,      // no credential
  anonymous,    // no credential, and none needed
  malformed,    // repeated, contradictory, too long, bad characters, bad checksum
  unavailable,  // no usable snapshot, or its bytes are damaged
  bypass,       // the same, where on_error=allow
  unknown,      // no such key
  revoked,
  suspended,
  not_yet_valid,
  expired,
  throttled,  // too many failed attempts
  wrong_environment,
  wrong_address,
  tls_required,
  wrong_origin,
  wrong_method,
  wrong_host,
  scope,
  rate_limited,
  quota_exceeded,
  concurrency_limited,
  ok,
};
inline constexpr std::size_t kOutcomeCount = static_cast<std::size_t>(Outcome::ok) + 1;

[[nodiscard]] std::string_view outcome_name(Outcome outcome) noexcept;
// The same with `_dry_run` behind it: what would have been, and was let pass.
[[nodiscard]] std::string_view dry_run_name(Outcome outcome) noexcept;

// True for the outcomes that let the request pass on.
[[nodiscard]] bool lets_pass(Outcome outcome) noexcept;

}  // namespace apikey
