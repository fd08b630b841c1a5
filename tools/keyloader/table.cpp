// Columns for people. Called by the list commands; writes nothing itself. A cell is one line, whatever its text holds.
// Relies on main.cpp for a locale in UTF-8: wcwidth() knows how wide a character is.
#include "table.hpp"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cwchar>
#include <iterator>
#include <numeric>

#include "apikey/plain_text.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kBetween = 2;
constexpr std::size_t kLeastWidth = 12;     // of a text that is cut: less says nothing
constexpr std::size_t kLongestNumber = 28;  // "18446744073709551615/minute"; longer are digests
constexpr std::string_view kCut = "…";
constexpr std::size_t kIndent = 4;

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

// A part of the id of a key is good for nothing; a part of a number, an amount or a time can be misread.
bool is_whole_word(std::string_view word) {
  return word.rfind("key_", 0) == 0 || (!word.empty() && std::isdigit(static_cast<unsigned char>(word.front())) != 0 &&
                                        word.size() <= kLongestNumber);
}

// How narrow a cell may become.
std::size_t least_width(std::string_view text) {
  std::size_t least = std::min(width_of(text), kLeastWidth);
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    least = is_whole_word(word) ? std::max(least, width_of(word)) : least;
    text.remove_prefix(std::min(text.size(), word.size() + 1));
  }
  return least;
}

// How many bytes of the beginning are no wider than that, in whole characters.
std::size_t fitting(std::string_view text, std::size_t most) {
  std::size_t fits = 0;
  std::size_t width = 0;
  while (!text.empty()) {
    const apikey::Character next = apikey::next_character(text);
    width += width_of(next);
    if (width > most) {
      break;
    }
    fits += next.bytes.size();
  }
  return fits;
}

// As much of the beginning as fits, and `…`. A word that has to be whole goes away as a whole.
std::string cut(std::string_view text, std::size_t most) {
  if (width_of(text) <= most) {
    return std::string{text};
  }
  const std::size_t fits = fitting(text, std::max<std::size_t>(most, 1) - 1);
  const std::size_t space = fits == 0 ? std::string_view::npos : text.rfind(' ', fits - 1);
  const std::size_t begin = space == std::string_view::npos ? 0 : space + 1;
  const std::string_view word = text.substr(begin, text.find(' ', begin) - begin);
  return std::string{text.substr(0, is_whole_word(word) ? begin : fits)} + std::string{kCut};
}

// In lines that fit, cut between words where there are any.
Cells wrapped(std::string_view text, std::size_t most) {
  Cells lines;
  while (width_of(text) > most) {
    const std::size_t fits = fitting(text, most);
    const std::size_t space = text.rfind(' ', fits);
    const std::size_t end = space == std::string_view::npos || space == 0 ? fits : space;
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(text.find_first_not_of(' ', end), text.size()));
  }
  lines.emplace_back(text);
  return lines;
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

  [[nodiscard]] std::size_t least_width_of(std::size_t column) const {
    std::size_t least = width_of(lines.front()[column]);
    for (const Cells& line : lines) {
      least = std::max(least, least_width(line[column]));
    }
    return least;
  }

  // How many columns fit beside each other when all are as narrow as they may be; at least one.
  [[nodiscard]] std::size_t columns_within(std::size_t columns) const {
    std::size_t total = least_width_of(0);
    std::size_t count = 1;
    while (count < widths.size() && (total += kBetween + least_width_of(count)) <= columns) {
      ++count;
    }
    return count;
  }

  [[nodiscard]] std::size_t width() const {
    return std::accumulate(widths.begin(), widths.end(), kBetween * (widths.size() - 1));
  }

  // Takes from the widest column, again and again. RETURNS: false where nothing is left to take and not all fit.
  bool narrow(std::size_t columns) {
    std::size_t total = width();
    std::vector<std::size_t> leasts;
    for (std::size_t i = 0; i < widths.size(); ++i) {
      leasts.push_back(least_width_of(i));
    }
    while (total > columns) {
      std::size_t* widest = nullptr;
      for (std::size_t i = 0; i < widths.size(); ++i) {
        if (widths[i] > leasts[i] && (widest == nullptr || widths[i] > *widest)) {
          widest = &widths[i];
        }
      }
      if (widest == nullptr) {
        return false;
      }
      --*widest;
      --total;
    }
    return true;
  }

  // RETURNS: false where not all columns fit beside each other.
  bool fit(std::size_t columns) {
    if (!narrow(columns)) {
      return false;
    }
    for (Cells& line : lines) {
      for (std::size_t i = 0; i < line.size(); ++i) {
        line[i] = cut(line[i], widths[i]);
      }
    }
    return true;
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

  // Of a line whose cells go on over several.
  [[nodiscard]] Cells wrapped_lines(const Cells& line) const {
    std::vector<Cells> parts;
    std::size_t most = 0;
    for (std::size_t i = 0; i < line.size(); ++i) {
      parts.push_back(wrapped(line[i], widths[i]));
      most = std::max(most, parts.back().size());
    }
    Cells texts;
    for (std::size_t at = 0; at < most; ++at) {
      Cells cells;
      for (const Cells& part : parts) {
        cells.push_back(at < part.size() ? part[at] : "");
      }
      std::string text = line_text(cells, std::vector<bool>(cells.size(), false));
      text.erase(text.find_last_not_of(' ') + 1);
      texts.push_back(std::move(text));
    }
    return texts;
  }
};

