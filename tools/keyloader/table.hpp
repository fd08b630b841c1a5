// Columns for people: as wide as their widest cell. Called by Session::report_table() and where a command shows one
// thing.
#pragma once

#include <string>
#include <vector>

#include "output.hpp"

namespace keyloader {

// `rows` may be empty; the heading stands even then. Nothing is cut. RETURNS: lines without a line end behind the last.
[[nodiscard]] std::string table_text(const std::vector<std::string>& heading,
                                     const std::vector<std::vector<std::string>>& rows);

// A list, as `screen` can show it: on a terminal wide columns are cut with `…`, but never an id of a key; columns of
// numbers stand to the right, and the heading is bold where there is colour. Elsewhere the same as table_text().
[[nodiscard]] std::string list_text(const std::vector<std::string>& heading,
                                    const std::vector<std::vector<std::string>>& rows, const Screen& screen);

}  // namespace keyloader
