// keyloader snapshot install, seal, rollback: making another snapshot the active one, or one that can be.
// install works on a node without a registry; it remembers nothing but keys.mdb itself.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "delivery.hpp"
#include "directory_owner.hpp"
#include "publish/snapshot_file.hpp"
#include "publish/snapshot_sealer.hpp"
#include "publish/snapshot_store.hpp"
#include "snapshot.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

using apikey::publish::SnapshotFile;

constexpr std::uint64_t kMinKeepPercent = 50;
constexpr std::size_t kCopyBuffer = std::size_t{256} * 1024;

struct InstallOptions {
  std::string file;
  std::uint64_t min_keep = kMinKeepPercent;
  bool allow_shrink = false;
  bool takes_over = false;
  DeliveryOptions delivery;
};

struct RollbackOptions {
  std::uint64_t generation = 0;
  bool allow_shrink = false;
  std::string reason;
  DeliveryOptions delivery;
};

// A file in the directory that goes away again unless it becomes keys.mdb.
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

  void write(std::string_view bytes) const { write_all(fd_, bytes, path_); }
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
  int fd = STDIN_FILENO;
  if (!is_stdin) {
    const AsCaller named_by_the_caller;
    fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  }
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
      temporary.write({buffer.data(), static_cast<std::size_t>(got)});
    }
  }
  if (!is_stdin) {
    close(fd);
  }
}

