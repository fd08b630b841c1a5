// usage.db: what was collected from nginx and merged from other nodes, in SQLite beside the registry (0600). A node
// without a registry has one, too.
// Used by all files of `keyloader usage`. Rows only grow: putting a row again keeps the larger of each counter, so it
// does not matter how often, in which order or by how many it is collected.
#pragma once

#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "data_dir.hpp"
#include "registry/sqlite_db.hpp"
#include "usage_counts.hpp"

namespace keyloader {

// One life of counts in an nginx: it lasts over reloads and restarts, as long as they are carried over.
struct UsageSource {
  UsageInstance instance{};
  std::string node{};    // the machine's name
  std::string socket{};  // where it was collected; empty: merged
  Seconds created = 0;
  Seconds collected = 0;    // the last time
  Seconds complete_to = 0;  // hours that end by then are complete
  std::uint64_t unplaced = 0;
};

// A window in which counts may be short.
struct UsageGap {
  UsageInstance instance{};
  // `restored`: nginx's counts came back from a checkpoint. `replaced`: they were lost. `elsewhere`: another collector
  // has them. What begins at `from` and ends at `to`, in seconds since 1970.
  std::string kind;
  Seconds from = 0;
  Seconds to = 0;
};

struct UsageFilter {
  Seconds from = 0;
  Seconds to = std::numeric_limits<Seconds>::max();  // hours that begin before
  std::optional<OwnerId> owner;
  std::optional<apikey::KeyId> key;
};

// What was pruned, or would be.
struct Pruned {
  std::uint64_t rows = 0;
  std::uint64_t sums = 0;  // of a key and a month, that stay
  Seconds first = 0;       // the oldest hour; 0: there is nothing
};

class UsageStore {
 public:
  // Makes the file when it is not there. Throws Failure when the directory is not there. For whoever may only read it
  // is read-only, and a Failure where there is none yet.
  explicit UsageStore(const DataDir& directory);

  [[nodiscard]] Database& database() { return database_; }

  [[nodiscard]] std::optional<UsageSource> source(const UsageInstance& instance);
  // The one that was collected last at this socket.
  [[nodiscard]] std::optional<UsageSource> source_at(const std::string& socket);
  [[nodiscard]] std::vector<UsageSource> sources();
  // Keeps the later of each time; the first name stays.
  void put(const UsageSource& source);

  // REQUIRES: its source is there. What was complete before it was pruned is not taken a second time.
  void put(const UsageRecord& record);
  void put(const UsageGap& gap);
  // The last hour in which anything was asked for with the key; 0: never, as far as is known.
  [[nodiscard]] Seconds last_used(const apikey::KeyId& key);
  [[nodiscard]] bool has_counts(const UsageRecord& like);  // of that instance, hour, key and owner

  // One visit for each hour, instance, owner and key, in this order; `row` is of no meaning.
  void each(const UsageFilter& filter, const std::function<void(const UsageRecord&)>& visit);
  // The same, after the sums of the months that were pruned and lie in the window as a whole: of these `hour` is when
  // the month begins, and `instance` is zero.
  void each_with_months(const UsageFilter& filter, const std::function<void(const UsageRecord&)>& visit);
  // Counts of hours before then are kept by the month only; 0: none.
  [[nodiscard]] Seconds pruned_before();
  // REQUIRES: `before` is the begin of a month, in UTC. Throws Failure when counts of hours before it may still change.
  [[nodiscard]] Pruned count_prunable(Seconds before);
  void prune(Seconds before);
  [[nodiscard]] std::vector<UsageGap> gaps(Seconds from, Seconds to);  // that touch the window, oldest first

  // A file that was merged, by its SHA-256. RETURNS: when; 0: never.
  [[nodiscard]] Seconds merged(const Hash& file);
  void put_merged(const Hash& file, const std::string& name, std::uint64_t rows);

 private:
  bool make_tables();  // RETURNS: whether they were made for the first time
  void add_later_tables();

  Database database_;
};

}  // namespace keyloader
