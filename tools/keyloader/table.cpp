// Columns for people. Called by the list commands; writes nothing itself. A cell is one line, whatever its text holds.
#include "table.hpp"

#include <algorithm>
#include <cstddef>

#include "output.hpp"

namespace keyloader {
namespace {

// Characters, not bytes: what continues a UTF-8 character takes no column.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; }));
}

}  // namespace

std::string table_text(const std::vector<std::string>& heading, const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::vector<std::string>> lines{heading};
  lines.insert(lines.end(), rows.begin(), rows.end());
  for (auto& line : lines) {
    std::transform(line.begin(), line.end(), line.begin(), shown);
  }
  std::vector<std::size_t> widths(heading.size(), 0);
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) {
      widths[i] = std::max(widths[i], width_of(line[i]));
    }
  }
  std::string text;
  for (const auto& line : lines) {
    text += text.empty() ? "" : "\n";
    for (std::size_t i = 0; i < line.size(); ++i) {
      text += line[i];
      if (i + 1 < line.size()) {
        text += std::string(widths[i] - width_of(line[i]) + 2, ' ');
      }
    }
  }
  return text;
}

}  // namespace keyloader
