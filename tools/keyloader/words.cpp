// Walking the words beside the tree of commands.
#include "words.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <numeric>
#include <set>

#include "registry/registry.hpp"

namespace keyloader {
namespace {

using Words = std::vector<std::string>;

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* command) { return !command->get_name().empty(); });
}

const CLI::App* command_of(const CLI::App& app, const std::string& name) {
  for (const CLI::App* command : commands_of(app)) {
    if (command->get_name() == name) {
      return command;
    }
  }
  return nullptr;
}

Words names_of(const CLI::App& app) {
  Words names;
  for (const CLI::App* command : commands_of(app)) {
    names.push_back(command->get_name());
  }
  return names;
}

std::vector<const CLI::Option*> options_of(const CLI::App& app) {
  return app.get_options([](const CLI::Option* option) { return !option->get_positional(); });
}

const CLI::Option* own_option(const CLI::App& app, const std::string& name) {
  for (const CLI::Option* option : options_of(app)) {
    if (option->check_name(name)) {
      return option;
    }
  }
  return nullptr;
}

// Options of the commands above count, too.
const CLI::Option* option_of(const CLI::App& app, const std::string& name) {
  for (const CLI::App* command = &app; command != nullptr; command = command->get_parent()) {
    if (const CLI::Option* option = own_option(*command, name)) {
      return option;
    }
  }
  return nullptr;
}

Words option_names(const CLI::App& app) {
  Words names;
  for (const CLI::App* command = &app; command != nullptr; command = command->get_parent()) {
    for (const CLI::Option* option : options_of(*command)) {
      for (const std::string& name : option->get_lnames()) {
        if (std::find(names.begin(), names.end(), "--" + name) == names.end()) {
          names.push_back("--" + name);
        }
      }
    }
  }
  return names;
}

bool takes_value(const CLI::Option& option) { return option.get_items_expected_max() != 0; }

bool is_option(const std::string& word) { return word.size() > 1 && word.front() == '-'; }

