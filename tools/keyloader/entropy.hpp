// How hard an imported key is to guess, roughly. Called by import, which warns below kLowEntropyBits.
#pragma once

#include <string_view>

namespace keyloader {

inline constexpr double kLowEntropyBits = 112.0;

// Length times the bits of the smallest usual alphabet the text is written in; few different characters count as few.
// An upper bound: a sentence or a date in disguise is weaker than this says.
[[nodiscard]] double estimated_entropy_bits(std::string_view text);

}  // namespace keyloader
