// keyloader help and keyloader version; and what --help of every command ends with.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <sstream>

#include "command_line.hpp"
#include "session.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kWidth = 80;
constexpr std::size_t kNameWidth = 14;

struct Group {
  std::string_view title;
  std::vector<std::string_view> commands;
};

// Where the overview shows a command. One that is in no group stands in the last.
const std::array<Group, 4>& groups() {
  static const std::array<Group, 4> all{
      {{"Keys", {"owner", "plan", "role", "key", "admin", "quota", "find"}},
       {"nginx", {"status", "doctor", "why", "check", "locations", "node", "publish", "snapshot"}},
       {"Data", {"init", "registry", "import", "usage", "audit", "pepper"}},
       {"People", {"policy", "approval", "help", "version", "manual", "completion"}}}};
  return all;
}

std::string names_text(const std::vector<const CLI::App*>& commands) {
  std::string names;
  for (const CLI::App* each : commands) {
    names += (names.empty() ? "" : ", ") + each->get_name();
  }
  return names;
}

// Lines of whole words.
Texts wrapped(std::string_view text, std::size_t most) {
  Texts lines{""};
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find_first_of(" \n"));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    if (!lines.back().empty() && lines.back().size() + 1 + word.size() > most) {
      lines.emplace_back();
    }
    lines.back() += lines.back().empty() ? std::string{word} : fmt::format(" {}", word);
  }
  return lines;
}

// Paragraphs as wide as help is; examples, which begin with a blank, stay as they are.
std::string refilled(std::string_view text) {
  std::string out;
  std::string paragraph;
  const auto flush = [&] {
    out += paragraph.empty() ? "" : fmt::format("{}\n", fmt::join(wrapped(paragraph, kWidth), "\n"));
    paragraph.clear();
  };
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.empty() || line.front() == ' ') {
      flush();
      out += fmt::format("{}\n", line);
    } else {
      paragraph += fmt::format("{}{}", paragraph.empty() ? "" : " ", line);
    }
  }
  flush();
  return out;
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
                     fmt::join(wrapped(what_it_is(command), kWidth - kNameWidth), "\n" + indent));
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
    return refilled(shared + CLI::Formatter::make_footer(app));
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
    return fmt::format("{}", fmt::join(wrapped(text, kWidth - get_column_width()), "\n"));
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
  version.read([] { print_out("keyloader " KEYLOADER_VERSION "\n"); });
}

}  // namespace keyloader
