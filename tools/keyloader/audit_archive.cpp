// keyloader audit archive: old entries go from the registry into a file, and the chain of hashes goes on behind them.
// INVARIANT: no entry leaves the registry before the file that holds it is on the disk.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <optional>

#include "apikey/meta.hpp"
#include "audit.hpp"
#include "broken_glass.hpp"
#include "delivery.hpp"
#include "directory_owner.hpp"
#include "file_descriptor.hpp"
#include "hint.hpp"
#include "output.hpp"
#include "session.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

namespace fs = std::filesystem;

struct ArchiveOptions {
  std::string file;
  std::string before;
  std::string reason;
  bool is_dry_run = false;
};

// A file of its own, 0600, never over another. Removed again unless keep() was reached.
class ArchiveFile {
 public:
  explicit ArchiveFile(fs::path path)
      : path_(std::move(path)),
        fd_(open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR)) {
    if (!fd_.is_open() && errno == EEXIST) {
      throw Failure(
          fmt::format("{} is there already, and an archive is never written over; give another name", path_.string()));
    }
    if (!fd_.is_open()) {
      fail_errno("make", path_);
    }
  }
  ~ArchiveFile() {
    if (!is_kept_) {
      static_cast<void>(unlink(path_.c_str()));
    }
  }
  ArchiveFile(const ArchiveFile&) = delete;
  ArchiveFile& operator=(const ArchiveFile&) = delete;

  void add(const AuditEntry& entry) {
    buffer_ += to_json(entry).dump() + '\n';
    if (buffer_.size() >= kBlock) {
      flush();
    }
  }

  // On the disk, its name too.
  void sync() {
    flush();
    const fs::path directory = path_.has_parent_path() ? path_.parent_path() : fs::path{"."};
    const FileDescriptor parent(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fsync(fd_.get()) != 0 || !parent.is_open() || fsync(parent.get()) != 0) {
      fail_errno("write", path_);
    }
  }

  void keep() { is_kept_ = true; }

 private:
  static constexpr std::size_t kBlock = std::size_t{1} << 20U;

  void flush() {
    write_all(fd_.get(), buffer_, path_);
    buffer_.clear();
  }

  fs::path path_;
  FileDescriptor fd_;
  std::string buffer_;
  bool is_kept_ = false;
};

struct Archived {  // NOLINT(bugprone-exception-escape): Json says that moving may throw; it does not
  std::uint64_t entries = 0;
  std::uint64_t kept = 0;  // the entry that is to stay, and the first that was not archived because of it; 0: none
  AuditEntry first;
  AuditEntry last;
};

// What `policy show` and doctor tell of --break-glass stands in entries that are here. RETURNS: the first; 0: none.
std::uint64_t first_broken_glass(Registry& registry) {
  std::uint64_t first = 0;
  registry.each_audit_entry({.action = "policy.break_glass", .since = wall_clock() - kGlassTime},
                            [&](const AuditEntry& entry) { first = first == 0 ? entry.seq : first; });
  return first;
}

// The entries from the first one on that are older, into a `file` that the first of them makes; with --dry-run they are
// only counted.
Archived take_entries(Registry& registry, Seconds before, const ArchiveOptions& options,
                      std::optional<ArchiveFile>& file) {
  const RegistryInfo info = registry.info();
  const std::uint64_t glass = first_broken_glass(registry);
  Archived archived;
  AuditChain chain(info.archived_seq, info.archived_hash);
  bool is_over = false;
  registry.each_audit_entry({.as_chained = true}, [&](const AuditEntry& entry) {
    if (!is_over && entry.time < before && entry.seq == glass) {
      archived.kept = glass;
    }
    is_over = is_over || entry.time >= before || entry.seq == glass;
    if (is_over) {
      return;
    }
    chain.add(entry);
    if (!options.is_dry_run) {
      (file ? *file : file.emplace(options.file)).add(entry);
    }
    if (archived.entries == 0) {
      archived.first = entry;
    }
    archived.last = entry;
    ++archived.entries;
  });
  return archived;
}

