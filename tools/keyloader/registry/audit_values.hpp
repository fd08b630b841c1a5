// Personal values of the audit, chain version 2. In the chain a name, an e-mail address, a value of meta or a reason
// stands as `salted-sha256:` and 64 hex digits, the SHA-256 over its 16 bytes of salt and the value; salt and value lie
// in the table `audit_values`. So a value can be erased, and the chain stays whole.
// Used by the SQLite registry only.
//
// INVARIANT: every such text of the chain has a row in the table. A row without a value was erased, by the entry
// `owner.erase` whose number it holds.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "registry/registry.hpp"
#include "registry/sqlite_db.hpp"

namespace keyloader {

// What a value that was erased is shown as.
inline constexpr std::string_view kErased = "(erased)";

// An entry as it is hashed: of `before`, `after` and `actor` the canonical JSON.
struct ChainedTexts {
  std::string actor;
  std::string object;
  std::string before;
  std::string after;
};

class AuditValues {
 public:
  explicit AuditValues(Database& database) : database_(database) {}

  // `owner`: whom the entry is about, so that its values can be erased; null: nobody.
  [[nodiscard]] ChainedTexts hide(const AuditEntry& entry, const OwnerId* owner);
  // Puts the values back. An entry of version 1 holds its values itself and stays as it is.
  void show(AuditEntry& entry);

  // Throws Failure unless each value that the entry stands for is there and is what was hashed, or was erased.
  void check(const AuditEntry& entry);
  // The same of all that were erased: each entry `owner.erase` that is still here says how many there are.
  void check_erased(std::uint64_t archived_seq);

 private:
  void check_value(const std::string& hashed, std::uint64_t seq);
  std::string hashed(const std::string& value, const OwnerId* owner);
  const std::string& value_of(const std::string& hashed);  // kErased when it was erased, the text itself when unknown

  Database& database_;
  std::unordered_map<std::string, std::string> hashes_;  // owner and value → hashed
  std::unordered_map<std::string, std::string> values_;  // hashed → value
  std::unordered_set<std::string> checked_;              // hashed
};

}  // namespace keyloader
