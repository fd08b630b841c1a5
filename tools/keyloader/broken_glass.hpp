// How often --break-glass passed over the policy lately. Called by `policy show` and doctor.
#pragma once

#include <cstdint>

#include "registry/registry.hpp"

namespace keyloader {

struct BrokenGlass {
  std::uint64_t count = 0;
  std::uint64_t last_entry = 0;  // of the audit; 0: it was not
  Seconds last = 0;
};

// Since then.
[[nodiscard]] BrokenGlass broken_glass(Registry& registry, Seconds since);

}  // namespace keyloader
