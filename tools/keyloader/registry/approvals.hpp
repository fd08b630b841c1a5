// Requests for approval: changes that wait for a second person, as steps that can be shown and done later.
// Used by the SQLite registry only.
//
// A step is an object of `kind`, `action`, `object`, `before`, `after`, and for a new key its `digest`. A request ends
// after 72 hours, and when anything it touches has changed: the objects of its steps, the owner, plan and roles of
// their keys, which keys have its roles, and the administrator's key that asked and its owner. INVARIANT: the steps of
// a request that is no longer pending are gone; the audit has what was done.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "registry/registry.hpp"
#include "registry/sqlite_db.hpp"

namespace keyloader {

inline constexpr Seconds kApprovalTime = Seconds{72} * 60 * 60;
inline constexpr std::size_t kMostSteps = 1000;  // of one request: a person is to read them
// Of all that wait, as each is looked at when another is made.
inline constexpr std::uint64_t kMostPending = 100;
inline constexpr std::uint64_t kMostPendingSteps = 10'000;

class Approvals {
 public:
  Approvals(Database& database, Registry& registry) : database_(database), registry_(registry) {}

  [[nodiscard]] std::vector<Approval> all();
  [[nodiscard]] std::optional<Approval> find(std::uint64_t number);

  // Whether as many wait as may.
  [[nodiscard]] bool is_full();

  // `admin`: the key that asks; null: nobody's. RETURNS: the number it got; set_entry() completes it.
  std::uint64_t add(const Approval& approval, const apikey::KeyId* admin);
  void set_entry(std::uint64_t number, std::uint64_t seq);
  void decide(std::uint64_t number, std::string_view state, const Json& decider);

  // Writes down which requests have ended, and forgets what they asked for.
  void sweep();
  // Writes down which requests nobody decided in time; of them too, neither the reason nor the steps stay.
  void end_by_time();
  // Forgets all that have ended.
  void forget_ended();

 private:
  Approval read(const Query& row);
  void judge_end(Approval& approval, const Json& touched);
  [[nodiscard]] bool has_changed(std::string_view kind, const std::string& object, std::uint64_t since);
  [[nodiscard]] bool was_given(const std::string& role, std::uint64_t since);

  Database& database_;
  Registry& registry_;
};

}  // namespace keyloader
