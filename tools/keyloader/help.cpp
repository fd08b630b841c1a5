// keyloader help and keyloader version; and what --help of every command ends with.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <sstream>

#include "command_line.hpp"
#include "help_lines.hpp"
#include "session.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kNameWidth = 14;

struct Group {
  std::string_view title;
  std::vector<std::string_view> commands;
};

// Where the overview shows a command. One that is in no group stands in the last.
const std::array<Group, 5>& groups() {
  static const std::array<Group, 5> all{
      {{"Keys", {"owner", "plan", "role", "key", "quota", "find"}},
       {"Administrators", {"admin", "policy", "approval"}},
       {"nginx", {"status", "doctor", "why", "check", "locations", "node", "publish", "snapshot"}},
       {"Data", {"init", "registry", "import", "usage", "audit", "pepper"}},
       {"Help", {"help", "version", "manual", "completion"}}}};
  return all;
}

std::string names_text(const std::vector<const CLI::App*>& commands) {
  std::string names;
  for (const CLI::App* each : commands) {
    names += (names.empty() ? "" : ", ") + each->get_name();
  }
  return names;
}

std::string what_it_is(const CLI::App& command) {
  const std::vector<const CLI::App*> below = commands_of(command);
  if (command.get_require_subcommand_min() == 0) {
    return below.empty() ? command.get_description()
                         : fmt::format("{}; and {}", command.get_description(), names_text(below));
  }
  return names_text(below);
}

// `  key           create, list, …`, in as many lines as it takes.
std::string overview_of(const CLI::App& command) {
  const std::string indent(kNameWidth, ' ');
  return fmt::format("  {:<{}}{}\n", command.get_name(), kNameWidth - 2,
                     fmt::join(wrapped(what_it_is(command), kHelpWidth - kNameWidth), "\n" + indent));
}

std::string overview(const CLI::App& app) {
  std::vector<const CLI::App*> left = commands_of(app);
  std::string text = "keyloader issues, limits and revokes API keys, and hands them to nginx.\n";
  for (const Group& group : groups()) {
    text += fmt::format("\n{}\n", group.title);
    for (const std::string_view name : group.commands) {
      const auto at =
          std::find_if(left.begin(), left.end(), [&](const CLI::App* each) { return each->get_name() == name; });
      if (at != left.end()) {
        text += overview_of(**at);
        left.erase(at);
      }
    }
  }
  for (const CLI::App* command : left) {
    text += overview_of(*command);
  }
  return text + "\n`keyloader help key create` explains one of them, with examples.";
}

std::string help_of(const CLI::App& command) {
  const std::string above = path_of(*command.get_parent());
  return command.help(above.empty() ? "keyloader" : "keyloader " + above);
}

// CLI11 puts the second line of a description below its first.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_footer(const CLI::App* app) const override {
    const std::string shared =
        app->get_parent() == nullptr
            ? ""
            : "And of every command: --dir DIR, --runtime DIR, --json, --key-file FILE, --break-glass\n"
              "(`keyloader --help` explains them)\n\n";
    return help_lines(shared + CLI::Formatter::make_footer(app));
  }

  std::string make_option_desc(const CLI::Option* option) const override {
    return fitted(CLI::Formatter::make_option_desc(option));
  }

  std::string make_subcommand(const CLI::App* command) const override {
    std::stringstream out;
    CLI::detail::format_help(out, command->get_display_name(true), fitted(command->get_description()),
                             get_column_width());
    return out.str();
  }

 private:
  [[nodiscard]] std::string fitted(const std::string& text) const {
    return fmt::format("{}", fmt::join(wrapped(text, kHelpWidth - get_column_width()), "\n"));
  }
};

}  // namespace

void set_help_format(CLI::App& all) { all.formatter(std::make_shared<HelpFormatter>()); }

void add_help_commands(Command& app, CLI::App& all) {
  auto words = std::make_shared<Texts>();
  Command help = app.add("help", "What there is, or what one command does");
  help.arguments("COMMAND", *words, "The command, as it is written: key create");
  help.footer("  keyloader help\n  keyloader help key create");
  help.read([&all, words] { print_out(words->empty() ? overview(all) + "\n" : help_of(find_command(all, *words))); });

  Command version = app.add("version", "Print the version");
  version.footer("  keyloader version");
  version.read([&all] {
    print_out(all.count("--json") == 0 ? "keyloader " KEYLOADER_VERSION "\n"
                                       : json_text({{"version", KEYLOADER_VERSION}}) + "\n");
  });
}

}  // namespace keyloader
