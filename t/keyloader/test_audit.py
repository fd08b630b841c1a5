"""The audit: an entry beside every change, chained by hashes from the first one on; and audit list, audit verify."""

import hashlib
import json
import os
import pwd
import sqlite3

import pytest

from harness.paths import IS_ROOT


def canonical(entry, seconds):
    content = {name: entry[name] for name in ("seq", "actor", "action", "object", "before", "after")} | {"time": seconds}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def seconds_of(keyloader):
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        return dict(database.execute("SELECT seq, time FROM audit"))


def alter(keyloader, statement):
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        assert database.execute(statement).rowcount > 0
    database.close()


@pytest.fixture
def busy(keyloader):
    keyloader("plan", "create", "gold", "--rate", "1/s", "--no-publish")
    keyloader("plan", "set", "gold", "--rate", "2/s", "--no-publish")
    keyloader("role", "create", "clerk", "--scope", "a", "--no-publish")
    keyloader.made = keyloader.key("Zażółć", "--plan", "gold", "--no-publish")
    key = keyloader.made["id"]
    for words in (["set", key, "--name", 'quo"te\\'], ["suspend", key], ["resume", key], ["revoke", key, "--reason", "why"]):
        keyloader("key", *words, "--no-publish")
    keyloader("publish")
    keyloader("key", "delete", key)
    keyloader("owner", "suspend", "Zażółć", "--no-publish")
    keyloader("owner", "delete", "Zażółć", "--no-publish")
    return keyloader


def test_every_change_has_its_entry(busy):
    assert [entry["action"] for entry in busy.audit()] == [
        "registry.init", "plan.create", "publish", "plan.create", "plan.set", "role.create", "owner.create", "key.create",
        "key.set", "key.suspend", "key.resume", "key.revoke", "publish", "key.delete", "publish", "owner.suspend",
        "owner.delete"]


def test_before_and_after(busy):
    entries = busy.audit("--object", busy.made["id"])
    assert entries[0]["before"] is None and entries[-1]["after"] is None
    for earlier, later in zip(entries, entries[1:]):
        assert later["before"] == earlier["after"]
    assert entries[1]["after"]["name"] == 'quo"te\\' and entries[1]["before"]["name"] == ""
    assert "key" not in entries[0]["after"] and "digest" not in entries[0]["after"]


def test_the_chain_as_documented(busy):
    seconds = seconds_of(busy)
    last = bytes(32)
    for number, entry in enumerate(busy.audit(), 1):
        assert entry["seq"] == number and entry["prev_hash"] == last.hex()
        last = hashlib.sha256(last + canonical(entry, seconds[number])).digest()
        assert entry["hash"] == last.hex()
    assert busy.json("audit", "verify") == {"ok": True, "entries": number, "hash": last.hex()}


def test_a_refused_change_leaves_no_entry(keyloader):
    before = keyloader.json("audit", "verify")
    keyloader.refused("owner", "delete", "nobody")
    keyloader.refused("key", "create", "--owner", "x", "--create-owner", "--plan", "nosuch")
    assert keyloader.json("audit", "verify") == before


@pytest.mark.parametrize("statement,word", [
    ("UPDATE audit SET after = replace(after, '2', '3') WHERE action = 'plan.set'", "altered"),
    ("UPDATE audit SET actor = '{}' WHERE seq = 4", "altered"),
    ("UPDATE audit SET time = time + 1 WHERE seq = 4", "altered"),
    ("DELETE FROM audit WHERE seq = 5", "removed"),
    ("DELETE FROM audit WHERE seq = 1", "removed"),
])
def test_tampering_is_found(busy, statement, word):
    busy("audit", "verify")
    alter(busy, statement)
    assert word in busy.refused("audit", "verify")


def test_who(keyloader):
    keyloader.environment = lambda: {**os.environ, "APIKEY_DIR": str(keyloader.dir), "SUDO_USER": "alice", "SUDO_UID": "1000"}
    keyloader("owner", "create", "acme")
    actor = keyloader.audit("--object", "acme")[0]["actor"]
    assert actor["uid"] == os.getuid() and actor["user"] == pwd.getpwuid(os.getuid()).pw_name
    # Only root may say on whose behalf.
    assert actor.get("sudo_user") == ("alice" if IS_ROOT else None)
    assert ("alice" in keyloader("audit", "list").stdout) == IS_ROOT


def test_list_for_people(busy):
    text = busy("audit", "list", "--last", "3").stdout
    assert len(text.splitlines()) == 4 and "owner.delete" in text and "plan.set" not in text
    assert "amount" in busy("audit", "list", "--object", "gold").stdout
