// How keys begin: what may be chosen, and what the registry has chosen.
// Called by init, registry set, key create, admin create.
#pragma once

#include <string>
#include <string_view>

#include "registry/registry.hpp"

namespace keyloader {

inline constexpr std::string_view kDefaultPrefix = "ak";

// Throws UsageError for what is no prefix, and Failure for one that keys of another vendor are known by, unless the
// caller is sure.
void check_prefix(const std::string& prefix, bool is_sure);

// Says so when new keys of the registry will begin as those of any other.
void warn_of_prefix(const std::string& prefix);

// Of new keys.
[[nodiscard]] std::string prefix_of(const RegistryInfo& info);

}  // namespace keyloader
