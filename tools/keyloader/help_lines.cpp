// Filling paragraphs and breaking examples.
#include "help_lines.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace keyloader {
namespace {

constexpr std::string_view kBreak = " \\";
constexpr std::string_view kFurther = "      ";

// What a shell reads as one word, and the value of an option with its name: no line ends within.
Texts parts_of(std::string_view line) {
  Texts parts;
  bool is_option = false;
  while (!line.empty()) {
    std::size_t end = 0;
    bool is_quoted = false;
    while (end < line.size() && (is_quoted || line[end] != ' ')) {
      is_quoted = line[end] == '\'' ? !is_quoted : is_quoted;
      ++end;
    }
    const std::string_view word = line.substr(0, end);
    line.remove_prefix(std::min(line.size(), end + 1));
    if (is_option && !word.starts_with('-')) {
      parts.back() += fmt::format(" {}", word);
    } else {
      parts.emplace_back(word);
    }
    is_option = word.starts_with("--") || word == "|";
  }
  return parts;
}

std::string broken_example(std::string_view line) {
  if (line.size() <= kHelpWidth) {
    return std::string{line};
  }
  const std::size_t indent = std::min(line.find_first_not_of(' '), line.size());
  std::string out;
  std::string now{line.substr(0, indent)};
  bool is_first = true;
  for (const std::string& part : parts_of(line.substr(indent))) {
    if (!is_first && now.size() + 1 + part.size() + kBreak.size() > kHelpWidth) {
      out += now.append(kBreak) + "\n";
      now = kFurther;
      is_first = true;
    }
    now += is_first ? part : " " + part;
    is_first = false;
  }
  return out + now;
}

}  // namespace

Texts wrapped(std::string_view text, std::size_t most) {
  Texts lines{""};
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find_first_of(" \n"));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    if (!lines.back().empty() && lines.back().size() + 1 + word.size() > most) {
      lines.emplace_back();
    }
    lines.back() += lines.back().empty() ? std::string{word} : fmt::format(" {}", word);
  }
  return lines;
}

std::string help_lines(std::string_view text) {
  std::string out;
  std::string paragraph;
  const auto flush = [&] {
    out += paragraph.empty() ? "" : fmt::format("{}\n", fmt::join(wrapped(paragraph, kHelpWidth), "\n"));
    paragraph.clear();
  };
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.empty() || line.front() == ' ') {
      flush();
      out += broken_example(line) + "\n";
    } else {
      paragraph += fmt::format("{}{}", paragraph.empty() ? "" : " ", line);
    }
  }
  flush();
  return out;
}

}  // namespace keyloader
