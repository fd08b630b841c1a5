// keyloader import: keys from another system, as CSV or NDJSON. All lines or none, unless --partial.
// Must never print a key: reports name line, column and reason.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iostream>

#include "csv.hpp"
#include "delivery.hpp"
#include "directory_owner.hpp"
#include "import_line.hpp"
#include "progress.hpp"
#include "registry/sqlite_rows.hpp"
#include "session.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kMostShown = 100;

struct ImportOptions {
  std::string file;
  std::string format;
  bool is_partial = false;
  bool creates_owners = false;
  std::string reason;
  DeliveryOptions delivery;
};

struct Imported {
  std::uint64_t imported = 0;
  std::vector<Refusal> refused;
};

void add_line(LineImporter& importer, std::uint64_t line, Columns& columns, Imported& result) {
  if (auto refusal = importer.add(line, columns)) {
    result.refused.push_back(std::move(*refusal));
  } else {
    ++result.imported;
  }
  for (auto& [name, values] : columns) {
    for (std::string& value : values) {
      apikey::wipe(std::span<char>{value.data(), value.size()});
    }
  }
}

// A text as it stands in the file: of a list column, words with a space between.
void put(Columns& columns, const std::string& name, std::string&& text) {
  if (is_list_column(name)) {
    if (Texts words = split_words(text); !words.empty()) {
      columns[name] = std::move(words);
    }
  } else if (!text.empty()) {
    columns[name].push_back(std::move(text));
  }
}

Imported import_csv(std::istream& in, LineImporter& importer) {
  CsvReader reader(in);
  std::vector<std::string> header;
  if (reader.next(header) != CsvReader::Read::record) {
    throw Failure("the file is empty or its first line is broken; the first line names the columns");
  }
  check_columns(header);
  Imported result;
  Progress progress("importing", 0);
  std::vector<std::string> fields;
  for (auto read = reader.next(fields); read != CsvReader::Read::end; read = reader.next(fields)) {
    progress.advance();
    if (read == CsvReader::Read::broken) {
      result.refused.push_back({reader.line(), "", reader.error()});
      continue;
    }
    if (fields.size() != header.size()) {
      result.refused.push_back(
          {reader.line(), "", fmt::format("it has {} fields, the header names {}", fields.size(), header.size())});
      continue;
    }
    Columns columns;
    for (std::size_t i = 0; i < fields.size(); ++i) {
      put(columns, header[i], std::move(fields[i]));
    }
    add_line(importer, reader.line(), columns, result);
  }
  return result;
}

// Lists may be arrays of strings, or words in one string; null is the same as not there.
void put_json(Columns& columns, const std::string& name, const Json& value) {
  const bool is_list = is_list_column(name);
  if (value.is_null()) {
    return;
  }
  if (value.is_string()) {
    return put(columns, name, value.get<std::string>());
  }
  if (!is_list || !value.is_array()) {
    throw UsageError(name + (is_list ? " must be a string or a list of strings" : " must be a string"));
  }
  if (!std::all_of(value.begin(), value.end(), [](const Json& word) { return word.is_string(); })) {
    throw UsageError(name + " must be a list of strings");
  }
  if (!value.empty()) {
    columns[name] = value.get<Texts>();
  }
}

Columns json_columns(const Json& object) {
  if (!object.is_object()) {
    throw UsageError("it is no JSON object");
  }
  std::vector<std::string> names;
  Columns columns;
  const auto take = [&](const std::string& name, const Json& value) {
    names.push_back(name);
    if (is_known_column(name)) {
      put_json(columns, name, value);
    }
  };
  for (const auto& [name, value] : object.items()) {
    if (name == "meta" && value.is_object()) {
      for (const auto& [below, text] : value.items()) {
        take("meta." + below, text);
      }
    } else {
      take(name, value);
    }
  }
  check_columns(names);
  return columns;
}

Imported import_ndjson(std::istream& in, LineImporter& importer) {
  Imported result;
  Progress progress("importing", 0);
  std::string text;
  for (std::uint64_t line = 1; std::getline(in, text); ++line) {
    progress.advance();
    if (text.find_first_not_of(" \t\r") == std::string::npos) {
      continue;
    }
    try {
      Columns columns = json_columns(Json::parse(text, nullptr, false));
      add_line(importer, line, columns, result);
    } catch (const UsageError& error) {
      result.refused.push_back({line, "", error.what()});
    }
    apikey::wipe(std::span<char>{text.data(), text.size()});
  }
  return result;
}

