// What may stand next on a command line. Called by main.cpp before CLI11 parses: the words are unfinished.
#pragma once

#include "session.hpp"

namespace keyloader {

// The first argument of the call that the completion scripts make.
inline constexpr std::string_view kCompleteWords = "complete-words";

// `typed`: the words behind `keyloader`; the last is being typed. RETURNS: lines. Never throws for what it cannot read.
[[nodiscard]] std::string completions(const CLI::App& app, const Session& session, const Texts& typed);

}  // namespace keyloader
