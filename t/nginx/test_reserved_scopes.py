"""Ways to reach `apikey:admin`: what each of them gives is judged by a location that asks for it.

All rows share one nginx. Only `keyloader admin` opens the location; each other way is refused by keyloader, or gives a
key that is let in elsewhere and not there.
"""

import json
import random
import sqlite3

import pytest

from harness.keys import make_key
from harness.old_registry import to_schema_5
from harness.written import Written

LOCATIONS = """
    location /admin   { apikey "a"; apikey_scope apikey:admin; empty_gif; }
    location /support { apikey "a"; apikey_scope apikey:support; empty_gif; }
    location /any     { apikey "a"; apikey_scope any; empty_gif; }
    location /written/admin { apikey "a"; apikey_use written; apikey_scope apikey:admin; empty_gif; }
    location /written/any   { apikey "a"; apikey_use written; apikey_scope any; empty_gif; }
"""
ADOPT = ("--reason", "known")
WAYS = {}  # name → what makes a key
OPENS = {}  # the same, of those that may


def way(name, table=None):
    def add(make):
        (WAYS if table is None else table)[name] = make
        return make
    return add


def refused(registry, *arguments, stdin=None):
    """keyloader says no, and says what does it."""
    done = registry.run(*arguments, "--no-publish", check=False, stdin=stdin)
    assert done.returncode in (1, 2), done.stdout
    assert "keyloader admin " in done.stderr
    return done.stderr


def create(registry, **fields):
    return registry.key(publish=False, **fields)


def admin(registry, *roles):
    words = [word for role in roles for word in ("--role", role)]
    made = registry.json("admin", "create", "--owner", "tester", "--create-owner", "--no-publish", *words)
    return made["id"], made["key"]


for scope in ("*", "APIKEY:admin", "Apikey:*", "apikey", "admin", "apikey.admin", "apikey/admin", "apikeys:*",
              "xapikey:admin", "a:apikey:admin"):
    way(f"key create --scope {scope}")(lambda registry, scope=scope: create(registry, scope=scope).secret)


@way("key create with each reserved form")
def _(registry):
    for reserved in ("apikey:admin", "apikey:*", "apikey:admin:*", "apikey:admin:x"):
        refused(registry, "key", "create", "--owner", "tester", "--create-owner", "--scope", reserved)
    for no_scope in ("apikey:", "*:admin", ":admin", "apikey:**", "*:*"):
        assert registry.run("key", "create", "--owner", "tester", "--scope", no_scope, check=False).returncode == 2
    return create(registry, scope=["*", "apikey"]).secret


@way("key set --scope apikey:admin")
def _(registry):
    key = create(registry, scope="*")
    refused(registry, "key", "set", key.id, "--scope", "apikey:admin", "--scope", "*")
    return key.secret


@way("key set --scope *")
def _(registry):
    key = create(registry)
    registry.run("key", "set", key.id, "--scope", "*", "--no-publish")
    return key.secret


@way("role create and role set")
def _(registry):
    refused(registry, "role", "create", "boss", "--scope", "apikey:admin")
    registry.run("role", "create", "boss", "--scope", "*", "--no-publish")
    refused(registry, "role", "set", "boss", "--scope", "apikey:*")
    return create(registry, role="boss").secret


@way("a role that is called so")
def _(registry):
    for name in ("admin", "apikey:admin"):
        assert registry.run("role", "create", name, "--scope", "admin", check=False).returncode == 2
    registry.run("role", "create", "Admin", "--scope", "admin", "--no-publish")
    return create(registry, role="Admin").secret


@way("import of a CSV file")
def _(registry):
    key = make_key(random.Random(1))
    refused(registry, "import", "-", "--format", "csv", stdin=f"key,owner,scopes\n{key},tester,apikey:admin *\n")
    registry.run("import", "-", "--format", "csv", "--no-publish", stdin=f"key,owner,scopes,roles\n{key},tester,*,\n")
    return key


