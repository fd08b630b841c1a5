// keyloader: issues, limits, revokes and imports API keys, and hands them to nginx as sealed snapshots.
// This file only builds the command line and turns whatever happened into an exit code:
// 0 done and active, 1 refused or failed, 2 used wrongly, 3 done in the registry but not (yet) active in nginx, or
// waiting for a second person.
#include <fmt/format.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <clocale>
#include <csignal>
#include <cstdlib>

#include "approval.hpp"
#include "command_line.hpp"
#include "completion.hpp"
#include "directory_owner.hpp"
#include "hint.hpp"
#include "session.hpp"

namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr int kNotActive = 3;

// Before the command that was asked for is run. `init` does it itself, as it may give the directory to another user
// first.
void take_identity(const CLI::App& app, const keyloader::Session& session) {
  const auto is = [](const CLI::App& parent, const char* name) { return parent.got_subcommand(name); };
  for (const char* name : {"init", "help", "version", "manual", "completion"}) {
    if (is(app, name)) {
      return;
    }
  }
  const bool removes = is(app, "node") && is(*app.get_subcommand("node"), "prune");
  keyloader::become_owner(session.directory,
                          removes ? keyloader::KeptRight::read_and_write : keyloader::KeptRight::read);
}

void build(CLI::App& app, keyloader::Session& session) {
  app.name("keyloader");
  keyloader::set_help_format(app);
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
  app.add_option("--key-file", session.key_file, "Make the change as the administrator whose key is in FILE; -: stdin")
      ->envname("APIKEY_KEY_FILE")
      ->type_name("FILE");
  app.add_flag("--break-glass", session.breaks_glass, "Pass over the policy, with --reason; it is written down");
  keyloader::Command command(app);
  keyloader::add_owner_commands(command, session);
  keyloader::add_plan_commands(command, session);
  keyloader::add_role_commands(command, session);
  keyloader::add_key_commands(command, session);
  keyloader::add_admin_commands(command, session);
  keyloader::add_policy_commands(command, session);
  keyloader::add_approval_commands(command, session);
  keyloader::add_quota_commands(command, session);
  keyloader::add_find_command(command, session);
  keyloader::add_status_command(command, session);
  keyloader::add_doctor_command(command, session);
  keyloader::add_why_command(command, session);
  keyloader::add_locations_command(command, session);
  keyloader::add_check_command(command, session);
  keyloader::add_publish_command(command, session);
  keyloader::add_snapshot_commands(command, session);
  keyloader::add_node_commands(command, session);
  keyloader::add_init_command(command, session);
  keyloader::add_registry_commands(command, session);
  keyloader::add_import_command(command, session);
  keyloader::add_usage_commands(command, session);
  keyloader::add_audit_commands(command, session);
  keyloader::add_pepper_commands(command, session);
  keyloader::add_help_commands(command, app);
  keyloader::add_completion_command(command);
  keyloader::add_manual_commands(command, app);
  // Behind the commands, which would take it for theirs.
  app.footer(
      "Secrets are only ever written to standard output, and read from standard input or --key-file.\n"
      "Exit codes: 0 done and active in nginx (or nothing to do), 1 refused or failed, 2 used wrongly,\n"
      "3 done in the registry, but not (yet) active in nginx, or waiting for a second person.\n\n"
      "A first key:\n"
      "  keyloader init\n"
      "  keyloader plan create basic --rate 10/s --burst 20\n"
      "  keyloader key create --owner acme --create-owner --plan basic --scope orders:read\n"
      "`keyloader help` lists all commands; each has its own --help with examples.");
}

// A variable that a script failed to fill must not make a change that of `local`.
void refuse_empty_key_file() {
  const char* const file = std::getenv("APIKEY_KEY_FILE");  // NOLINT(concurrency-mt-unsafe): there is one thread
  if (file != nullptr && *file == '\0') {
    throw keyloader::UsageError(
        "APIKEY_KEY_FILE is empty: let it name the file of an administrator's key, or unset it");
  }
}

int run(int argc, char** argv) {
  keyloader::Session session;
  CLI::App app{"Issues, limits and revokes API keys, and hands them to nginx."};
  build(app, session);
  const keyloader::Texts words(argv + std::min(argc, 1), argv + argc);
  app.parse_complete_callback([&] {
    keyloader::set_hint_directory(session.directory);
    take_identity(app, session);
  });
  if (!words.empty() && words.front() == keyloader::kCompleteWords) {
    keyloader::print_out(keyloader::completions(app, session, {words.begin() + 1, words.end()}));
    return session.exit_code;
  }
  try {
    refuse_empty_key_file();
    keyloader::check_command_line(app, words);
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
  } catch (const keyloader::WaitsForApproval& waits) {
    keyloader::report_request(session, waits);
    return kNotActive;
  } catch (const keyloader::NotActive& error) {
    keyloader::Session::warn(error.what());
    return kNotActive;
  }
}

}  // namespace

int main(int argc, char** argv) {
  // Whatever is made is private first; what nginx reads gets its mode by name.
  umask(0077);
  // How wide a character is, depends on it (table.cpp); nothing else does.
  static_cast<void>(std::setlocale(LC_CTYPE, "C.UTF-8"));
  // A reader that went away is an error to report, not a reason to die between commit and publish.
  static_cast<void>(std::signal(SIGPIPE, SIG_IGN));
  try {
    return run(argc, argv);
  } catch (const keyloader::ReadByNobody&) {
    // As a program that does not ignore the signal.
    static_cast<void>(std::signal(SIGPIPE, SIG_DFL));
    return std::raise(SIGPIPE);
  } catch (const std::exception& error) {
    keyloader::Session::warn(error.what());
    return kFailed;
  }
}
