"""registry.db as older versions of keyloader left it."""


def to_schema_5(database):
    """Before names and hash seeds."""
    for column in ("store_name", "hash_seed"):
        database.execute(f"ALTER TABLE info DROP COLUMN {column}")
    database.execute("DELETE FROM schema_versions WHERE version > 5")


def to_schema_4(database):
    """Before homes and archives."""
    to_schema_5(database)
    for column in ("home_directory", "home_machine", "home_host", "archived_seq", "archived_time", "archived_hash"):
        database.execute(f"ALTER TABLE info DROP COLUMN {column}")
    database.execute("DROP TABLE archived_deletions")
    database.execute("DELETE FROM schema_versions WHERE version > 4")
