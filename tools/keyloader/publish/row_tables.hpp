// The rows of a snapshot while it is being built: each content gets a number once.
// Used by SnapshotWriter only. Keeps everything in memory; knows nothing of files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "apikey/rows.hpp"
#include "apikey/status.hpp"
#include "publish/snapshot_writer.hpp"

namespace apikey::publish {

class RowTables {
 public:
  std::uint32_t string(std::string_view bytes);
  std::uint32_t scope_set(const std::vector<std::string>& held);
  std::uint32_t limits(const std::vector<Limit>& limits);
  std::uint32_t plan(std::string_view name, const std::vector<Limit>& limits);
  std::uint32_t owner(const Owner& owner);
  void know_scope(std::string_view scope);

  // What did not fit the format, or ok.
  [[nodiscard]] const Status& failure() const noexcept { return failure_; }

  // The finished payloads of a table, by number from its first one up.
  [[nodiscard]] std::vector<std::string_view> payloads(Table table) const;
  // Row 0 of `scopes`; "*" alone when there are more than a set can name.
  [[nodiscard]] std::string known_scopes() const;

 private:
  struct Interned {
    std::unordered_map<std::string_view, std::uint32_t> numbers;
    std::deque<std::string> payloads;  // the map's keys point into it
  };

  std::uint32_t intern(Table table, std::string_view payload);
  std::string encode_limits(const std::vector<Limit>& limits);
  void fail(const Status& status);

  Interned tables_[kTableCount];
  std::unordered_map<std::string, std::uint32_t> owner_numbers_;  // by id
  std::set<std::string, std::less<>> known_;
  Status failure_;
};

}  // namespace apikey::publish