// How many letters are to be changed, added, left out or swapped (Damerau-Levenshtein, optimal string alignment).
std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<std::size_t>> steps(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  std::iota(steps[0].begin(), steps[0].end(), 0U);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    steps[i][0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
      steps[i][j] = std::min({steps[i - 1][j] + 1, steps[i][j - 1] + 1, steps[i - 1][j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        steps[i][j] = std::min(steps[i][j], steps[i - 2][j - 2] + 1);
      }
    }
  }
  return steps[a.size()][b.size()];
}

[[noreturn]] void fail(const std::string& sentence) { throw UsageError(sentence); }

// A key that was written here by mistake must not be printed.
std::string shown_word(const std::string& word) {
  constexpr std::size_t kLongest = 32;
  constexpr std::size_t kBeginning = 4;
  return word.size() <= kLongest ? word : word.substr(0, kBeginning) + "…";
}

// Paths of all commands below that have this name: "key create", "owner create".
void collect_paths(const CLI::App& app, const std::string& name, const std::string& above, Words& paths) {
  for (const CLI::App* command : commands_of(app)) {
    const std::string path = above.empty() ? command->get_name() : above + " " + command->get_name();
    if (command->get_name() == name) {
      paths.push_back(path);
    }
    collect_paths(*command, name, path, paths);
  }
}

std::string quoted(const Words& words) {
  return fmt::format("\"{}\"", fmt::join(words, words.size() == 2 ? "\" or \"" : "\", \""));
}

std::string what_was_meant(const CLI::App& app, const std::string& word, const std::string& next) {
  const std::string above = app.get_parent() == nullptr ? "" : path_of(app).substr(sizeof "keyloader");
  const std::string before = above.empty() ? "" : above + " ";
  // `create key` for `key create`.
  if (const CLI::App* group = next.empty() ? nullptr : command_of(app, nearest(next, names_of(app)))) {
    if (const std::string name = nearest(word, names_of(*group)); !name.empty()) {
      return fmt::format("did you mean \"{}{} {}\"?", before, group->get_name(), name);
    }
  }
  if (const std::string name = nearest(word, names_of(app)); !name.empty()) {
    return fmt::format("did you mean \"{}{}\"?", before, name);
  }
  Words paths;
  collect_paths(app, word, above, paths);
  if (!paths.empty()) {
    return fmt::format("did you mean {}?", quoted(paths));
  }
  return app.get_parent() == nullptr ? "`keyloader help` shows the commands"
                                     : fmt::format("it has {}", quoted(names_of(app)));
}

[[noreturn]] void fail_unknown_command(const CLI::App& app, const std::string& word, const std::string& next) {
  const std::string where = app.get_parent() == nullptr ? "" : fmt::format(" in \"{}\"", path_of(app));
  fail(fmt::format("there is no command \"{}\"{}; {}", shown_word(word), where, what_was_meant(app, word, next)));
}

bool has_anywhere(const CLI::App& app, const std::string& option) {
  const auto commands = commands_of(app);
  return own_option(app, option) != nullptr ||
         std::any_of(commands.begin(), commands.end(),
                     [&](const CLI::App* command) { return has_anywhere(*command, option); });
}

[[noreturn]] void fail_unknown_option(const CLI::App& app, const std::string& name) {
  if (!commands_of(app).empty() && has_anywhere(app, name)) {
    fail(fmt::format("{} stands before its command; options of a command are written after it", name));
  }
  const Words names = option_names(app);
  const std::string close = nearest(name, names);
  fail(fmt::format("\"{}\" has no option {}; {}it has {}", path_of(app), name,
                   close.empty() ? "" : fmt::format("did you mean {}? ", close), fmt::join(names, " ")));
}

class Walk {
 public:
  Walk(const CLI::App& app, const Words& words) : app_(&app), words_(words) {}

  void run() {
    bool are_arguments = false;  // behind `--`
    for (at_ = 0; at_ < words_.size(); ++at_) {
      const std::string& word = words_[at_];
      if (!are_arguments && word == "--") {
        are_arguments = true;
      } else if (!are_arguments && is_option(word)) {
        read_option(word);
      } else {
        read_word(word);
      }
    }
    if (!asks_for_help_ && app_->get_require_subcommand_min() != 0) {
      fail(app_->get_parent() == nullptr
               ? "which command? `keyloader help` shows them all"
               : fmt::format("\"{}\" needs a command: {}", path_of(*app_), quoted(names_of(*app_))));
    }
  }

 private:
  [[nodiscard]] std::string next(std::size_t ahead = 1) const {
    return at_ + ahead < words_.size() && !is_option(words_[at_ + ahead]) ? words_[at_ + ahead] : "";
  }

  void read_option(const std::string& word) {
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const CLI::Option* const option = option_of(*app_, name);
    if (option == nullptr) {
      fail_unknown_option(*app_, name);
    }
    asks_for_help_ = asks_for_help_ || name == "-h" || name == "--help" || name == "--version";
    if (!takes_value(*option)) {
      return;
    }
    given_.insert(option);
    last_ = option;
    if (equals != std::string::npos) {
      if (equals + 1 == word.size()) {
        fail(
            fmt::format("{} has an empty value, which says nothing; leave it out, or write `none` where a value can "
                        "be cleared",
                        name));
      }
      return;
    }
    if (at_ + 1 == words_.size()) {
      fail(fmt::format("{} needs a value: {} {}", name, name, option->get_type_name()));
    }
    const std::string& value = words_[at_ + 1];
    const CLI::App* const swallowed = app_->get_parent() == nullptr ? command_of(*app_, value) : nullptr;
    if (swallowed != nullptr && (at_ + 2 == words_.size() || command_of(*swallowed, words_[at_ + 2]) != nullptr)) {
      fail(fmt::format("{} needs a value, and \"{}\" is a command; write {} {} {} …", name, value, name,
                       option->get_type_name(), value));
    }
    ++at_;
  }

  void read_word(const std::string& word) {
    if (!commands_of(*app_).empty()) {
      const CLI::App* const command = command_of(*app_, word);
      if (command == nullptr) {
        fail_unknown_command(*app_, word, next());
      }
      app_ = command;
      return;
    }
    ++arguments_;
    std::size_t most = 0;
    for (const CLI::Option* option :
         app_->get_options([](const CLI::Option* each) { return each->get_positional(); })) {
      const int items = option->get_items_expected_max();
      most = std::min<std::size_t>(CLI::detail::expected_max_vector_size, most + static_cast<std::size_t>(items));
    }
    if (arguments_ > most) {
      fail_word_too_many(word);
    }
  }

  [[noreturn]] void fail_word_too_many(const std::string& word) const {
    std::string hint;
    if (last_ != nullptr && last_->get_items_expected_max() > 1 && at_ >= 2 && words_[at_ - 1] != word) {
      hint = fmt::format("; for more than one write {} again: {} {}", last_->get_name(), last_->get_name(), word);
    }
    for (const CLI::Option* option : options_of(*app_)) {
      if (hint.empty() && option->get_required() && given_.count(option) == 0) {
        hint = fmt::format("; {} is missing", option->get_name());
      }
    }
    fail(fmt::format("\"{}\" is one word too many for \"{}\"{}", shown_word(word), path_of(*app_), hint));
  }

  const CLI::App* app_;
  const Words& words_;
  std::size_t at_ = 0;
  std::size_t arguments_ = 0;
  const CLI::Option* last_ = nullptr;
  std::set<const CLI::Option*> given_;
  bool asks_for_help_ = false;
};

}  // namespace

std::string path_of(const CLI::App& command) {
  const CLI::App* const parent = command.get_parent();
  return parent == nullptr ? "keyloader" : fmt::format("{} {}", path_of(*parent), command.get_name());
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  constexpr std::size_t kLettersPerMistake = 3;
  std::string best;
  std::size_t least = std::max<std::size_t>(1, word.size() / kLettersPerMistake) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t steps = distance(word, candidate);
    if (steps < least && steps < candidate.size()) {
      least = steps;
      best = candidate;
    }
  }
  return best;
}

const CLI::App& find_command(const CLI::App& app, const std::vector<std::string>& path) {
  const CLI::App* at = &app;
  for (std::size_t i = 0; i < path.size(); ++i) {
    const CLI::App* const command = command_of(*at, path[i]);
    if (command == nullptr) {
      fail_unknown_command(*at, path[i], i + 1 < path.size() ? path[i + 1] : "");
    }
    at = command;
  }
  return *at;
}

void check_words(const CLI::App& app, const std::vector<std::string>& words) { Walk(app, words).run(); }

}  // namespace keyloader
