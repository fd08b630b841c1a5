// Personal values of the audit, chain version 2. In the chain a name, an e-mail address, a value of meta or a reason
// stands as `salted-sha256:` and 64 hex digits, the SHA-256 over its 16 bytes of salt and the value; salt and value lie
// in the table `audit_values`. So a value can be erased, and the chain stays whole.
// Used by the SQLite registry; by change_words.cpp for what an erased value is shown as.
//
// INVARIANT: every such text of the chain has a row in the table. A row without a value was erased, by the entry
// `owner.erase` whose number it holds.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "registry/registry.hpp"
#include "registry/sqlite_db.hpp"

namespace keyloader {

// What a value that was erased is shown as.
inline constexpr std::string_view kErased = "(erased)";
// The same of a state behind a change, where the one before it had another value.
inline constexpr std::string_view kErasedOther = "(erased, another value)";

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
  // Puts the values back. An entry of version 1 holds its values itself and stays as it is. Number 0: a deletion whose
  // entry was archived.
  void show(AuditEntry& entry);

  // What was remembered of the table may no longer be so.
  void forget() {
    hashes_.clear();
    values_.clear();
  }

  // Throws Failure unless each value of this entry, which is as it is hashed, is there, or was erased later; or where
  // it is of version 1 and follows one of version 2.
  void check(const AuditEntry& entry);
  // Throws Failure unless all values are what was hashed, and erasures account for those that are gone. REQUIRES: all
  // entries were checked that there are, archived ones where their files are at hand: those that are not are believed.
  void check_all();

 private:
  struct Shown {
    std::string text;  // the hash itself where there is no such value
    bool is_erased = false;
  };

  struct Erasure {
    std::string owner;
    std::uint64_t values = 0;
  };

  void check_value(const std::string& hashed, std::uint64_t seq);
  std::string hashed(const std::string& value, const OwnerId* owner);
  const Shown& value_of(const std::string& hashed);

  Database& database_;
  std::unordered_map<std::string, std::string> hashes_;  // owner and value → hashed
  std::unordered_map<std::string, Shown> values_;        // by hash
  // Of the entries that were checked.
  std::optional<std::uint64_t> first_checked_;
  std::optional<std::uint64_t> first_hashed_;  // of version 2
  std::map<std::uint64_t, Erasure> erasures_;
};

}  // namespace keyloader
