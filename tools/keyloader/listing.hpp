// What a list command writes: the rows and columns that were asked for, as a table, CSV or JSON.
// Used by `key list`, `usage --top` and `audit list`. Rows that are neither sorted nor aligned are written as they
// come.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "session.hpp"

namespace keyloader {

struct ListOptions {
  std::string format;   // table, wide, json, ndjson, csv; empty: table, or json with --json
  std::string columns;  // a,b,c; empty: those of the format
  std::string sort;
  bool is_reversed = false;
  std::optional<std::uint64_t> most;
};

// -o, --columns, --sort, --reverse, --limit.
void add_list_options(Command& command, ListOptions& options);

// A member of each row, by its name in JSON, and what it is called above a table.
struct Column {
  std::string_view name;
  std::string_view heading;
};
struct Columns {
  std::vector<Column> known;
  std::vector<std::string_view> of_table;
  std::vector<std::string_view> of_wide;  // of CSV, too
};

class Listing {
 public:
  // Throws UsageError for a column that is not known; its sentence names those that are.
  // `none`: what is said where a table would have no rows.
  Listing(const Session& session, const ListOptions& options, Columns columns, std::string none);

  // `row`: an object that has all columns; in JSON all of it is written where none was asked for by name.
  void add(Json row);
  // Nothing more will be written, so nothing more need be added.
  [[nodiscard]] bool is_full() const;
  void finish();

 private:
  [[nodiscard]] const Column& require_column(std::string_view what, std::string_view name) const;
  [[nodiscard]] bool is_json() const { return format_ == "json" || format_ == "ndjson"; }
  void write(const Json& row);
  void flush();

  Columns columns_;
  std::vector<Column> shown_;
  std::string none_;
  std::string format_;
  std::string sort_;
  bool is_reversed_;
  std::optional<std::uint64_t> most_;
  bool names_columns_;
  std::uint64_t written_ = 0;
  std::vector<Json> unsorted_;
  std::vector<Texts> table_;
  std::string text_;
};

// How a member reads in a cell: lists with spaces between, `-` where there is nothing.
[[nodiscard]] std::string cell_text(const Json& value);

}  // namespace keyloader
