"""keyloader quota: grants and resets of keys and owners; what the registry, the audit and the snapshot say of them."""

import hashlib
import sqlite3
import time
from calendar import timegm
from datetime import datetime, timedelta, timezone

import pytest

from snapshot_reader import Snapshot

ADJUSTMENT = 5
LAST_MOMENT = 2**32 - 1


def seconds(text):
    return timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def next_month():
    now = datetime.now(timezone.utc)
    return int(datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=timezone.utc).timestamp())


def described(keyloader, key):
    snapshot = Snapshot(keyloader.snapshot)
    return snapshot.describe(snapshot.find(hashlib.sha256(key["key"].encode()).digest()))


def adjustments(keyloader, key, limits="limits"):
    """name → (granted, until, reset), as nginx reads them."""
    return {limit["name"]: (limit["amount"], limit["period_ns"], limit["burst"])
            for limit in described(keyloader, key)[limits] if limit["kind"] == ADJUSTMENT}


def alter(keyloader, statement, *parameters):
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        assert database.execute(statement, parameters).rowcount > 0
    database.close()


def rows(keyloader):
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        counts = [database.execute(f"SELECT count(*) FROM {whose}_adjustments").fetchone()[0] for whose in ("key", "owner")]
    database.close()
    return counts


def shown(keyloader, *whose):
    return {each["name"]: each for each in keyloader.json("quota", "show", *whose)}


@pytest.fixture
def gold(keyloader):
    keyloader("plan", "create", "gold", "--rate", "100/s", "--quota", "1000000/month", "--no-publish")
    return keyloader


@pytest.fixture
def key(gold):
    return gold.key("acme", "--plan", "gold")


def test_a_grant_is_for_this_window(gold, key):
    until = next_month()
    done = gold.json("quota", "grant", key["id"], "--amount", "5000", "--reason", "ticket 4711")
    assert until == next_month(), "the month changed while we looked"
    assert (done["name"], done["amount"], done["granted"], done["amount_now"]) == ("month", 1000000, 5000, 1005000)
    assert seconds(done["granted_until"]) == seconds(done["window_end"]) == until
    # In service when the command returns: in the key's list, beside nothing of its own.
    assert adjustments(gold, key) == {"month": (5000, until, 0)}
    assert [limit["name"] for limit in described(gold, key)["plan_limits"]] == ["month", "rate"]
    # A second one adds.
    assert gold.json("quota", "grant", key["id"], "--amount", "3000")["granted"] == 8000
    assert adjustments(gold, key) == {"month": (8000, until, 0)}


def test_every_grant_and_reset_has_its_entry(gold, key):
    gold("quota", "grant", key["id"], "--amount", "5000", "--reason", "Zażółć")
    gold("quota", "reset", key["id"], "--name", "month")
    grant, reset = [entry for entry in gold.audit("--object", key["id"]) if entry["action"].startswith("quota.")]
    assert (grant["action"], reset["action"]) == ("quota.grant", "quota.reset")
    subject = {"owner": "acme", "key": key["id"], "family": key["id"], "quota": "month"}
    nothing = {"granted": 0, "granted_until": None, "last_reset": None}
    assert grant["before"] == subject | nothing
    assert grant["after"] == {**grant["before"], "granted": 5000, "granted_until": grant["after"]["granted_until"],
                              "reason": "Zażółć"}
    assert seconds(grant["after"]["granted_until"]) == next_month()
    assert reset["before"] | {"reason": "Zażółć"} == grant["after"]
    assert reset["after"] == {**reset["before"], "last_reset": reset["after"]["last_reset"], "reason": ""}
    assert abs(seconds(reset["after"]["last_reset"]) - time.time()) < 60
    gold("audit", "verify")


def test_grants_until_a_moment(gold, key):
    gold("quota", "grant", key["id"], "--amount", "10", "--until", "2050-01-31")
    moment = seconds("2050-01-31T00:00:00Z")
    assert adjustments(gold, key) == {"month": (10, moment, 0)}
    # One without an end joins it; one with another end takes both there, and says so.
    gold("quota", "grant", key["id"], "--amount", "20")
    assert adjustments(gold, key) == {"month": (30, moment, 0)}
    done = gold("quota", "grant", key["id"], "--amount", "30", "--until", "2049-01-31T12:00:00Z")
    assert "60 granted until 2049-01-31T12:00:00Z" in done.stdout
    assert adjustments(gold, key) == {"month": (60, seconds("2049-01-31T12:00:00Z"), 0)}


