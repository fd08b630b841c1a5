// Questions and answers on a terminal. Called by key_change.cpp and find.cpp.
#include "terminal.hpp"

#include <fmt/format.h>
#include <termios.h>
#include <unistd.h>

namespace keyloader {
namespace {

// One line, without its end.
std::string read_answer() {
  std::string answer;
  char c = '\0';
  while (read(STDIN_FILENO, &c, 1) == 1 && c != '\n') {
    answer += c;
  }
  return answer;
}

bool set_echo(bool is_on) {
  termios settings{};
  if (tcgetattr(STDIN_FILENO, &settings) != 0) {
    return false;
  }
  const auto echo = static_cast<tcflag_t>(ECHO);
  settings.c_lflag = is_on ? settings.c_lflag | echo : settings.c_lflag & ~echo;
  return tcsetattr(STDIN_FILENO, TCSANOW, &settings) == 0;
}

}  // namespace

bool is_interactive() { return isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1; }

void confirm(const std::string& question, bool is_sure) {
  if (is_sure || !is_interactive()) {
    return;
  }
  print_prompt(question + " [y/N] ");
  const std::string answer = read_answer();
  if (answer != "y" && answer != "Y" && answer != "yes") {
    throw Failure("nothing was changed; `y` changes it, and --yes does not ask");
  }
}

HiddenInput::HiddenInput() : is_hidden_(set_echo(false)) {}

HiddenInput::~HiddenInput() {
  if (is_hidden_) {
    set_echo(true);
    print_prompt("\n");  // the one that was typed was not shown
  }
}

}  // namespace keyloader
