// Puts --dir into the commands that sentences name.
#include "hint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "session.hpp"

namespace keyloader {
namespace {

constexpr std::string_view kSudo = "sudo ";
constexpr std::string_view kProgram = "keyloader ";

struct Place {
  std::string option;  // "--dir /srv/keys "; empty: nobody has to say it
  bool is_known_to_shell = false;
};

Place& place() {
  static Place the_place;
  return the_place;
}

// Whether what follows the program's name acts on a directory and does not name one.
bool wants_directory(std::string_view rest) {
  static constexpr std::array<std::string_view, 6> without = {"help",   "--help",     "version",
                                                              "manual", "completion", "complete-words"};
  const std::string_view command = rest.substr(0, rest.find('`'));
  const std::string_view word = command.substr(0, command.find(' '));
  return std::find(without.begin(), without.end(), word) == without.end() &&
         command.find("--dir ") == std::string_view::npos;
}

}  // namespace

void set_hint_directory(const std::filesystem::path& directory) {
  const char* named = std::getenv("APIKEY_DIR");  // NOLINT(concurrency-mt-unsafe): there is one thread
  place() = {};
  if (directory != Session{}.directory) {
    place().option = fmt::format("--dir {} ", shell_word(directory.string()));
    place().is_known_to_shell = named != nullptr && directory == named;
  }
}

std::string with_directory(std::string_view sentence) {
  std::string out;
  while (!place().option.empty()) {
    const std::size_t quote = sentence.find('`');
    if (quote == std::string_view::npos) {
      break;
    }
    std::size_t end = quote + 1;
    const bool is_root = sentence.substr(end).starts_with(kSudo);
    end += is_root ? kSudo.size() : 0;
    const bool is_ours = sentence.substr(end).starts_with(kProgram);
    end += is_ours ? kProgram.size() : 0;
    out += sentence.substr(0, end);
    sentence.remove_prefix(end);
    if (is_ours && (is_root || !place().is_known_to_shell) && wants_directory(sentence)) {
      out += place().option;
    }
  }
  return out.append(sentence);
}

std::string shell_word(std::string_view text) {
  static constexpr std::string_view bare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  if (!text.empty() && text.find_first_not_of(bare) == std::string_view::npos) {
    return std::string{text};
  }
  std::string word = "'";
  for (const char c : text) {
    word += c == '\'' ? std::string{"'\\''"} : std::string{c};
  }
  return word + "'";
}

}  // namespace keyloader
