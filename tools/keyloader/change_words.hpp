// What an audit entry changed, for people. Used by `audit list` and `usage statement`.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "registry/model.hpp"

namespace keyloader {

// "plan basic → gold, expires 2027-01-31T00:00:00Z", "rate 10/s → 20/s", "day: granted 0 → 5"; of a new object what it
// has, of one that is gone what it was. Empty where nothing differs. A text that could pass for more than one value
// stands in quotes. `only`: the fields that count; none: all.
[[nodiscard]] std::string change_words(const AuditEntry& entry, std::span<const std::string_view> only = {});

}  // namespace keyloader
