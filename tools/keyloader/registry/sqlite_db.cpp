// The skin over sqlite3: opening with the right pragmas, and every sqlite error turned into a sentence with a remedy.
// Called by the registry's files and by usage_store.cpp. Must never print what was bound.
#include "registry/sqlite_db.hpp"

#include <fmt/format.h>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "disk_full.hpp"
#include "user.hpp"

namespace keyloader {
namespace {

constexpr int kBusyTimeoutMs = 60'000;

// "registry.db" of the whole path.
std::string file_name(sqlite3* database) {
  const char* path = database != nullptr ? sqlite3_db_filename(database, "main") : nullptr;
  return path != nullptr ? std::filesystem::path{path}.filename().string() : "the database";
}

// SQLite gives the journal the mode of the database, but only root's gets its group, too: in a directory that gives
// new files another one, that group must not read what the database's may.
void give_group_of(const std::filesystem::path& path) {
  struct stat database {};
  if (stat(path.c_str(), &database) != 0) {
    return;
  }
  for (const char* suffix : {"-wal", "-shm"}) {
    const std::string file = path.string() + suffix;
    struct stat journal {};
    if (lstat(file.c_str(), &journal) == 0 && S_ISREG(journal.st_mode) && journal.st_gid != database.st_gid &&
        lchown(file.c_str(), static_cast<uid_t>(-1), database.st_gid) != 0) {
      chmod(file.c_str(), S_IRUSR | S_IWUSR);
    }
  }
}

// Whoever may only read a database needs both files, and cannot make them.
bool lacks_files_for_readers(sqlite3* database, const std::filesystem::path& path) {
  return database != nullptr && sqlite3_db_readonly(database, "main") == 1 &&
         (!std::filesystem::exists(path.string() + "-wal") || !std::filesystem::exists(path.string() + "-shm"));
}

[[noreturn]] void fail(sqlite3* database, const std::filesystem::path& path) {
  const std::string file = path.empty() ? "the database" : path.filename().string();
  int code = database != nullptr ? sqlite3_errcode(database) & 0xff : SQLITE_NOMEM;
  if (database != nullptr && code == SQLITE_IOERR && sqlite3_system_errno(database) == ENOSPC) {
    code = SQLITE_FULL;
  }
  const char* detail = database != nullptr ? sqlite3_errmsg(database) : "out of memory";
  switch (code) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      throw Failure(fmt::format("another process has been writing to {} for {} seconds; nothing was changed, try again",
                                file, kBusyTimeoutMs / 1000));
    case SQLITE_FULL:
      throw DiskFull(fmt::format("the disk is full; nothing was changed in {}: make room and try again", file));
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
      if (lacks_files_for_readers(database, path)) {
        throw Failure(
            fmt::format("{0} cannot be read without {0}-wal and {0}-shm by a user who may not write it; any keyloader "
                        "command of the owner of {0} makes them again",
                        file));
      }
      throw Failure(fmt::format("{} cannot be {} ({}); {}", file, code == SQLITE_CANTOPEN ? "opened" : "written",
                                detail, who_may(path)));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      throw Failure(
          fmt::format("{} is damaged ({}); restore it from a backup. nginx goes on with keys.mdb", file, detail));
    case SQLITE_CONSTRAINT:
      throw DoesNotFit(fmt::format("this does not fit what is in {}: {}", file, detail));
    default:
      throw Failure(fmt::format("{} could not be used: {}", file, detail));
  }
}

[[noreturn]] void fail(sqlite3* database) {
  const char* path = database != nullptr ? sqlite3_db_filename(database, "main") : nullptr;
  fail(database, path != nullptr ? path : "");
}

// A directory may be reached through a link; the file itself may not be one, as whoever can write the directory could
// make it one to another's file.
std::filesystem::path without_links(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::path directory =
      std::filesystem::canonical(path.has_parent_path() ? path.parent_path() : ".", error);
  std::filesystem::path file = (error ? path.parent_path() : directory) / path.filename();
  if (std::filesystem::is_symlink(file, error)) {
    throw Failure(
        fmt::format("{} is a link, which is not followed; put the file itself there, or name its directory "
                    "with --dir",
                    path.string()));
  }
  return file;
}

}  // namespace

Query::~Query() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

Query& Query::bind(std::int64_t value) {
  if (sqlite3_bind_int64(statement_, ++bound_, value) != SQLITE_OK) {
    fail(sqlite3_db_handle(statement_));
  }
  return *this;
}

Query& Query::bind(std::string_view text) {
  const char* data = text.empty() ? "" : text.data();
  if (sqlite3_bind_text64(statement_, ++bound_, data, text.size(), SQLITE_STATIC, SQLITE_UTF8) != SQLITE_OK) {
    fail(sqlite3_db_handle(statement_));
  }
  return *this;
}

