// The nginx instances of this machine, as their node memory shows them: where they are looked for, which of them live,
// and what they know of this directory's keys.mdb.
// Called by the publisher, by whoever waits for nginx, and by `node`.
// INVARIANT: node memory is written by nginx's workers, so whatever it says may be a lie. Texts of it are printed,
// paths of it are compared and never opened, and nothing is removed because of it. Only files of users who could
// publish here anyway are read: root, us, the owner of the directory, and what was announced in it or named with
// --runtime.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apikey/meta.hpp"
#include "apikey/node_memory.hpp"
#include "data_dir.hpp"

namespace keyloader {

// Where an instance keeps its two files.
struct NodePlace {
  std::filesystem::path state;
  std::filesystem::path store{};  // keys.mdb as that nginx calls it, when it was announced in our directory
  bool is_announced = false;      // in our directory: an nginx uses our keys.mdb, whether we can read its file or not
  bool is_found = false;          // in a runtime directory: root's or the caller's word says that it is there
  std::string doubt{};            // why what announces it is not believed; `state` is that file then
};

// One instance, mapped for reading. A file that is no node memory has none of the below but `problem`.
class Node {
 public:
  explicit Node(NodePlace place);
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  [[nodiscard]] const NodePlace& place() const { return place_; }
  [[nodiscard]] std::filesystem::path inbox() const;
  [[nodiscard]] const std::string& problem() const { return problem_; }  // why it cannot be read; empty: it can
  [[nodiscard]] uid_t owner() const { return owner_; }
  // It is announced, but there is no such file (any more).
  [[nodiscard]] bool is_removed() const { return place_.is_announced && is_removed_; }
  // It is announced, and nobody can see what that nginx does: it may be in another container, or another user's.
  [[nodiscard]] bool is_hidden() const { return place_.is_announced && !problem_.empty(); }
  // What is so, and what to do: "/run/apikey/x.state, which an nginx has announced …".
  [[nodiscard]] std::string hidden_sentence() const;
  [[nodiscard]] const apikey::NodeMemory& memory() const { return memory_; }
  [[nodiscard]] std::string name() const;  // "nginx (pid 812)"

  // Some process holds a lock on the file. One that cannot be asked for counts as held.
  [[nodiscard]] bool is_live() const;
  [[nodiscard]] bool has_live_worker(std::size_t row) const;
  // Numbers of the store rows that are this keys.mdb.
  [[nodiscard]] std::vector<std::size_t> rows_of(const std::filesystem::path& snapshot) const;

 private:
  NodePlace place_;
  std::string problem_;
  int fd_ = -1;
  uid_t owner_ = 0;
  bool is_removed_ = false;
  std::span<std::byte> bytes_;
  apikey::NodeMemory memory_;
};

// What one instance knows of our keys.mdb.
struct KnownStore {
  std::string node;  // "nginx (pid 812)"
  bool is_live = false;
  apikey::RegistryId registry_id{};
  std::uint64_t highest_generation = 0;  // 0: it has adopted nothing yet
  bool knows_methods = false;            // it says which digest methods it is configured for
  Texts methods{};
  bool knows_features = false;  // its list of features is complete
  Texts features{};
  std::uint32_t newest_format = 1;  // of snapshots that it reads
};

// What a snapshot asks of its readers.
struct Needs {
  Texts methods;
  Texts features{};
};

class Nodes {
 public:
  // Looks for them; `runtime`: a further directory to look in, or empty. Announces in the directory what was found only
  // there, so that the next command finds it without being told.
  Nodes(const DataDir& directory, const std::filesystem::path& runtime);

  [[nodiscard]] const std::vector<std::unique_ptr<Node>>& all() const { return nodes_; }
  [[nodiscard]] const std::filesystem::path& snapshot() const { return snapshot_; }
  // Of all instances that have our keys.mdb, also of those that are gone: their node memory counts when they start.
  [[nodiscard]] const std::vector<KnownStore>& stores() const { return stores_; }
  // It lies directly in a runtime directory that is known or was named.
  [[nodiscard]] bool is_in_runtime(const Node& node) const;
  // Removes what announces it in our directory.
  void forget(const Node& node) const;
  // The first that is hidden; null: none is.
  [[nodiscard]] const Node* hidden() const;
  [[nodiscard]] std::uint64_t highest_generation(const apikey::RegistryId& registry) const;
  // A sentence about the first live instance that lacks one of these digest methods or features.
  [[nodiscard]] std::optional<std::string> lack_of(const Needs& needs) const;
  // The live instance that reads the oldest format of snapshots only; null: none is live.
  [[nodiscard]] const KnownStore* oldest_reader() const;
  // What follows from an instance that does not read the newest one.
  [[nodiscard]] static std::string old_format_sentence(const std::string& node, std::uint32_t newest_format);
  // Lets each instance that has our keys.mdb take this one file. Throws when one that lives cannot be told. RETURNS: a
  // sentence for each that is gone and could not be told.
  [[nodiscard]] Texts permit(const apikey::SealHash& seal, const apikey::RegistryId& registry,
                             std::uint64_t generation) const;

 private:
  std::filesystem::path snapshot_;
  std::filesystem::path runtime_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<KnownStore> stores_;
};

}  // namespace keyloader
