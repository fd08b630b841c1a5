// Whose a file is, for those who may not use it. Called where opening something fails.
#pragma once

#include <filesystem>
#include <string>

namespace keyloader {

// "it belongs to apikey, and you are bob; run it as apikey: sudo -u apikey keyloader …"
[[nodiscard]] std::string who_may(const std::filesystem::path& path);

}  // namespace keyloader
