// The names of the outcomes and which of them let a request pass.
// Called by variables, log lines, metrics and the access phase. Never decides anything.
#include "apikey/verdict.hpp"

#include <array>

namespace apikey {
namespace {

constexpr std::array<std::string_view, kOutcomeCount> kNames = {
    "off",          "skipped",      "preflight",         "missing",
    "anonymous",    "malformed",    "unavailable",       "bypass",
    "unknown",      "revoked",      "suspended",         "not_yet_valid",
    "expired",      "throttled",    "wrong_environment", "wrong_address",
    "tls_required", "wrong_origin", "wrong_method",      "wrong_host",
    "scope",        "rate_limited", "quota_exceeded",    "concurrency_limited",
    "ok",
};
static_assert(kNames[static_cast<std::size_t>(Outcome::ok)] == "ok");
static_assert(kNames[static_cast<std::size_t>(Outcome::throttled)] == "throttled");

}  // namespace

std::string_view outcome_name(Outcome outcome) noexcept { return kNames[static_cast<std::size_t>(outcome)]; }

bool lets_pass(Outcome outcome) noexcept {
  switch (outcome) {
    case Outcome::off:
    case Outcome::skipped:
    case Outcome::preflight:
    case Outcome::anonymous:
    case Outcome::bypass:
    case Outcome::ok:
      return true;
    default:
      return false;
  }
}

}  // namespace apikey
