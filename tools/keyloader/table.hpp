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

// A list, as `screen` can show it: on a terminal wide columns are cut with `…`, but never an id of a key, a number or a
// time; what then does not fit stands below its row (block_text()). Columns of numbers stand to the right, and the
// heading is bold where there is colour. Elsewhere the same as table_text().
[[nodiscard]] std::string list_text(const std::vector<std::string>& heading,
                                    const std::vector<std::vector<std::string>>& rows, const Screen& screen);

// The same where all columns fit. Where they do not, only the first `leading` are columns, which go on over several
// lines, and what is left of a row stands below it, each cell behind its heading; cells of `-` are left out.
[[nodiscard]] std::string block_text(const std::vector<std::string>& heading,
                                     const std::vector<std::vector<std::string>>& rows, std::size_t leading,
                                     const Screen& screen);

}  // namespace keyloader