def test_a_grant_of_a_rolling_quota_lasts_its_time(keyloader):
    key = keyloader.key("acme", "--rolling-quota", "5000/10d")
    done = keyloader.json("quota", "grant", key["id"], "--amount", "7")
    left = timedelta(seconds=seconds(done["granted_until"]) - time.time())
    assert timedelta(days=10) - timedelta(minutes=1) < left <= timedelta(days=10)
    assert done["window_end"] is None and done["kind"] == "rolling_quota"
    assert adjustments(keyloader, key)["requests.10d"][0] == 7


def test_a_reset_begins_the_window_anew(gold, key):
    before = int(time.time())
    done = gold.json("quota", "reset", key["id"], "--reason", "our own loop")
    at = seconds(done["last_reset"])
    assert before <= at <= time.time()
    assert adjustments(gold, key) == {"month": (0, 0, at)}
    assert (seconds(done["window_begin"]), seconds(done["window_end"])) == (at, next_month())
    # Grants stay.
    gold("quota", "grant", key["id"], "--amount", "5")
    gold("quota", "reset", key["id"])
    assert adjustments(gold, key)["month"][:2] == (5, next_month())


def test_owners(keyloader):
    keyloader("owner", "create", "acme", "--quota", "5000/day", "--rolling-quota", "50000/30d")
    key = keyloader.key("acme", "--quota", "day=1000/day")
    assert "say which quota of owner acme" in keyloader.refused("quota", "reset", "--owner", "acme", status=2)
    done = keyloader("quota", "grant", "--owner", "acme", "--name", "owner.day", "--amount", "100").stdout
    assert done.startswith("owner.day of owner acme is 5000/day and 100 granted until ")
    assert adjustments(keyloader, key) == {}
    assert adjustments(keyloader, key, "owner_limits")["owner.day"][0] == 100
    entry = keyloader.audit("--object", "acme")[-1]
    assert (entry["action"], entry["after"]["granted"]) == ("quota.grant", 100)
    assert set(entry["after"]) == {"owner", "quota", "granted", "granted_until", "last_reset", "reason"}
    assert set(shown(keyloader, "--owner", "acme")) == {"owner.day", "owner.month"}
    assert set(shown(keyloader, key["id"])) == {"day"}
    keyloader("key", "delete", key["id"])
    keyloader("owner", "delete", "acme")
    assert rows(keyloader) == [0, 0]


def test_what_cannot_be_adjusted(gold, key):
    keyloader = gold
    keyloader("key", "set", key["id"], "--quota", "50000/day")
    sentence = keyloader.refused("quota", "reset", key["id"], status=2)
    assert "--name" in sentence and "day (50000/day)" in sentence and "month (1000000/month)" in sentence
    for name in ("rate", "nosuch", "owner.day"):
        sentence = keyloader.refused("quota", "grant", key["id"], "--amount", "5", "--name", name)
        assert f'has no quota "{name}"' in sentence and "month (1000000/month)" in sentence
    other = keyloader.key("acme")
    sentence = keyloader.refused("quota", "reset", other["id"])
    assert other["id"] in sentence and "has no quota" in sentence and "key set" in sentence
    assert "has no quota" in keyloader.refused("quota", "reset", "--owner", "acme")
    assert keyloader.json("quota", "show", other["id"]) == []
    assert "no owner" in keyloader.refused("quota", "show", "--owner", "nobody")
    assert rows(keyloader) == [0, 0]


