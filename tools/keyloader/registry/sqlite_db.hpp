// A thin, owning skin over sqlite3: one database, its prepared statements, rows read by position.
// Called by the registry's files and by usage_store.cpp. Knows nothing of keys; throws Failure with a sentence.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "registry/registry.hpp"

namespace keyloader {

// One run of a prepared statement: bind, step, read; reset when it goes out of scope.
class Query {
 public:
  explicit Query(sqlite3_stmt* statement) : statement_(statement) {}
  ~Query();
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;

  // Parameters are bound in order. Views and bytes must live until the query ends; a temporary string is copied.
  Query& bind(std::int64_t value);
  Query& bind(std::uint64_t value) { return bind(static_cast<std::int64_t>(value)); }
  Query& bind(bool value) { return bind(std::int64_t{value ? 1 : 0}); }
  Query& bind(std::string_view text);
  Query& bind(const std::string& text) { return bind(std::string_view{text}); }
  Query& bind(std::string&& text);
  Query& bind(const char* text) { return bind(std::string_view{text}); }
  Query& bind(std::span<const std::uint8_t> bytes);
  Query& bind_null();

  // RETURNS: false when there is no further row.
  bool step();
  void run() { step(); }

  [[nodiscard]] bool is_null(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
  [[nodiscard]] std::int64_t number(int column) const { return sqlite3_column_int64(statement_, column); }
  [[nodiscard]] std::uint64_t count(int column) const { return static_cast<std::uint64_t>(number(column)); }
  [[nodiscard]] std::string text(int column) const;
  [[nodiscard]] std::string_view view(int column) const;  // LIFETIME: until the next step()
  // REQUIRES of the schema: the column is as long as `out`; throws when somebody wrote another length.
  void bytes(int column, std::span<std::uint8_t> out) const;

 private:
  sqlite3_stmt* statement_;
  int bound_ = 0;
};

// What was to be written does not go together with what is there: something is taken, or is used elsewhere.
class DoesNotFit : public Failure {
 public:
  using Failure::Failure;
};

class Database {
 public:
  // Opens a file for reading and writing. `create`: makes it when it is not there (0600 by the umask).
  Database(const std::filesystem::path& path, bool create);

  // The statement of this literal, prepared once. REQUIRES: no other Query on the same literal is alive.
  [[nodiscard]] Query query(const char* sql);
  void execute(const char* sql);
  [[nodiscard]] bool has_table(std::string_view name);
  [[nodiscard]] bool is_readonly() const;  // whoever opened it may only read

 private:
  struct Close {
    void operator()(sqlite3* database) const { sqlite3_close_v2(database); }
  };
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3, Close> database_;
  std::unordered_map<const char*, std::unique_ptr<sqlite3_stmt, Finalize>> statements_;
};

// One transaction; rolled back unless commit() was reached.
class Transaction {
 public:
  enum class Kind : std::uint8_t { read, write };
  Transaction(Database& database, Kind kind);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  Database& database_;
  bool is_open_ = true;
};

}  // namespace keyloader
