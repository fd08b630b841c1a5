// keyloader completion: scripts for shells, which ask `keyloader complete-words` what may stand next. So they know the
// commands and options as they are, and the owners, plans, roles and keys of the registry.
#include "completion.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>

#include "admin_roles.hpp"
#include "command_line.hpp"
#include "directory_owner.hpp"
#include "names.hpp"
#include "policy_actions.hpp"

namespace keyloader {
namespace {

// COMP_WORDS holds `--owner=acme` as three words; complete-words knows that. bash inserts a word as it stands in
// COMPREPLY, so the function quotes it: a name such as `a$(reboot)` must not run. It leaves out words that bash quotes
// as $'…', which do not stay quoted within the quotes that somebody is typing.
constexpr std::string_view kBash =
    R"(# bash completion for keyloader, made by `keyloader completion bash`
_keyloader() {
  local -a words=("${COMP_WORDS[@]:1:COMP_CWORD}")
  local word
  COMPREPLY=()
  while IFS= read -r word; do
    printf -v word %q "$word"
    [[ $word == *\$\'* ]] || COMPREPLY+=("$word")
  done < <("${COMP_WORDS[0]}" complete-words "${words[@]//\\/}" 2>/dev/null)
}
complete -o default -F _keyloader keyloader
)";

// compadd quotes what it inserts.
constexpr std::string_view kZsh =
    R"(#compdef keyloader
# zsh completion for keyloader, made by `keyloader completion zsh`
_keyloader() {
  local -a found
  found=("${(@f)$("${words[1]}" complete-words "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "${found[1]}" ]]; then
    compadd -a found
  else
    _files
  fi
}
if [[ "${funcstack[1]}" = _keyloader ]]; then
  _keyloader
else
  compdef _keyloader keyloader
fi
)";

// fish quotes what it inserts.
constexpr std::string_view kFish =
    R"(# fish completion for keyloader, made by `keyloader completion fish`
function __keyloader_ask
    set -l words (commandline -opc) (commandline -ct)
    set -g __keyloader_found ($words[1] complete-words $words[2..-1] 2>/dev/null)
    test -n "$__keyloader_found"
end
complete -c keyloader -n __keyloader_ask -f -a '$__keyloader_found'
)";

enum class Kind {
  none,
  owners,
  plans,
  roles,
  keys,
  refs,
  teams,
  admin_roles,
  callers,   // local, and administrators' keys
  actions,   // that can wait for a second person
  requests,  // those that wait
  all_requests
};

constexpr std::array<std::pair<std::string_view, Kind>, 8> kKinds{{{"owner", Kind::owners},
                                                                   {"plan", Kind::plans},
                                                                   {"role", Kind::roles},
                                                                   {"key", Kind::keys},
                                                                   {"ref", Kind::refs},
                                                                   {"team", Kind::teams},
                                                                   {"as", Kind::callers},
                                                                   {"approve-action", Kind::actions}}};

Kind kind_named(std::string_view name) {
  for (const auto& [word, kind] : kKinds) {
    if (word == name) {
      return kind;
    }
  }
  return Kind::none;
}

// What the value of `option` is called by: `--owner` by itself, the NAME of `owner show` by its family.
Kind kind_of(const CLI::App& command, const CLI::Option& option) {
  const std::string path = path_of(command);
  if (!option.get_positional()) {
    const std::string name = option.get_lnames().empty() ? std::string{} : option.get_lnames().front();
    if (name == "ref" && (command.get_name() == "create" || command.get_name() == "set")) {
      return Kind::none;  // a new one
    }
    const bool is_of_admin = path == "admin create" || path == "admin set";
    return is_of_admin && name.ends_with("role") ? Kind::admin_roles : kind_named(name);
  }
  if (option.get_name() == "REQUEST") {
    return command.get_name() == "show" ? Kind::all_requests : Kind::requests;
  }
  if (path == "owner erase") {
    return Kind::none;  // it is for owners that are no more
  }
  if (option.get_name() == "ID" && command.get_parent()->get_name() != "pepper") {
    return Kind::keys;
  }
  return command.get_name() == "create" ? Kind::none : kind_named(command.get_parent()->get_name());
}

std::filesystem::path directory_of(const CLI::App& app, const Session& session, const Texts& words) {
  std::filesystem::path directory = session.directory;
  if (const char* named = std::getenv(app.get_option("--dir")->get_envname().c_str())) {
    directory = named;
  }
  constexpr std::string_view joined = "--dir=";
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--dir" && i + 1 < words.size()) {
      directory = words[i + 1];
    } else if (words[i].rfind(joined, 0) == 0) {
      directory = words[i].substr(joined.size());
    }
  }
  return directory;
}

template <typename Named>
void add_names(const std::vector<Named>& all, Texts& names) {
  std::transform(all.begin(), all.end(), std::back_inserter(names), [](const Named& each) { return each.name; });
}

Texts of_keys(Registry& registry, const std::function<std::string(const Key&)>& text_of_key) {
  Texts texts;
  registry.each_key({}, [&](const Key& key) {
    if (std::string text = text_of_key(key); !text.empty()) {
      texts.push_back(std::move(text));
    }
    return true;
  });
  return texts;
}

Texts requests_of(Registry& registry, bool shows_all) {
  Texts numbers;
  for (const Approval& approval : registry.approvals()) {
    if (shows_all || approval.state == "pending") {
      numbers.push_back(std::to_string(approval.number));
    }
  }
  return numbers;
}

