"""keyloader admin: creating, changing, listing and adopting keys with reserved scopes, as scripts and people see them.

What such keys may do in nginx is in t/nginx/test_reserved_scopes.py.
"""

import json
import re
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
    assert entry["change"] == 'admin scopes apikey:view → apikey:issue apikey:view, reason "on call"'
    assert held("--remove-role", "view") == ["apikey:issue"]
    assert held("--role", "admin") == ["apikey:admin"]
    assert held("--role", "view", "--dry-run") == ["apikey:view"]
    assert held("--add-role", "admin") == ["apikey:admin"]  # as it was
    assert held("--role", "none") == []
    assert len(keyloader.audit("--action", "key.admin")) == 4
    assert "give --role, --add-role, --remove-role," in keyloader.refused("admin", "set", key, status=2)
    for arguments, words in ((["--role", "view", "--add-role", "issue"], "either --role"),
                             (["--add-role", "view", "--remove-role", "apikey:view"], "view is in both"),
                             (["--add-role", "none"], 'no role "none" of administrators; there are')):
        assert words in keyloader.refused("admin", "set", key, *arguments, status=2)
    assert 'there is no role "viw"' in keyloader.refused("admin", "set", key, "--remove-role", "viw", status=2)


def test_bounds_are_shown(shop):
    tess = shop.ids["tess"]
    rows = {line.split()[1]: line for line in shop.run("admin", "list").stdout.splitlines()}
    assert "MAY GRANT" in rows["OWNER"] and "TEAMS" in rows["OWNER"]
    assert rows["tess"].split()[3:6] == ["admin", "orders:*", "shop"]
    assert rows["alice"].split()[3:6] == ["admin", "all", "all"] and rows["vic"].split()[3:6] == ["view", "-", "all"]
    shown = dict(re.findall(r"^(may grant|teams) +(.*)$", shop.run("key", "show", tess).stdout, re.MULTILINE))
    assert shown == {"may grant": "orders:*", "teams": "shop"}
    assert "may grant" not in shop.run("key", "show", shop.run.key("acme", "--no-publish")["id"]).stdout
    listed = shop.run.json("key", "list", "--owner", "tess", "--columns", "may_grant,teams")
    assert listed == [{"may_grant": ["orders:*"], "teams": ["shop"]}]


def test_the_audit_tells_bounds_that_are_gone(shop):
    tess, sam = shop.ids["tess"], shop.ids["sam"]
    shop.run("admin", "set", tess, "--team", "none", "--may-grant", "none", "--no-publish")
    shop.run("admin", "set", sam, "--may-grant", "none", "--no-publish")
    assert [entry["change"] for entry in shop.run.audit("--action", "key.admin")] == [
        "may grant orders:* → none (all scopes), teams shop → none (all teams)",
        "may grant orders:* → none (no scope)"]


def test_bounds_that_were_not_meant(keyloader):
    keyloader("owner", "create", "acme", "--team", "shop", "--no-publish")

    def said(*arguments):
        return keyloader("admin", "create", "--owner", "alice", "--create-owner", "--expires", "9d", "--dry-run",
                         *arguments).stderr

    assert 'no owner is of the team "shopp"; did you mean "shop"?' in said("--role", "admin", "--team", "shopp")
    assert "can suspend keys, but resume only those that have no scope" in said("--role", "support")
    assert "can issue and resume only keys that have none" in said("--role", "issue")
    for arguments in (["--role", "support", "--may-grant", "a"], ["--role", "admin", "--team", "shop"], ["--role", "view"]):
        assert said(*arguments) == "", arguments


def test_set_of_a_revoked_key(keyloader):
    key = admin(keyloader, "view")["id"]
    keyloader("key", "revoke", key)
    for changes, arguments in ((True, ["--add-role", "issue"]), (False, ["--add-role", "issue"])):
        before = keyloader.generation()
        assert "stays refused" in keyloader("admin", "set", key, *arguments).stderr
        assert (keyloader.generation() != before) == changes


def test_a_key_that_never_expires(keyloader):
    def said(*arguments):
        return keyloader("admin", "create", "--owner", "alice", "--create-owner", "--role", "view", *arguments).stderr

    assert "never expires; give such keys an end" in said()
    for arguments in (["--expires", "90d"], ["--expires", "none"]):
        assert "give such keys an end" not in said(*arguments)


