// Finding, mapping and reading the nginx instances of this machine. See nodes.hpp for what is believed.
#include "nodes.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <set>
#include <span>

#include "apikey/fold64.hpp"
#include "apikey/node_locks.hpp"
#include "directory_owner.hpp"
#include "file_descriptor.hpp"
#include "node_inbox.hpp"
#include "output.hpp"

namespace keyloader {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSharedMemory = "/dev/shm";
constexpr std::string_view kSystemRuntime = "/run/apikey";
constexpr std::size_t kMaxAnnouncement = 16'384;
constexpr mode_t kNotForOthers = S_IWOTH;
constexpr mode_t kAnnouncementsMode = 0755;
constexpr mode_t kAnnouncementMode = 0644;
constexpr std::string_view kOfOthers = "others than root, you and the owner of the directory could have written it";
constexpr std::string_view kMoreWords = "+";  // stands last where more words are known than fit

// Somebody may cut a file off while it is read.
extern "C" void end_on_bus_error(int) {
  constexpr std::string_view sentence = "keyloader: a file of node memory was cut off while it was read\n";
  static_cast<void>(!write(STDERR_FILENO, sentence.data(), sentence.size()));
  _exit(1);
}

// Of a directory or file itself, not of what a link leads to.
std::optional<struct stat> look_at(const fs::path& path) {
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0) {
    return std::nullopt;
  }
  return found;
}

std::string os_sentence(std::string_view what) { return fmt::format("{}: {}", what, strerrordesc_np(errno)); }

bool ends_with(const fs::path& path, std::string_view end) { return path.filename().string().ends_with(end); }

std::vector<fs::path> files_in(const fs::path& directory, std::string_view end) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (ends_with(entry.path(), end)) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Who may be believed: whoever could write into the directory anyway.
class Trust {
 public:
  explicit Trust(const fs::path& directory) : users_{0, geteuid()} {
    if (const auto found = look_at(directory)) {
      users_.insert(found->st_uid);
    }
  }
  [[nodiscard]] bool holds(const fs::path& path) const {
    const auto found = look_at(path);
    return found && users_.count(found->st_uid) != 0 && (found->st_mode & kNotForOthers) == 0;
  }

 private:
  std::set<uid_t> users_;
};

// The same file, whatever way leads to it.
bool is_same_path(const fs::path& a, const fs::path& b) {
  std::error_code first;
  std::error_code second;
  return a == b || (fs::weakly_canonical(a, first) == fs::weakly_canonical(b, second) && !first && !second);
}

// The same, but a link in the place of the file is another file.
bool is_same_file(const fs::path& a, const fs::path& b) {
  return a.filename() == b.filename() && is_same_path(a.parent_path(), b.parent_path());
}

// `told`: out of node memory. Only our own path is looked at: looking at theirs could hang.
bool is_our_store(const fs::path& told, const fs::path& snapshot) {
  std::error_code error;
  const fs::path path = told.lexically_normal();
  return path == fs::absolute(snapshot, error).lexically_normal() || path == fs::weakly_canonical(snapshot, error);
}

std::optional<NodePlace> read_announcement(const fs::path& file) {
  const FileDescriptor fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat found {};
  if (!fd.is_open() || fstat(fd.get(), &found) != 0 || !S_ISREG(found.st_mode)) {
    return std::nullopt;
  }
  std::string text(kMaxAnnouncement, '\0');
  const ssize_t length = read(fd.get(), text.data(), text.size());
  if (length <= 0) {
    return std::nullopt;
  }
  const Json json = Json::parse(text.begin(), text.begin() + length, nullptr, false);
  if (!json.is_object() || !json.contains("state") || !json.at("state").is_string()) {
    return std::nullopt;
  }
  NodePlace place{.state = json.at("state").get<std::string>(), .is_announced = true};
  if (!place.state.is_absolute() || !ends_with(place.state, ".state")) {
    return std::nullopt;
  }
  if (json.contains("store") && json.at("store").is_string()) {
    place.store = json.at("store").get<std::string>();
  }
  return place;
}

// However it was written: what is announced is found from anywhere.
fs::path whole(const fs::path& directory) {
  const AsCaller named_by_the_caller;
  std::error_code error;
  return directory.empty() ? directory : fs::weakly_canonical(fs::absolute(directory, error), error);
}

