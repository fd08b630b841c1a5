// What limits are called where no name is written, and how they read.
// Called by every command that sets or shows limits.
#pragma once

#include <cstdint>
#include <string>

#include "registry/registry.hpp"

namespace keyloader {

// Whose limits: it decides what a limit is called where no name is written, and what --help says.
enum class LimitHolder : std::uint8_t { plan, key, owner };

[[nodiscard]] bool is_quota(const Limit& limit);

// `rate`, `month`, `requests.10d`, `concurrency`; of owners `owner`, `owner.month`, …
[[nodiscard]] std::string default_limit_name(const Limit& limit, LimitHolder holder);

// For people: "100/s burst 200", "1000000/month", "1000/30d rolling", "20 at once", each maybe with "(dry run)".
[[nodiscard]] std::string limit_text(const Limit& limit);
// "month 1000000/month, rate 100/s burst 200"; "unlimited".
[[nodiscard]] std::string limits_text(const Limits& limits);

}  // namespace keyloader
