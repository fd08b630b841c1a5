// Questions and answers on a terminal. Called by key_change.cpp, owner.cpp, init.cpp, find.cpp and secret.cpp.
#include "terminal.hpp"

#include <fmt/format.h>
#include <termios.h>
#include <unistd.h>

#include <csignal>

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

termios before_hiding;  // NOLINT(*-avoid-non-const-global-variables): a signal handler needs it

// Whoever ends this with Ctrl-C keeps a terminal that shows what he types.
extern "C" void show_input_and_end(int number) {
  tcsetattr(STDIN_FILENO, TCSANOW, &before_hiding);
  static_cast<void>(signal(number, SIG_DFL));
  static_cast<void>(raise(number));
}

bool hide_input() {
  if (tcgetattr(STDIN_FILENO, &before_hiding) != 0) {
    return false;
  }
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    static_cast<void>(signal(number, show_input_and_end));
  }
  termios hiding = before_hiding;
  hiding.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  return tcsetattr(STDIN_FILENO, TCSANOW, &hiding) == 0;
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

std::string ask_for(const std::string& question) {
  if (!is_interactive()) {
    return {};
  }
  print_prompt(question + ": ");
  std::string answer = read_answer();
  answer.erase(0, answer.find_first_not_of(" \t"));
  answer.erase(answer.find_last_not_of(" \t") + 1);
  return answer;
}

HiddenInput::HiddenInput() : is_hidden_(hide_input()) {
  if (is_hidden_ && is_interactive()) {
    print_prompt("key (it is not shown): ");
  }
}

HiddenInput::~HiddenInput() {
  if (is_hidden_) {
    static_cast<void>(tcflush(STDIN_FILENO, TCIFLUSH));  // what was pasted behind the key is not for the shell
    tcsetattr(STDIN_FILENO, TCSANOW, &before_hiding);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
      static_cast<void>(signal(number, SIG_DFL));
    }
    if (is_interactive()) {
      print_prompt("\n");  // the one that was typed was not shown
    }
  }
}

}  // namespace keyloader
