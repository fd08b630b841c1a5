// keyloader doctor: runs all checks, and says of each that found something what is wrong and what to do.
// Exit code 0: nothing is wrong. 1: something is.
#include "doctor.hpp"

#include <fmt/format.h>

#include "hint.hpp"

namespace keyloader {
namespace {

struct DoctorOptions {
  bool shows_all = false;
};

Examined examine(const Session& session) {
  const DataDir directory = session.dir();
  std::error_code error;
  const bool has_any = std::filesystem::exists(directory.registry_file(), error) ||
                       std::filesystem::exists(directory.snapshot_file(), error);
  if (!has_any) {
    static_cast<void>(directory.open_registry());  // says that there is nothing, and what to do
  }
  Examined examined{.session = session,
                    .directory = directory,
                    .registry = nullptr,
                    .registry_problem = {},
                    .snapshot = std::make_unique<apikey::publish::SnapshotFile>(),
                    .snapshot_problem = {},
                    .nodes = Nodes(directory, session.runtime)};
  if (std::filesystem::exists(directory.registry_file(), error)) {
    try {
      examined.registry = directory.open_registry();
    } catch (const Failure& failure) {
      examined.registry_problem = failure.what();
    }
  }
  if (const apikey::Status status = examined.snapshot->open(directory.snapshot_file()); !status.ok()) {
    examined.snapshot.reset();
    examined.snapshot_problem = sentence_of(status);
  }
  return examined;
}

void run(Session& session, const DoctorOptions& options) {
  Examined examined = examine(session);
  std::vector<Texts> rows;
  Json json = Json::array();
  std::size_t checks = 0;
  std::size_t wrong = 0;
  std::size_t notices = 0;
  for (const auto& group : {file_checks(), data_checks(), nginx_checks()}) {
    for (const Check& check : group) {
      ++checks;
      Findings findings;
      try {
        check.run(examined, findings);
      } catch (const Failure& failure) {
        findings.push_back({.is_wrong = true, .sentence = failure.what(), .remedy = {}});
      }
      if (findings.empty()) {
        json.push_back({{"check", check.name}, {"result", "fine"}, {"sentence", check.what}});
        if (options.shows_all) {
          rows.push_back({"fine", std::string{check.name}, std::string{check.what}});
        }
      }
      for (const Finding& finding : findings) {
        const std::string result = finding.is_wrong ? "wrong" : "notice";
        json.push_back({{"check", check.name},
                        {"result", result},
                        {"sentence", with_directory(finding.sentence)},
                        {"remedy", with_directory(finding.remedy)}});
        rows.push_back({result, std::string{check.name},
                        finding.remedy.empty() ? finding.sentence : finding.sentence + ". " + finding.remedy});
        (finding.is_wrong ? wrong : notices) += 1;
      }
    }
  }
  const std::string sum = fmt::format("{} checks: {} wrong, {} worth knowing", checks, wrong, notices);
  std::string text;
  for (const Texts& row : rows) {
    text += fmt::format("{:<7}{}: {}\n", row[0], row[1], row[2]);
  }
  session.report(text + sum, json);
  session.exit_code = wrong == 0 ? 0 : 1;
}

}  // namespace

void add_doctor_command(Command& app, Session& session) {
  auto options = std::make_shared<DoctorOptions>();
  Command command = app.add("doctor", "Look for what is wrong here or soon will be, and say what to do");
  command.flag("--all", options->shows_all, "Show also what is fine");
  command.footer(
      "Looks at files, registry, audit, snapshot and every nginx of this machine that reads it, and changes nothing.\n"
      "Exit code 0: nothing is wrong. 1: something is. docs/operations.md says when to run it.\n\n"
      "  keyloader doctor\n"
      "  keyloader doctor --json | jq '.[] | select(.result != \"fine\")'");
  command.read([&session, options] { run(session, *options); });
}

}  // namespace keyloader