Texts names_in(Registry& registry, Kind kind) {
  Texts names;
  switch (kind) {
    case Kind::owners:
      add_names(registry.owners(), names);
      return names;
    case Kind::plans:
      add_names(registry.plans(), names);
      return names;
    case Kind::roles:
      add_names(registry.roles(), names);
      return names;
    case Kind::keys:
      return of_keys(registry, [](const Key& key) { return text_of(key.id); });
    case Kind::refs:
      return of_keys(registry, [](const Key& key) { return key.ref; });
    case Kind::teams:
      return teams_of(registry);
    case Kind::callers:
      names =
          of_keys(registry, [](const Key& key) { return key.admin_scopes.empty() ? std::string{} : text_of(key.id); });
      names.emplace_back("local");
      return names;
    case Kind::requests:
    case Kind::all_requests:
      return requests_of(registry, kind == Kind::all_requests);
    case Kind::none:
    case Kind::actions:
    case Kind::admin_roles:
      break;
  }
  return names;
}

Texts names_of(Kind kind, const std::filesystem::path& directory) {
  if (kind == Kind::actions) {
    return approvable_actions();
  }
  if (kind == Kind::admin_roles) {
    return admin_roles();
  }
  become_owner(directory);
  return names_in(*DataDir{directory}.open_registry(), kind);
}

// CLI11 keeps what a choice allows only as text behind the type: "STATE:{active,revoked}".
Texts choices_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const std::size_t begin = type.find('{');
  Texts choices;
  if (begin == std::string::npos) {
    return choices;
  }
  std::string list = type.substr(begin + 1, type.find('}') - begin - 1);
  for (std::size_t comma = 0; comma != std::string::npos;) {
    comma = list.find(',');
    choices.push_back(list.substr(0, comma));
    list.erase(0, comma == std::string::npos ? comma : comma + 1);
  }
  return choices;
}

// The argument that word number `at` is for.
const CLI::Option* argument_at(const CLI::App& command, std::size_t at) {
  for (const CLI::Option* option :
       command.get_options([](const CLI::Option* each) { return each->get_positional(); })) {
    const auto room = static_cast<std::size_t>(option->get_items_expected_max());
    if (at < room) {
      return option;
    }
    at -= room;
  }
  return nullptr;
}

Texts candidates(const CLI::App& app, const Session& session, const Texts& before, const std::string& word) {
  const CommandLine line = read_unfinished(app, before);
  if (line.command != &app && path_of(*line.command) == "help" && word.rfind('-', 0) != 0) {
    Texts named(before.begin() + 1, before.end());
    Texts names;
    for (const CLI::App* command : commands_of(find_command(app, named))) {
      names.push_back(command->get_name());
    }
    return names;
  }
  const CLI::Option* value_of = line.awaiting;
  if (value_of == nullptr && word.rfind('-', 0) == 0) {
    return options_for(*line.command);
  }
  Texts names;
  if (value_of == nullptr) {
    for (const CLI::App* command : commands_of(*line.command)) {
      names.push_back(command->get_name());
    }
    value_of = argument_at(*line.command, line.arguments);
  }
  if (value_of != nullptr) {
    const Texts choices = choices_of(*value_of);
    names.insert(names.end(), choices.begin(), choices.end());
    if (const Kind kind = kind_of(*line.command, *value_of); kind != Kind::none) {
      const Texts registered = names_of(kind, directory_of(app, session, before));
      names.insert(names.end(), registered.begin(), registered.end());
    }
  }
  return names;
}

// bash makes words of their own of the `=` in `--owner=ac`; other shells leave all in one.
std::pair<Texts, std::string> split_at_equals(Texts words) {
  std::string prefix;
  if (words.empty()) {
    words.emplace_back();
  }
  for (std::size_t i = 1; i < words.size(); ++i) {
    if (words[i] != "=" || words[i - 1].rfind("--", 0) != 0) {
      continue;
    }
    if (i + 1 == words.size()) {
      words[i].clear();
    } else {
      words.erase(words.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
  const std::string last = words.back();
  const std::size_t equals = last.find('=');
  if (last.rfind("--", 0) == 0 && equals != std::string::npos) {
    prefix = last.substr(0, equals + 1);
    words.back() = last.substr(0, equals);
    words.push_back(last.substr(equals + 1));
  }
  return {words, prefix};
}

}  // namespace

std::string completions(const CLI::App& app, const Session& session, const Texts& typed) {
  auto [words, prefix] = split_at_equals(typed);
  const std::string word = words.back();
  words.pop_back();
  std::string text;
  try {
    for (const std::string& name : candidates(app, session, words, word)) {
      if (name.rfind(word, 0) == 0) {
        text += prefix + shown(name) + "\n";
      }
    }
  } catch (const std::exception&) {
    // Nobody who presses Tab wants to read a sentence in the middle of his own.
    return "";
  }
  return text;
}

void add_completion_command(Command& app) {
  auto shell = std::make_shared<std::string>("bash");
  Command completion = app.add("completion", "Print a completion script for a shell");
  completion.choice("SHELL", *shell, {"bash", "zsh", "fish"}, "SHELL", "bash, zsh or fish; bash is the default");
  completion.footer(
      "It knows commands, options and their choices, and the owners, plans, roles, keys, teams, refs and\n"
      "requests of the registry.\n\n"
      "  keyloader completion bash > /etc/bash_completion.d/keyloader\n"
      "  keyloader completion zsh > /usr/local/share/zsh/site-functions/_keyloader\n"
      "  keyloader completion fish > ~/.config/fish/completions/keyloader.fish\n"
      "  source <(keyloader completion bash)");
  completion.read([shell] { print_out(std::string{*shell == "zsh" ? kZsh : *shell == "fish" ? kFish : kBash}); });
}

}  // namespace keyloader