std::vector<fs::path> runtime_directories() {
  std::vector<fs::path> directories{fs::path{kSystemRuntime}};
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(kSharedMemory, error)) {
    if (entry.path().filename().string().starts_with("apikey-")) {
      directories.push_back(entry.path());
    }
  }
  return directories;
}

// Announced first: those say how nginx calls the store.
std::vector<NodePlace> find_places(const fs::path& directory, const fs::path& runtime) {
  const Trust trust(directory);
  std::vector<NodePlace> places;
  const auto add = [&](NodePlace place) {
    const auto known = std::find_if(places.begin(), places.end(),
                                    [&](const NodePlace& each) { return is_same_file(each.state, place.state); });
    if (known == places.end()) {
      places.push_back(std::move(place));
    } else {
      known->is_found = known->is_found || place.is_found;
    }
  };
  const auto doubt = [&](const fs::path& path, std::string_view why) {
    add({.state = path, .is_announced = true, .doubt = std::string{why}});
  };
  const fs::path announced = directory / "nodes";
  if (trust.holds(announced)) {
    for (const fs::path& file : files_in(announced, ".json")) {
      if (!trust.holds(file)) {
        doubt(file, kOfOthers);
      } else if (auto place = read_announcement(file)) {
        add(std::move(*place));
      } else {
        doubt(file, "it says of no nginx where its node memory is");
      }
    }
  } else if (look_at(announced)) {
    doubt(announced, kOfOthers);
  }
  const AsCaller of_root;
  for (const fs::path& each : runtime_directories()) {
    if (trust.holds(each)) {
      for (const fs::path& file : files_in(each, ".state")) {
        add({.state = file, .is_found = true});
      }
    }
  }
  if (!runtime.empty()) {
    for (const fs::path& file : files_in(runtime, ".state")) {
      add({.state = file, .is_found = true});
    }
  }
  return places;
}

Texts words_of(std::string_view text) {
  Texts words;
  while (!text.empty()) {
    const std::size_t length = std::min(text.find(' '), text.size());
    if (length != 0) {
      words.push_back(std::string{text.substr(0, length)});
    }
    text.remove_prefix(std::min(length + 1, text.size()));
  }
  return words;
}

std::optional<std::string> first_missing(const Texts& wanted, const Texts& known) {
  const auto found = std::find_if(wanted.begin(), wanted.end(), [&](const std::string& word) {
    return std::find(known.begin(), known.end(), word) == known.end();
  });
  return found == wanted.end() ? std::nullopt : std::optional(*found);
}