void archive(const Session& session, const ArchiveOptions& options) {
  check_reason(options.reason);
  const Seconds before = parse_past(options.before, wall_clock());
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  change->because(options.reason);
  std::optional<ArchiveFile> file;
  const Archived archived = take_entries(*registry, before, options, file);
  Json json{{"entries", archived.entries}, {"before", time_text(before)}, {"dry_run", options.is_dry_run}};
  std::string kept;
  if (archived.kept != 0) {
    json["kept_from"] = archived.kept;
    kept = fmt::format(
        "entry {} says that the policy was passed over with --break-glass, less than 30 days ago: it and "
        "what follows it stay",
        archived.kept);
  }
  if (archived.entries == 0) {
    session.report(
        fmt::format("{}; nothing was archived",
                    kept.empty() ? fmt::format("the audit has no entries before {}", time_text(before)) : kept),
        json);
    return;
  }
  json["first"] = archived.first.seq;
  json["last"] = archived.last.seq;
  json["last_hash"] = hex(archived.last.hash);
  const std::string range = fmt::format("{} entries ({} to {}, before {})", archived.entries, archived.first.seq,
                                        archived.last.seq, time_text(before));
  if (options.is_dry_run) {
    report(session, fmt::format("archived {} in {}{}{}", range, options.file, kept.empty() ? "" : ". But ", kept), json,
           dry_run());
    return;
  }
  file->sync();
  Json note = json;
  note.erase("dry_run");
  note["file"] = fs::absolute(options.file).string();
  change->archive(archived.last, note);
  change->commit();
  file->keep();
  json["file"] = note["file"];
  session.report(fmt::format("archived {} in {}; keep that file: `keyloader audit verify --archive {}` checks both{}{}",
                             range, options.file, shell_word(options.file), kept.empty() ? "" : ". But ", kept),
                 json);
}

std::optional<Hash> hash_from(const Json& json) {
  Hash hash{};
  return json.is_string() && apikey::from_hex(json.get_ref<const std::string&>(), hash) ? std::optional(hash)
                                                                                        : std::nullopt;
}

// RETURNS: nothing for what is no entry.
std::optional<AuditEntry> entry_from(const std::string& line) {
  try {
    const Json json = Json::parse(line);
    const auto prev_hash = hash_from(json.at("prev_hash"));
    const auto hash = hash_from(json.at("hash"));
    if (!prev_hash || !hash) {
      return std::nullopt;
    }
    AuditEntry entry;
    entry.seq = json.at("seq").get<std::uint64_t>();
    entry.time = parse_time(json.at("time").get<std::string>(), 0);
    entry.actor = json.at("actor");
    entry.action = json.at("action").get<std::string>();
    entry.object = json.at("object").get<std::string>();
    entry.before = json.at("before");
    entry.after = json.at("after");
    entry.prev_hash = *prev_hash;
    entry.hash = *hash;
    return entry;
  } catch (const Json::exception&) {
    return std::nullopt;
  } catch (const UsageError&) {  // of the time
    return std::nullopt;
  }
}

void verify_archive(const fs::path& path, AuditChain& chain, const AuditVisit& visit) {
  std::ifstream file;
  {
    const AsCaller named_by_the_caller;
    file.open(path);
  }
  if (!file) {
    fail_errno("read", path);
  }
  std::size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    const auto entry = entry_from(line);
    if (!entry) {
      throw Failure(fmt::format("{}, line {}: this is no entry of an audit", path.string(), number));
    }
    try {
      chain.add(*entry);
      visit(*entry);
    } catch (const Failure& failure) {
      throw Failure(fmt::format("{}, line {}: {}", path.string(), number, failure.what()));
    }
  }
}

}  // namespace

AuditChain verify_archives(const Texts& files, const AuditVisit& visit) {
  AuditChain chain;
  for (const std::string& file : files) {
    verify_archive(file, chain, visit);
  }
  return chain;
}

void add_audit_archive(Command& group, Session& session) {
  auto options = std::make_shared<ArchiveOptions>();
  Command old = group.add("archive", "Move old entries into a file");
  old.argument("FILE", options->file, "A new file: one entry a line, in JSON");
  old.required_option("--before", options->before, "TIME", "Entries before then: 365d (ago), 2026-01-01");
  old.option("--reason", options->reason, "TEXT", "Kept in the audit");
  old.flag("--dry-run", options->is_dry_run, "Say what would be archived, and change nothing");
  old.footer(
      "The chain of hashes goes on: the registry remembers the last hash of the file, and `audit verify --archive`\n"
      "checks both. What was deleted stays known. `why`, `audit revert` and statements of months that long ago need\n"
      "the entries, so keep at least a year.\n\n"
      "  keyloader audit archive audit-2025.ndjson --before 2026-01-01");
  old.run_on_machine(session, [&session, options] { archive(session, *options); });
}

}  // namespace keyloader
