// The skin over CLI11. Called by every command file while the command line is defined; does nothing afterwards.
#include "command.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdlib>
#include <utility>

#include "output.hpp"
#include "session.hpp"

namespace keyloader {

namespace {

// A shell variable that is not set must not clear a restriction, nor ask for everything.
CLI::Option* refuse_empty(CLI::Option* option) {
  return option->check(
      [](const std::string& value) -> std::string {
        return value.empty() ? "an empty value says nothing; leave it out, or write `none` where a value can be cleared"
                             : "";
      },
      "");
}

std::string must_be_number(const std::string& text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool is_number = error == std::errc{} && end == text.data() + text.size();
  return is_number ? "" : fmt::format("\"{}\" is not a number; write digits only, such as 20", text);
}

}  // namespace

Command Command::add(const std::string& name, const std::string& help) {
  return Command(*app_->add_subcommand(name, help));
}

Command Command::add_group(const std::string& name, const std::string& help) {
  CLI::App* group = app_->add_subcommand(name, help);
  group->require_subcommand(1);
  return Command(*group);
}

Command& Command::argument(const std::string& name, std::string& value, const std::string& help) {
  refuse_empty(app_->add_option(name, value, help))->required();
  return *this;
}

Command& Command::optional_argument(const std::string& name, std::string& value, const std::string& help) {
  refuse_empty(app_->add_option(name, value, help));
  return *this;
}

Command& Command::arguments(const std::string& name, std::vector<std::string>& values, const std::string& help) {
  refuse_empty(app_->add_option(name, values, help));
  return *this;
}

Command& Command::option(const std::string& name, std::string& value, const std::string& type,
                         const std::string& help) {
  CLI::Option* option = refuse_empty(app_->add_option(name, value, help))->type_name(type);
  if (!value.empty()) {
    option->capture_default_str();
  }
  return *this;
}

Command& Command::option(const std::string& name, std::optional<std::string>& value, const std::string& type,
                         const std::string& help) {
  refuse_empty(app_->add_option_function<std::string>(
                   name, [&value](const std::string& text) { value = text; }, help))
      ->type_name(type);
  return *this;
}

Command& Command::option(const std::string& name, std::uint64_t& value, const std::string& type,
                         const std::string& help) {
  app_->add_option(name, value, help)->type_name(type)->check(must_be_number, "");
  return *this;
}

Command& Command::option(const std::string& name, std::optional<std::uint64_t>& value, const std::string& type,
                         const std::string& help) {
  app_->add_option_function<std::uint64_t>(
          name, [&value](const std::uint64_t& number) { value = number; }, help)
      ->type_name(type)
      ->check(must_be_number, "");
  return *this;
}

Command& Command::required_option(const std::string& name, std::string& value, const std::string& type,
                                  const std::string& help) {
  refuse_empty(app_->add_option(name, value, help))->type_name(type)->required();
  return *this;
}

Command& Command::choice(const std::string& name, std::string& value, const std::vector<std::string>& allowed,
                         const std::string& type, const std::string& help) {
  app_->add_option(name, value, help)->type_name(type)->check(CLI::IsMember(allowed));
  return *this;
}

Command& Command::words(const std::string& name, std::vector<std::string>& values, const std::string& type,
                        const std::string& help) {
  refuse_empty(app_->add_option(name, values, help))->type_name(type)->allow_extra_args(false);
  return *this;
}

Command& Command::flag(const std::string& name, bool& value, const std::string& help) {
  app_->add_flag(name, value, help);
  return *this;
}

Command& Command::waits(DeliveryOptions& options) {
  option("--wait", options.wait, "TIME",
         "How long to wait until nginx uses it (default: 2s); exit code 3 if it does not");
  return flag("--no-wait", options.does_not_wait, "Return as soon as it is published");
}

Command& Command::delivers(DeliveryOptions& options) {
  flag("--no-publish", options.is_quiet, "Change the registry only; nginx gets it with the next publish");
  return waits(options);
}

Command& Command::tries(DeliveryOptions& options) {
  return flag("--dry-run", options.is_dry_run, "Say what would be changed, and change nothing");
}

Command& Command::footer(const std::string& text) {
  app_->footer(text);
  return *this;
}

Command& Command::run(std::function<void()> action) {
  app_->callback(std::move(action));
  return *this;
}

Command& Command::run_on_machine(const Session& session, std::function<void()> action) {
  return run([&session, action = std::move(action)] {
    if (!session.key_file.empty()) {
      throw NotAllowed("this is done on the machine itself, without --key-file",
                       std::getenv("APIKEY_KEY_FILE") != nullptr  // NOLINT(concurrency-mt-unsafe): there is one thread
                           ? "; the key's file is named by APIKEY_KEY_FILE"
                           : "");
    }
    action();
  });
}

Command& Command::read(std::function<void()> action) {
  return run([action = std::move(action)] {
    try {
      action();
    } catch (const ReaderGone&) {
      throw ReadByNobody();
    }
  });
}

Command& Command::read_alone(std::function<void()> action) {
  return read([app = app_, action = std::move(action)] {
    if (app->get_subcommands().empty()) {
      action();
    }
  });
}

}  // namespace keyloader
