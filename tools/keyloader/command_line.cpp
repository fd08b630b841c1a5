// Names the word that is wrong, and the one that was meant. Called before CLI11 parses.
// Must not repeat the value of an option: it may be a secret in the wrong place.
#include "command_line.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>

#include "apikey/key_form.hpp"
#include "nearest.hpp"
#include "registry/registry.hpp"

namespace keyloader {
namespace {

const CLI::App& root_of(const CLI::App& app) {
  const CLI::App* root = &app;
  while (root->get_parent() != nullptr) {
    root = root->get_parent();
  }
  return *root;
}

const CLI::App* command_named(const CLI::App& app, const std::string& name) {
  for (const CLI::App* command : commands_of(app)) {
    if (command->get_name() == name) {
      return command;
    }
  }
  return nullptr;
}

// The option of `command` or of one above it: those may stand behind it, too.
const CLI::Option* option_named(const CLI::App& command, const std::string& name) {
  for (const CLI::App* app = &command; app != nullptr; app = app->get_parent()) {
    if (const CLI::Option* option = app->get_option_no_throw(name)) {
      return option;
    }
  }
  return nullptr;
}

bool is_option_word(const std::string& word) { return word.size() > 1 && word.front() == '-'; }

std::string name_part(const std::string& word) { return word.substr(0, word.find('=')); }

std::string quoted(const Texts& names) {
  std::string text;
  for (const std::string& name : names) {
    text += fmt::format("{}\"{}\"", text.empty() ? "" : " or ", name);
  }
  return text;
}

Texts names_below(const CLI::App& app) {
  Texts names;
  for (const CLI::App* command : commands_of(app)) {
    names.push_back(command->get_name());
  }
  return names;
}

// Empty: none is near.
std::string nearest_command(const CLI::App& app, const std::string& word) { return nearest(word, names_below(app)); }

// `create key` for `key create`, `revoke key_…` for `key revoke`; all that end so where no family is named.
Texts swapped(const CLI::App& app, const std::string& word, const std::string& next) {
  Texts all;
  for (const CLI::App* family : commands_of(app)) {
    const std::string verb = nearest_command(*family, word);
    if (verb.empty()) {
      continue;
    }
    const std::string path = family->get_name() + " " + verb;
    if (!next.empty() && (is_near(next, family->get_name()) || next.starts_with(family->get_name() + "_"))) {
      return {path};
    }
    all.push_back(path);
  }
  return all;
}

Texts meant(const CLI::App& app, const std::string& word, const std::string& next) {
  const std::string path = path_of(app);
  const bool is_root = path.empty();
  Texts others = is_root ? swapped(app, word, next) : Texts{};
  if (others.size() == 1) {
    return others;
  }
  if (const std::string name = nearest_command(app, word); !name.empty()) {
    return {is_root ? name : path + " " + name};
  }
  if (!is_root && command_named(root_of(app), word) != nullptr) {
    return {word};
  }
  return others;
}

constexpr std::size_t kMaxShownWord = 32;

// Whether it can be a name that was mistyped, and cannot be a key: whoever pastes one here must not find it in a log.
// Keys have eight characters or more, and hardly any have small letters only.
bool may_be_shown(const std::string& word) {
  return word.size() < apikey::kMinKeyLength ||
         (word.size() <= kMaxShownWord &&
          std::all_of(word.begin(), word.end(), [](char c) { return (c >= 'a' && c <= 'z') || c == '-'; }));
}

// The word, in quotes, behind the command it stands in.
std::string shown_word(const std::string& word, const std::string& path = "") {
  return may_be_shown(word) ? fmt::format("\"{}{}{}\"", path, path.empty() ? "" : " ", word)
                            : fmt::format("a word of {} characters", word.size());
}

[[noreturn]] void refuse_command(const CLI::App& app, const std::string& word, const std::string& next) {
  const std::string path = path_of(app);
  const std::string name = shown_word(word, path);
  const Texts names = meant(app, word, next);
  if (!names.empty()) {
    throw UsageError(fmt::format("there is no command {}; did you mean {}?", name, quoted(names)));
  }
  if (path.empty()) {
    throw UsageError(fmt::format("{} is no command; `keyloader help` lists those there are", name));
  }
  throw UsageError(fmt::format("{} is no command; \"{}\" has {}", name, path, fmt::join(names_below(app), ", ")));
}

class Reader {
 public:
  Reader(const CLI::App& app, const Texts& words, bool is_unfinished)
      : app_(app), words_(words), is_unfinished_(is_unfinished) {
    line_.command = &app;
  }

