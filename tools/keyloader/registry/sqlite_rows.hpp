// From rows of registry.db to values of model.hpp and back. Called by sqlite_registry.cpp and sqlite_change.cpp.
#pragma once

#include <string>

#include "registry/model.hpp"
#include "registry/sqlite_db.hpp"

namespace keyloader {

// Lists are stored as texts joined by a space. REQUIRES: no word is empty or holds one.
[[nodiscard]] std::string join_words(const Texts& words);
[[nodiscard]] Texts split_words(std::string_view text);

[[nodiscard]] std::string method_name(const Query& row, int pepper_column);

// Columns: num, name, id, email, team, meta, suspended, suspended_until, created.
[[nodiscard]] Owner read_owner(Database& database, const Query& row);
// Columns: num, name, created.
[[nodiscard]] Plan read_plan(Database& database, const Query& row);
// Columns: name, scopes, created.
[[nodiscard]] Role read_role(const Query& row);
// A row of the view key_rows. Roles and limits stand elsewhere.
[[nodiscard]] Key read_key(const Query& row);
// Columns: of, name, kind, unit, amount, period_ns, burst (0: not written), dry_run.
[[nodiscard]] Limit read_limit(const Query& row);
// Columns: whose, quota, granted, granted_until, last_reset.
[[nodiscard]] Adjustment read_adjustment(const Query& row);
// Columns: seq, time, actor, action, object, before, after, prev_hash, hash.
[[nodiscard]] AuditEntry read_audit_entry(const Query& row);

}  // namespace keyloader
