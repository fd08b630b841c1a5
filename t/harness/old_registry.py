"""registry.db as older versions of keyloader left it."""

import hashlib
import json


def rechain(database, entries):
    """Writes the entries (seq, time, actor, action, object, before, after; JSON as texts) with a chain that is right."""
    prev = bytes(32)
    for seq, when, actor, action, object_, before, after in entries:
        text = (f'{{"action":{json.dumps(action)},"actor":{actor},"after":{after},"before":{before},'
                f'"object":{json.dumps(object_, ensure_ascii=False)},"seq":{seq},"time":{when}}}')
        hash_ = hashlib.sha256(prev + text.encode()).digest()
        database.execute(
            "INSERT OR REPLACE INTO audit(seq, time, actor, action, object, before, after, prev_hash, hash)"
            " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)", (seq, when, actor, action, object_, before, after, prev, hash_))
        prev = hash_


def all_entries(database):
    return database.execute(
        "SELECT seq, time, actor, action, object, before, after FROM audit ORDER BY seq").fetchall()


def to_schema_5(database):
    """Chain version 1: the audit holds its values itself."""
    values = dict(database.execute("SELECT hashed, value FROM audit_values"))

    def shown(text):
        for hashed, value in values.items():
            text = text.replace(json.dumps(hashed), json.dumps(value, ensure_ascii=False))
        return text.replace('"audit_version":2,', "")

    rechain(database, [(seq, when, shown(actor), action, values.get(object_, object_), shown(before), shown(after))
                       for seq, when, actor, action, object_, before, after in all_entries(database)])
    database.execute("DROP TABLE audit_values")
    database.execute("DELETE FROM schema_versions WHERE version > 5")


def to_schema_4(database):
    """Before homes and archives."""
    to_schema_5(database)
    for column in ("home_directory", "home_machine", "home_host", "archived_seq", "archived_time", "archived_hash"):
        database.execute(f"ALTER TABLE info DROP COLUMN {column}")
    database.execute("DROP TABLE archived_deletions")
    database.execute("DELETE FROM schema_versions WHERE version > 4")
