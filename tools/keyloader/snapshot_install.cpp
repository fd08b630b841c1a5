// keyloader snapshot install, seal, rollback: putting another snapshot into service, or making one that can be.
// install works on a node without a registry; it remembers nothing but keys.mdb itself.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "publish/snapshot_file.hpp"
#include "publish/snapshot_sealer.hpp"
#include "publish/snapshot_store.hpp"
#include "publisher.hpp"
#include "snapshot.hpp"

namespace keyloader {
namespace {

using apikey::publish::SnapshotFile;

constexpr std::uint64_t kMinKeepPercent = 50;
constexpr std::size_t kCopyBuffer = std::size_t{256} * 1024;

struct InstallOptions {
  std::string file;
  std::uint64_t min_keep = kMinKeepPercent;
  bool allow_shrink = false;
};

// A file in the directory that goes away again unless it is put into service.
class Temporary {
 public:
  explicit Temporary(const DataDir& directory) {
    check(apikey::publish::make_temporary(directory.path(), path_, fd_),
          "cannot write into " + directory.path().string());
  }
  ~Temporary() {
    close_file();
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  void write_all(const char* data, std::size_t length) const {
    while (length > 0) {
      const ssize_t written = write(fd_, data, length);
      if (written < 0 && errno != EINTR) {
        fail_errno("write", path_);
      }
      if (written > 0) {
        data += written;
        length -= static_cast<std::size_t>(written);
      }
    }
  }
  void close_file() {
    if (fd_ >= 0) {
      close(fd_);
      fd_ = -1;
    }
  }

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

void copy_into(const std::string& file, const Temporary& temporary) {
  const bool is_stdin = file == "-";
  const int fd = is_stdin ? STDIN_FILENO : open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    fail_errno("read", file);
  }
  std::vector<char> buffer(kCopyBuffer);
  ssize_t got = 0;
  while ((got = read(fd, buffer.data(), buffer.size())) != 0) {
    if (got < 0 && errno != EINTR) {
      fail_errno("read", file);
    }
    if (got > 0) {
      temporary.write_all(buffer.data(), static_cast<std::size_t>(got));
    }
  }
  if (!is_stdin) {
    close(fd);
  }
}

// What is in service on this node. A damaged keys.mdb tells nothing; a good file may take its place.
apikey::InService in_service(const DataDir& directory, apikey::SealHash& seal) {
  SnapshotFile file;
  const apikey::Status status = file.open(directory.snapshot_file());
  if (status.code == apikey::StatusCode::unreadable) {
    check(status, directory.snapshot_file().string());
  }
  if (!status.ok()) {
    return {};
  }
  seal = file.seal().sha256;
  return apikey::in_service_of(file.meta());
}

void install(const Session& session, const InstallOptions& options) {
  if (options.min_keep > 100) {
    throw UsageError(fmt::format("--min-keep {} is no percentage; write 0 to 100", options.min_keep));
  }
  const unsigned min_keep = options.allow_shrink ? 0 : static_cast<unsigned>(options.min_keep);
  const DataDir directory = session.dir();
  if (!std::filesystem::exists(directory.path())) {
    if (const std::string warning = directory.make(""); !warning.empty()) {
      Session::warn(warning);
    }
  }
  apikey::publish::PublishLock lock;
  check(lock.acquire(directory.path()), "installing has to wait for another process");
  Temporary temporary(directory);
  copy_into(options.file, temporary);
  temporary.close_file();

  const std::string what = options.file == "-" ? "what came on standard input" : options.file;
  SnapshotFile next;
  check(next.open(temporary.path()), what + " is not put into service");
  apikey::SealHash current_seal{};
  const apikey::InService current = in_service(directory, current_seal);
  const Json result{{"generation", next.meta().generation},
                    {"keys", next.meta().keys},
                    {"registry_id", hex(next.meta().registry_id)}};
  if (current.generation != 0 && current_seal == next.seal().sha256) {
    session.report(fmt::format("generation {} is in service already", current.generation), result);
    return;
  }
  check(apikey::may_follow(current, next.meta(), min_keep), what + " is not put into service");
  check(apikey::publish::swap_in(temporary.path(), directory.path(), next.seal()),
        what + " could not be put into service");
  session.report(fmt::format("generation {}: {} keys are in service", next.meta().generation, next.meta().keys),
                 result);
}

void seal(const Session& session, const std::string& in, const std::string& out) {
  const std::string to = out.empty() ? in + ".sealed" : out;
  apikey::Seal seal;
  check(apikey::publish::seal_file(in, to, seal), in + " cannot be sealed");
  session.report(
      fmt::format("{} is sealed: generation {}, sha256 {}", to, seal.generation, hex(seal.sha256)),
      {{"path", to}, {"generation", seal.generation}, {"sha256", hex(seal.sha256)}, {"length", seal.length}});
}

void roll_back(const Session& session, std::uint64_t generation, bool allow_shrink) {
  const auto registry = session.dir().open_registry();
  const Published published = rollback(session.dir(), *registry, generation, allow_shrink);
  session.report(
      fmt::format("generation {} with the content of generation {}: {} keys are in service ({} revoked or suspended "
                  "since, {} deleted since and left out).\nThe registry is as it was: the next publish, also by any "
                  "changing command, brings its content back. Put the registry right first.",
                  published.generation, published.rolled_back_to, published.keys, published.refused_since,
                  published.dropped),
      {{"generation", published.generation},
       {"rolled_back_to", published.rolled_back_to},
       {"keys", published.keys},
       {"refused_since", published.refused_since},
       {"dropped", published.dropped}});
}

}  // namespace

void add_snapshot_changes(Command& group, Session& session) {
  auto options = std::make_shared<InstallOptions>();
  Command take = group.add("install", "Put a snapshot from elsewhere into service on this node");
  take.argument("FILE", options->file, "The snapshot; - reads standard input");
  take.option("--min-keep", options->min_keep, "PERCENT",
              "Refuse one with fewer than this percentage of the keys in service (default: 50)");
  take.flag("--allow-shrink", options->allow_shrink, "Take it however few keys it has");
  take.footer(
      "Needs no registry. Refuses what is damaged, of another registry, or not newer than what is in service.\n\n"
      "  keyloader snapshot install keys.mdb\n"
      "  ssh node keyloader snapshot install - < /var/lib/apikey/keys.mdb");
  take.run([&session, options] { install(session, *options); });

  auto in = std::make_shared<std::string>();
  auto out = std::make_shared<std::string>();
  Command wax = group.add("seal", "Make a snapshot of an LMDB file that another program wrote");
  wax.argument("IN", *in, "The LMDB file; it is not changed");
  wax.option("--out", *out, "FILE", "Where the snapshot goes (default: IN.sealed)");
  wax.footer(
      "The format is described in docs/snapshot-format.md.\n\n"
      "  keyloader snapshot seal mine.mdb --out keys.mdb && keyloader snapshot install keys.mdb");
  wax.run([&session, in, out] { seal(session, *in, *out); });

  auto generation = std::make_shared<std::uint64_t>(0);
  auto allow_shrink = std::make_shared<bool>(false);
  Command back = group.add("rollback", "Publish the content of an older snapshot as a new generation");
  back.option("--to", *generation, "GENERATION", "Which generation (default: the one before what is in service)");
  back.flag("--allow-shrink", *allow_shrink,
            "Take it even if it has fewer than half of the keys in service (default: 50)");
  back.footer(
      "What was revoked, suspended or deleted since stays so. The registry keeps its content, and the next publish\n"
      "brings that back: put the registry right before you change anything else.\n\n"
      "  keyloader snapshot list\n"
      "  keyloader snapshot rollback --to 41");
  back.run([&session, generation, allow_shrink] { roll_back(session, *generation, *allow_shrink); });
}

}  // namespace keyloader