  CommandLine read() {
    for (at_ = 0; at_ < words_.size(); ++at_) {
      const std::string& word = words_[at_];
      if (is_rest_ || !is_option_word(word)) {
        read_word(word);
      } else if (word == "--") {
        is_rest_ = true;
      } else {
        read_option(word);
      }
    }
    return line_;
  }

 private:
  void read_word(const std::string& word) {
    const CLI::App* below = is_rest_ || line_.arguments != 0 ? nullptr : command_named(*line_.command, word);
    if (below != nullptr) {
      line_.command = below;
    } else if (is_unfinished_) {
      ++line_.arguments;
    } else if (!commands_of(*line_.command).empty()) {
      refuse_taken();
      refuse_command(*line_.command, word, at_ + 1 < words_.size() ? words_[at_ + 1] : "");
    } else if (++line_.arguments > room_for_arguments()) {
      refuse_argument(word);
    }
    repeated_ = below == nullptr ? repeated_ : nullptr;
  }

  void read_option(const std::string& word) {
    const std::string name = name_part(word);
    const CLI::Option* option = option_named(*line_.command, name);
    repeated_ = nullptr;
    if (option == nullptr) {
      if (!is_unfinished_) {
        refuse_option(name);
      }
      return;
    }
    const bool is_again = !line_.given.insert(option).second;
    if (is_again && !is_unfinished_ && !is_flag(*option) && option->get_items_expected_max() == 1) {
      throw UsageError(fmt::format("{} is given twice; it takes one value, so say which", name));
    }
    const bool has_value = name.size() < word.size();
    if (is_flag(*option)) {
      if (has_value && !is_unfinished_) {
        throw UsageError(fmt::format("{} takes no value; write it alone", name));
      }
      return;
    }
    read_value(*option, name, has_value ? std::optional(word.substr(name.size() + 1)) : std::nullopt);
  }

  void read_value(const CLI::Option& option, const std::string& name, std::optional<std::string> value) {
    if (!value) {
      if (at_ + 1 == words_.size()) {
        line_.awaiting = &option;
        return;
      }
      const std::string& next = words_[at_ + 1];
      if (next == "--" || (is_option_word(next) && option_named(*line_.command, name_part(next)) != nullptr)) {
        refuse_missing_value(option, name);
        return;
      }
      ++at_;
      value = next;
      // `--dir key list`
      if (line_.command == &app_ && command_named(app_, next) != nullptr) {
        line_.taken = next;
        line_.taken_by = name;
      }
    }
    if (value->empty() && !is_unfinished_) {
      throw UsageError(
          fmt::format("{}: an empty value says nothing; leave the option out, or write `none` where a "
                      "value can be cleared",
                      name));
    }
    repeated_ = option.get_items_expected_max() > 1 ? &option : nullptr;
    repeated_name_ = name;
  }

  void refuse_missing_value(const CLI::Option& option, const std::string& name) const {
    if (!is_unfinished_) {
      throw UsageError(fmt::format("{} needs a value: {} {}", name, name, option.get_type_name()));
    }
  }

 public:
  // What only the end of the line shows.
  void check_end() const {
    if (line_.awaiting != nullptr) {
      refuse_missing_value(*line_.awaiting, words_.back());
    }
    const auto is_given = [&](const CLI::Option* option) {
      return option != nullptr && line_.given.count(option) != 0;
    };
    const CLI::App& command = *line_.command;
    if (command.get_require_subcommand_min() == 0 || is_given(app_.get_version_ptr()) ||
        is_given(command.get_help_ptr())) {
      return;
    }
    refuse_taken();
    if (&command == &app_) {
      throw UsageError("a command is missing; `keyloader help` lists those there are");
    }
    const std::string path = path_of(command);
    throw UsageError(fmt::format("\"{}\" needs a command behind it: {}", path, fmt::join(names_below(command), ", ")));
  }

 private:
  void refuse_taken() const {
    if (!line_.taken.empty()) {
      throw UsageError(
          fmt::format("{0} took \"{1}\" for its value; write the directory first: keyloader {0} "
                      "/var/lib/apikey {1} …",
                      line_.taken_by, line_.taken));
    }
  }

