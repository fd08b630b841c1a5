// The table `approvals`, and when a request ends.
#include "registry/approvals.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "registry/fields.hpp"

namespace keyloader {
namespace {

constexpr const char* kTooLate = "nobody decided within 72 hours";

using Touched = std::set<std::pair<std::string, std::string>>;  // kind and name

void touch_key(Touched& touched, const Json& state) {
  touched.emplace("owner", string_of(field_of(state, "owner")));
  touched.emplace("plan", string_of(field_of(state, "plan")));
  for (const Json& role : field_of(state, "roles")) {
    touched.emplace("role", string_of(role));
  }
}

Json touched_by(const Json& steps, const apikey::KeyId* admin, const std::string& asker) {
  Touched touched;
  for (const Json& step : steps) {
    const std::string kind = string_of(step.at("kind"));
    const std::string object = string_of(step.at("object"));
    touched.emplace(kind, object);
    if (kind == "key") {
      for (const char* state : {"before", "after"}) {
        if (step.at(state).is_object()) {
          touch_key(touched, step.at(state));
        }
      }
    } else if (kind == "quota") {
      touched.emplace("key", object);
      touched.emplace("owner", object);
    } else if (kind == "role") {
      touched.emplace("holders", object);
    }
  }
  if (admin != nullptr) {
    touched.emplace("key", text_of(*admin));
    touched.emplace("owner", asker);
  }
  return touched;
}

// Throws where somebody else has written the row.
void require_steps(const Json& steps) {
  for (const Json& step : steps) {
    for (const char* field : {"kind", "action", "object", "before", "after"}) {
      static_cast<void>(step.at(field));
    }
  }
}

}  // namespace

bool Approvals::has_changed(std::string_view kind, const std::string& object, std::uint64_t since) {
  Query query = database_.query(
      "SELECT 1 FROM audit WHERE object IN (SELECT ?1 UNION ALL SELECT hashed FROM audit_values WHERE value = ?1)"
      " AND seq > ?2 AND substr(action, 1, length(?3) + 1) = ?3 || '.' LIMIT 1");
  return query.bind(object).bind(since).bind(kind).step();
}

// Whoever approves more scopes for a role has seen which keys get them.
bool Approvals::was_given(const std::string& role, std::uint64_t since) {
  const auto has = [&](const Json& state) {
    const Json& roles = field_of(state, "roles");
    return std::any_of(roles.begin(), roles.end(), [&](const Json& each) { return string_of(each) == role; });
  };
  bool was_given = false;
  registry_.each_audit_entry({.action = "key", .first = since + 1}, [&](const AuditEntry& entry) {
    was_given = was_given || (has(entry.after) && !has(entry.before));
  });
  return was_given;
}

void Approvals::judge_end(Approval& approval, const Json& touched) {
  if (approval.state != "pending") {
    return;
  }
  if (approval.ends <= wall_clock()) {
    approval.why = kTooLate;
  } else if (registry_.info().archived_seq > approval.seq) {
    approval.why = "the audit since was archived";
  }
  for (const Json& each : touched) {
    const std::string kind = string_of(each.at(0));
    const std::string object = string_of(each.at(1));
    if (approval.why.empty() && kind == "holders") {
      approval.why = was_given(object, approval.seq) ? fmt::format("the role {} was given to a key since", object) : "";
    } else if (approval.why.empty() && has_changed(kind, object, approval.seq)) {
      approval.why = fmt::format("{} has changed since", kind == "key" ? object : fmt::format("{} {}", kind, object));
    }
  }
  if (!approval.why.empty()) {
    approval.state = "ended";
    approval.operations = nullptr;
    approval.reason.clear();
  }
}

// Columns: number, state, why, created, ends, actor, owner, reason, needs, steps, seq, decider, decided, touched.
Approval Approvals::read(const Query& row) {
  Approval approval;
  approval.number = row.count(0);
  approval.state = row.text(1);
  approval.why = row.text(2);
  approval.created = row.number(3);
  approval.ends = row.number(4);
  approval.owner = row.text(6);
  approval.reason = row.text(7);
  approval.seq = row.count(10);
  approval.decided = row.number(12);
  try {
    approval.actor = Json::parse(row.view(5));
    approval.needs = Json::parse(row.view(8)).get<Texts>();
    approval.operations = Json::parse(row.view(9));
    approval.decider = Json::parse(row.view(11));
    judge_end(approval, Json::parse(row.view(13)));
    require_steps(approval.operations);
  } catch (const Json::exception&) {
    approval.state = "ended";
    approval.why = "what the registry keeps of it is damaged";
    approval.operations = nullptr;
  }
  return approval;
}

std::vector<Approval> Approvals::all() {
  std::vector<Approval> all;
  Query query = database_.query(
      "SELECT number, state, why, created, ends, actor, owner, reason, needs, steps, seq, decider, decided, touched"
      " FROM approvals ORDER BY number");
  while (query.step()) {
    all.push_back(read(query));
  }
  return all;
}

std::optional<Approval> Approvals::find(std::uint64_t number) {
  Query query = database_.query(
      "SELECT number, state, why, created, ends, actor, owner, reason, needs, steps, seq, decider, decided, touched"
      " FROM approvals WHERE number = ?");
  return query.bind(number).step() ? std::optional(read(query)) : std::nullopt;
}

bool Approvals::is_full() {
  Query query = database_.query(
      "SELECT count(*), total(iif(json_valid(steps), json_array_length(steps), 1)) FROM approvals WHERE state = "
      "'pending'");
  query.step();
  return query.count(0) >= kMostPending || query.count(1) >= kMostPendingSteps;
}

std::uint64_t Approvals::add(const Approval& approval, const apikey::KeyId* admin) {
  Query query = database_.query(
      "INSERT INTO approvals(state, created, ends, actor, owner, reason, needs, steps, touched)"
      " VALUES('pending', ?, ?, ?, ?, ?, ?, ?, ?)");
  query.bind(approval.created).bind(approval.ends).bind(approval.actor.dump()).bind(approval.owner);
  query.bind(approval.reason).bind(Json(approval.needs).dump()).bind(approval.operations.dump());
  query.bind(touched_by(approval.operations, admin, approval.owner).dump()).run();
  Query number = database_.query("SELECT max(number) FROM approvals");
  number.step();
  return number.count(0);
}

void Approvals::set_entry(std::uint64_t number, std::uint64_t seq) {
  database_.query("UPDATE approvals SET seq = ? WHERE number = ?").bind(seq).bind(number).run();
}

void Approvals::decide(std::uint64_t number, std::string_view state, const Json& decider) {
  Query query = database_.query(
      "UPDATE approvals SET state = ?, decider = ?, decided = ?, reason = '', steps = 'null', touched = '[]' WHERE "
      "number = ?");
  query.bind(state).bind(decider.dump()).bind(wall_clock()).bind(number).run();
}

void Approvals::sweep() {
  for (const Approval& approval : all()) {
    if (approval.state == "ended" && approval.decided == 0) {
      Query query = database_.query(
          "UPDATE approvals SET state = 'ended', why = ?, decided = ?, reason = '', steps = 'null', touched = '[]' "
          "WHERE number = "
          "?");
      query.bind(approval.why).bind(wall_clock()).bind(approval.number).run();
    }
  }
}

void Approvals::end_by_time() {
  Query query = database_.query(
      "UPDATE approvals SET state = 'ended', why = ?, decided = ?2, reason = '', steps = 'null', touched = '[]'"
      " WHERE state = 'pending' AND ends <= ?2");
  query.bind(kTooLate).bind(wall_clock()).run();
}

void Approvals::forget_ended() {
  sweep();
  database_.query("DELETE FROM approvals WHERE state <> 'pending'").run();
}

}  // namespace keyloader
