// keyloader: issues, limits, revokes and imports API keys, and hands them to nginx as sealed snapshots.
// This file only builds the command line and turns whatever happened into an exit code:
// 0 done and active, 1 refused or failed, 2 used wrongly, 3 done in the registry but not (yet) active in nginx.
#include <fmt/format.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <array>
#include <csignal>

#include "session.hpp"
#include "words.hpp"

namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr int kNotActive = 3;

// In this order --help shows them. What is in none of them is left out there, and a test complains.
struct Group {
  std::string_view name;
  std::string_view commands;
};
constexpr std::array kGroups = {
    Group{"Keys", "owner plan role key quota find"},
    Group{"nginx", "status doctor publish snapshot node"},
    Group{"Data", "init import usage audit pepper"},
    Group{"Help", "help version completion manual"},
};

// Every page of help names the options that each command has.
class Formatter : public CLI::Formatter {
 public:
  std::string make_footer(const CLI::App* app) const override {
    const std::string above = app->get_parent() == nullptr ? "" : "\nAlso: --dir DIR, --runtime DIR, --json, -h\n";
    return CLI::Formatter::make_footer(app) + above;
  }
};

void group(CLI::App& app) {
  for (const Group& group : kGroups) {
    for (const std::string& name : CLI::detail::split(std::string{group.commands}, ' ')) {
      app.get_subcommand(name)->group(std::string{group.name});
    }
  }
}

// What they print is all they do: a reader that goes away ends them quietly, as it does any other tool.
bool only_reads(const CLI::App& app) {
  constexpr std::array kReading = {"list",      "show", "status", "doctor",     "usage",
                                   "statement", "help", "manual", "completion", "version"};
  const auto commands = app.get_subcommands();
  return commands.empty() ? std::find(kReading.begin(), kReading.end(), app.get_name()) != kReading.end()
                          : only_reads(*commands.front());
}

void build(CLI::App& app, keyloader::Session& session) {
  app.name("keyloader");
  app.formatter(std::make_shared<Formatter>());
  app.set_version_flag("--version", "keyloader " KEYLOADER_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.option_defaults()->group("Options");
  app.set_help_flag("-h,--help", "What this command does, with examples");
  app.add_option("--dir", session.directory, "The node's directory")
      ->envname("APIKEY_DIR")
      ->capture_default_str()
      ->type_name("DIR");
  app.add_option("--runtime", session.runtime, "Another directory to look for running nginx instances in")
      ->envname("APIKEY_RUNTIME")
      ->type_name("DIR");
  app.add_flag("--json", session.is_json, "Answer in JSON on standard output");
  app.footer(
      "Secrets are only ever written to standard output and read from standard input.\n"
      "Exit codes: 0 done and active in nginx (or nothing to do), 1 refused or failed, 2 used wrongly,\n"
      "3 done in the registry, but not (yet) active in nginx.\n\n"
      "A first key:\n"
      "  keyloader init\n"
      "  keyloader plan create basic --rate 10/s --burst 20\n"
      "  keyloader key create --owner acme --create-owner --plan basic --scope orders:read\n"
      "Each command has its own --help with examples.");
  keyloader::Command command(app);
  keyloader::add_owner_commands(command, session);
  keyloader::add_plan_commands(command, session);
  keyloader::add_role_commands(command, session);
  keyloader::add_key_commands(command, session);
  keyloader::add_quota_commands(command, session);
  keyloader::add_find_command(command, session);
  keyloader::add_status_command(command, session);
  keyloader::add_doctor_command(command, session);
  keyloader::add_publish_command(command, session);
  keyloader::add_snapshot_commands(command, session);
  keyloader::add_node_commands(command, session);
  keyloader::add_init_command(command, session);
  keyloader::add_import_command(command, session);
  keyloader::add_usage_commands(command, session);
  keyloader::add_audit_commands(command, session);
  keyloader::add_pepper_commands(command, session);
  keyloader::add_manual_commands(command, app);
  group(app);
}

int run(int argc, char** argv) {
  keyloader::Session session;
  CLI::App app{"Issues, limits and revokes API keys, and hands them to nginx."};
  build(app, session);
  try {
    keyloader::check_words(app, {argv + 1, argv + argc});
    app.parse(argc, argv);
    return session.exit_code;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      return app.exit(error);
    }
    keyloader::Session::warn(fmt::format("{} (--help shows how)", error.what()));
    return kUsage;
  } catch (const keyloader::UsageError& error) {
    keyloader::Session::warn(error.what());
    return kUsage;
  } catch (const keyloader::NotActive& error) {
    keyloader::Session::warn(error.what());
    return kNotActive;
  } catch (const keyloader::NobodyReads&) {
    if (only_reads(app)) {
      static_cast<void>(std::signal(SIGPIPE, SIG_DFL));
      static_cast<void>(std::raise(SIGPIPE));
    }
    throw;
  }
}

}  // namespace

int main(int argc, char** argv) {
  // Whatever is made is private first; what nginx reads gets its mode by name.
  umask(0077);
  // A reader that went away is an error to report, not a reason to die between commit and publish.
  static_cast<void>(std::signal(SIGPIPE, SIG_IGN));
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    keyloader::Session::warn(error.what());
    return kFailed;
  }
}
