// Commands that a sentence names for its reader to run: `keyloader publish`. Sentences are written without --dir; on
// their way out it is put in where the command would else act on another directory. So no sentence can forget it.
// Called by main.cpp, session.cpp and doctor.cpp, and shell_word() wherever such a command takes a name.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace keyloader {

// Of this run. Where APIKEY_DIR names it, only what stands behind `sudo` has to say it again.
void set_hint_directory(const std::filesystem::path& directory);
[[nodiscard]] std::string with_directory(std::string_view sentence);

// One word of a shell: in quotes where it needs them, 'Jana Novák'.
[[nodiscard]] std::string shell_word(std::string_view text);

}  // namespace keyloader
