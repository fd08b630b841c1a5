// Reading and writing CSV as RFC 4180 has it. Called by import, and by what lists and exports.
// Must never put a field's text into an error: it may be a key.
#include "csv.hpp"

#include <istream>

namespace keyloader {
namespace {

constexpr int kEnd = std::char_traits<char>::eof();
constexpr std::size_t kMaxField = 65'536;

}  // namespace

CsvReader::CsvReader(std::istream& in) : in_(in) {
  for (const char mark : {'\xef', '\xbb', '\xbf'}) {
    if (in_.peek() != std::char_traits<char>::to_int_type(mark)) {
      break;
    }
    in_.get();
  }
}

// CRLF comes out as LF.
int CsvReader::get() {
  int c = in_.get();
  if (c == '\r' && in_.peek() == '\n') {
    c = in_.get();
  }
  if (c == '\n') {
    ++line_;
  }
  return c;
}

CsvReader::Read CsvReader::fail(const char* reason) {
  error_ = reason;
  for (int c = in_.peek(); c != kEnd && c != '\n'; c = in_.peek()) {
    in_.get();
  }
  get();
  return Read::broken;
}

bool CsvReader::read_quoted(std::string& field) {
  for (;;) {
    const int c = get();
    if (c == kEnd || field.size() > kMaxField) {
      return false;
    }
    if (c != '"') {
      field += static_cast<char>(c);
    } else if (in_.peek() == '"') {
      field += static_cast<char>(get());
    } else {
      return true;
    }
  }
}

CsvReader::Read CsvReader::next(std::vector<std::string>& fields) {
  fields.clear();
  while (in_.peek() == '\n' || in_.peek() == '\r') {
    get();
  }
  record_line_ = line_;
  if (in_.peek() == kEnd) {
    return Read::end;
  }
  std::string field;
  for (;;) {
    if (in_.peek() == '"' && field.empty()) {
      in_.get();
      if (!read_quoted(field)) {
        return fail("a quoted field does not end");
      }
      const int after = in_.peek();
      if (after != ',' && after != '\n' && after != '\r' && after != kEnd) {
        return fail("text follows a closing quote; write a quote inside quotes twice");
      }
    }
    const int c = get();
    if (c == ',' || c == '\n' || c == kEnd) {
      fields.push_back(field);
      field.clear();
      if (c != ',') {
        return Read::record;
      }
    } else if (c == '"') {
      return fail("a quote stands in a field that is not quoted");
    } else if (field.size() > kMaxField) {
      return fail("a field is longer than 65536 bytes");
    } else {
      field += static_cast<char>(c);
    }
  }
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) {
    return text;
  }
  std::string quoted = "\"";
  for (const char c : text) {
    quoted += c == '"' ? "\"\"" : std::string(1, c);
  }
  return quoted + "\"";
}

std::string csv_line(const std::vector<std::string>& fields) {
  std::string line;
  for (const std::string& field : fields) {
    line += (&field == fields.data() ? "" : ",") + csv_field(field);
  }
  return line + "\n";
}

}  // namespace keyloader
