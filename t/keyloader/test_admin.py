"""keyloader admin: creating, changing, listing and adopting keys with reserved scopes, as scripts and people see them.

What such keys may do in nginx is in t/nginx/test_reserved_scopes.py.
"""

import json
import sqlite3

import pytest

from harness.old_registry import to_schema_5


def admin(keyloader, *roles, owner="alice"):
    words = [word for role in roles for word in ("--role", role)]
    return keyloader.json("admin", "create", "--owner", owner, "--create-owner", *words)


def checks(keyloader, name="reserved-scopes"):
    found = json.loads(keyloader.start("doctor", "--json").communicate()[0])
    return [one for one in found if one["check"] == name]


def test_a_key_as_any_other(keyloader):
    made = keyloader.json("admin", "create", "--owner", "alice", "--create-owner", "--role", "view", "--role", "issue",
                          "--expires", "90d", "--allow-ip", "10.0.0.0/8", "--reason", "she asked", "--name", "laptop")
    assert made["key"].startswith("ak_live_") and made["generation"] == keyloader.generation()
    shown = keyloader.json("key", "show", made["id"])
    assert shown["admin_scopes"] == shown["effective_scopes"] == ["apikey:issue", "apikey:view"]
    assert shown["scopes"] == [] and shown["allow_ip"] == ["10.0.0.0/8"] and shown["expires"] is not None
    entry = keyloader.audit("--object", made["id"])[0]
    assert entry["action"] == "key.create" and entry["after"]["reason"] == "she asked"
    assert entry["after"]["admin_scopes"] == ["apikey:issue", "apikey:view"]
    assert "apikey:issue" in keyloader("key", "show", made["id"]).stdout


@pytest.mark.parametrize("arguments, sentence", [
    ([], "give at least one --role"),
    (["--role", "vew"], 'there is no role "vew" of administrators; did you mean "view"?'),
    (["--role", "*"], 'there is no role "*" of administrators'),
    (["--role", "apikey:*"], 'there is no role "apikey:*" of administrators'),
    (["--role", "ADMIN"], 'there is no role "ADMIN" of administrators'),
    (["--role", "none"], 'there is no role "none" of administrators')])
def test_roles_that_there_are_not(keyloader, arguments, sentence):
    said = keyloader.refused("admin", "create", "--owner", "alice", "--create-owner", *arguments, status=2)
    assert sentence in said
    assert keyloader.json("owner", "list") == []


def test_dry_run_makes_nothing(keyloader):
    tried = keyloader.json("admin", "create", "--owner", "alice", "--create-owner", "--role", "view", "--dry-run")
    assert tried["dry_run"] is True and tried["admin_scopes"] == ["apikey:view"] and "id" not in tried
    assert keyloader.json("admin", "list") == []


def test_set(keyloader):
    key = admin(keyloader, "view")["id"]

    def held(*arguments):
        return keyloader.json("admin", "set", key, *arguments)["admin_scopes"]

    assert held("--add-role", "issue", "--reason", "on call") == ["apikey:issue", "apikey:view"]
    entry = keyloader.audit("--action", "key.admin")[0]
    assert entry["change"] == "admin scopes apikey:view → apikey:issue apikey:view, reason on call"
    assert held("--remove-role", "view") == ["apikey:issue"]
    assert held("--role", "admin") == ["apikey:admin"]
    assert held("--role", "view", "--dry-run") == ["apikey:view"]
    assert held("--add-role", "admin") == ["apikey:admin"]  # as it was
    assert held("--role", "none") == []
    assert len(keyloader.audit("--action", "key.admin")) == 4
    for arguments in ([], ["--role", "view", "--add-role", "issue"]):
        keyloader.refused("admin", "set", key, *arguments, status=2)
    assert 'there is no role "viw"' in keyloader.refused("admin", "set", key, "--remove-role", "viw", status=2)


def test_key_set_leaves_them_alone(keyloader):
    key = admin(keyloader, "view")["id"]
    keyloader("key", "set", key, "--scope", "orders:*", "--name", "both")
    keyloader("key", "set", key, "--scope", "none")
    assert keyloader.json("key", "show", key)["effective_scopes"] == ["apikey:view"]