  [[nodiscard]] std::size_t room_for_arguments() const {
    std::size_t room = 0;
    for (const CLI::Option* option : line_.command->get_options()) {
      room += option->get_positional() ? static_cast<std::size_t>(option->get_items_expected_max()) : 0;
    }
    return room;
  }

  [[noreturn]] void refuse_argument(const std::string& word) const {
    if (repeated_ != nullptr) {
      throw UsageError(fmt::format("{} is not expected; repeat the option: {} {}", shown_word(word), repeated_name_,
                                   may_be_shown(word) ? word : "…"));
    }
    Texts missing;
    for (const CLI::Option* option : line_.command->get_options()) {
      const std::string name = option->get_name();
      const bool is_there =
          std::any_of(words_.begin(), words_.end(), [&](const std::string& each) { return name_part(each) == name; });
      if (option->get_required() && !option->get_positional() && !is_there) {
        missing.push_back(name);
      }
    }
    throw UsageError(fmt::format(
        "{} is not expected behind \"{}\"{}", shown_word(word), path_of(*line_.command),
        missing.empty() ? "; --help shows what is" : fmt::format("; {} is missing", fmt::join(missing, ", "))));
  }

  [[noreturn]] void refuse_option(const std::string& name) const {
    refuse_early_option(name);
    const std::string path = path_of(*line_.command);
    const Texts names = options_for(*line_.command);
    const std::string meant = nearest(name, names);
    const std::string hint = meant.empty() ? "it" : fmt::format("did you mean {}? It", meant);
    throw UsageError(fmt::format(
        "{} has no option {}; {} has {}", path.empty() ? "keyloader itself" : fmt::format("\"{}\"", path),
        may_be_shown(name) ? name : fmt::format("of {} characters", name.size()), hint, fmt::join(names, ", ")));
  }

  // `--owner web key create`
  void refuse_early_option(const std::string& name) const {
    const CLI::App* command = line_.command;
    for (std::size_t i = at_ + 1; i < words_.size(); ++i) {
      if (const CLI::App* below = command_named(*command, words_[i])) {
        command = below;
      }
    }
    if (command != line_.command && command->get_option_no_throw(name) != nullptr) {
      throw UsageError(
          fmt::format("options of a command are written after it: keyloader {} {} …", path_of(*command), name));
    }
  }

  const CLI::App& app_;
  const Texts& words_;
  bool is_unfinished_;
  CommandLine line_;
  std::size_t at_ = 0;
  bool is_rest_ = false;                   // behind `--`
  const CLI::Option* repeated_ = nullptr;  // the option before this word, if it can be given again
  std::string repeated_name_;
};

}  // namespace

void check_command_line(const CLI::App& app, const Texts& words) {
  Reader reader(app, words, false);
  static_cast<void>(reader.read());
  reader.check_end();
}

CommandLine read_unfinished(const CLI::App& app, const Texts& words) { return Reader(app, words, true).read(); }

const CLI::App& find_command(const CLI::App& app, const Texts& words) {
  const CLI::App* command = &app;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const CLI::App* below = command_named(*command, words[i]);
    if (below == nullptr) {
      refuse_command(*command, words[i], i + 1 < words.size() ? words[i + 1] : "");
    }
    command = below;
  }
  return *command;
}

std::string path_of(const CLI::App& command) {
  if (command.get_parent() == nullptr) {
    return "";
  }
  const std::string above = path_of(*command.get_parent());
  return above.empty() ? command.get_name() : above + " " + command.get_name();
}

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* command) { return !command->get_group().empty(); });
}

Texts options_for(const CLI::App& command) {
  Texts names;
  const auto add = [&names](const CLI::App& app) {
    for (const CLI::Option* option : app.get_options([](const CLI::Option*) { return true; })) {
      for (const std::string& name : option->get_lnames()) {
        if (std::find(names.begin(), names.end(), "--" + name) == names.end()) {
          names.push_back("--" + name);
        }
      }
    }
  };
  add(command);
  if (command.get_parent() != nullptr) {
    add(root_of(command));
  }
  return names;
}

bool is_flag(const CLI::Option& option) { return option.get_items_expected_max() == 0; }

}  // namespace keyloader
