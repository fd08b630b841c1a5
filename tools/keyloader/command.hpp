// One command of the command line, with its options: a small skin over CLI11, so that only command.cpp, manual.cpp and
// main.cpp have to read that library's headers.
// Called by every command file. What options write to must live until the command has run.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace keyloader {

struct Session;

// How a changing command hands its change to nginx.
struct DeliveryOptions {
  bool is_quiet = false;              // --no-publish
  bool does_not_wait = false;         // --no-wait
  bool is_dry_run = false;            // --dry-run
  std::optional<std::string> wait{};  // --wait: how long
};
inline constexpr std::uint64_t kDefaultWaitMs = 2000;

class ReadByNobody : public std::exception {};

class Command {
 public:
  explicit Command(CLI::App& app) : app_(&app) {}

  // A command below this one. A group does nothing itself and asks for one of its commands.
  [[nodiscard]] Command add(const std::string& name, const std::string& help);
  [[nodiscard]] Command add_group(const std::string& name, const std::string& help);

  // Words without a dash before them; `arguments` takes any number of them.
  Command& argument(const std::string& name, std::string& value, const std::string& help);
  Command& optional_argument(const std::string& name, std::string& value, const std::string& help);
  Command& arguments(const std::string& name, std::vector<std::string>& values, const std::string& help);

  // `--name VALUE`. An optional tells "not given" from "given and empty".
  Command& option(const std::string& name, std::string& value, const std::string& type, const std::string& help);
  Command& option(const std::string& name, std::optional<std::string>& value, const std::string& type,
                  const std::string& help);
  Command& option(const std::string& name, std::uint64_t& value, const std::string& type, const std::string& help);
  Command& option(const std::string& name, std::optional<std::uint64_t>& value, const std::string& type,
                  const std::string& help);
  Command& required_option(const std::string& name, std::string& value, const std::string& type,
                           const std::string& help);
  Command& choice(const std::string& name, std::string& value, const std::vector<std::string>& allowed,
                  const std::string& type, const std::string& help);
  // May be given again, one word each time: `--scope a --scope b NAME`.
  Command& words(const std::string& name, std::vector<std::string>& values, const std::string& type,
                 const std::string& help);
  Command& flag(const std::string& name, bool& value, const std::string& help);
  // --wait, --no-wait, of every command that publishes.
  Command& waits(DeliveryOptions& options);
  // These and --no-publish, of every command that changes something.
  Command& delivers(DeliveryOptions& options);

  // --dry-run, of those that change what is there.
  Command& tries(DeliveryOptions& options);

  // What stands under the options in --help: rules and examples.
  Command& footer(const std::string& text);
  // What the command does, once everything has been read.
  Command& run(std::function<void()> action);
  // The same for what is done on the machine itself: with an administrator's key it is refused before anything is done.
  Command& run_on_machine(const Session& session, std::function<void()> action);
  // The same for a command that only reads. When whoever reads its answer has gone, as `head` does, it throws
  // ReadByNobody, and the program ends as quietly as others do.
  Command& read(std::function<void()> action);
  // The same for a command that has others below it: when none of them was asked for.
  Command& read_alone(std::function<void()> action);

 private:
  CLI::App* app_;
};

}  // namespace keyloader
