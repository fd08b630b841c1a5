// Reads CSV as RFC 4180 has it: quotes, doubled quotes, line ends inside quotes; CRLF or LF; a UTF-8 mark at the start.
// And writes it. Called by import, and by what lists and exports. Knows nothing of keys.
#pragma once

#include <cstdint>
#include <istream>
#include <string>
#include <vector>

namespace keyloader {

class CsvReader {
 public:
  explicit CsvReader(std::istream& in);

  enum class Read : std::uint8_t { record, end, broken };

  // The next record that is not an empty line. `broken`: error() says why; the rest of that line was skipped.
  Read next(std::vector<std::string>& fields);
  [[nodiscard]] std::uint64_t line() const { return record_line_; }  // where the record begins, 1 and up
  [[nodiscard]] const std::string& error() const { return error_; }

 private:
  int get();
  Read fail(const char* reason);
  bool read_quoted(std::string& field);

  std::istream& in_;
  std::uint64_t line_ = 1;
  std::uint64_t record_line_ = 0;
  std::string error_;
};

// A field as it stands in a line: in quotes where it has to be.
[[nodiscard]] std::string csv_field(const std::string& text);
// With its line end.
[[nodiscard]] std::string csv_line(const std::vector<std::string>& fields);

}  // namespace keyloader
