// The words of a command line, looked at before CLI11 reads them: an unknown command or option, a word too many, an
// empty value. CLI11 names these late, in another order or not at all, and takes the next word for an empty `--name=`.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace keyloader {

// Throws UsageError with what is wrong and what was probably meant.
void check_words(const CLI::App& app, const std::vector<std::string>& words);

// The command with this path below `app`. Throws UsageError when there is none.
[[nodiscard]] const CLI::App& find_command(const CLI::App& app, const std::vector<std::string>& path);

// "keyloader key create"
[[nodiscard]] std::string path_of(const CLI::App& command);

// The candidate that `word` was probably meant to be; empty: none is close.
[[nodiscard]] std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace keyloader
