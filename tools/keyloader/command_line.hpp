// What the words of a command line name, looked at before CLI11 reads them: CLI11 says that something is missing where
// a word is mistyped, and gives an option without a value the next option as its value. Called by main.cpp, help.cpp
// and completion.cpp.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "registry/model.hpp"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace keyloader {

struct CommandLine {
  const CLI::App* command = nullptr;      // the deepest one that is named
  const CLI::Option* awaiting = nullptr;  // the last word: an option whose value is yet to come
  std::set<const CLI::Option*> given{};
  std::size_t arguments = 0;  // words that are neither commands nor options
  std::string taken{};        // a command's name that an option of keyloader itself took for its value
  std::string taken_by{};
};

// Throws UsageError for the first word that is not expected, and for what is missing.
void check_command_line(const CLI::App& app, const Texts& words);
// The same for words that somebody is still typing: passes over what it does not know.
[[nodiscard]] CommandLine read_unfinished(const CLI::App& app, const Texts& words);

// The command that `words` name; throws UsageError, which names the nearest one.
[[nodiscard]] const CLI::App& find_command(const CLI::App& app, const Texts& words);
// "key create"; empty for keyloader itself.
[[nodiscard]] std::string path_of(const CLI::App& command);
[[nodiscard]] std::vector<const CLI::App*> commands_of(const CLI::App& app);
// "--owner": those of `command`, then those of keyloader itself.
[[nodiscard]] Texts options_for(const CLI::App& command);
[[nodiscard]] bool is_flag(const CLI::Option& option);

}  // namespace keyloader
