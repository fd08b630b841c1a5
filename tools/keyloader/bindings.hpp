// A key's conditions (addresses, origins, methods, hosts) between their text and the bytes a snapshot holds.
// Called by `key create|set`, `import` (to check and tidy) and by publishing (to encode).
#pragma once

#include <string>
#include <vector>

#include "registry/model.hpp"

namespace keyloader {

// Each takes what somebody wrote and gives the form that is kept; throws UsageError naming value and remedy.
[[nodiscard]] std::string tidy_network(const std::string& text);
[[nodiscard]] std::string tidy_origin(const std::string& text);
[[nodiscard]] std::string tidy_method(const std::string& text);
[[nodiscard]] std::string tidy_host(const std::string& text);

// The binding list of a key; empty when it has no condition.
[[nodiscard]] std::string encode_bindings(const Key& key);

}  // namespace keyloader
