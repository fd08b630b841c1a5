// The table `approvals`, and when a request ends.
#include "registry/approvals.hpp"

#include <fmt/format.h>

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

Json touched_by(const Json& steps, const apikey::KeyId* admin) {
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
    }
  }
  if (admin != nullptr) {
    touched.emplace("key", text_of(*admin));
  }
  return touched;
}

}  // namespace

bool Approvals::has_changed(std::string_view kind, const std::string& object, std::uint64_t since) {
  bool has_changed = false;
  registry_.each_audit_entry({.object = object, .first = since + 1}, [&](const AuditEntry& entry) {
    has_changed = has_changed || entry.action.substr(0, entry.action.find('.')) == kind;
  });
  return has_changed;
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
    if (approval.why.empty() && has_changed(kind, object, approval.seq)) {
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
  approval.actor = Json::parse(row.view(5));
  approval.owner = row.text(6);
  approval.reason = row.text(7);
  approval.needs = Json::parse(row.view(8)).get<Texts>();
  approval.operations = Json::parse(row.view(9));
  approval.seq = row.count(10);
  approval.decider = Json::parse(row.view(11));
  approval.decided = row.number(12);
  judge_end(approval, Json::parse(row.view(13)));
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

std::uint64_t Approvals::add(const Approval& approval, const apikey::KeyId* admin) {
  Query query = database_.query(
      "INSERT INTO approvals(state, created, ends, actor, owner, reason, needs, steps, touched)"
      " VALUES('pending', ?, ?, ?, ?, ?, ?, ?, ?)");
  query.bind(approval.created).bind(approval.ends).bind(approval.actor.dump()).bind(approval.owner);
  query.bind(approval.reason).bind(Json(approval.needs).dump()).bind(approval.operations.dump());
  query.bind(touched_by(approval.operations, admin).dump()).run();
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
