// The checks of `keyloader doctor`, by file: doctor_files.cpp (files, disk, who may read what), doctor_data.cpp
// (registry, audit, snapshot), doctor_nginx.cpp (what runs). Each looks and says what is wrong and what to do; none
// changes anything.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nodes.hpp"
#include "publish/snapshot_file.hpp"
#include "registry/registry.hpp"
#include "session.hpp"

namespace keyloader {

struct Finding {
  bool is_wrong = true;  // else only worth knowing
  std::string sentence;
  std::string remedy;  // what to do: a whole sentence
};
using Findings = std::vector<Finding>;

inline void wrong(Findings& findings, std::string sentence, std::string remedy) {
  findings.push_back({.is_wrong = true, .sentence = std::move(sentence), .remedy = std::move(remedy)});
}
inline void notice(Findings& findings, std::string sentence, std::string remedy) {
  findings.push_back({.is_wrong = false, .sentence = std::move(sentence), .remedy = std::move(remedy)});
}

// What all checks look at, opened once.
struct Examined {
  const Session& session;
  DataDir directory;
  std::unique_ptr<Registry> registry;                       // null: there is none, or it cannot be opened
  std::string registry_problem;                             // why it cannot be opened
  std::unique_ptr<apikey::publish::SnapshotFile> snapshot;  // null: keys.mdb is not there or not valid
  std::string snapshot_problem;
  Nodes nodes;
};

struct Check {
  std::string_view name;  // as --json and docs/keyloader.md have it
  std::string_view what;  // what is so when nothing is found
  void (*run)(Examined& examined, Findings& findings);
};

[[nodiscard]] std::span<const Check> file_checks();
[[nodiscard]] std::span<const Check> data_checks();
[[nodiscard]] std::span<const Check> nginx_checks();

}  // namespace keyloader
