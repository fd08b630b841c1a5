// Showing texts, and printing. Used by every command, through Session or directly.
// Must never write a secret to standard error.
#include "output.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "apikey/plain_text.hpp"

namespace keyloader {
namespace {

template <typename Show>
std::string rewrite(std::string_view text, Show show) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const apikey::Character character = apikey::next_character(text);
    if (character.is_plain) {
      out += character.bytes;
    } else {
      show(character, out);
    }
  }
  return out;
}

void show_escape(const apikey::Character& character, std::string& out) {
  std::array<char, apikey::kMaxShownCharacter> buffer{};
  out += apikey::shown(character, buffer);
}

// REQUIRES: it stands in a string of JSON, as nothing that is not plain stands elsewhere.
void show_json_escape(const apikey::Character& character, std::string& out) {
  const auto code = static_cast<std::uint32_t>(character.code);
  if (code < 0x10000) {
    out += fmt::format("\\u{:04x}", code);
  } else {
    out += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff));
  }
}

}  // namespace

std::string shown(std::string_view text) { return rewrite(text, show_escape); }

std::string shown_lines(std::string_view text) {
  return rewrite(text, [](const apikey::Character& character, std::string& out) {
    if (character.code == '\n') {
      out += '\n';
    } else {
      show_escape(character, out);
    }
  });
}

std::string json_text(const Json& json) {
  // Texts of files and of the system may not be UTF-8: U+FFFD stands for what is not.
  return rewrite(json.dump(-1, ' ', false, Json::error_handler_t::replace), show_json_escape);
}

void print_out(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    if (errno == EPIPE) {
      throw ReaderGone("standard output cannot be written: whoever read it has gone");
    }
    throw Failure("standard output cannot be written");
  }
}

void print_prompt(std::string_view text) { fmt::print(stderr, "{}", shown_lines(text)); }

void print_note(std::string_view line) { fmt::print(stderr, "{}\n", shown(line)); }

Screen screen() {
  winsize size{};
  if (isatty(STDOUT_FILENO) != 1 || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) {
    return {};
  }
  const char* no_colour = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  const bool knows_colour = terminal != nullptr && std::string_view{terminal} != "dumb";
  return {.columns = size.ws_col, .has_colour = knows_colour && (no_colour == nullptr || *no_colour == '\0')};
}

}  // namespace keyloader
