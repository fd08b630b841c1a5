// Texts as wide as help is. Called by help.cpp and manual.cpp.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "registry/model.hpp"

namespace keyloader {

inline constexpr std::size_t kHelpWidth = 80;

// Lines of whole words.
[[nodiscard]] Texts wrapped(std::string_view text, std::size_t most);

// Paragraphs are filled anew. Examples, which begin with a blank, go on behind a backslash where they are too long.
[[nodiscard]] std::string help_lines(std::string_view text);

}  // namespace keyloader
