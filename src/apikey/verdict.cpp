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

constexpr std::string_view kSuffix = "_dry_run";
struct DryRunName {
  std::array<char, 32> text{};
  std::size_t size = 0;
};
constexpr std::array<DryRunName, kOutcomeCount> make_dry_run_names() noexcept {
  std::array<DryRunName, kOutcomeCount> names;
  for (std::size_t i = 0; i < kOutcomeCount; ++i) {
    for (const std::string_view part : {kNames[i], kSuffix}) {
      for (const char c : part) {
        names[i].text[names[i].size++] = c;
      }
    }
  }
  return names;
}
constexpr std::array<DryRunName, kOutcomeCount> kDryRunNames = make_dry_run_names();

}  // namespace

std::string_view outcome_name(Outcome outcome) noexcept { return kNames[static_cast<std::size_t>(outcome)]; }

std::string_view dry_run_name(Outcome outcome) noexcept {
  const DryRunName& name = kDryRunNames[static_cast<std::size_t>(outcome)];
  return {name.text.data(), name.size};
}

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
