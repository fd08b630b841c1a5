// The tables of usage.db and what is asked of them. Used by all files of `keyloader usage`.
// Must never lower a count or forget a gap.
#include "usage_store.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

namespace keyloader {
namespace {

constexpr int kSchemaVersion = 2;

// `name INTEGER NOT NULL,` … for all counters, or whatever else is said of each of them.
std::string for_counters(std::string_view pattern, std::string_view between) {
  std::string text;
  for (const std::string& name : usage_counter_names()) {
    text +=
        fmt::format("{}{}", text.empty() ? "" : between, fmt::format(fmt::runtime(pattern), fmt::arg("name", name)));
  }
  return text;
}

// A literal of its own for Database::query(), made once.
const char* put_counts_sql() {
  static const std::string sql = fmt::format(
      "INSERT INTO counts(instance, row, hour, owner, key, {}) VALUES(?, ?, ?, ?, ?, {}) "
      "ON CONFLICT(instance, row, hour, owner, key) DO UPDATE SET {}",
      for_counters("{name}", ", "), for_counters("?", ", "),
      for_counters("{name} = max({name}, excluded.{name})", ", "));
  return sql.c_str();
}

const char* sum_counts_sql() {
  static const std::string sql = fmt::format(
      "SELECT instance, hour, owner, key, {} FROM counts WHERE hour >= ?1 AND hour < ?2 "
      "AND (?3 IS NULL OR owner = ?3) AND (?4 IS NULL OR key = ?4) "
      "GROUP BY hour, instance, owner, key ORDER BY hour, instance, owner, key",
      for_counters("sum({name})", ", "));
  return sql.c_str();
}

const char* sum_months_sql() {
  static const std::string sql = fmt::format(
      "SELECT month, owner, key, {} FROM months WHERE month >= ?1 "
      "AND CAST(strftime('%s', month, 'unixepoch', '+1 month') AS INTEGER) <= ?2 "
      "AND (?3 IS NULL OR owner = ?3) AND (?4 IS NULL OR key = ?4) ORDER BY month, owner, key",
      for_counters("{name}", ", "));
  return sql.c_str();
}

const char* keep_months_sql() {
  static const std::string sql = fmt::format(
      "INSERT INTO months(month, owner, key, {}) SELECT CAST(strftime('%s', hour, 'unixepoch', 'start of month') AS "
      "INTEGER), owner, key, {} FROM counts WHERE hour < ? GROUP BY 1, owner, key "
      "ON CONFLICT(month, owner, key) DO UPDATE SET {}",
      for_counters("{name}", ", "), for_counters("sum({name})", ", "),
      for_counters("{name} = {name} + excluded.{name}", ", "));
  return sql.c_str();
}

template <typename Bytes>
void bind_optional(Query& query, const Bytes* bytes) {
  if (bytes != nullptr) {
    query.bind(std::span<const std::uint8_t>{*bytes});
  } else {
    query.bind_null();
  }
}

UsageSource read_source(const Query& row) {
  UsageSource source{.node = row.text(1),
                     .socket = row.text(2),
                     .created = row.number(3),
                     .collected = row.number(4),
                     .complete_to = row.number(5),
                     .unplaced = row.count(6)};
  row.bytes(0, source.instance);
  return source;
}

UsageGap read_gap(const Query& row) {
  UsageGap gap{.kind = row.text(1), .from = row.number(2), .to = row.number(3)};
  row.bytes(0, gap.instance);
  return gap;
}

// Until usage.db is there and in its journal mode, only one process may be at it: SQLite does not wait for that.
class OpeningLock {
 public:
  explicit OpeningLock(const DataDir& directory)
      : fd_(open(directory.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (fd_ < 0 || flock(fd_, LOCK_EX) != 0) {
      fail_errno("open", directory.path());
    }
  }
  ~OpeningLock() { close(fd_); }
  OpeningLock(const OpeningLock&) = delete;
  OpeningLock& operator=(const OpeningLock&) = delete;

 private:
  int fd_;
};

std::int64_t schema_version(Database& database) {
  Query query = database.query("PRAGMA user_version");
  query.step();
  return query.number(0);
}

bool may_only_read(const std::filesystem::path& path) { return access(path.c_str(), W_OK) != 0 && errno == EACCES; }

Database open_database(const DataDir& directory) {
  const std::filesystem::path file = directory.usage_file();
  if (may_only_read(file)) {
    return {file, false};
  }
  if (access(file.c_str(), F_OK) != 0 && may_only_read(directory.path())) {
    throw Failure(fmt::format("nothing was collected in {} yet; its owner does it with `keyloader usage collect`",
                              directory.path().string()));
  }
  const OpeningLock lock(directory);
  return {file, true};
}

}  // namespace

UsageStore::UsageStore(const DataDir& directory) : database_(open_database(directory)) {
  if (make_tables()) {
    directory.share_as_registry(directory.usage_file());
  }
}

bool UsageStore::make_tables() {
  if (database_.is_readonly()) {
    if (const std::int64_t found = schema_version(database_); found != kSchemaVersion) {
      throw Failure(
          fmt::format("usage.db has tables of version {}, this keyloader reads version {}; `keyloader usage collect` "
                      "as its owner brings it up to date",
                      found, kSchemaVersion));
    }
    return false;
  }
  Transaction transaction(database_, Transaction::Kind::write);
  const std::int64_t found = schema_version(database_);
  if (found > kSchemaVersion) {
    throw Failure(
        fmt::format("usage.db was made by a newer keyloader (version {} of its tables, this one knows {}); "
                    "use that one",
                    found, kSchemaVersion));
  }
  if (found == 0) {
    database_.execute(fmt::format(R"sql(
CREATE TABLE sources(
  instance    BLOB    PRIMARY KEY CHECK(length(instance) = 16),
  node        TEXT    NOT NULL,
  socket      TEXT    NOT NULL,
  created     INTEGER NOT NULL,
  collected   INTEGER NOT NULL,
  complete_to INTEGER NOT NULL,
  unplaced    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE counts(
  instance BLOB    NOT NULL REFERENCES sources(instance),
  row      INTEGER NOT NULL,
  hour     INTEGER NOT NULL CHECK(hour % 3600 = 0),
  owner    BLOB    NOT NULL CHECK(length(owner) = 16),
  key      BLOB    NOT NULL CHECK(length(key) = 13),
  {},
  PRIMARY KEY(instance, row, hour, owner, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX counts_by_hour ON counts(hour, instance, owner, key);
CREATE INDEX counts_by_owner ON counts(owner, hour);
CREATE TABLE gaps(
  instance BLOB    NOT NULL,
  kind     TEXT    NOT NULL,
  begin    INTEGER NOT NULL,
  until    INTEGER NOT NULL,
  PRIMARY KEY(instance, kind, begin, until)
) STRICT, WITHOUT ROWID;
CREATE TABLE merged(
  sha256 BLOB    PRIMARY KEY CHECK(length(sha256) = 32),
  file   TEXT    NOT NULL,
  time   INTEGER NOT NULL,
  rows   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
)sql",
                                  for_counters("{name} INTEGER NOT NULL CHECK({name} >= 0)", ",\n  "))
                          .c_str());
  }
  if (found < kSchemaVersion) {
    add_later_tables();
  }
  transaction.commit();
  return found == 0;
}

// `last_used`: of each key by itself, as it is asked for often, and outlives the counts. `months`: what is left of
// them.
void UsageStore::add_later_tables() {
  database_.execute(fmt::format(R"sql(
CREATE TABLE last_used(
  key  BLOB    PRIMARY KEY CHECK(length(key) = 13),
  hour INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO last_used SELECT key, max(hour) FROM counts WHERE key <> zeroblob(13) GROUP BY key;
CREATE TABLE months(
  month INTEGER NOT NULL,
  owner BLOB    NOT NULL CHECK(length(owner) = 16),
  key   BLOB    NOT NULL CHECK(length(key) = 13),
  {},
  PRIMARY KEY(month, owner, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE pruned(before INTEGER NOT NULL) STRICT;
INSERT INTO pruned VALUES(0);
PRAGMA user_version = {};
)sql",
                                for_counters("{name} INTEGER NOT NULL CHECK({name} >= 0)", ",\n  "), kSchemaVersion)
                        .c_str());
}

std::optional<UsageSource> UsageStore::source(const UsageInstance& instance) {
  Query query = database_.query(
      "SELECT instance, node, socket, created, collected, complete_to, unplaced FROM sources WHERE instance = ?");
  return query.bind(instance).step() ? std::optional(read_source(query)) : std::nullopt;
}

std::optional<UsageSource> UsageStore::source_at(const std::string& socket) {
  Query query = database_.query(
      "SELECT instance, node, socket, created, collected, complete_to, unplaced FROM sources WHERE socket = ?"
      " ORDER BY collected DESC LIMIT 1");
  return query.bind(socket).step() ? std::optional(read_source(query)) : std::nullopt;
}

std::vector<UsageSource> UsageStore::sources() {
  std::vector<UsageSource> all;
  Query query = database_.query(
      "SELECT instance, node, socket, created, collected, complete_to, unplaced FROM sources ORDER BY created");
  while (query.step()) {
    all.push_back(read_source(query));
  }
  return all;
}

void UsageStore::put(const UsageSource& source) {
  Query query = database_.query(
      "INSERT INTO sources(instance, node, socket, created, collected, complete_to, unplaced) VALUES(?, ?, ?, ?, ?, ?, "
      "?)"
      " ON CONFLICT(instance) DO UPDATE SET socket = iif(excluded.socket = '', socket, excluded.socket),"
      " collected = max(collected, excluded.collected), complete_to = max(complete_to, excluded.complete_to),"
      " unplaced = max(unplaced, excluded.unplaced)");
  query.bind(source.instance).bind(source.node).bind(source.socket).bind(source.created).bind(source.collected);
  query.bind(source.complete_to).bind(source.unplaced).run();
}

void UsageStore::put(const UsageRecord& record) {
  if (record.hour < pruned_before()) {
    const auto known = source(record.instance);
    if (known && record.hour + apikey::kUsageHour <= known->complete_to) {
      return;  // it is in the sum of its month
    }
  }
  Query query = database_.query(put_counts_sql());
  query.bind(record.instance).bind(record.row).bind(record.hour).bind(record.owner).bind(record.key.bytes);
  for (const std::uint64_t counter : record.counters) {
    query.bind(counter);
  }
  query.run();
  if (record.key != apikey::KeyId{}) {
    Query use = database_.query(
        "INSERT INTO last_used(key, hour) VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET hour = max(hour, excluded.hour)");
    use.bind(record.key.bytes).bind(record.hour).run();
  }
}

Seconds UsageStore::last_used(const apikey::KeyId& key) {
  Query query = database_.query("SELECT hour FROM last_used WHERE key = ?");
  return query.bind(key.bytes).step() ? query.number(0) : 0;
}

void UsageStore::put(const UsageGap& gap) {
  Query query = database_.query("INSERT OR IGNORE INTO gaps(instance, kind, begin, until) VALUES(?, ?, ?, ?)");
  query.bind(gap.instance).bind(gap.kind).bind(gap.from).bind(gap.to).run();
}

bool UsageStore::has_counts(const UsageRecord& like) {
  Query query =
      database_.query("SELECT 1 FROM counts WHERE hour = ? AND instance = ? AND owner = ? AND key = ? LIMIT 1");
  return query.bind(like.hour).bind(like.instance).bind(like.owner).bind(like.key.bytes).step();
}

void UsageStore::each(const UsageFilter& filter, const std::function<void(const UsageRecord&)>& visit) {
  Query query = database_.query(sum_counts_sql());
  query.bind(filter.from).bind(filter.to);
  bind_optional(query, filter.owner ? &*filter.owner : nullptr);
  bind_optional(query, filter.key ? &filter.key->bytes : nullptr);
  while (query.step()) {
    UsageRecord record;
    query.bytes(0, record.instance);
    record.hour = query.number(1);
    query.bytes(2, record.owner);
    query.bytes(3, record.key.bytes);
    for (std::size_t i = 0; i < record.counters.size(); ++i) {
      record.counters.at(i) = query.count(4 + static_cast<int>(i));
    }
    visit(record);
  }
}

void UsageStore::each_with_months(const UsageFilter& filter, const std::function<void(const UsageRecord&)>& visit) {
  {
    Query query = database_.query(sum_months_sql());
    query.bind(filter.from).bind(filter.to);
    bind_optional(query, filter.owner ? &*filter.owner : nullptr);
    bind_optional(query, filter.key ? &filter.key->bytes : nullptr);
    while (query.step()) {
      UsageRecord record;
      record.hour = query.number(0);
      query.bytes(1, record.owner);
      query.bytes(2, record.key.bytes);
      for (std::size_t i = 0; i < record.counters.size(); ++i) {
        record.counters.at(i) = query.count(3 + static_cast<int>(i));
      }
      visit(record);
    }
  }
  each(filter, visit);
}

Seconds UsageStore::pruned_before() {
  Query query = database_.query("SELECT before FROM pruned");
  return query.step() ? query.number(0) : 0;
}

Pruned UsageStore::count_prunable(Seconds before) {
  {
    // One that has been replaced will not count any more.
    Query open = database_.query(
        "SELECT s.node, min(c.hour) FROM sources s JOIN counts c ON c.instance = s.instance"
        " WHERE s.socket <> '' AND c.hour < ? AND c.hour + 3600 > s.complete_to"
        " AND s.collected = (SELECT max(collected) FROM sources o WHERE o.socket = s.socket)"
        " GROUP BY s.instance LIMIT 1");
    if (open.bind(before).step()) {
      throw Failure(
          fmt::format("counts of {} from {} on are not complete; run `keyloader usage collect` there, then prune",
                      open.text(0), time_text(open.number(1))));
    }
  }
  Pruned pruned;
  Query rows = database_.query("SELECT count(*), coalesce(min(hour), 0) FROM counts WHERE hour < ?");
  rows.bind(before).step();
  pruned.rows = rows.count(0);
  pruned.first = rows.number(1);
  Query sums = database_.query(
      "SELECT count(*) FROM (SELECT DISTINCT strftime('%Y-%m', hour, 'unixepoch'), owner, key FROM counts WHERE hour < "
      "?)");
  sums.bind(before).step();
  pruned.sums = sums.count(0);
  return pruned;
}

void UsageStore::prune(Seconds before) {
  Query keep = database_.query(keep_months_sql());
  keep.bind(before).run();
  Query remove = database_.query("DELETE FROM counts WHERE hour < ?");
  remove.bind(before).run();
  Query remember = database_.query("UPDATE pruned SET before = max(before, ?)");
  remember.bind(before).run();
}

std::vector<UsageGap> UsageStore::gaps(Seconds from, Seconds to) {
  std::vector<UsageGap> found;
  Query query = database_.query(
      "SELECT instance, kind, begin, until FROM gaps WHERE begin < ? AND until > ? ORDER BY begin, until");
  query.bind(to).bind(from);
  while (query.step()) {
    found.push_back(read_gap(query));
  }
  return found;
}

Seconds UsageStore::merged(const Hash& file) {
  Query query = database_.query("SELECT time FROM merged WHERE sha256 = ?");
  return query.bind(file).step() ? query.number(0) : 0;
}

void UsageStore::put_merged(const Hash& file, const std::string& name, std::uint64_t rows) {
  Query query = database_.query("INSERT INTO merged(sha256, file, time, rows) VALUES(?, ?, ?, ?)");
  query.bind(file).bind(name).bind(wall_clock()).bind(rows).run();
}

}  // namespace keyloader
