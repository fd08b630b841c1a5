// The version of this source tree, as keyloader and the module say it. CMakeLists.txt has the same one.
#pragma once

#include <string_view>

namespace apikey {

inline constexpr std::string_view kVersion = "0.1.0";

}  // namespace apikey
