"""registry.db as older versions of keyloader left it, and as somebody leaves it who writes into it himself."""

import hashlib
import json
import sqlite3


def rechain(database, entries, prev=bytes(32)):
    """Writes the entries (seq, time, actor, action, object, before, after; JSON as texts) with a chain that is right."""
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


def rewrite_audit(directory, edit):
    """What `edit` makes of the entries, with a chain that is right, as one who can write registry.db would."""
    with sqlite3.connect(directory / "registry.db") as database:
        entries = all_entries(database)
        database.execute("DELETE FROM audit")
        rechain(database, edit(entries))
    database.close()


def age_audit(directory, seconds):
    """As if all of it had been done so much earlier."""
    rewrite_audit(directory, lambda entries: [(seq, when - seconds, *rest) for seq, when, *rest in entries])


KEY_ROWS = """
    SELECT k.digest, k.pepper, k.id, k.family, o.name AS owner_name, p.name AS plan_name, k.name, k.env, k.prefix,
           k.scopes, k.allow_ip, k.allow_origin, k.allow_method, k.allow_host, k.require_tls, k.meta, k.created,
           k.not_before, k.expires, k.suspended, k.suspended_until, k.revoked, k.revoked_reason, k.owner{more}
    FROM keys k CROSS JOIN owners o ON o.num = k.owner CROSS JOIN plans p ON p.num = k.plan"""


def remake_key_rows(database, more=""):
    database.execute("DROP VIEW key_rows")
    database.execute("CREATE VIEW key_rows AS" + KEY_ROWS.format(more=more))


def to_schema_8(database):
    """Before policies and requests for approval."""
    remake_key_rows(database, ", k.admin_scopes, k.hint, k.ref")
    for column in ("may_grant", "teams"):
        database.execute(f"ALTER TABLE keys DROP COLUMN {column}")
    database.execute("ALTER TABLE info DROP COLUMN policy")
    database.execute("DROP TABLE approvals")
    database.execute("DELETE FROM schema_versions WHERE version > 8")


def to_schema_7(database):
    """Before names and hash seeds."""
    to_schema_8(database)
    for column in ("store_name", "hash_seed"):
        database.execute(f"ALTER TABLE info DROP COLUMN {column}")
    database.execute("DELETE FROM schema_versions WHERE version > 7")


def to_schema_6(database):
    """Before reserved scopes, hints, refs and a prefix of the registry."""
    to_schema_7(database)
    remake_key_rows(database)
    for index in ("keys_by_ref", "keys_by_hint"):
        database.execute(f"DROP INDEX {index}")
    for column in ("admin_scopes", "hint", "ref"):
        database.execute(f"ALTER TABLE keys DROP COLUMN {column}")
    database.execute("ALTER TABLE info DROP COLUMN prefix")
    database.execute("DELETE FROM schema_versions WHERE version > 6")


def to_schema_5(database):
    """Chain version 1: the audit holds its values itself."""
    to_schema_6(database)
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