// The directory may belong to somebody with fewer rights than ours: nothing in it is followed.
FileDescriptor open_announcements(const fs::path& directory) {
  return FileDescriptor(open((directory / "nodes").c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

// As nginx calls it (ngx_http_apikey_announce.cpp): two with the same id, in two runtime directories, have one each.
std::string announcement_name(const fs::path& state) {
  return fmt::format("{}.{:016x}.json", state.stem().string(),
                     apikey::fold64(std::as_bytes(std::span{state.native()})));
}

// What was found only because it was named: the next command finds it by this.
void announce(const fs::path& directory, const Node& node) {
  const bool is_made = mkdir((directory / "nodes").c_str(), kAnnouncementsMode) == 0;
  const FileDescriptor announced = open_announcements(directory);
  if (!announced.is_open() || (is_made && fchmod(announced.get(), kAnnouncementsMode) != 0)) {
    return;
  }
  const std::string name = announcement_name(node.place().state);
  if (faccessat(announced.get(), name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
    return;  // nginx's own says more
  }
  const std::string fresh = name + ".new";
  static_cast<void>(unlinkat(announced.get(), fresh.c_str(), 0));
  const FileDescriptor file(
      openat(announced.get(), fresh.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, kAnnouncementMode));
  const Json json{{"state", node.place().state.string()},
                  {"inbox", node.inbox().string()},
                  {"store", (directory / "keys.mdb").string()}};
  const std::string text = json.dump() + '\n';
  const bool is_written = file.is_open() && fchmod(file.get(), kAnnouncementMode) == 0 &&
                          write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (!is_written || renameat(announced.get(), fresh.c_str(), announced.get(), name.c_str()) != 0) {
    static_cast<void>(unlinkat(announced.get(), fresh.c_str(), 0));
  }
}

}  // namespace

Node::Node(NodePlace place) : place_(std::move(place)) {
  if (!place_.doubt.empty()) {
    problem_ = place_.doubt;
    return;
  }
  static_cast<void>(std::signal(SIGBUS, end_on_bus_error));
  const AsCaller of_root(place_.is_found);
  fd_ = open(place_.state.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
  struct stat found {};
  if (fd_ < 0 || fstat(fd_, &found) != 0) {
    is_removed_ = errno == ENOENT || errno == ENOTDIR;
    problem_ = is_removed_ ? "it is not there" : os_sentence("it cannot be opened");
    return;
  }
  owner_ = found.st_uid;
  if (!S_ISREG(found.st_mode) || found.st_size < static_cast<off_t>(apikey::kNodePreambleSize)) {
    problem_ = "it is not node memory";
    return;
  }
  const auto size = static_cast<std::size_t>(found.st_size);
  void* const start = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd_, 0);
  if (start == MAP_FAILED) {  // NOLINT(performance-no-int-to-ptr)
    problem_ = os_sentence("it cannot be mapped");
    return;
  }
  bytes_ = {static_cast<std::byte*>(start), size};
  if (const apikey::Status status = apikey::attach_node(bytes_, memory_); !status.ok()) {
    problem_ = sentence_of(status);
  }
}

Node::~Node() {
  if (!bytes_.empty()) {
    munmap(bytes_.data(), bytes_.size());
  }
  if (fd_ >= 0) {
    close(fd_);
  }
}

fs::path Node::inbox() const { return fs::path(place_.state).replace_extension(".inbox"); }

std::string Node::name() const {
  return fmt::format("nginx (pid {}{})", memory_.master_pid(), is_live() ? "" : ", gone");
}

std::string Node::hidden_sentence() const {
  if (!place_.doubt.empty()) {
    return fmt::format(
        "{} may announce an nginx, but {}, so it is not believed and nobody can see what that nginx does. Remove it; "
        "nginx announces itself anew at its next reload",
        shown(place_.state.string()), problem_);
  }
  return fmt::format("{} is announced in nodes/ of this directory, but {}: nobody can see what that nginx does. {}",
                     shown(place_.state.string()), problem_,
                     is_removed_ ? "If it has been removed for good, run `keyloader node prune`"
                                 : "Run this as a user who may read it");
}

bool Node::is_live() const {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;  // any byte of the file
  return fd_ < 0 || fcntl(fd_, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

bool Node::has_live_worker(std::size_t row) const { return apikey::worker_lock(fd_, row) != apikey::LockState::free; }

std::vector<std::size_t> Node::rows_of(const fs::path& snapshot) const {
  std::vector<std::size_t> rows;
  const auto report = std::make_unique<apikey::StoreReport>();
  for (std::size_t row = 0; row < memory_.store_count(); ++row) {
    if (!memory_.read_store(row, *report) || report->key == 0) {
      continue;
    }
    const fs::path path{report->path()};
    if ((!place_.store.empty() && path == place_.store) || is_our_store(path, snapshot)) {
      rows.push_back(row);
    }
  }
  return rows;
}

Nodes::Nodes(const DataDir& directory, const fs::path& runtime)
    : snapshot_(directory.snapshot_file()), runtime_(whole(runtime)) {
  const std::vector<NodePlace> known = find_places(directory.path(), {});
  const auto is_known = [&](const NodePlace& place) {
    return std::any_of(known.begin(), known.end(),
                       [&](const NodePlace& each) { return is_same_file(each.state, place.state); });
  };
  const auto report = std::make_unique<apikey::StoreReport>();
  for (const NodePlace& place : find_places(directory.path(), runtime_)) {
    nodes_.push_back(std::make_unique<Node>(place));
    const Node& node = *nodes_.back();
    const std::vector<std::size_t> rows = node.rows_of(snapshot_);
    for (const std::size_t row : rows) {
      if (!node.memory().read_store(row, *report)) {
        continue;
      }
      const Texts methods = words_of(report->methods());
      const Texts features = words_of(report->features());
      stores_.push_back({.node = node.name(),
                         .is_live = node.is_live(),
                         .registry_id = report->adopted.registry_id,
                         .highest_generation = report->adopted.highest_generation,
                         .knows_methods = !methods.empty() && methods.back() != kMoreWords,
                         .methods = methods,
                         .knows_features = features.empty() || features.back() != kMoreWords,
                         .features = features,
                         .newest_format = report->newest_format});
    }
    if (!rows.empty() && !is_known(place)) {
      announce(directory.path(), node);
    }
  }
}

bool Nodes::is_in_runtime(const Node& node) const {
  std::vector<fs::path> directories = runtime_directories();
  if (!runtime_.empty()) {
    directories.push_back(runtime_);
  }
  const fs::path parent = node.place().state.parent_path();
  return std::any_of(directories.begin(), directories.end(),
                     [&](const fs::path& each) { return is_same_path(each, parent); });
}

void Nodes::forget(const Node& node) const {
  const FileDescriptor announced = open_announcements(snapshot_.parent_path());
  for (const fs::path& file : files_in(snapshot_.parent_path() / "nodes", ".json")) {
    if (const auto place = read_announcement(file); place && place->state == node.place().state) {
      static_cast<void>(unlinkat(announced.get(), file.filename().c_str(), 0));
    }
  }
}

const Node* Nodes::hidden() const {
  const auto found = std::find_if(nodes_.begin(), nodes_.end(), [](const auto& node) { return node->is_hidden(); });
  return found == nodes_.end() ? nullptr : found->get();
}

std::uint64_t Nodes::highest_generation(const apikey::RegistryId& registry) const {
  std::uint64_t highest = 0;
  for (const KnownStore& store : stores_) {
    if (store.registry_id == registry) {
      highest = std::max(highest, store.highest_generation);
    }
  }
  return highest;
}

const KnownStore* Nodes::oldest_reader() const {
  const KnownStore* oldest = nullptr;
  for (const KnownStore& store : stores_) {
    if (store.is_live && (oldest == nullptr || store.newest_format < oldest->newest_format)) {
      oldest = &store;
    }
  }
  return oldest;
}

std::string Nodes::old_format_sentence(const std::string& node, std::uint32_t newest_format) {
  return fmt::format("{} reads snapshot format {} only; keys.mdb is written in format {} until it is replaced", node,
                     newest_format, newest_format);
}

std::optional<std::string> Nodes::lack_of(const Needs& needs) const {
  for (const KnownStore& store : stores_) {
    if (!store.is_live) {
      continue;
    }
    if (const auto feature = store.knows_features ? first_missing(needs.features, store.features) : std::nullopt) {
      return fmt::format(
          "{} does not know the feature \"{}\", which this snapshot requires: it could not decide by it. Install a "
          "newer module there and restart it",
          store.node, *feature);
    }
    if (const auto method = store.knows_methods ? first_missing(needs.methods, store.methods) : std::nullopt) {
      const std::string id = method->substr(std::min(method->find(':') + 1, method->size()));
      return fmt::format(
          "{} does not know the pepper \"{}\", which keys of this registry use: it could not take this snapshot. Add "
          "pepper={}:{} to its apikey_store and reload it, then run `keyloader publish`",
          store.node, id, id, (snapshot_.parent_path() / "peppers" / id).string());
    }
  }
  return std::nullopt;
}

namespace {

// RETURNS: why the inbox could not take it; empty: it has.
std::string grant_in(const Node& node, const apikey::Permission& permission) {
  const NodeInbox opened(node);
  if (!opened.problem().empty()) {
    return opened.problem();
  }
  const apikey::Inbox& inbox = opened.inbox();
  return inbox.grant(permission) || inbox.grant(permission) ? std::string{} : "others are writing into it; try again";
}

}  // namespace

Texts Nodes::permit(const apikey::SealHash& seal, const apikey::RegistryId& registry, std::uint64_t generation) const {
  if (const Node* const node = hidden()) {
    throw Failure(fmt::format("{}, so it cannot be given the permission to switch; nothing was published",
                              node->hidden_sentence()));
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  apikey::Permission permission{
      .seal = seal,
      .registry_id = registry,
      .generation = generation,
      .granted_us = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now).count())};
  Texts warnings;
  const auto report = std::make_unique<apikey::StoreReport>();
  for (const auto& node : nodes_) {
    std::string why;
    for (const std::size_t row : node->rows_of(snapshot_)) {
      if (why.empty() && node->memory().read_store(row, *report)) {
        permission.store = report->key;
        why = grant_in(*node, permission);
      }
    }
    if (why.empty()) {
      continue;
    }
    const std::string sentence = fmt::format("{} could not be given the permission to switch, {}: {}", node->name(),
                                             node->inbox().string(), why);
    if (node->is_live()) {
      throw Failure(sentence + "; nothing was published");
    }
    warnings.push_back(sentence);
  }
  return warnings;
}

}  // namespace keyloader