// What is active on this node. A damaged keys.mdb counts as none; a good file may take its place.
apikey::InService active_on(const DataDir& directory, apikey::SealHash& seal) {
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

// Both ways to what nginx knows: what may_follow() says of the newest file it has seen, and the permission to ignore
// that.
void check_nodes(const Nodes& nodes, const apikey::Meta& next) {
  if (const KnownStore* const oldest = nodes.oldest_reader();
      oldest != nullptr && oldest->newest_format < next.format) {
    throw Failure(
        fmt::format("{} reads snapshot format {} only, this one has format {}: not even its revocations would count "
                    "there. Install a newer module there and restart it, then install the snapshot",
                    oldest->node, oldest->newest_format, next.format));
  }
  for (const KnownStore& known : nodes.stores()) {
    const bool is_other = known.registry_id != next.registry_id;
    if (known.highest_generation != 0 && (is_other || known.highest_generation > next.generation)) {
      throw Failure(fmt::format(
          "{} has seen generation {} of registry {} and would refuse generation {} of registry {}; if it is to replace "
          "that one, run `keyloader snapshot install --take-over`",
          known.node, known.highest_generation, hex(known.registry_id), next.generation, hex(next.registry_id)));
    }
  }
  const auto methods = std::span{next.digests}.first(next.digest_count);
  const auto features = std::span{next.features}.first(next.feature_count);
  if (const auto lack = nodes.lack_of(
          {.methods = {methods.begin(), methods.end()}, .features = {features.begin(), features.end()}})) {
    Session::warn(*lack);  // its revocations still count there
  }
}

void take_over(const Nodes& nodes, const apikey::InService& current, const SnapshotFile& next, bool is_dry_run) {
  const apikey::Meta& meta = next.meta();
  Session::warn(fmt::format("generation {} of registry {} takes over", meta.generation, hex(meta.registry_id)));
  if (current.generation != 0) {
    Session::warn(
        fmt::format("keys.mdb is generation {} of registry {}", current.generation, hex(current.registry_id)));
  }
  for (const KnownStore& known : nodes.stores()) {
    Session::warn(fmt::format("{} has seen generation {} of registry {}", known.node, known.highest_generation,
                              hex(known.registry_id)));
  }
  if (is_dry_run) {
    return;
  }
  for (const std::string& warning : nodes.permit(next.seal().sha256, meta.registry_id, meta.generation)) {
    Session::warn(warning);
  }
}

// What is older comes back by `snapshot rollback`, which the policy judges and the audit keeps, where there is a
// registry.
void refuse_older_beside_registry(const Session& session, const apikey::Meta& next, const std::string& what) {
  std::error_code error;
  if (!std::filesystem::exists(session.dir().registry_file(), error)) {
    return;
  }
  const RegistryInfo info = session.open_registry()->info();
  if (info.id == next.registry_id && next.generation < info.generation) {
    throw Failure(fmt::format(
        "{} is generation {} of the registry in {}, which has published {}: `keyloader snapshot rollback --to {}` "
        "brings an older content back",
        what, next.generation, session.directory.string(), info.generation, next.generation));
  }
}

void install(const Session& session, const InstallOptions& options) {
  check(options.delivery);
  if (options.min_keep > 100) {
    throw UsageError(fmt::format("--min-keep {} is not a percentage; write 0 to 100", options.min_keep));
  }
  const unsigned min_keep = options.allow_shrink ? 0 : static_cast<unsigned>(options.min_keep);
  const DataDir directory = session.dir();
  if (!std::filesystem::exists(directory.path())) {
    if (options.delivery.is_dry_run) {
      throw Failure(fmt::format("there is no {} yet; without --dry-run it is made", directory.path().string()));
    }
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
  check(next.open(temporary.path()), what + " is not installed");
  apikey::SealHash current_seal{};
  const apikey::InService current = active_on(directory, current_seal);
  const bool is_new = current.generation == 0 || current_seal != next.seal().sha256;
  if (is_new) {
    refuse_older_beside_registry(session, next.meta(), what);
  }
  if (is_new || options.takes_over) {
    const Nodes nodes(directory, session.runtime);
    if (options.takes_over) {
      take_over(nodes, current, next, options.delivery.is_dry_run);
    } else {
      check(apikey::may_follow(current, next.meta(), min_keep), what + " is not installed");
      check_nodes(nodes, next.meta());
    }
  }
  if (is_new && !options.delivery.is_dry_run) {
    check(apikey::publish::swap_in(temporary.path(), directory.path(), next.seal()),
          what + " could not take the place of keys.mdb");
  }
  const Published published{.registry_id = next.meta().registry_id,
                            .generation = next.meta().generation,
                            .seal = next.seal().sha256,
                            .keys = next.meta().keys,
                            .is_new = is_new};
  const Outcome outcome =
      options.delivery.is_dry_run ? dry_run() : deliver_published(session, published, options.delivery);
  report(session, is_new ? "installed " + what : what + " is installed already",
         {{"keys", next.meta().keys}, {"registry_id", hex(next.meta().registry_id)}, {"published", is_new}}, outcome);
}

void seal(const Session& session, const std::string& in, const std::string& out) {
  const std::string to = out.empty() ? in + ".sealed" : out;
  apikey::Seal seal;
  {
    const AsCaller named_by_the_caller;
    check(apikey::publish::seal_file(in, to, seal), in + " cannot be sealed");
  }
  session.report(
      fmt::format("{} is sealed: generation {}, sha256 {}", to, seal.generation, hex(seal.sha256)),
      {{"path", to}, {"generation", seal.generation}, {"sha256", hex(seal.sha256)}, {"length", seal.length}});
}

void roll_back(const Session& session, const RollbackOptions& options) {
  check(options.delivery);
  const auto registry = session.open_registry();
  const Nodes nodes(session.dir(), session.runtime);
  check_reason(options.reason);
  const Published published = rollback(session.dir(), *registry, nodes,
                                       {.generation = options.generation,
                                        .allows_shrink = options.allow_shrink,
                                        .reason = options.reason,
                                        .is_dry_run = options.delivery.is_dry_run});
  const Outcome outcome =
      options.delivery.is_dry_run ? dry_run() : deliver_published(session, published, options.delivery);
  report(
      session,
      fmt::format("rolled back to the content of generation {} ({} revoked or suspended since, {} deleted since and "
                  "left out).\nThe registry is as it was: the next publish, also by any changing command, brings its "
                  "content back. Put the registry right first.",
                  published.rolled_back_to, published.refused_since, published.dropped),
      {{"rolled_back_to", published.rolled_back_to},
       {"keys", published.keys},
       {"refused_since", published.refused_since},
       {"dropped", published.dropped}},
      outcome);
}

}  // namespace

void add_snapshot_changes(Command& group, Session& session) {
  auto options = std::make_shared<InstallOptions>();
  Command take = group.add("install", "Make a snapshot from elsewhere the active one on this node");
  take.argument("FILE", options->file, "The snapshot; - reads standard input");
  take.option(
      "--min-keep", options->min_keep, "PERCENT",
      "Refuse one with fewer than this percentage of the active keys, deletions that it counts apart (default: 50)");
  take.flag("--allow-shrink", options->allow_shrink, "Take it however few keys it has");
  take.flag("--take-over", options->takes_over,
            "Take one of another registry, or an older one; nginx is permitted to take this one file, once");
  take.tries(options->delivery);
  take.waits(options->delivery);
  take.footer(
      "Needs no registry. Refuses what is damaged, of another registry, or not newer than what is active.\n\n"
      "  keyloader snapshot install keys.mdb\n"
      "  keyloader snapshot install --take-over keys.mdb\n"
      "  ssh node keyloader snapshot install - < /var/lib/apikey/keys.mdb");
  take.run_on_machine(session, [&session, options] { install(session, *options); });

  auto in = std::make_shared<std::string>();
  auto out = std::make_shared<std::string>();
  Command close = group.add("seal", "Make a snapshot of an LMDB file that another program wrote");
  close.argument("IN", *in, "The LMDB file; it is not changed");
  close.option("--out", *out, "FILE", "Where the snapshot goes (default: IN.sealed)");
  close.footer(
      "The format is described in docs/snapshot-format.md.\n\n"
      "  keyloader snapshot seal mine.mdb --out keys.mdb && keyloader snapshot install keys.mdb");
  close.run_on_machine(session, [&session, in, out] { seal(session, *in, *out); });

  auto rolls = std::make_shared<RollbackOptions>();
  Command back = group.add("rollback", "Publish the content of an older snapshot as a new generation");
  back.option("--to", rolls->generation, "GENERATION", "Which generation (default: the one before the active one)");
  back.flag("--allow-shrink", rolls->allow_shrink, "Take it even if it has fewer than half of the active keys");
  back.option("--reason", rolls->reason, "TEXT", "Kept in the audit");
  back.tries(rolls->delivery);
  back.waits(rolls->delivery);
  back.footer(
      "What was revoked, suspended or deleted since stays so. The registry keeps its content, and the next publish\n"
      "brings that back: put the registry right before you change anything else.\n\n"
      "  keyloader snapshot list\n"
      "  keyloader snapshot rollback --to 41");
  back.run_on_machine(session, [&session, rolls] { roll_back(session, *rolls); });
}

}  // namespace keyloader
