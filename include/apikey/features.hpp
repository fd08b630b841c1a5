// What a snapshot's `requires` may name (see meta.hpp) and this build understands. Whatever can make a decision
// stricter is a feature; a snapshot that requires one which is not listed here is used as a veto only.
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

namespace apikey {

inline constexpr std::array<std::string_view, 0> kKnownFeatures = {};

[[nodiscard]] inline bool is_known_feature(std::string_view name) noexcept {
  return std::find(kKnownFeatures.begin(), kKnownFeatures.end(), name) != kKnownFeatures.end();
}

}  // namespace apikey
