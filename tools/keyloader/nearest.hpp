// What somebody may have meant by a word that is not known. Used by command_line.cpp (commands, options) and names.cpp
// (owners, plans, roles).
#pragma once

#include <string>

#include "registry/model.hpp"

namespace keyloader {

// One letter wrong, or one in three; capitals do not count.
[[nodiscard]] bool is_near(const std::string& a, const std::string& b);

// The nearest first; those that are equally near stay in their order.
void sort_by_nearness(Texts& names, const std::string& word);

// Empty: none is near.
[[nodiscard]] std::string nearest(const std::string& word, Texts names);
// `did you mean "web"? `, for the middle of a sentence; empty: none is near.
[[nodiscard]] std::string did_you_mean(const std::string& word, Texts names);

}  // namespace keyloader
