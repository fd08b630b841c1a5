// What all commands share: where to work, how to answer, and the way from a change to nginx.
// Made by main.cpp, used by every command file.
#pragma once

#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>

#include "command.hpp"
#include "data_dir.hpp"
#include "output.hpp"
#include "registry/registry.hpp"

namespace keyloader {

struct Session {
  std::filesystem::path directory{"/var/lib/apikey"};
  std::filesystem::path runtime;  // a further place to look for node memory; empty: none
  std::string key_file;           // of the administrator who makes the changes; `-`: standard input; empty: nobody
  bool breaks_glass = false;      // changes pass over the policy
  bool is_json = false;
  int exit_code = 0;

  [[nodiscard]] DataDir dir() const { return DataDir{directory}; }
  // The registry of dir(), with changes made by whoever the command line names (caller.cpp).
  [[nodiscard]] std::unique_ptr<Registry> open_registry() const;

  // The result, on standard output: `json` with --json, else the sentence.
  void report(const std::string& sentence, const Json& json) const;

  // A list: `json` with --json, else a table. Where there are no rows, `none` says so on standard error: "no keys".
  // `leading`: that many columns stay columns where not all fit, and the others stand below each row; 0: all are cut.
  void report_table(const Texts& heading, const std::vector<Texts>& rows, const Json& json, const std::string& none,
                    std::size_t leading = 0) const;

  // One line on standard error, with the program's name before it.
  static void warn(const std::string& sentence);
  static void warn(const Texts& sentences);
};

// Done in the registry, but not (yet) active in nginx: exit code 3. what() is a complete sentence.
class NotActive : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// One line per command family; each adds its commands to `app` and keeps a reference to `session`.
void add_init_command(Command& app, Session& session);
void add_pepper_commands(Command& app, Session& session);
void add_owner_commands(Command& app, Session& session);
void add_plan_commands(Command& app, Session& session);
void add_role_commands(Command& app, Session& session);
void add_key_commands(Command& app, Session& session);
void add_admin_commands(Command& app, Session& session);
void add_doctor_command(Command& app, Session& session);
void add_status_command(Command& app, Session& session);
void add_locations_command(Command& app, Session& session);
void add_check_command(Command& app, Session& session);
void add_find_command(Command& app, Session& session);
void add_why_command(Command& app, Session& session);
void add_publish_command(Command& app, Session& session);
void add_snapshot_commands(Command& app, Session& session);
void add_registry_commands(Command& app, Session& session);
void add_import_command(Command& app, Session& session);
void add_policy_commands(Command& app, Session& session);
void add_approval_commands(Command& app, Session& session);
void add_quota_commands(Command& app, Session& session);
void add_node_commands(Command& app, Session& session);
void add_audit_commands(Command& app, Session& session);
void add_usage_commands(Command& app, Session& session);
void set_help_format(CLI::App& all);  // before the first command is added
void add_help_commands(Command& app, CLI::App& all);
void add_completion_command(Command& app);
void add_manual_commands(Command& app, CLI::App& all);  // made from the whole command line

}  // namespace keyloader
