// What the commands of `keyloader usage` share: what was asked for, and windows in which counts may be short.
// Made by usage.cpp.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "session.hpp"
#include "usage_names.hpp"
#include "usage_store.hpp"

namespace keyloader {

struct UsageOptions {
  std::string socket;  // empty: node memory, or usage.sock of the directory
  std::string from;
  std::string to;
  std::string owner;
  std::string key;
  std::string format;
  std::string month;
  bool is_quiet = false;
  std::string by;
  std::string before;
  bool is_dry_run = false;
  bool is_sure = false;
  std::string over;
  std::optional<std::uint64_t> top;
  std::vector<std::string> files;
};

// When there is nobody to ask standard error says what that means.
void collect_if_answering(const Session& session, UsageStore& store, const std::string& socket);

// Where and when counts may be short, and by how much, for people and as JSON.
struct UsageDoubt {
  std::string sentence;
  Json json;
};
[[nodiscard]] std::vector<UsageDoubt> doubts_of(UsageStore& store, const UsageFilter& filter);

// usage_export.cpp
void export_usage(UsageStore& store, const UsageNames& names, const UsageFilter& filter, const std::string& format);
// usage_merge.cpp
void merge_usage(const Session& session, const std::vector<std::string>& files);
// usage_prune.cpp
void prune_usage(const Session& session, const UsageOptions& options);
// usage_statement.cpp
void state_usage(const Session& session, const UsageOptions& options);

}  // namespace keyloader
