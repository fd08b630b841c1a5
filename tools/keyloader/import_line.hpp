// One line of an import file, whatever its format: named values, and how they become a key.
// Called by import.cpp. Reasons for a refusal never show a value: it may be a key in the wrong column.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "registry/registry.hpp"
#include "secret.hpp"

namespace keyloader {

// The value of a column: one text, or of a list column its words. Empty values are left out.
using Columns = std::map<std::string, Texts>;

struct Refusal {
  std::uint64_t line = 0;
  std::string column;  // empty: the line as a whole
  std::string reason;
};

[[nodiscard]] bool is_known_column(std::string_view name);
[[nodiscard]] bool is_list_column(std::string_view name);
// Checks a header (or a JSON object's names). Throws UsageError with the names nobody knows.
void check_columns(const std::vector<std::string>& names);

// Turns lines into keys, remembering what it has seen.
class LineImporter {
 public:
  LineImporter(const DataDir& directory, Registry& registry, Change& change, bool creates_owners);

  // Adds the key to the change. RETURNS: why not.
  std::optional<Refusal> add(std::uint64_t line, Columns& columns);

  [[nodiscard]] const std::vector<Refusal>& warnings() const { return warnings_; }

 private:
  void set_fields(std::uint64_t line, const Columns& columns, Key& key);
  void set_limits(std::uint64_t line, const Columns& columns, Key& key);
  void set_secret(std::uint64_t line, const Columns& columns, Key& key);
  void set_key(std::uint64_t line, const std::string& text, Key& key);
  void set_digest(const std::string& text, Key& key);
  void set_hint(const Columns& columns, Key& key);
  void require_free_ref(const Key& key);
  void check_new(std::uint64_t line, const apikey::Digest& digest);
  [[nodiscard]] bool set_owner(const Columns& columns, Key& key);

  Registry& registry_;
  Change& change_;
  DigestMethods methods_;
  Texts methods_to_compare_;
  bool creates_owners_;
  std::string column_;                                   // being looked at: where a refusal belongs
  std::unordered_map<std::string, std::uint64_t> seen_;  // bytes of a digest → line
  std::unordered_map<std::string, std::uint64_t> refs_;  // owner and ref → line
  std::vector<Refusal> warnings_;
};

}  // namespace keyloader
