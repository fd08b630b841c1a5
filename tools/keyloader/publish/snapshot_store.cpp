// keys.mdb, history/ and the publisher's lock.
#include "publish/snapshot_store.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "apikey/meta.hpp"
#include "publish/owned.hpp"
#include "publish/snapshot_file.hpp"

namespace apikey::publish {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr std::string_view kTemporaryPrefix = "keys.mdb.new.";
constexpr mode_t kSnapshotMode = 0640;
constexpr mode_t kHistoryMode = 02750;
constexpr std::size_t kGenerationDigits = 10;
constexpr std::size_t kSealDigits = 8;

std::string seal_prefix(const Seal& seal) {
  std::string text(kSealDigits, '0');
  to_hex(std::span(seal.sha256).first(kSealDigits / 2), text);
  return text;
}

std::string history_name(const Seal& seal) {
  std::string digits = std::to_string(seal.generation);
  if (digits.size() < kGenerationDigits) digits.insert(0, kGenerationDigits - digits.size(), '0');
  return digits + "-" + seal_prefix(seal) + ".mdb";
}

bool parse_history_name(const std::string& name, HistoryEntry& entry) {
  const std::size_t dash = name.find('-');
  if (dash == std::string::npos || dash < kGenerationDigits || !name.ends_with(".mdb")) return false;
  if (name.size() != dash + 1 + kSealDigits + 4) return false;
  const char* const end = name.data() + dash;
  const auto [stop, error] = std::from_chars(name.data(), end, entry.generation);
  entry.seal_prefix = name.substr(dash + 1, kSealDigits);
  return error == std::errc{} && stop == end;
}

void remove_temporaries(const fs::path& directory) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (entry.path().filename().string().starts_with(kTemporaryPrefix)) {
      std::error_code ignored;
      fs::remove(entry.path(), ignored);
    }
  }
}

Status sync_file(const fs::path& path) {
  const OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return fd.is_open() && ::fsync(fd.get()) == 0 ? Status{} : os_failure("the new snapshot cannot be synced");
}

Status make_history(const fs::path& history) {
  if (::mkdir(history.c_str(), kHistoryMode) == 0) {
    return ::chmod(history.c_str(), kHistoryMode) == 0 ? Status{} : os_failure("history/ cannot get its mode");
  }
  return errno == EEXIST ? Status{} : os_failure("history/ cannot be made");
}

// A second name for the file, so that it costs nothing; a copy where the file system has no hard links.
// It is made before the file is keys.mdb: a link made afterwards would change the ctime that workers watch.
Status keep_in_history(const fs::path& temporary, const fs::path& kept) {
  (void)::unlink(kept.c_str());
  if (::link(temporary.c_str(), kept.c_str()) == 0) return {};
  std::error_code error;
  if (!fs::copy_file(temporary, kept, error)) return os_failure("the snapshot cannot be kept in history/");
  return ::chmod(kept.c_str(), kSnapshotMode) == 0 ? sync_file(kept) : os_failure("the kept snapshot gets no mode");
}

void prune(const fs::path& directory, std::size_t keep) {
  const std::vector<HistoryEntry> entries = list_history(directory);
  for (std::size_t i = keep; i < entries.size(); ++i) {
    std::error_code ignored;
    if (!entries[i].is_in_service) fs::remove(entries[i].path, ignored);
  }
}

}  // namespace

PublishLock::~PublishLock() {
  if (fd_ >= 0) (void)::close(fd_);
}

Status PublishLock::acquire(const std::filesystem::path& directory, unsigned timeout_ms) {
  const fs::path path = directory / "publish.lock";
  OwnedFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.is_open()) return os_failure("publish.lock cannot be opened");
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return os_failure("publish.lock cannot be locked");
    if (std::chrono::steady_clock::now() >= deadline) {
      return {StatusCode::refused, "another process has been publishing for {0} ms; try again when it is done",
              timeout_ms};
    }
    std::this_thread::sleep_for(10ms);
  }
  if (fd_ >= 0) (void)::close(fd_);
  fd_ = fd.release();
  remove_temporaries(directory);
  return {};
}

Status make_temporary_beside(const std::filesystem::path& final_name, std::filesystem::path& path, int& fd) {
  std::string name = final_name.string() + ".new.XXXXXX";
  OwnedFd made(::mkostemp(name.data(), O_CLOEXEC));
  if (!made.is_open()) return os_failure("no new file can be made there");
  if (::fchmod(made.get(), kSnapshotMode) != 0) {
    (void)::unlink(name.c_str());
    return os_failure("the new file cannot get its mode");
  }
  path = name;
  fd = made.release();
  return {};
}

Status make_temporary(const std::filesystem::path& directory, std::filesystem::path& path, int& fd) {
  return make_temporary_beside(directory / "keys.mdb", path, fd);
}

Status sync_directory(const std::filesystem::path& directory) {
  const OwnedFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd.is_open() && ::fsync(fd.get()) == 0 ? Status{} : os_failure("the directory cannot be synced");
}

Status swap_in(const std::filesystem::path& temporary, const std::filesystem::path& directory, const Seal& seal,
               std::size_t keep) {
  const fs::path history = directory / "history";
  const fs::path kept = history / history_name(seal);
  Status status = sync_file(temporary);
  if (status.ok()) status = make_history(history);
  if (status.ok()) status = keep_in_history(temporary, kept);
  if (status.ok()) status = sync_directory(history);
  if (!status.ok()) return status;
  if (::rename(temporary.c_str(), (directory / "keys.mdb").c_str()) != 0) {
    status = os_failure("the new snapshot cannot take the name keys.mdb");
    (void)::unlink(kept.c_str());
    return status;
  }
  status = sync_directory(directory);
  prune(directory, keep);
  return status;
}

std::vector<HistoryEntry> list_history(const std::filesystem::path& directory) {
  MappedFile current;
  Seal seal;
  const bool has_current = current.open(directory / "keys.mdb").ok() && decode_seal(current.bytes(), seal).ok();
  const std::string in_service = has_current ? history_name(seal) : std::string();
  std::vector<HistoryEntry> entries;
  std::error_code error;
  for (const auto& file : fs::directory_iterator(directory / "history", error)) {
    HistoryEntry entry;
    const std::string name = file.path().filename().string();
    if (!parse_history_name(name, entry)) continue;
    entry.path = file.path();
    entry.is_in_service = name == in_service;
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const HistoryEntry& a, const HistoryEntry& b) {
    return a.generation != b.generation ? a.generation > b.generation : a.seal_prefix < b.seal_prefix;
  });
  return entries;
}

}  // namespace apikey::publish