@pytest.mark.parametrize("arguments", [
    ["grant", "ID"], ["grant", "--amount", "5"], ["grant", "ID", "--amount", "0"], ["grant", "ID", "--amount", "-5"],
    ["grant", "ID", "--amount", "1000000000001"], ["grant", "ID", "--amount", "many"],
    ["grant", "ID", "--owner", "acme", "--amount", "5"], ["reset"], ["reset", "ID", "--owner", "acme"], ["show"],
    ["grant", "ID", "--amount", "5", "--until", "2020-01-01"], ["grant", "ID", "--amount", "5", "--until", "none"],
    ["grant", "ID", "--amount", "5", "--until", "2107-01-01"], ["grant", "ID", "--amount", "5", "--until", "soon"],
    ["reset", "not-an-id"], ["reset", "ID", "--reason", "two\nlines"], ["reset", "ID", "--amount", "5"],
])
def test_wrong_use(gold, key, arguments):
    before = gold.json("audit", "verify")
    words = [key["id"] if word == "ID" else word for word in arguments]
    gold.refused("quota", *words, status=2)
    assert gold.json("audit", "verify") == before


def test_the_most_there_is(gold, key):
    gold("quota", "grant", key["id"], "--amount", "999999999999", "--until", "2106-01-01")
    gold("quota", "grant", key["id"], "--amount", "1")
    assert adjustments(gold, key)["month"][0] == 10**12
    assert "1000000000000 already" in gold.refused("quota", "grant", key["id"], "--amount", "1")


def test_no_publish(gold, key):
    gold("quota", "grant", key["id"], "--amount", "5", "--no-publish")
    assert adjustments(gold, key) == {}
    gold("publish")
    assert adjustments(gold, key)["month"][0] == 5


def test_a_grant_that_is_over_goes(gold, key):
    gold("quota", "grant", key["id"], "--amount", "5")
    gold("quota", "reset", key["id"])
    at = adjustments(gold, key)["month"][2]
    alter(gold, "UPDATE key_adjustments SET granted_until = ?", int(time.time()))
    assert shown(gold, key["id"])["month"]["granted"] == 0
    gold("owner", "set", "acme", "--team", "a")
    assert adjustments(gold, key) == {"month": (0, 0, at)}
    # The next one begins from nothing.
    assert gold.json("quota", "grant", key["id"], "--amount", "7")["granted"] == 7
    # A reset no window reaches back to goes as well.
    alter(gold, "UPDATE key_adjustments SET granted_until = 1, last_reset = ?", int(time.time()) - 366 * 86400)
    gold("owner", "set", "acme", "--team", "b")
    assert adjustments(gold, key) == {}
    alter(gold, "UPDATE key_adjustments SET last_reset = ?", int(time.time()) - 365 * 86400)
    gold("owner", "set", "acme", "--team", "c")
    assert set(adjustments(gold, key)) == {"month"}


def test_a_rotated_key_keeps_all(gold, key):
    newer = gold.key("acme", "--plan", "gold")
    # What a rotation does: another key of the same family.
    alter(gold, "UPDATE keys SET family = (SELECT min(family) FROM keys)")
    assert gold.json("key", "show", newer["id"])["family"] == key["id"]
    gold("quota", "grant", key["id"], "--amount", "5")
    assert adjustments(gold, newer) == adjustments(gold, key) != {}
    assert gold.json("quota", "grant", newer["id"], "--amount", "6")["granted"] == 11
    assert adjustments(gold, newer) == adjustments(gold, key)
    gold("key", "delete", key["id"])
    assert adjustments(gold, newer)["month"][0] == 11
    # With the last key of the family its adjustments go.
    gold("key", "delete", newer["id"])
    assert rows(gold) == [0, 0]


def test_an_adjustment_without_its_quota_is_not_written(gold, key):
    gold("quota", "reset", key["id"])
    gold("plan", "set", "gold", "--quota", "month=none")
    assert adjustments(gold, key) == {}
    gold("plan", "set", "gold", "--quota", "500000/month")
    assert set(adjustments(gold, key)) == {"month"}
    # It is the name that counts, wherever the quota comes from.
    gold("key", "set", key["id"], "--quota", "7/month", "--plan", "none")
    assert set(adjustments(gold, key)) == {"month"}


def test_sixteen_limits_and_as_many_adjustments(keyloader):
    key = keyloader.key("acme", *[f"--quota=q{number}=5/day" for number in range(16)])
    for number in range(16):
        keyloader("quota", "grant", key["id"], "--name", f"q{number}", "--amount", str(number + 1), "--no-publish")
    keyloader("publish")
    assert {name: granted for name, (granted, _, _) in adjustments(keyloader, key).items()} == {
        f"q{number}": number + 1 for number in range(16)}