Query& Query::bind(std::string&& text) {
  if (sqlite3_bind_text64(statement_, ++bound_, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8) != SQLITE_OK) {
    fail(sqlite3_db_handle(statement_));
  }
  return *this;
}

Query& Query::bind(std::span<const std::uint8_t> bytes) {
  if (sqlite3_bind_blob64(statement_, ++bound_, bytes.data(), bytes.size(), SQLITE_STATIC) != SQLITE_OK) {
    fail(sqlite3_db_handle(statement_));
  }
  return *this;
}

Query& Query::bind_null() {
  if (sqlite3_bind_null(statement_, ++bound_) != SQLITE_OK) {
    fail(sqlite3_db_handle(statement_));
  }
  return *this;
}

bool Query::step() {
  switch (sqlite3_step(statement_)) {
    case SQLITE_ROW:
      return true;
    case SQLITE_DONE:
      return false;
    default:
      fail(sqlite3_db_handle(statement_));
  }
}

std::string_view Query::view(int column) const {
  const void* text = sqlite3_column_blob(statement_, column);
  const int length = sqlite3_column_bytes(statement_, column);
  return text == nullptr ? std::string_view{}
                         : std::string_view{static_cast<const char*>(text), static_cast<std::size_t>(length)};
}

std::string Query::text(int column) const { return std::string{view(column)}; }

void Query::bytes(int column, std::span<std::uint8_t> out) const {
  const std::string_view value = view(column);
  if (value.size() != out.size()) {
    throw Failure(fmt::format("{} is damaged (a value of {} bytes where {} belong); restore it from a backup",
                              file_name(sqlite3_db_handle(statement_)), value.size(), out.size()));
  }
  std::copy(value.begin(), value.end(), out.begin());
}

Database::Database(const std::filesystem::path& given, bool create) {
  const std::filesystem::path path = without_links(given);
  sqlite3* database = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW | (create ? SQLITE_OPEN_CREATE : 0);
  const int code = sqlite3_open_v2(path.c_str(), &database, flags, nullptr);
  database_.reset(database);
  if (code != SQLITE_OK) {
    fail(database, path);
  }
  sqlite3_busy_timeout(database, kBusyTimeoutMs);
  // Whoever may only read gets a file that is open for reading; it was told how to keep its journal by a writer.
  if (is_readonly()) {
    execute("PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF; PRAGMA cache_size=-65536");
    return;
  }
  // Whoever may only read cannot make these files, so they stay when the last writer goes. Empty, as what stood in them
  // would be read into a backup that is copied over the database.
  int is_on = 1;
  sqlite3_file_control(database, "main", SQLITE_FCNTL_PERSIST_WAL, &is_on);
  // FULL: what the snapshot already says must not be forgotten by the registry when the power fails. secure_delete:
  // what was erased must not stay in the file.
  execute(
      "PRAGMA journal_mode=WAL; PRAGMA journal_size_limit=0; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA "
      "trusted_schema=OFF; PRAGMA secure_delete=ON;"
      "PRAGMA cache_size=-65536");
  give_group_of(path);
}

Query Database::query(const char* sql) {
  auto& statement = statements_[sql];
  if (statement == nullptr) {
    sqlite3_stmt* prepared = nullptr;
    if (sqlite3_prepare_v3(database_.get(), sql, -1, SQLITE_PREPARE_PERSISTENT, &prepared, nullptr) != SQLITE_OK) {
      fail(database_.get());
    }
    statement.reset(prepared);
  }
  return Query{statement.get()};
}

void Database::execute(const char* sql) {
  if (sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
    fail(database_.get());
  }
}

bool Database::is_readonly() const { return sqlite3_db_readonly(database_.get(), "main") == 1; }

bool Database::has_table(std::string_view name) {
  Query query = this->query("SELECT 1 FROM sqlite_schema WHERE type='table' AND name=?");
  return query.bind(name).step();
}

Transaction::Transaction(Database& database, Kind kind) : database_(database) {
  database_.execute(kind == Kind::write ? "BEGIN IMMEDIATE" : "BEGIN");
}

Transaction::~Transaction() {
  if (is_open_) {
    try {
      database_.execute("ROLLBACK");
    } catch (const Failure&) {
      // sqlite rolls back by itself after some errors (a full disk); then there is nothing left to roll back.
      is_open_ = false;
    }
  }
}

void Transaction::commit() {
  database_.execute("COMMIT");
  is_open_ = false;
}

}  // namespace keyloader