def test_what_is_said_of_reserved_scopes(keyloader):
    key = keyloader.key("acme")["id"]
    for command in (["key", "set", key], ["key", "create", "--owner", "acme"], ["role", "create", "staff"]):
        said = keyloader.refused(*command, "--scope", "apikey:view", status=2)
        assert "keyloader admin create … --role view" in said and "keyloader admin set key_… --add-role view" in said
        for unknown in ("apikey:foo", "apikey:*"):
            said = keyloader.refused(*command, "--scope", unknown, status=2)
            assert f'there is no "{unknown}"; there are view, support,' in said


def test_words_that_are_no_roles_of_the_registry(keyloader):
    keyloader.key("acme")
    for command in (["key", "create", "--owner", "acme", "--role"], ["key", "list", "--role"], ["role", "delete"],
                    ["admin", "adopt", "--reason", "x", "--role"]):
        assert "keyloader admin set key_… --add-role issue" in keyloader.refused(*command, "issue")
    assert "needs another name" in keyloader.refused("role", "create", "admin", "--scope", "x", status=2)
    assert keyloader.json("role", "list") == []


def test_key_set_leaves_them_alone(keyloader):
    key = admin(keyloader, "view")["id"]
    keyloader("key", "set", key, "--scope", "orders:*", "--name", "both")
    keyloader("key", "set", key, "--scope", "none")
    assert keyloader.json("key", "show", key)["effective_scopes"] == ["apikey:view"]


def test_list(keyloader):
    keyloader.key("acme", "--scope", "*")
    key = admin(keyloader, "portal")["id"]
    assert [one["id"] for one in keyloader.json("admin", "list")] == [key]
    head, line = keyloader("admin", "list").stdout.splitlines()
    assert head.split() == ["ID", "OWNER", "STATE", "ROLES", "MAY", "GRANT", "TEAMS", "EXPIRES", "NAME"]
    assert line.split() == [key, "alice", "active", "portal", "-", "all", "never", "-"]
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
    assert found[0]["sentence"] == (
        "role staff has apikey:view, which gives nothing since scopes that begin with apikey: are reserved")
    assert found[0]["remedy"] == (
        "`keyloader admin adopt --role staff --reason …` gives the admin scopes to the 1 key that has the role; "
        "`keyloader role set staff --scope orders:read` takes it away")
    assert found[1]["sentence"].startswith(f"{old['own']} of acme has apikey:issue, which gives nothing since")
    assert found[1]["remedy"] == (
        f"`keyloader admin adopt {old['own']} --reason …` makes it count; "
        f"`keyloader key set {old['own']} --scope orders:read` takes it away")
    assert "apikey:issue (does not count; see `keyloader doctor`)" in keyloader("key", "show", old["own"]).stdout


def give(keyloader, key, scopes):
    """As a registry from before holds them."""
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        database.execute("UPDATE keys SET scopes = ? WHERE scopes = 'apikey:issue orders:read' AND revoked = 0", (scopes,))
    database.close()


def test_what_an_adoption_leaves(keyloader, old):
    give(keyloader, old["own"], "apikey:* apikey:foo apikey:view orders:*")
    key = old["own"]
    remedy = checks(keyloader)[1]["remedy"]
    assert f"admin adopt {key} --all --reason …` makes them count" in remedy
    assert f"`keyloader key set {key} --scope 'orders:*'` takes them away" in remedy
    said = keyloader("admin", "adopt", key, "--reason", "known").stdout
    assert "apikey:* of " in said and "--all" in said and "apikey:foo of " in said
    assert keyloader.json("key", "show", key)["admin_scopes"] == ["apikey:view"]
    keyloader("admin", "adopt", key, "--all", "--reason", "known")
    shown = keyloader.json("key", "show", key)
    assert (shown["admin_scopes"], shown["scopes"]) == (["apikey:*", "apikey:view"], ["apikey:foo", "orders:*"])
    assert "admin adopt" not in checks(keyloader)[1]["remedy"]
    said = keyloader.refused("admin", "set", key, "--remove-role", "view")
    assert f"{key} still has view by apikey:*" in said and "--role …" in said
    assert keyloader.json("admin", "set", key, "--remove-role", "*")["admin_scopes"] == ["apikey:view"]


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
