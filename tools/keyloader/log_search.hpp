// Looking for the line of one request in nginx's log files, the rotated and compressed ones beside them included.
// INVARIANT: logs are other people's files. Only regular ones are read, each once, line by line in bounded memory, and
// never more in all than kMostBytes, however much a compressed one expands to.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "log_line.hpp"

namespace keyloader {

inline constexpr std::uint64_t kMostBytes = std::uint64_t{16} << 30U;
inline constexpr std::size_t kMostFiles = 100;
inline constexpr std::size_t kLongestLine = std::size_t{64} << 10U;

struct ReadLog {
  std::filesystem::path path;
  std::uint64_t lines = 0;  // up to the one that was found
  std::string problem;      // why it was not read, or not to its end; empty: it was
};

struct LogSearch {
  std::vector<ReadLog> logs;  // in the order in which they were read; where something was found, in the last
  std::optional<LoggedDecision> found;
};

// Each log of `logs` with those that were rotated away from it (`.1`, `.2.gz`, `-20261127.gz`), the newest first.
[[nodiscard]] LogSearch search_logs(const std::vector<std::filesystem::path>& logs, std::string_view instance);

}  // namespace keyloader
