// zlib reads plain files as they are, so there is one way for all.
#include "log_search.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "directory_owner.hpp"
#include "file_descriptor.hpp"

namespace keyloader {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kChunk = std::size_t{256} << 10U;

struct Candidate {
  fs::path path;
  fs::file_time_type changed;
};

bool is_rotated_from(const std::string& name, const std::string& log) {
  return name.size() > log.size() + 1 && name.starts_with(log) && (name[log.size()] == '.' || name[log.size()] == '-');
}

std::vector<fs::path> with_rotated(const fs::path& log) {
  const AsCaller of_nginx;
  std::vector<fs::path> all{log};
  std::vector<Candidate> rotated;
  std::error_code error;
  const fs::path directory = log.has_parent_path() ? log.parent_path() : fs::path{"."};
  for (fs::directory_iterator each(directory, error), end; !error && each != end; each.increment(error)) {
    std::error_code ignored;
    if (is_rotated_from(each->path().filename().string(), log.filename().string())) {
      rotated.push_back({each->path(), fs::last_write_time(each->path(), ignored)});
    }
  }
  std::sort(rotated.begin(), rotated.end(), [](const Candidate& a, const Candidate& b) {
    return a.changed != b.changed ? a.changed > b.changed : a.path < b.path;
  });
  for (const Candidate& each : rotated) {
    all.push_back(each.path);
  }
  return all;
}

struct CloseGz {
  void operator()(gzFile file) const { static_cast<void>(gzclose(file)); }
};
using GzFile = std::unique_ptr<std::remove_pointer_t<gzFile>, CloseGz>;

// One that is no regular file might never end, or never begin.
GzFile open_log(const fs::path& path, std::string& problem) {
  const AsCaller of_nginx;
  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat found {};
  if (!file.is_open() || fstat(file.get(), &found) != 0) {
    problem = strerrordesc_np(errno);
    return nullptr;
  }
  if (!S_ISREG(found.st_mode)) {
    problem = "not a regular file";
    return nullptr;
  }
  const int own = fcntl(file.get(), F_DUPFD_CLOEXEC, 0);  // gzclose() closes it
  GzFile log(own < 0 ? nullptr : gzdopen(own, "rb"));
  if (log == nullptr) {
    if (own >= 0) {
      close(own);
    }
    problem = "it cannot be opened: no memory, or too many open files";
  }
  return log;
}

class Reader {
 public:
  Reader(std::string_view instance, LogSearch& search) : instance_(instance), search_(search), chunk_(kChunk) {}

  // RETURNS: false when there is nothing more to look for, or no more may be read.
  [[nodiscard]] bool read(const fs::path& path) {
    ReadLog& log = search_.logs.emplace_back(ReadLog{.path = path, .lines = 0, .problem = {}});
    const GzFile file = open_log(path, log.problem);
    if (file == nullptr) {
      return true;
    }
    line_.clear();
    is_too_long_ = false;
    while (true) {
      const int size = gzread(file.get(), chunk_.data(), static_cast<unsigned>(chunk_.size()));
      if (size <= 0) {
        int code = Z_OK;
        const char* words = gzerror(file.get(), &code);
        if (code != Z_OK) {
          log.problem = fmt::format("damaged behind line {}: {}", log.lines, words);
        }
        return !end_line(log);
      }
      if (take({chunk_.data(), static_cast<std::size_t>(size)}, log)) {
        return false;
      }
      read_ += static_cast<std::uint64_t>(size);
      if (read_ > kMostBytes) {
        log.problem = fmt::format("no more was read behind line {}: it is too much", log.lines);
        return false;
      }
    }
  }

 private:
  // RETURNS: true when it was found.
  bool take(std::string_view chunk, ReadLog& log) {
    while (!chunk.empty()) {
      const std::size_t end = chunk.find('\n');
      const std::string_view piece = chunk.substr(0, end);
      is_too_long_ = is_too_long_ || line_.size() + piece.size() > kLongestLine;
      if (!is_too_long_) {
        line_ += piece;
      }
      if (end == std::string_view::npos) {
        return false;
      }
      chunk.remove_prefix(end + 1);
      if (end_line(log)) {
        return true;
      }
    }
    return false;
  }

  bool end_line(ReadLog& log) {
    if (line_.empty() && !is_too_long_) {
      return false;
    }
    ++log.lines;
    search_.found = is_too_long_ ? std::nullopt : parse_log_line(line_, instance_);
    line_.clear();
    is_too_long_ = false;
    return search_.found.has_value();
  }

  std::string_view instance_;
  LogSearch& search_;
  std::vector<char> chunk_;
  std::string line_;
  bool is_too_long_ = false;
  std::uint64_t read_ = 0;
};

}  // namespace

LogSearch search_logs(const std::vector<fs::path>& logs, std::string_view instance) {
  LogSearch search;
  Reader reader(instance, search);
  for (const fs::path& log : logs) {
    for (const fs::path& path : with_rotated(log)) {
      if (search.logs.size() >= kMostFiles || !reader.read(path)) {
        return search;
      }
    }
  }
  return search;
}

}  // namespace keyloader
