// The registry's tables in SQLite, version by version.
// Called when a registry is made or opened. A released step is never edited: the next one corrects it.
#include "registry/migrations.hpp"

#include <array>

#include "registry/model.hpp"

namespace keyloader {
namespace {

// Lists (scopes, networks, …) are texts joined by a space, in order. Times are seconds since 1970, 0 = not set.
// `keys` is ordered by digest: a snapshot is built by reading it, its roles and its limits side by side.
constexpr const char* kVersion1 = R"sql(
CREATE TABLE schema_versions(
  version INTEGER PRIMARY KEY,
  applied INTEGER NOT NULL
) STRICT;

CREATE TABLE info(
  one           INTEGER PRIMARY KEY CHECK(one = 1),
  registry_id   BLOB    NOT NULL CHECK(length(registry_id) = 16),
  generation    INTEGER NOT NULL DEFAULT 0,
  published_seq INTEGER NOT NULL DEFAULT 0,
  created       INTEGER NOT NULL
) STRICT;
CREATE TRIGGER generations_only_grow BEFORE UPDATE OF generation ON info WHEN NEW.generation < OLD.generation
BEGIN SELECT RAISE(ABORT, 'generations only grow'); END;

CREATE TABLE owners(
  num             INTEGER PRIMARY KEY,
  name            TEXT    NOT NULL UNIQUE,
  id              BLOB    NOT NULL UNIQUE CHECK(length(id) = 16),
  email           TEXT    NOT NULL,
  team            TEXT    NOT NULL,
  meta            TEXT    NOT NULL,
  suspended       INTEGER NOT NULL,
  suspended_until INTEGER NOT NULL,
  created         INTEGER NOT NULL
) STRICT;

CREATE TABLE plans(
  num     INTEGER PRIMARY KEY,
  name    TEXT    NOT NULL UNIQUE,
  created INTEGER NOT NULL
) STRICT;

CREATE TABLE roles(
  num     INTEGER PRIMARY KEY,
  name    TEXT    NOT NULL UNIQUE,
  scopes  TEXT    NOT NULL,
  created INTEGER NOT NULL
) STRICT;

CREATE TABLE peppers(
  id      TEXT    PRIMARY KEY,
  created INTEGER NOT NULL,
  current INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_current_pepper ON peppers(current) WHERE current = 1;

CREATE TABLE keys(
  digest          BLOB    PRIMARY KEY CHECK(length(digest) = 32),
  pepper          TEXT    REFERENCES peppers(id),
  id              BLOB    NOT NULL UNIQUE CHECK(length(id) = 13),
  family          BLOB    NOT NULL CHECK(length(family) = 13),
  owner           INTEGER NOT NULL REFERENCES owners(num),
  plan            INTEGER NOT NULL REFERENCES plans(num),
  name            TEXT    NOT NULL,
  env             TEXT    NOT NULL,
  prefix          TEXT    NOT NULL,
  scopes          TEXT    NOT NULL,
  allow_ip        TEXT    NOT NULL,
  allow_origin    TEXT    NOT NULL,
  allow_method    TEXT    NOT NULL,
  allow_host      TEXT    NOT NULL,
  require_tls     INTEGER NOT NULL,
  meta            TEXT    NOT NULL,
  created         INTEGER NOT NULL,
  not_before      INTEGER NOT NULL,
  expires         INTEGER NOT NULL,
  suspended       INTEGER NOT NULL,
  suspended_until INTEGER NOT NULL,
  revoked         INTEGER NOT NULL,
  revoked_reason  TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_owner ON keys(owner, id);
CREATE INDEX keys_by_plan ON keys(plan);
CREATE INDEX keys_by_pepper ON keys(pepper);

CREATE TABLE key_roles(
  digest BLOB    NOT NULL REFERENCES keys(digest) ON DELETE CASCADE,
  role   INTEGER NOT NULL REFERENCES roles(num),
  PRIMARY KEY(digest, role)
) STRICT, WITHOUT ROWID;
CREATE INDEX key_roles_by_role ON key_roles(role);

-- CROSS JOIN keeps `keys` the outer loop, and so its order.
CREATE VIEW key_rows AS
  SELECT k.digest, k.pepper, k.id, k.family, o.name AS owner_name, p.name AS plan_name, k.name, k.env, k.prefix,
         k.scopes, k.allow_ip, k.allow_origin, k.allow_method, k.allow_host, k.require_tls, k.meta, k.created,
         k.not_before, k.expires, k.suspended, k.suspended_until, k.revoked, k.revoked_reason, k.owner
  FROM keys k CROSS JOIN owners o ON o.num = k.owner CROSS JOIN plans p ON p.num = k.plan;

CREATE TABLE key_limits(
  of BLOB NOT NULL REFERENCES keys(digest) ON DELETE CASCADE,
  name TEXT NOT NULL, kind INTEGER NOT NULL, unit INTEGER NOT NULL,
  amount INTEGER NOT NULL, period_ns INTEGER NOT NULL, burst INTEGER NOT NULL,
  PRIMARY KEY(of, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE plan_limits(
  of INTEGER NOT NULL REFERENCES plans(num) ON DELETE CASCADE,
  name TEXT NOT NULL, kind INTEGER NOT NULL, unit INTEGER NOT NULL,
  amount INTEGER NOT NULL, period_ns INTEGER NOT NULL, burst INTEGER NOT NULL,
  PRIMARY KEY(of, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE owner_limits(
  of INTEGER NOT NULL REFERENCES owners(num) ON DELETE CASCADE,
  name TEXT NOT NULL, kind INTEGER NOT NULL, unit INTEGER NOT NULL,
  amount INTEGER NOT NULL, period_ns INTEGER NOT NULL, burst INTEGER NOT NULL,
  PRIMARY KEY(of, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit(
  seq       INTEGER PRIMARY KEY,
  time      INTEGER NOT NULL,
  actor     TEXT    NOT NULL,
  action    TEXT    NOT NULL,
  object    TEXT    NOT NULL,
  before    TEXT    NOT NULL,
  after     TEXT    NOT NULL,
  prev_hash BLOB    NOT NULL CHECK(length(prev_hash) = 32),
  hash      BLOB    NOT NULL CHECK(length(hash) = 32)
) STRICT;
CREATE INDEX audit_by_object ON audit(object);
)sql";

// Limits that only watch, and what has been done to quotas. A grant or reset belongs to a family, so that a rotated key
// keeps it, and goes when the last key of the family goes.
constexpr const char* kVersion2 = R"sql(
ALTER TABLE key_limits ADD COLUMN dry_run INTEGER NOT NULL DEFAULT 0;
ALTER TABLE plan_limits ADD COLUMN dry_run INTEGER NOT NULL DEFAULT 0;
ALTER TABLE owner_limits ADD COLUMN dry_run INTEGER NOT NULL DEFAULT 0;

CREATE TABLE key_adjustments(
  family BLOB NOT NULL CHECK(length(family) = 13),
  quota TEXT NOT NULL, granted INTEGER NOT NULL, granted_until INTEGER NOT NULL, last_reset INTEGER NOT NULL,
  PRIMARY KEY(family, quota)
) STRICT, WITHOUT ROWID;
CREATE TABLE owner_adjustments(
  owner INTEGER NOT NULL REFERENCES owners(num) ON DELETE CASCADE,
  quota TEXT NOT NULL, granted INTEGER NOT NULL, granted_until INTEGER NOT NULL, last_reset INTEGER NOT NULL,
  PRIMARY KEY(owner, quota)
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_family ON keys(family);
)sql";

// How many keys were ever added to and removed from this registry's snapshots: nginx tells intended deletions from a
// wrong push by them. added - removed + withheld is the number of keys here; `withheld` are those a rollback left out.
// A registry of before begins with what its audit knows of deletions.
constexpr const char* kVersion3 = R"sql(
ALTER TABLE info ADD COLUMN added INTEGER NOT NULL DEFAULT 0;
ALTER TABLE info ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE info ADD COLUMN withheld INTEGER NOT NULL DEFAULT 0;
ALTER TABLE info ADD COLUMN rolled_back_seq INTEGER NOT NULL DEFAULT 0;
UPDATE info SET removed = (SELECT count(*) FROM audit WHERE action = 'key.delete');
UPDATE info SET added = removed + (SELECT count(*) FROM keys);
UPDATE info SET rolled_back_seq = (SELECT coalesce(max(seq), 0) FROM audit WHERE action = 'snapshot.rollback');
CREATE TRIGGER counters_only_grow BEFORE UPDATE OF added, removed ON info
WHEN NEW.added < OLD.added OR NEW.removed < OLD.removed
BEGIN SELECT RAISE(ABORT, 'counters of keys only grow'); END;
)sql";

// A burst that follows from the rate is stored no more (0), so that it follows a changed rate. One that equals what
// would follow is taken for such a one: nobody can tell, most were not written, and today's limit stays the same.
constexpr const char* kDerivedBursts = R"sql(
UPDATE key_limits SET burst = 0 WHERE kind = 1 AND burst = amount;
UPDATE plan_limits SET burst = 0 WHERE kind = 1 AND burst = amount;
UPDATE owner_limits SET burst = 0 WHERE kind = 1 AND burst = amount;
)sql";
static_assert(static_cast<int>(apikey::LimitKind::rate) == 1);

// Where the registry belongs: one of before belongs to where it is changed next. And where its audit begins, once older
// entries have been archived; what those say of deletions stays, as it is asked for long after.
constexpr const char* kHomeAndArchive = R"sql(
ALTER TABLE info ADD COLUMN home_directory TEXT NOT NULL DEFAULT '';
ALTER TABLE info ADD COLUMN home_machine TEXT NOT NULL DEFAULT '';
ALTER TABLE info ADD COLUMN home_host TEXT NOT NULL DEFAULT '';

ALTER TABLE info ADD COLUMN archived_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE info ADD COLUMN archived_time INTEGER NOT NULL DEFAULT 0;
ALTER TABLE info ADD COLUMN archived_hash BLOB NOT NULL CHECK(length(archived_hash) = 32)
  DEFAULT x'0000000000000000000000000000000000000000000000000000000000000000';
CREATE TABLE archived_deletions(
  action TEXT    NOT NULL,
  object TEXT    NOT NULL,
  time   INTEGER NOT NULL,
  before TEXT    NOT NULL,
  PRIMARY KEY(action, object, time)
) STRICT, WITHOUT ROWID;
)sql";

// Chain version 2: personal values beside the audit (registry/audit_values.hpp). An erased one has neither salt nor
// value. The entry `audit.version` stands between the two versions.
constexpr const char* kAuditValues = R"sql(
CREATE TABLE audit_values(
  hashed TEXT    PRIMARY KEY CHECK(length(hashed) = 78),
  owner  BLOB    CHECK(owner IS NULL OR length(owner) = 16),
  salt   BLOB    CHECK(salt IS NULL OR length(salt) = 16),
  value  TEXT,
  erased INTEGER NOT NULL DEFAULT 0 CHECK(erased >= 0),
  CHECK((erased = 0) = (value IS NOT NULL) AND (value IS NULL) = (salt IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_values_by_value ON audit_values(value, owner) WHERE value IS NOT NULL;
CREATE INDEX audit_values_by_owner ON audit_values(owner) WHERE owner IS NOT NULL;
CREATE INDEX audit_values_by_erased ON audit_values(erased) WHERE erased <> 0;
)sql";

// Reserved scopes get a column of their own, which only `keyloader admin` writes: those that stand in `scopes` or in a
// role from before do not count, so where there is one the next snapshot is another one. And what a key is known by to
// people and programs, and how new keys begin.
constexpr const char* kAdminScopesAndNames = R"sql(
ALTER TABLE keys ADD COLUMN admin_scopes TEXT NOT NULL DEFAULT '';
ALTER TABLE keys ADD COLUMN hint TEXT NOT NULL DEFAULT '';
ALTER TABLE keys ADD COLUMN ref TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX keys_by_ref ON keys(owner, ref) WHERE ref <> '';
CREATE INDEX keys_by_hint ON keys(hint) WHERE hint <> '';
ALTER TABLE info ADD COLUMN prefix TEXT NOT NULL DEFAULT '';
UPDATE info SET published_seq = 0 WHERE EXISTS(SELECT 1 FROM keys WHERE ' ' || scopes LIKE '% apikey:%')
  OR EXISTS(SELECT 1 FROM roles WHERE ' ' || scopes LIKE '% apikey:%');

DROP VIEW key_rows;
CREATE VIEW key_rows AS
  SELECT k.digest, k.pepper, k.id, k.family, o.name AS owner_name, p.name AS plan_name, k.name, k.env, k.prefix,
         k.scopes, k.allow_ip, k.allow_origin, k.allow_method, k.allow_host, k.require_tls, k.meta, k.created,
         k.not_before, k.expires, k.suspended, k.suspended_until, k.revoked, k.revoked_reason, k.owner,
         k.admin_scopes, k.hint, k.ref
  FROM keys k CROSS JOIN owners o ON o.num = k.owner CROSS JOIN plans p ON p.num = k.plan;
)sql";

// What snapshots of format 2 say of their registry: what people call it, and a seed by which nodes that share it can
// hash alike.
constexpr const char* kNameAndHashSeed = R"sql(
ALTER TABLE info ADD COLUMN store_name TEXT NOT NULL DEFAULT 'default';
ALTER TABLE info ADD COLUMN hash_seed BLOB NOT NULL CHECK(length(hash_seed) = 16)
  DEFAULT x'00000000000000000000000000000000';
UPDATE info SET hash_seed = randomblob(16);
)sql";

// The policy, what an administrator's key may grant and whose owners it is for, and changes that wait for a second
// person. Numbers of requests are never given twice.
constexpr const char* kPolicyAndApprovals = R"sql(
ALTER TABLE info ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';
ALTER TABLE keys ADD COLUMN may_grant TEXT NOT NULL DEFAULT '';
ALTER TABLE keys ADD COLUMN teams TEXT NOT NULL DEFAULT '';
CREATE TABLE approvals(
  number  INTEGER PRIMARY KEY AUTOINCREMENT,
  state   TEXT    NOT NULL CHECK(state IN ('pending', 'approved', 'refused', 'ended')),
  why     TEXT    NOT NULL DEFAULT '',
  created INTEGER NOT NULL,
  ends    INTEGER NOT NULL,
  actor   TEXT    NOT NULL,
  owner   TEXT    NOT NULL,
  reason  TEXT    NOT NULL,
  needs   TEXT    NOT NULL,
  steps   TEXT    NOT NULL,
  touched TEXT    NOT NULL,
  seq     INTEGER NOT NULL DEFAULT 0,
  decider TEXT    NOT NULL DEFAULT 'null',
  decided INTEGER NOT NULL DEFAULT 0
) STRICT;

DROP VIEW key_rows;
CREATE VIEW key_rows AS
  SELECT k.digest, k.pepper, k.id, k.family, o.name AS owner_name, p.name AS plan_name, k.name, k.env, k.prefix,
         k.scopes, k.allow_ip, k.allow_origin, k.allow_method, k.allow_host, k.require_tls, k.meta, k.created,
         k.not_before, k.expires, k.suspended, k.suspended_until, k.revoked, k.revoked_reason, k.owner,
         k.admin_scopes, k.hint, k.ref, k.may_grant, k.teams
  FROM keys k CROSS JOIN owners o ON o.num = k.owner CROSS JOIN plans p ON p.num = k.plan;
)sql";

constexpr std::array kSteps = {kVersion1,
                               kVersion2,
                               kVersion3,
                               kDerivedBursts,
                               kHomeAndArchive,
                               kAuditValues,
                               kAdminScopesAndNames,
                               kNameAndHashSeed,
                               kPolicyAndApprovals};
static_assert(kSteps[kAuditValuesSchema - 1] == kAuditValues);

}  // namespace

int newest_schema_version() { return static_cast<int>(kSteps.size()); }

int schema_version(Database& database) {
  if (!database.has_table("schema_versions")) {
    return 0;
  }
  Query query = database.query("SELECT coalesce(max(version), 0) FROM schema_versions");
  query.step();
  return static_cast<int>(query.number(0));
}

void migrate(Database& database) {
  for (int version = schema_version(database) + 1; version <= newest_schema_version(); ++version) {
    database.execute(kSteps.at(static_cast<std::size_t>(version) - 1));
    Query query = database.query("INSERT INTO schema_versions(version, applied) VALUES(?, ?)");
    query.bind(std::int64_t{version}).bind(wall_clock()).run();
  }
}

}  // namespace keyloader
