// Asking whoever sits at a terminal. Called by commands that stop many keys at once, by init, and where a key is read.
// INVARIANT: nothing is asked where nobody can answer: both standard input and standard error must be a terminal.
#pragma once

#include <string>

#include "session.hpp"

namespace keyloader {

[[nodiscard]] bool is_interactive();

// Asks "`question` [y/N]" unless `is_sure` (--yes) or nobody is there to answer. Throws Failure for anything but yes.
void confirm(const std::string& question, bool is_sure);

// Asks "`question`: ". RETURNS: what was typed, without blanks around it; empty where nobody is there to answer.
[[nodiscard]] std::string ask_for(const std::string& question);

// Asks for a key; while it lives, what is typed is not shown. Does nothing where standard input is no terminal.
class HiddenInput {
 public:
  HiddenInput();
  ~HiddenInput();
  HiddenInput(const HiddenInput&) = delete;
  HiddenInput& operator=(const HiddenInput&) = delete;

 private:
  bool is_hidden_ = false;
};

}  // namespace keyloader
