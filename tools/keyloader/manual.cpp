// keyloader completion and keyloader manual: both are made from the command line as it is defined, so they cannot go
// stale. docs/keyloader.1 is the output of `keyloader manual`.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "session.hpp"
#include "words.hpp"

namespace keyloader {
namespace {

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* command) { return !command->get_group().empty(); });
}

std::vector<const CLI::Option*> options_of(const CLI::App& app) {
  return app.get_options([](const CLI::Option*) { return true; });
}

std::string option_words(const CLI::App& app) {
  std::string words;
  for (const CLI::Option* option : options_of(app)) {
    for (const std::string& name : option->get_lnames()) {
      words += (words.empty() ? "--" : " --") + name;
    }
  }
  return words;
}

// `paths` collects every command with its parents, `cases` what may follow each.
void add_cases(const CLI::App& app, const std::string& path, const std::string& inherited, std::string& paths,
               std::string& cases) {
  std::string words = option_words(app) + inherited;
  for (const CLI::App* command : commands_of(app)) {
    words += " " + command->get_name();
    const std::string below = path + " " + command->get_name();
    paths += fmt::format("{}\"{}\"", paths.empty() ? "" : " | ", below);
  }
  cases += fmt::format("    \"{}\") words=\"{}\" ;;\n", path, words);
  for (const CLI::App* command : commands_of(app)) {
    add_cases(*command, path + " " + command->get_name(), " --dir --runtime --json", paths, cases);
  }
}

std::string bash_completion(const CLI::App& app) {
  std::string paths;
  std::string cases;
  add_cases(app, "keyloader", "", paths, cases);
  return fmt::format(
      "# bash completion for keyloader, made by `keyloader completion bash`\n"
      "_keyloader() {{\n"
      "  local word words path=keyloader\n"
      "  for word in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do\n"
      "    case \"$path $word\" in\n"
      "    {}) path=\"$path $word\" ;;\n"
      "    esac\n"
      "  done\n"
      "  case \"$path\" in\n{}"
      "  esac\n"
      "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"${{COMP_WORDS[COMP_CWORD]}}\")\n"
      "}}\n"
      "complete -o default -F _keyloader keyloader",
      paths, cases);
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
    if (option->get_type_size() != 0 && !option->get_positional()) {
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
    text += fmt::format(".PP\n.nf\n{}\n.fi\n", roff(command->get_footer()));
    text += roff_commands(*command, name);
  }
  return text;
}

std::string man_page(const CLI::App& app) {
  return fmt::format(
      ".TH KEYLOADER 1 \"\" \"nginx\\-apikey " KEYLOADER_VERSION
      "\" \"User Commands\"\n"
      ".SH NAME\nkeyloader \\- issues, limits and revokes API keys, and hands them to nginx\n"
      ".SH SYNOPSIS\n.B keyloader\n[\\-\\-dir DIR] [\\-\\-runtime DIR] [\\-\\-json] COMMAND \\fR[\\fIoptions\\fR]\n"
      ".SH DESCRIPTION\n"
      "keyloader keeps the registry of owners, plans, roles and keys, and publishes it as a sealed snapshot, "
      "keys.mdb,\n"
      "that the nginx module reads. A change is active when the command ends with 0; nginx needs no reload.\n"
      "A key is shown once, when it is made; only its digest is kept.\n"
      ".SH OPTIONS\n{}"
      ".SH COMMANDS\n{}"
      ".SH ENVIRONMENT\n.TP\n.B APIKEY_DIR\nThe node\\(aqs directory, where \\-\\-dir does not name one.\n"
      ".TP\n.B APIKEY_RUNTIME\nThe same for \\-\\-runtime.\n"
      ".SH FILES\n"
      ".TP\n.B registry.db\nThe source of truth (0600).\n"
      ".TP\n.B keys.mdb\nThe active snapshot (0640), readable by nginx\\(aqs group.\n"
      ".TP\n.B history/\nThe last five snapshots.\n"
      ".TP\n.B peppers/\nSecrets that digests are made with (0600).\n"
      ".TP\n.B nodes/\nWhich nginx instances read this directory.\n"
      ".SH EXIT STATUS\n0 done and active in nginx, or nothing to do; 1 refused or failed; 2 used wrongly; 3 done in "
      "the registry, but\n"
      "not (yet) active in nginx.",
      roff_options(app), roff_commands(app, "keyloader"));
}

}  // namespace

void add_manual_commands(Command& app, CLI::App& all) {
  auto shell = std::make_shared<std::string>();
  Command completion = app.add("completion", "Print a completion script for a shell");
  completion.choice("SHELL", *shell, {"bash"}, "SHELL", "bash, which is also the default");
  completion.footer(
      "  keyloader completion bash > /etc/bash_completion.d/keyloader\n  source <(keyloader completion bash)");
  // Holds on to `shell`, which the option writes to.
  completion.run([&all, shell] { print_out(bash_completion(all) + "\n"); });

  auto words = std::make_shared<std::vector<std::string>>();
  Command help = app.add("help", "What all commands do, or one of them");
  help.arguments("COMMAND", *words, "A command, such as `key create`");
  help.footer("  keyloader help\n  keyloader help key create");
  help.run([&all, words] {
    const CLI::App& wanted = find_command(all, *words);
    print_out(all.get_formatter()->make_help(&wanted, path_of(wanted), CLI::AppFormatMode::Normal));
  });

  Command version = app.add("version", "Print the version");
  version.footer("  keyloader version");
  version.run([] { print_out("keyloader " KEYLOADER_VERSION "\n"); });

  Command manual = app.add("manual", "Print the man page");
  manual.footer("  keyloader manual | man -l -");
  manual.run([&all] { print_out(man_page(all) + "\n"); });
}

}  // namespace keyloader