// "    LIMITS 10/s by key  STORE default": from that column on, on as many lines as it takes.
Cells detail_lines(const Cells& heading, const Cells& row, std::size_t from, std::size_t columns) {
  const std::size_t most = std::max(columns, kIndent + kLeastWidth) - kIndent;
  Cells lines;
  for (std::size_t i = from; i < row.size(); ++i) {
    if (row[i] == "-" || row[i].empty()) {
      continue;
    }
    const std::string detail = heading[i] + " " + shown(row[i]);
    if (!lines.empty() && width_of(lines.back()) + kBetween + width_of(detail) <= most) {
      lines.back() += std::string(kBetween, ' ') + detail;
      continue;
    }
    const Cells parts = wrapped(detail, most);
    lines.insert(lines.end(), parts.begin(), parts.end());
  }
  std::transform(lines.begin(), lines.end(), lines.begin(),
                 [](const std::string& line) { return std::string(kIndent, ' ') + line; });
  return lines;
}

std::string heading_text(const std::string& line, const Screen& screen) {
  return screen.has_colour ? "\033[1m" + line + "\033[0m" : line;
}

}  // namespace

std::string table_text(const Cells& heading, const std::vector<Cells>& rows) { return list_text(heading, rows, {}); }

std::string list_text(const Cells& heading, const std::vector<Cells>& rows, const Screen& screen) {
  Table table(heading, rows);
  std::vector<bool> stand_right(heading.size(), false);
  if (screen.columns != 0) {
    for (std::size_t i = 0; i < heading.size(); ++i) {
      stand_right[i] = table.is_of_numbers(i);
    }
    if (!table.fit(screen.columns)) {
      return block_text(heading, rows, table.columns_within(screen.columns), screen);
    }
  }
  std::string text;
  for (const Cells& line : table.lines) {
    const std::string shown_line = table.line_text(line, stand_right);
    text += text.empty() ? heading_text(shown_line, screen) : "\n" + shown_line;
  }
  return text;
}

std::string block_text(const Cells& heading, const std::vector<Cells>& rows, std::size_t leading,
                       const Screen& screen) {
  if (screen.columns == 0 || Table(heading, rows).width() <= screen.columns) {
    return list_text(heading, rows, screen);
  }
  const auto front = [&](const Cells& line) {
    return Cells(line.begin(), line.begin() + static_cast<std::ptrdiff_t>(leading));
  };
  std::vector<Cells> fronts;
  std::transform(rows.begin(), rows.end(), std::back_inserter(fronts), front);
  Table table(front(heading), fronts);
  static_cast<void>(table.narrow(screen.columns));
  std::string text = heading_text(table.line_text(table.lines.front(), std::vector<bool>(leading, false)), screen);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (const Cells& lines :
         {table.wrapped_lines(table.lines[i + 1]), detail_lines(heading, rows[i], leading, screen.columns)}) {
      for (const std::string& line : lines) {
        text += "\n" + line;
      }
    }
  }
  return text;
}

}  // namespace keyloader
