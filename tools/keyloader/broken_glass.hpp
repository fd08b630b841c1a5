// How often --break-glass passed over the policy lately. Called by `policy show`, doctor and `audit archive`.
#pragma once

#include <cstdint>

#include "registry/registry.hpp"

namespace keyloader {

// How long `policy show` tells of it, and its entries are not archived. doctor looks back no further.
inline constexpr Seconds kGlassTime = Seconds{30} * 24 * 60 * 60;

struct BrokenGlass {
  std::uint64_t count = 0;
  std::uint64_t last_entry = 0;  // of the audit; 0: it was not
  Seconds last = 0;
};

// Since then.
[[nodiscard]] BrokenGlass broken_glass(Registry& registry, Seconds since);

}  // namespace keyloader
