// Writing lists: choosing columns, sorting, cutting off, and the formats. Called by the list commands.
#include "listing.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "csv.hpp"
#include "table.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kChunk = 65'536;

// What a cell holds; empty where there is nothing.
std::string plain_text(const Json& value) {
  if (value.is_null()) {
    return {};
  }
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (value.is_boolean()) {
    return value.get<bool>() ? "yes" : "no";
  }
  if (value.is_object()) {
    Texts pairs;
    for (const auto& [name, each] : value.items()) {
      pairs.push_back(fmt::format("{}={}", name, plain_text(each)));
    }
    return fmt::format("{}", fmt::join(pairs, " "));
  }
  if (value.is_array()) {
    Texts words;
    std::transform(value.begin(), value.end(), std::back_inserter(words), plain_text);
    return fmt::format("{}", fmt::join(words, " "));
  }
  return value.is_number_float() ? fmt::format("{}", value.get<double>()) : value.dump();
}

bool is_nothing(const Json& value) { return value.is_null() || plain_text(value).empty(); }

// Whether `a` stands before `b`. Nothing stands last, whatever the direction.
bool is_before(const Json& a, const Json& b, bool is_reversed) {
  if (is_nothing(a) || is_nothing(b)) {
    return !is_nothing(a) && is_nothing(b);
  }
  return is_reversed ? b < a : a < b;
}

Texts split(const std::string& list) {
  Texts words;
  std::size_t from = 0;
  while (from <= list.size()) {
    const std::size_t comma = std::min(list.find(',', from), list.size());
    words.push_back(list.substr(from, comma - from));
    from = comma + 1;
  }
  return words;
}

}  // namespace

std::string cell_text(const Json& value) {
  std::string text = plain_text(value);
  return text.empty() ? "-" : text;
}

void add_list_options(Command& command, ListOptions& options) {
  command.choice("-o,--output", options.format, {"table", "wide", "json", "ndjson", "csv"}, "FORMAT",
                 "table, wide, json, ndjson (a line for each) or csv");
  command.option("--columns", options.columns, "A,B,C", "Only these, in this order");
  command.option("--sort", options.sort, "COLUMN", "By this column; what has nothing there comes last");
  command.flag("--reverse", options.is_reversed, "With --sort: the largest, or latest, first");
  command.option("--limit", options.most, "N", "Only the first N");
}

Listing::Listing(const Session& session, const ListOptions& options, Columns columns, std::string none)
    : columns_(std::move(columns)),
      none_(std::move(none)),
      format_(options.format),
      sort_(options.sort),
      is_reversed_(options.is_reversed),
      most_(options.most),
      names_columns_(!options.columns.empty()) {
  if (session.is_json && !format_.empty() && !is_json()) {
    throw UsageError(fmt::format("--json and -o {} say two things; leave one of them out", format_));
  }
  if (format_.empty()) {
    format_ = session.is_json ? "json" : "table";
  }
  if (most_ == std::uint64_t{0}) {
    throw UsageError("--limit 0 would show nothing; leave it out for all");
  }
  if (is_reversed_ && sort_.empty()) {
    throw UsageError("--reverse turns round what --sort sorts; say by which column, such as --sort created");
  }
  if (!sort_.empty()) {
    static_cast<void>(require_column("--sort", sort_));
  }
  if (names_columns_) {
    for (const std::string& name : split(options.columns)) {
      shown_.push_back(require_column("--columns", name));
    }
  } else {
    for (const std::string_view name : format_ == "table" ? columns_.of_table : columns_.of_wide) {
      shown_.push_back(require_column("--columns", name));
    }
  }
  if (format_ == "csv") {
    Texts names;
    std::transform(shown_.begin(), shown_.end(), std::back_inserter(names),
                   [](const Column& column) { return std::string{column.name}; });
    text_ = csv_line(names);
  } else if (format_ == "json") {
    text_ = "[";
  }
}

const Column& Listing::require_column(std::string_view what, std::string_view name) const {
  const auto found = std::find_if(columns_.known.begin(), columns_.known.end(),
                                  [&](const Column& column) { return column.name == name; });
  if (found == columns_.known.end()) {
    Texts names;
    std::transform(columns_.known.begin(), columns_.known.end(), std::back_inserter(names),
                   [](const Column& column) { return std::string{column.name}; });
    throw UsageError(fmt::format("{}: there is no column \"{}\"; there are {}", what, name, fmt::join(names, ", ")));
  }
  return *found;
}

void Listing::add(Json row) {
  if (!sort_.empty()) {
    unsorted_.push_back(std::move(row));
  } else if (!is_full()) {
    write(row);
  }
}

bool Listing::is_full() const { return sort_.empty() && most_ && written_ >= *most_; }

void Listing::write(const Json& row) {
  if (is_json()) {
    Json chosen = Json::object();
    for (const Column& column : shown_) {
      chosen[std::string{column.name}] = row.value(std::string{column.name}, Json(nullptr));
    }
    text_ += written_ == 0 || format_ == "ndjson" ? "" : ",\n";
    text_ += json_text(names_columns_ ? chosen : row);
    text_ += format_ == "ndjson" ? "\n" : "";
  } else {
    Texts cells;
    for (const Column& column : shown_) {
      const Json value = row.value(std::string{column.name}, Json(nullptr));
      cells.push_back(format_ == "csv" ? shown(plain_text(value)) : cell_text(value));
    }
    if (format_ == "csv") {
      text_ += csv_line(cells);
    } else {
      table_.push_back(std::move(cells));
    }
  }
  ++written_;
  if (text_.size() > kChunk) {
    flush();
  }
}

void Listing::flush() {
  print_out(text_);
  text_.clear();
}

void Listing::finish() {
  std::stable_sort(unsorted_.begin(), unsorted_.end(), [&](const Json& a, const Json& b) {
    return is_before(a.value(sort_, Json(nullptr)), b.value(sort_, Json(nullptr)), is_reversed_);
  });
  for (const Json& row : unsorted_) {
    if (most_ && written_ >= *most_) {
      break;
    }
    write(row);
  }
  if (format_ == "json") {
    text_ += "]\n";
  } else if (!is_json() && format_ != "csv") {
    if (table_.empty()) {
      print_note(none_);
      return;
    }
    Texts headings;
    std::transform(shown_.begin(), shown_.end(), std::back_inserter(headings),
                   [](const Column& column) { return std::string{column.heading}; });
    text_ = list_text(headings, table_, screen()) + "\n";
  }
  flush();
}

}  // namespace keyloader