@way("import of NDJSON, in part")
def _(registry):
    key, other = make_key(random.Random(2)), make_key(random.Random(3))
    lines = [{"key": other, "owner": "tester", "scopes": ["apikey:*"]}, {"key": key, "owner": "tester", "scopes": "*"}]
    done = registry.run("import", "-", "--format", "ndjson", "--partial", "--no-publish",
                        stdin="".join(json.dumps(line) + "\n" for line in lines))
    assert "keyloader admin " in done.stderr
    return key


@way("import with a column admin_scopes")
def _(registry):
    key = make_key(random.Random(4))
    done = registry.run("import", "-", "--format", "csv", "--no-publish", check=False,
                        stdin=f"key,owner,admin_scopes\n{key},tester,apikey:admin\n")
    assert done.returncode == 2 and "unknown column" in done.stderr
    return create(registry, scope="*").secret


@way("key set --role of a role from before")
def _(registry):
    return create(registry, role="old-operators").secret


@way("another plan, for a key from before")
def _(registry):
    registry.run("plan", "create", "gold", "--no-publish")
    key = registry.old["plan"]
    registry.run("key", "set", key.id, "--plan", "gold", "--name", "other", "--no-publish")
    return key.secret


@way("suspend and resume of a key from before")
def _(registry):
    key = registry.old["paused"]
    registry.run("key", "suspend", key.id, "--no-publish")
    registry.run("key", "resume", key.id, "--no-publish")
    return key.secret


for name in ("scope", "wildcard", "role"):
    way(f"a key from before, by {name}")(lambda registry, name=name: registry.old[name].secret)


def last_entry(registry):
    return registry.json("audit", "list", "--last", "1")[0]["seq"]


@way("audit revert of what took it away")
def _(registry):
    id_, secret = admin(registry, "admin", "support")
    registry.run("admin", "set", id_, "--remove-role", "admin", "--no-publish")
    refused(registry, "audit", "revert", last_entry(registry))
    return secret


@way("audit revert of an adoption")
def _(registry):
    key = registry.old["reverted"]
    registry.run("admin", "adopt", key.id, *ADOPT, "--no-publish")
    entry = last_entry(registry)
    registry.run("admin", "set", key.id, "--role", "none", "--no-publish")
    refused(registry, "audit", "revert", entry)
    return key.secret


@way("audit revert of a deleted role from before")
def _(registry):
    registry.run("role", "delete", "old-spare", "--no-publish")
    refused(registry, "audit", "revert", last_entry(registry))
    return create(registry, scope="*").secret


@way("another role of administrators")
def _(registry):
    refused_word = registry.run("admin", "create", "--owner", "tester", "--role", "admn", check=False)
    assert refused_word.returncode == 2 and 'did you mean "admin"?' in refused_word.stderr
    return admin(registry, "view", "issue", "portal", "node", "metrics")[1]


@way("name, ref and meta")
def _(registry):
    return create(registry, name="apikey:admin", ref="apikey:admin", meta="scopes=apikey:admin", scope="*").secret


@way("admin create", OPENS)
def _(registry):
    return admin(registry, "admin")[1]


@way("admin create by the whole name", OPENS)
def _(registry):
    return admin(registry, "apikey:admin", "view")[1]


@way("admin set", OPENS)
def _(registry):
    key = create(registry)
    registry.run("admin", "set", key.id, "--add-role", "admin", "--no-publish")
    return key.secret


@way("admin adopt of a key", OPENS)
def _(registry):
    registry.run("admin", "adopt", registry.old["adopted"].id, *ADOPT, "--no-publish")
    return registry.old["adopted"].secret


@way("admin adopt of a wildcard", OPENS)
def _(registry):
    registry.run("admin", "adopt", registry.old["adopted wildcard"].id, "--all", *ADOPT, "--no-publish")
    return registry.old["adopted wildcard"].secret


