// Columns for people. Called by the list commands; writes nothing itself. A cell is one line, whatever its text holds.
// Relies on main.cpp for a locale in UTF-8: wcwidth() knows how wide a character is.
#include "table.hpp"

#include <algorithm>
#include <cstddef>
#include <cwchar>
#include <numeric>

#include "apikey/plain_text.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kBetween = 2;
constexpr std::size_t kLeastWidth = 6;
constexpr std::string_view kCut = "…";

using Cells = std::vector<std::string>;

std::size_t width_of(const apikey::Character& character) {
  const int width = wcwidth(static_cast<wchar_t>(character.code));
  return width < 0 ? 1 : static_cast<std::size_t>(width);
}

std::size_t width_of(std::string_view text) {
  std::size_t width = 0;
  while (!text.empty()) {
    width += width_of(apikey::next_character(text));
  }
  return width;
}

// As much of the beginning as fits, and `…`.
std::string cut(std::string_view text, std::size_t most) {
  if (width_of(text) <= most) {
    return std::string{text};
  }
  std::string out;
  for (std::size_t width = 0;;) {
    const apikey::Character next = apikey::next_character(text);
    width += width_of(next);
    if (width + 1 > most) {
      return out + std::string{kCut};
    }
    out += next.bytes;
  }
}

// "12", "0.5", "80%"; `-` stands for none.
bool is_number(const std::string& text) {
  return text.find_first_of("0123456789") != std::string::npos &&
         text.find_first_not_of("0123456789.%") == std::string::npos;
}

struct Table {
  std::vector<Cells> lines;         // the heading first
  std::vector<std::size_t> widths;  // of each column

  Table(const Cells& heading, const std::vector<Cells>& rows) : lines{heading}, widths(heading.size(), 0) {
    lines.insert(lines.end(), rows.begin(), rows.end());
    for (Cells& line : lines) {
      std::transform(line.begin(), line.end(), line.begin(), shown);
      for (std::size_t i = 0; i < line.size(); ++i) {
        widths[i] = std::max(widths[i], width_of(line[i]));
      }
    }
  }

  template <typename Predicate>
  [[nodiscard]] bool any_cell(std::size_t column, Predicate predicate) const {
    return std::any_of(lines.begin() + 1, lines.end(), [&](const Cells& line) { return predicate(line[column]); });
  }

  [[nodiscard]] bool is_of_numbers(std::size_t column) const {
    return any_cell(column, is_number) &&
           !any_cell(column, [](const std::string& cell) { return !is_number(cell) && cell != "-" && !cell.empty(); });
  }

  // A part of an id is good for nothing; a part of a number is wrong.
  [[nodiscard]] bool may_be_cut(std::size_t column) const {
    return !is_of_numbers(column) &&
           !any_cell(column, [](const std::string& cell) { return cell.rfind("key_", 0) == 0; });
  }

  // Takes from the widest column, again and again, until all fit or nothing is left to take.
  void fit(std::size_t columns) {
    std::size_t total = std::accumulate(widths.begin(), widths.end(), kBetween * (widths.size() - 1));
    while (total > columns) {
      std::size_t* widest = nullptr;
      for (std::size_t i = 0; i < widths.size(); ++i) {
        const std::size_t least = std::max(kLeastWidth, width_of(lines.front()[i]));
        if (widths[i] > least && may_be_cut(i) && (widest == nullptr || widths[i] > *widest)) {
          widest = &widths[i];
        }
      }
      if (widest == nullptr) {
        return;
      }
      --*widest;
      --total;
    }
    for (Cells& line : lines) {
      for (std::size_t i = 0; i < line.size(); ++i) {
        line[i] = cut(line[i], widths[i]);
      }
    }
  }

  [[nodiscard]] std::string line_text(const Cells& line, const std::vector<bool>& stand_right) const {
    std::string text;
    for (std::size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - std::min(widths[i], width_of(line[i])), ' ');
      const bool is_last = i + 1 == line.size();
      text += stand_right[i] ? padding + line[i] : line[i] + (is_last ? "" : padding);
      text += is_last ? "" : std::string(kBetween, ' ');
    }
    return text;
  }
};

}  // namespace

std::string table_text(const Cells& heading, const std::vector<Cells>& rows) { return list_text(heading, rows, {}); }

std::string list_text(const Cells& heading, const std::vector<Cells>& rows, const Screen& screen) {
  Table table(heading, rows);
  std::vector<bool> stand_right(heading.size(), false);
  if (screen.columns != 0) {
    for (std::size_t i = 0; i < heading.size(); ++i) {
      stand_right[i] = table.is_of_numbers(i);
    }
    table.fit(screen.columns);
  }
  std::string text;
  for (const Cells& line : table.lines) {
    const bool is_heading = text.empty();
    const std::string shown_line = table.line_text(line, stand_right);
    text +=
        is_heading && screen.has_colour ? "\033[1m" + shown_line + "\033[0m" : (is_heading ? "" : "\n") + shown_line;
  }
  return text;
}

}  // namespace keyloader
