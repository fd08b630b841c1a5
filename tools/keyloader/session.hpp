// What all commands share: where to work, how to answer, and the way from a change to nginx.
// Made by main.cpp, used by every command file.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "data_dir.hpp"
#include "registry/registry.hpp"

namespace keyloader {

struct Session {
  std::filesystem::path directory{"/var/lib/apikey"};
  bool is_json = false;
  int exit_code = 0;

  [[nodiscard]] DataDir dir() const { return DataDir{directory}; }

  // The result, on standard output: `json` with --json, else the sentence.
  void report(const std::string& sentence, const Json& json) const;

  // One line on standard error, with the program's name before it.
  static void warn(const std::string& sentence);
};

// Text on standard output. Throws when it cannot be written: what nobody saw did not happen.
void print_out(const std::string& text);

// Commits, then publishes unless `is_quiet` (--no-publish). When publishing fails the change stays, and says so.
void finish_change(const Session& session, Registry& registry, Change& change, bool is_quiet);

// The flag --no-publish of every command that changes something.
void add_no_publish(CLI::App* command, bool& is_quiet);

// An option that may be given again, one word each time: `--scope a --scope b NAME`.
void add_words(CLI::App* command, const std::string& name, Texts& values, const std::string& help,
               const std::string& type);

// One line per command family; each adds its subcommands to `app` and keeps a reference to `session`.
void add_init_command(CLI::App& app, Session& session);
void add_pepper_commands(CLI::App& app, Session& session);
void add_owner_commands(CLI::App& app, Session& session);
void add_plan_commands(CLI::App& app, Session& session);
void add_role_commands(CLI::App& app, Session& session);
void add_key_commands(CLI::App& app, Session& session);
void add_find_command(CLI::App& app, Session& session);
void add_publish_command(CLI::App& app, Session& session);
void add_snapshot_commands(CLI::App& app, Session& session);
void add_import_command(CLI::App& app, Session& session);
void add_audit_commands(CLI::App& app, Session& session);
void add_manual_commands(CLI::App& app, Session& session);

}  // namespace keyloader