@way("admin adopt of a key that has it by a role", OPENS)
def _(registry):
    registry.run("admin", "adopt", registry.old["adopted role"].id, *ADOPT, "--no-publish")
    return registry.old["adopted role"].secret


@way("admin adopt --role", OPENS)
def _(registry):
    registry.run("admin", "adopt", "--role", "old-adopted", *ADOPT, "--no-publish")
    return registry.old["of adopted role"].secret


def with_old_keys(registry):
    """What is there was given before such scopes were reserved."""
    for role in ("old-operators", "old-spare", "old-adopted"):
        registry.run("role", "create", role, "--no-publish")
    roles = {"role": "old-operators", "adopted role": "old-operators", "of adopted role": "old-adopted"}
    scopes = {"wildcard": "apikey:*", "adopted wildcard": "apikey:*"}
    registry.old = {}
    for name in ("scope", "wildcard", "role", "plan", "paused", "reverted", "adopted", "adopted wildcard",
                 "adopted role", "of adopted role"):
        registry.old[name] = create(registry, **({"role": roles[name]} if name in roles else {"scope": "x", "name": name}))
    with sqlite3.connect(registry.dir / "registry.db") as database:
        to_schema_5(database)
        database.execute("UPDATE roles SET scopes = 'apikey:admin orders:read' WHERE name LIKE 'old-%'")
        database.execute("UPDATE keys SET scopes = 'apikey:admin orders:read' WHERE scopes = 'x'")
        for name, scope in scopes.items():
            database.execute("UPDATE keys SET scopes = ? WHERE name = ?", (scope, name))
    database.close()


@pytest.fixture(scope="module")
def judged(stage):
    """The server, and the keys that each way gave."""
    registry = stage.registry
    registry.dir
    registry.run("owner", "create", "tester")
    with_old_keys(registry)
    keys = {name: make(registry) for name, make in (WAYS | OPENS).items()}
    # A rollback to the time when a key was an administrator's, and of one that still is.
    no_longer, secret = admin(registry, "admin", "support")
    keys["rollback"] = secret
    keys["rollback, still one"] = admin(registry, "admin")[1]
    registry.publish()
    generation = registry.generation()
    registry.run("admin", "set", no_longer, "--remove-role", "admin")
    registry.run("snapshot", "rollback", "--to", generation)
    written = [make_key(random.Random(seed)) for seed in range(10, 14)]
    held = [["*"], ["APIKEY:admin", "apikey", "apikey:view"], ["*", "apikey:*"], ["apikey:admin"]]
    snapshot = stage.place / "written.mdb"
    snapshot.write_bytes(Written(stage.place)(1, written, **{f"k{i}": {"scopes": one} for i, one in enumerate(held)}))
    snapshot.chmod(0o644)
    server = stage.nginx(LOCATIONS, http=f"apikey_store {snapshot} name=written;", workers=1)
    server.keys, server.written = keys, written
    return server


def statuses(server, key, *paths):
    return [server.get(path, headers={"X-API-Key": key}).status_code for path in paths]


@pytest.mark.parametrize("name", [*WAYS, "rollback"])
def test_it_does_not_open(judged, name):
    assert statuses(judged, judged.keys[name], "/any", "/admin") == [200, 403]


@pytest.mark.parametrize("name", [*OPENS, "rollback, still one"])
def test_it_opens(judged, name):
    assert statuses(judged, judged.keys[name], "/any", "/admin") == [200, 200]


def test_a_rollback_keeps_what_is_still_held(judged):
    assert statuses(judged, judged.keys["rollback"], "/support") == [200]


@pytest.mark.parametrize("number, status", enumerate([403, 403, 200, 200]))
def test_snapshots_that_others_wrote(judged, number, status):
    assert statuses(judged, judged.written[number], "/written/any", "/written/admin") == [200, status]


def test_there_are_ways_enough():
    assert len(WAYS) >= 20
