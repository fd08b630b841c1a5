"""registry.db as older versions of keyloader left it."""


def to_schema_5(database):
    """Before reserved scopes, hints, refs and a prefix of the registry."""
    database.execute("DROP VIEW key_rows")
    for index in ("keys_by_ref", "keys_by_hint"):
        database.execute(f"DROP INDEX {index}")
    for column in ("admin_scopes", "hint", "ref"):
        database.execute(f"ALTER TABLE keys DROP COLUMN {column}")
    database.execute("ALTER TABLE info DROP COLUMN prefix")
    database.execute("""
        CREATE VIEW key_rows AS
        SELECT k.digest, k.pepper, k.id, k.family, o.name AS owner_name, p.name AS plan_name, k.name, k.env, k.prefix,
               k.scopes, k.allow_ip, k.allow_origin, k.allow_method, k.allow_host, k.require_tls, k.meta, k.created,
               k.not_before, k.expires, k.suspended, k.suspended_until, k.revoked, k.revoked_reason, k.owner
        FROM keys k CROSS JOIN owners o ON o.num = k.owner CROSS JOIN plans p ON p.num = k.plan""")
    database.execute("DELETE FROM schema_versions WHERE version > 5")


def to_schema_4(database):
    """Before homes and archives."""
    to_schema_5(database)
    for column in ("home_directory", "home_machine", "home_host", "archived_seq", "archived_time", "archived_hash"):
        database.execute(f"ALTER TABLE info DROP COLUMN {column}")
    database.execute("DROP TABLE archived_deletions")
    database.execute("DELETE FROM schema_versions WHERE version > 4")