def test_list(keyloader):
    keyloader.key("acme", "--scope", "*")
    key = admin(keyloader, "portal")["id"]
    assert [one["id"] for one in keyloader.json("admin", "list")] == [key]
    assert "apikey:portal" in keyloader("admin", "list").stdout
    assert keyloader("key", "list", "--columns", "id,admin_scopes", "-o", "csv", "--owner", "alice").stdout.split() == [
        "id,admin_scopes", f"{key},apikey:portal"]


@pytest.fixture
def old(keyloader):
    """Keys and roles from before: `own` by itself, `by role` by a role, `ended` revoked."""
    keyloader("role", "create", "staff", "--scope", "orders:read")
    ids = {"own": keyloader.key("acme", "--scope", "x")["id"], "by role": keyloader.key("acme", "--role", "staff")["id"],
           "ended": keyloader.key("acme", "--scope", "x")["id"]}
    keyloader("key", "revoke", ids["ended"])
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        to_schema_5(database)
        database.execute("UPDATE roles SET scopes = 'apikey:view orders:read'")
        database.execute("UPDATE keys SET scopes = 'apikey:issue orders:read' WHERE scopes = 'x'")
    database.close()
    return ids


def effective(keyloader, key):
    return keyloader.json("key", "show", key)["effective_scopes"]


def test_what_is_from_before_does_not_count_and_is_named(keyloader, old):
    assert [effective(keyloader, key) for key in old.values()] == [["orders:read"]] * 3
    found = checks(keyloader)
    assert [one["result"] for one in found] == ["wrong", "wrong"]
    assert found[0]["sentence"] == "role staff has apikey:view, which does not count"
    assert "`keyloader admin adopt --role staff --reason …`" in found[0]["remedy"]
    assert found[1]["sentence"] == f"{old['own']} of acme has apikey:issue, which does not count"
    assert f"`keyloader admin adopt {old['own']} --reason …`" in found[1]["remedy"]


def test_adopting_keys(keyloader, old):
    assert "--reason" in keyloader.refused("admin", "adopt", old["own"], status=2)
    keyloader("admin", "adopt", old["own"], "--reason", "known", "--dry-run")
    assert effective(keyloader, old["own"]) == ["orders:read"]
    done = keyloader.json("admin", "adopt", old["own"], old["by role"], "--reason", "known")
    assert sorted(one["admin_scopes"][0] for one in done) == ["apikey:issue", "apikey:view"]
    assert effective(keyloader, old["own"]) == ["apikey:issue", "orders:read"]
    assert effective(keyloader, old["by role"]) == ["apikey:view", "orders:read"]
    entry = keyloader.audit("--action", "key.adopt", "--object", old["own"])[0]
    assert entry["after"]["reason"] == "known" and entry["after"]["scopes"] == ["orders:read"]
    again = keyloader("admin", "adopt", old["own"], "--reason", "known")
    assert "has nothing to adopt" in again.stdout
    assert [one["sentence"].split()[0] for one in checks(keyloader)] == ["role"]


def test_adopting_a_role(keyloader, old):
    keyloader("admin", "adopt", "--role", "staff", "--reason", "all of them")
    assert keyloader.json("role", "list")[0]["scopes"] == ["orders:read"]
    assert effective(keyloader, old["by role"]) == ["apikey:view", "orders:read"]
    later = keyloader.key("acme", "--role", "staff")["id"]
    assert effective(keyloader, later) == ["orders:read"]
    assert len(keyloader.audit("--action", "role.adopt")) == len(keyloader.audit("--action", "key.adopt")) == 1
    assert "has nothing to adopt" in keyloader("admin", "adopt", "--role", "staff", "--reason", "again").stdout
    keyloader.refused("admin", "adopt", "--reason", "x", status=2)
    keyloader.refused("admin", "adopt", old["own"], "--role", "staff", "--reason", "x", status=2)


def test_doctor_finds_nothing_otherwise(keyloader):
    admin(keyloader, "admin")
    keyloader.key("acme", "--scope", "*")
    assert [one["result"] for one in checks(keyloader)] == ["fine"]
