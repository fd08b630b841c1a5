// The registry's tables in SQLite, and how an older registry becomes a current one.
// Called when a registry is made or opened. Migrations only go forward and are never edited once released.
#pragma once

#include "registry/sqlite_db.hpp"

namespace keyloader {

// 0 for a database without any of our tables.
[[nodiscard]] int schema_version(Database& database);
[[nodiscard]] int newest_schema_version();
inline constexpr int kAuditValuesSchema = 6;  // the audit's chain has version 2 from this one on

// Brings the schema up to the newest version. REQUIRES: a write transaction is open.
void migrate(Database& database);

}  // namespace keyloader