def test_a_rollback_keeps_todays_grants(gold, key):
    gold("owner", "set", "acme", "--quota", "9000000/month")
    gold("quota", "grant", key["id"], "--amount", "5")
    gold("key", "set", key["id"], "--name", "a later content")
    gold("quota", "grant", key["id"], "--amount", "6")
    gold("quota", "grant", "--owner", "acme", "--amount", "7")
    now = adjustments(gold, key), adjustments(gold, key, "owner_limits")
    earlier = [entry["generation"] for entry in gold.json("snapshot", "list")][3]
    gold("snapshot", "rollback", "--to", str(earlier))
    assert described(gold, key)["name"] == ""
    assert (adjustments(gold, key), adjustments(gold, key, "owner_limits")) == now
    # What was granted then and is over now does not come back.
    alter(gold, "UPDATE key_adjustments SET granted_until = 1")
    gold("snapshot", "rollback", "--to", str(earlier))
    assert adjustments(gold, key) == {}


def test_show(gold, key):
    gold("key", "set", key["id"], "--rolling-quota", "50000/10d", "--dry-run-limit", "requests.10d")
    gold("quota", "grant", key["id"], "--name", "month", "--amount", "5")
    quotas = shown(gold, key["id"])
    assert {name: (each["from"], each["amount"], each["granted"], each["amount_now"], each["dry_run"])
            for name, each in quotas.items()} == {
        "month": ("plan:gold", 1000000, 5, 1000005, False), "requests.10d": ("key", 50000, 0, 50000, True)}
    assert quotas["month"]["family"] == key["id"] and quotas["month"]["owner"] == "acme"
    text = gold("quota", "show", key["id"]).stdout
    assert len(text.splitlines()) == 4
    for word in ("the plan gold", "the key", "5 until ", "50000/10d rolling (dry run)",
                 "What was used is not known: no nginx here counts it."):
        assert word in text


@pytest.mark.parametrize("unit,begin", [
    ("minute", lambda now: now.replace(second=0)), ("hour", lambda now: now.replace(minute=0, second=0)),
    ("day", lambda now: now.replace(hour=0, minute=0, second=0)),
    ("week", lambda now: now.replace(hour=0, minute=0, second=0) - timedelta(days=now.weekday())),
    ("month", lambda now: now.replace(day=1, hour=0, minute=0, second=0)),
    ("year", lambda now: now.replace(month=1, day=1, hour=0, minute=0, second=0))])
def test_windows_are_those_of_the_calendar_in_utc(keyloader, unit, begin):
    key = keyloader.key("acme", "--quota", f"5/{unit}")
    before = datetime.now(timezone.utc).replace(microsecond=0)
    quota = shown(keyloader, key["id"])[unit]
    after = datetime.now(timezone.utc).replace(microsecond=0)
    assert seconds(quota["window_begin"]) in (begin(before).timestamp(), begin(after).timestamp())
    assert seconds(quota["window_begin"]) <= after.timestamp() < seconds(quota["window_end"]) + 1


def test_show_says_what_is_not_there_and_where_it_is(keyloader):
    keyloader("owner", "create", "alice", "--quota", "5000000/month", "--no-publish")
    keyloader("owner", "create", "bare", "--no-publish")
    key, other = keyloader.key("alice", "--no-publish")["id"], keyloader.key("bare", "--no-publish")["id"]
    for words, said in (([key], f"{key} has no quota of its own; its owner has a quota for all keys together: "
                                "`keyloader quota show --owner alice`\n"),
                        ([other], f"{other} has no quota; give it one with `keyloader key set {other} "
                                  "--quota 1000000/month`\n"),
                        (["--owner", "bare"], "owner bare has no quota; give it one with `keyloader owner set bare "
                                              "--quota 1000000/month`\n")):
        done = keyloader("quota", "show", *words)
        assert (done.stdout, done.stderr) == ("", said)
        assert keyloader.json("quota", "show", *words) == []
    keyloader("key", "set", key, "--quota", "10/day", "--no-publish")
    done = keyloader("quota", "show", key)
    assert "day" in done.stdout and "quota show --owner alice" in done.stderr