Json json_of(const std::vector<Refusal>& refusals) {
  Json list = Json::array();
  for (const Refusal& refusal : refusals) {
    list.push_back({{"line", refusal.line},
                    {"column", refusal.column.empty() ? Json(nullptr) : Json(refusal.column)},
                    {"reason", refusal.reason}});
  }
  return list;
}

void print_refusals(const std::vector<Refusal>& refusals, std::string_view kind) {
  for (std::size_t i = 0; i < std::min(refusals.size(), kMostShown); ++i) {
    const Refusal& refusal = refusals[i];
    print_note(fmt::format("{}line {}{}{}: {}", kind, refusal.line, refusal.column.empty() ? "" : ", ", refusal.column,
                           refusal.reason));
  }
  if (refusals.size() > kMostShown) {
    print_note(fmt::format("{}… and {} more (--json lists them all)", kind, refusals.size() - kMostShown));
  }
}

Json json_of(const Imported& result, const std::vector<Refusal>& warnings, std::uint64_t imported) {
  return {{"imported", imported}, {"refused", json_of(result.refused)}, {"warnings", json_of(warnings)}};
}

void print_report(const Session& session, const Imported& result, const std::vector<Refusal>& warnings) {
  if (!session.is_json) {
    print_refusals(warnings, "warning: ");
    print_refusals(result.refused, "");
  }
}

std::string sentence(const Imported& result, std::uint64_t imported) {
  return fmt::format("{} key(s) imported, {} line(s) refused", imported, result.refused.size());
}

void import_keys(const Session& session, const ImportOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  if (options.format.empty()) {
    throw UsageError("say --format csv or --format ndjson");
  }
  std::ifstream file;
  if (options.file != "-") {
    const AsCaller named_by_the_caller;
    file.open(options.file, std::ios::binary);
    if (!file) {
      fail_errno("read", options.file);
    }
  }
  std::istream& in = options.file == "-" ? std::cin : file;
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  change->because(options.reason);
  LineImporter importer(session.dir(), *registry, *change, options.creates_owners);
  const Imported result = options.format == "csv" ? import_csv(in, importer) : import_ndjson(in, importer);
  if (in.bad()) {
    throw Failure(options.file + " could not be read to its end; nothing was imported");
  }
  const bool is_refused = !result.refused.empty() && !options.is_partial;
  if (is_refused) {
    print_report(session, result, importer.warnings());
    session.report(sentence(result, 0), json_of(result, importer.warnings(), 0));
    throw Failure(
        fmt::format("{} line(s) are refused, so nothing was imported; put them right, or import the others with "
                    "--partial",
                    result.refused.size()));
  }
  print_report(session, result, importer.warnings());
  const Outcome outcome = result.imported != 0 ? deliver(session, *registry, *change, options.delivery)
                                               : deliver_nothing(session, *registry, *change, options.delivery);
  Json json = json_of(result, importer.warnings(), result.imported);
  if (outcome.is_dry_run) {
    report(session, sentence(result, result.imported), json, outcome);
    return;
  }
  json.update(outcome.json());
  session.report(
      outcome.is_done() ? sentence(result, result.imported) + "\n" + outcome.text() : sentence(result, result.imported),
      json);
  settle_secret(outcome, options.delivery);
}

}  // namespace

void add_import_command(Command& app, Session& session) {
  auto options = std::make_shared<ImportOptions>();
  Command command = app.add("import", "Take over keys from another system");
  command.argument("FILE", options->file, "What to import; - reads standard input");
  command.choice("--format", options->format, {"csv", "ndjson"}, "FORMAT", "csv or ndjson");
  command.flag("--partial", options->is_partial, "Import the good lines even if others are refused");
  command.flag("--create-owners", options->creates_owners, "Make owners that are not there");
  command.option("--reason", options->reason, "TEXT", "Kept in the audit");
  command.tries(options->delivery);
  command.delivers(options->delivery);
  command.footer(
      "Columns: key or digest, owner, name, scopes, roles, plan, env, expires, not_before, allow_ip, rate, burst,\n"
      "quota, rolling_quota, concurrency, ref, hint, meta.<name>. hint: the last four characters, beside a digest.\n"
      "Lists are words with a space between. digest: 64 hex digits (SHA-256), or hmac-sha256:<pepper id>:<64 hex "
      "digits>.\n"
      "A report names line, column and reason, never the key.\n\n"
      "  keyloader import keys.csv --format csv --create-owners\n"
      "  other-system export | keyloader import - --format ndjson --partial --json");
  command.run([&session, options] { import_keys(session, *options); });
}

}  // namespace keyloader
