// keyloader manual: made from the command line as it is defined, so that it cannot go stale. docs/keyloader.1 is its
// output.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "command_line.hpp"
#include "help_lines.hpp"
#include "session.hpp"

namespace keyloader {
namespace {

std::vector<const CLI::Option*> options_of(const CLI::App& app) {
  return app.get_options([](const CLI::Option*) { return true; });
}

// Text for roff: nothing in it is taken for a request or an escape.
std::string roff(const std::string& text) {
  std::string out;
  bool begins_line = true;
  for (const char c : text) {
    if (begins_line && (c == '.' || c == '\'')) {
      out += "\\&";
    }
    begins_line = c == '\n';
    switch (c) {
      case '\\':
        out += "\\e";
        break;
      case '-':
        out += "\\-";
        break;
      case '\'':
        out += "\\(aq";
        break;
      case '`':
        out += "\\(ga";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string roff_options(const CLI::App& app) {
  std::string text;
  for (const CLI::Option* option : options_of(app)) {
    if (option->check_name("--help") && app.get_parent() != nullptr) {
      continue;
    }
    std::string names = option->get_positional() ? option->get_name(true, false) : option->get_name(false, true);
    if (!is_flag(*option) && !option->get_positional()) {
      names += " " + option->get_type_name();
    }
    text += fmt::format(".TP\n.B {}\n{}\n", roff(names), roff(option->get_description()));
  }
  return text;
}

std::string roff_commands(const CLI::App& app, const std::string& path) {
  std::string text;
  for (const CLI::App* command : commands_of(app)) {
    const std::string name = path + " " + command->get_name();
    if (command->get_require_subcommand_min() != 0) {
      text += roff_commands(*command, name);
      continue;
    }
    text += fmt::format(".SS {}\n{}.\n{}", roff(name), roff(command->get_description()), roff_options(*command));
    text += fmt::format(".PP\n.nf\n{}.fi\n", roff(help_lines(command->get_footer())));
    text += roff_commands(*command, name);
  }
  return text;
}

std::string man_page(const CLI::App& app) {
  return fmt::format(
      ".TH KEYLOADER 1 \"\" \"nginx\\-apikey " KEYLOADER_VERSION
      "\" \"User Commands\"\n"
      ".SH NAME\nkeyloader \\- issues, limits and revokes API keys, and hands them to nginx\n"
      ".SH SYNOPSIS\n.B keyloader\n[\\-\\-dir DIR] [\\-\\-runtime DIR] [\\-\\-json] [\\-\\-key\\-file FILE] "
      "[\\-\\-break\\-glass] COMMAND \\fR[\\fIoptions\\fR]\n"
      ".SH DESCRIPTION\n"
      "keyloader keeps the registry of owners, plans, roles and keys, and publishes it as a sealed snapshot, "
      "keys.mdb,\n"
      "that the nginx module reads. A change is active when the command ends with 0; nginx needs no reload.\n"
      "A key is shown once, when it is made; only its digest is kept.\n"
      ".SH OPTIONS\n{}"
      ".SH COMMANDS\n{}"
      ".SH ENVIRONMENT\n.TP\n.B APIKEY_DIR\nThe node\\(aqs directory, where \\-\\-dir does not name one.\n"
      ".TP\n.B APIKEY_RUNTIME\nThe same for \\-\\-runtime.\n"
      ".TP\n.B APIKEY_KEY_FILE\nThe same for \\-\\-key\\-file.\n"
      ".SH FILES\n"
      ".TP\n.B registry.db\nThe source of truth (0600).\n"
      ".TP\n.B keys.mdb\nThe active snapshot (0640), readable by nginx\\(aqs group.\n"
      ".TP\n.B history/\nThe last five snapshots.\n"
      ".TP\n.B peppers/\nSecrets that digests are made with (0600).\n"
      ".TP\n.B nodes/\nWhich nginx instances read this directory.\n"
      ".SH EXIT STATUS\n0 done and active in nginx, or nothing to do; 1 refused or failed; 2 used wrongly; 3 done in "
      "the registry, but\n"
      "not (yet) active in nginx, or waiting for a second person.",
      roff_options(app), roff_commands(app, "keyloader"));
}

}  // namespace

void add_manual_commands(Command& app, CLI::App& all) {
  Command manual = app.add("manual", "Print the man page");
  manual.footer("  keyloader manual | man -l -");
  manual.read([&all] { print_out(man_page(all) + "\n"); });
}

}  // namespace keyloader
