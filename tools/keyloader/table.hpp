// Columns for people: as wide as their widest cell. Called by the list commands.
#pragma once

#include <string>
#include <vector>

namespace keyloader {

// `rows` may be empty; the heading stands even then. RETURNS: lines without a line end behind the last.
[[nodiscard]] std::string table_text(const std::vector<std::string>& heading,
                                     const std::vector<std::vector<std::string>>& rows);

}  // namespace keyloader
