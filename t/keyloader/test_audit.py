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
    for number, entry in enumerate(busy.audit("--chained"), 1):
        assert entry["seq"] == number and entry["prev_hash"] == last.hex()
        last = hashlib.sha256(last + canonical(entry, seconds[number])).digest()
        assert entry["hash"] == last.hex()
    assert busy.json("audit", "verify") == {"ok": True, "entries": number, "archived": 0, "hash": last.hex()}


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
    assert "rate 1/s → 2/s" in busy("audit", "list", "--object", "gold").stdout


def changes(keyloader, *words):
    """(action, change in words) of each entry."""
    return [(entry["action"], entry["change"]) for entry in keyloader.audit(*words)]


def test_a_change_is_said_in_words(keyloader):
    keyloader("plan", "create", "small", "--rate", "10/s", "--no-publish")
    keyloader("plan", "set", "small", "--rate", "20/s", "--quota", "1000/day", "--no-publish")
    keyloader("plan", "set", "small", "--burst", "50", "--quota", "day=none", "--concurrency", "3", "--no-publish")
    assert changes(keyloader, "--object", "small") == [
        ("plan.create", "rate 10/s"), ("plan.set", "day 1000/day, rate 10/s → 20/s"),
        ("plan.set", "concurrency 3 at once, day 1000/day → none, rate 20/s → 20/s burst 50")]
    key = keyloader.key("acme", "--plan", "small", "--scope", "a:b", "--meta", "crm=1", "--no-publish")["id"]
    keyloader("key", "set", key, "--scope", "none", "--name", "new", "--meta", "crm=2", "--meta", "x=y", "--quota", "9999999/month",
              "--no-publish")
    keyloader("quota", "grant", key, "--amount", "5", "--until", "2050-01-31", "--reason", "ticket", "--no-publish")
    keyloader("key", "suspend", key, "--no-publish")
    keyloader("key", "revoke", key, "--reason", "leak", "--no-publish")
    when = keyloader.json("key", "show", key)["revoked"]
    assert changes(keyloader, "--object", key) == [
        ("key.create", "env live, meta.crm 1, owner acme, plan small, scopes a:b"),
        ("key.set", "month 9999999/month, meta.crm 1 → 2, meta.x y, name new, scopes a:b → none"),
        ("quota.grant", "month: granted 0 → 5, granted until 2050-01-31T00:00:00Z, reason ticket"),
        ("key.suspend", "suspended no → yes"), ("key.revoke", f"revoked {when}, reason leak")]
    keyloader("key", "delete", key, "--no-publish")
    assert changes(keyloader, "--action", "key.delete")[0][1].startswith("was env live, month 9999999/month, meta.crm 2,")
    text = keyloader("audit", "list").stdout
    assert "rate 10/s → 20/s" in text and "{" not in text and '"' not in text


def test_values_are_told_from_fields(keyloader):
    name = "svc-a, owner acme, plan default"
    key = keyloader.key("acme", "--name", name, "--meta", "crm=a=b", "--no-publish")["id"]
    assert changes(keyloader, "--object", key) == [
        ("key.create", f'env live, meta.crm "a=b", name "{name}", owner acme, plan default')]
    keyloader("key", "set", key, "--name", 'say "no"', "--no-publish")
    keyloader("key", "set", key, "--name", "none", "--no-publish")
    assert [change for _, change in changes(keyloader, "--action", "key.set")] == [
        rf'name "{name}" → "say \"no\""', r'name "say \"no\"" → none']


def test_key_set_says_what_it_changed(keyloader):
    key = keyloader.key("acme", "--no-publish")["id"]
    keyloader("plan", "create", "gold", "--no-publish")
    said = keyloader("key", "set", key, "--plan", "gold", "--name", "new", "--no-publish").stdout
    assert said.startswith(f"updated {key} of acme: name new, plan default → gold\n")
    assert keyloader("key", "suspend", key, "--no-publish").stdout.startswith(f"suspended {key} of acme\n")


def test_who_with_an_administrators_key(shop):
    root = pwd.getpwuid(os.getuid()).pw_name
    carol = shop.ids["carol"]
    shop.as_("carol", "owner", "set", "acme", "--email", "a@b.example", "--no-publish")
    assert f" carol ({carol} by {root}) " in shop.run("audit", "list", "--last", "1").stdout
    for who in ("carol", carol):
        assert changes(shop.run, "--by", who) == [("owner.set", "email a@b.example")]
    assert "there are entries by carol, " in shop.run.refused("audit", "list", "--by", "karla")
    shop.run("key", "revoke", carol, "--no-publish")
    shop.run("key", "delete", carol, "--no-publish")
    assert f" carol ({carol} by {root}) " in shop.run("audit", "list", "--object", "acme").stdout
    assert [action for action, _ in changes(shop.run, "--by", "carol")] == ["owner.set"]


def test_what_passed_over_the_policy_is_said_in_words(shop):
    shop.run("policy", "set", "--require-meta", "ticket")
    shop.run("key", "create", "--owner", "acme", "--break-glass", "--reason", "fire", "--no-publish")
    entry = shop.run.audit("--action", "policy.break_glass")[0]
    number = entry["after"]["entries"][0]
    assert entry["change"] == f"entries {number}, reason fire, rules require-meta"


def test_list_filters(busy):
    def actions(*words):
        return [entry["action"] for entry in busy.audit(*words)]
    key_actions = ["key.create", "key.set", "key.suspend", "key.resume", "key.revoke", "key.delete"]
    assert actions("--action", "key") == key_actions and actions("--action", "key.revoke") == ["key.revoke"]
    assert 'did you mean "key"?' in busy.refused("audit", "list", "--action", "ke", status=2)
    assert actions("--action", "key", "--last", "2") == key_actions[-2:]
    me = pwd.getpwuid(os.getuid()).pw_name
    assert actions("--by", me) == actions() and "nobody else" in busy.refused("audit", "list", "--by", "nobody else")
    assert actions("--since", "1h") == actions("--since", "today", "--by", me) == actions()
    assert actions("--since", "2100-01-01") == []
    assert "7d (ago)" in busy.refused("audit", "list", "--since", "soon", status=2)


@pytest.mark.skipif(not IS_ROOT, reason="only whoever is root can act for somebody")
def test_on_whose_behalf(keyloader, monkeypatch):
    monkeypatch.setenv("SUDO_USER", "alice")
    keyloader("owner", "create", "acme", "--no-publish")
    monkeypatch.delenv("SUDO_USER")
    assert changes(keyloader, "--by", "alice") == [("owner.create", "")]


@pytest.mark.parametrize("words,status,said", [
    (["--action", "kye"], 2, 'there is no action "kye"; did you mean "key"?'),
    (["--action", "key.rvoke"], 2, 'did you mean "key.revoke"?'),
    (["--by", "nobody-of-ours"], 1, 'the audit has no entry by "nobody-of-ours"; there are entries by '),
    (["--last", "0"], 2, "--last 0 would show nothing; leave it out for all")])
def test_a_filter_that_nothing_can_match_is_refused(busy, words, status, said):
    assert said in busy.refused("audit", "list", *words, status=status)


def test_every_action_can_be_asked_for(busy):
    for action in {entry["action"] for entry in busy.audit()}:
        assert {entry["action"] for entry in busy.audit("--action", action)} == {action}
        kind = action.split(".")[0]
        assert {entry["action"].split(".")[0] for entry in busy.audit("--action", kind)} == {kind}
    assert busy.audit("--action", "quota.grant") == [], "that could be there and is not"
