"""Limits of plans, keys and owners: how they are written, named, removed, judged together, shown, and handed to nginx."""

import hashlib
import json
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapshot_reader import Snapshot

from harness.old_registry import to_schema_4

SECOND = 10**9
DAY = 86400 * SECOND
UNITS = ["minute", "hour", "day", "week", "month", "year"]


def rate(name, amount, period_ns, burst, dry_run=False):
    return {"name": name, "kind": "rate", "amount": amount, "period_ns": period_ns, "burst": burst, "dry_run": dry_run}


def quota(name, amount, window, dry_run=False):
    return {"name": name, "kind": "calendar_quota", "amount": amount, "window": window, "dry_run": dry_run}


def rolling(name, amount, period_ns, dry_run=False):
    return {"name": name, "kind": "rolling_quota", "amount": amount, "period_ns": period_ns, "dry_run": dry_run}


def at_once(name, amount, dry_run=False):
    return {"name": name, "kind": "concurrency", "amount": amount, "dry_run": dry_run}


def plan(keyloader, *arguments, command="create", name="gold"):
    return keyloader.json("plan", command, name, "--no-publish", *arguments)["limits"]


def described(keyloader, key):
    snapshot = Snapshot(keyloader.snapshot)
    return snapshot.describe(snapshot.find(hashlib.sha256(key["key"].encode()).digest()))


ONE_OF_EACH = ["--rate", "100/s", "--burst", "200", "--quota", "1000000/month", "--rolling-quota", "5000/24h",
               "--concurrency", "20"]


def test_limits_without_a_name_have_one(keyloader):
    assert plan(keyloader, *ONE_OF_EACH) == [
        at_once("concurrency", 20), rolling("day", 5000, DAY), quota("month", 1000000, "month"),
        rate("rate", 100, SECOND, 200)]
    assert keyloader.json("owner", "create", "acme", *ONE_OF_EACH)["limits"] == [
        rate("owner", 100, SECOND, 200), at_once("owner.concurrency", 20), rolling("owner.day", 5000, DAY),
        quota("owner.month", 1000000, "month")]


@pytest.mark.parametrize("time,name", [("60s", "minute"), ("1h", "hour"), ("24h", "day"), ("1d", "day"), ("7d", "week"),
                                       ("1w", "week"), ("30d", "month"), ("365d", "year"), ("366d", "year"),
                                       ("10d", "requests.10d"), ("36h", "requests.36h"), ("90s", "requests.90s")])
def test_rolling_quotas_are_called_by_their_time(keyloader, time, name):
    assert [limit["name"] for limit in plan(keyloader, "--rolling-quota", f"5/{time}")] == [name]
    owner = keyloader.json("owner", "create", "acme", "--rolling-quota", f"5/{time}")["limits"][0]["name"]
    assert owner == "owner." + name.removeprefix("requests.")


def test_names(keyloader):
    assert plan(keyloader, "--rate", "60/m", "--rate", "tokens=90000/m", "--burst", "tokens=1000", "--quota",
                "tokens.month=2000000/month", "--quota", "1000/day", "--rolling-quota", "tokens.roll=2000000/30d",
                "--concurrency", "slow=3") == [
        quota("day", 1000, "day"), rate("rate", 60, 60 * SECOND, 60), at_once("slow", 3),
        rate("tokens", 90000, 60 * SECOND, 1000), quota("tokens.month", 2000000, "month"),
        rolling("tokens.roll", 2000000, 30 * DAY)]


def test_what_is_not_named_stays_and_none_removes(keyloader):
    plan(keyloader, *ONE_OF_EACH, "--rate", "tokens=5/s")

    def names(*arguments):
        return [limit["name"] for limit in plan(keyloader, *arguments, command="set")]

    assert names("--quota", "month=1500000/month") == ["concurrency", "day", "month", "rate", "tokens"]
    assert names("--rate", "none") == ["concurrency", "day", "month", "tokens"]
    assert names("--rate", "none") == ["concurrency", "day", "month", "tokens"], "as it is already"
    assert names("--rate", "tokens=none", "--concurrency", "none") == ["day", "month"]
    # The only one of its kind needs no name; either option knows both kinds of quota by name.
    assert names("--quota", "none") == ["day"]
    assert names("--quota", "day=none") == []


def test_one_command_removes_and_sets(keyloader):
    plan(keyloader, "--rolling-quota", "5000/24h")
    assert plan(keyloader, "--quota", "6000/day", "--rolling-quota", "none", command="set") == [quota("day", 6000, "day")]


def test_burst(keyloader):
    plan(keyloader, "--rate", "tokens=60/m", "--burst", "tokens=7")
    assert plan(keyloader, "--rate", "tokens=90/m", command="set") == [rate("tokens", 90, 60 * SECOND, 7)]
    assert plan(keyloader, "--burst", "tokens=none", command="set") == [rate("tokens", 90, 60 * SECOND, 90)]


def test_dry_run(keyloader):
    plan(keyloader, *ONE_OF_EACH, "--dry-run-limit", "month", "--dry-run-limit", "rate")
    # It stays when the amount changes.
    changed = plan(keyloader, "--quota", "5000000/month", command="set")
    assert [limit["name"] for limit in changed if limit["dry_run"]] == ["month", "rate"]
    changed = plan(keyloader, "--enforce-limit", "rate", command="set")
    assert [limit["name"] for limit in changed if limit["dry_run"]] == ["month"]
    key = keyloader.key("acme", "--plan", "gold")
    flags = {limit["name"]: limit["flags"] for limit in described(keyloader, key)["plan_limits"]}
    assert flags == {"concurrency": 0, "day": 0, "month": 1, "rate": 0}
    assert "month 5000000/month (dry run)" in keyloader("plan", "list").stdout
    assert "month 5000000/month (dry run) (of the plan gold)" in keyloader("key", "show", key["id"]).stdout


def test_for_people(keyloader):
    text = keyloader("plan", "create", "gold", "--rate", "100/s", "--burst", "200", "--rate", "slow=30/m", "--rate",
                     "slower=1000/h", "--rolling-quota", "5000/24h", "--rolling-quota", "50000/30d", "--rolling-quota",
                     "5000/90m", "--quota", "60000/year", "--concurrency", "20", "--no-publish").stdout
    assert text == ("created plan gold: concurrency 20 at once, day 5000/1d rolling, month 50000/30d rolling, rate 100/s "
                    "burst 200, requests.90m 5000/90m rolling, slow 30/m burst 30, slower 1000/h burst 1000, "
                    "year 60000/year\nnot published: `keyloader publish` hands it to nginx\n")


@pytest.mark.parametrize("arguments,word", [
    (["--quota", "month"], "1000000/month"), (["--quota", "5/s"], "--rate"), (["--quota", "5/30d"], "--rolling-quota"),
    (["--quota", "5/months"], "minute"), (["--quota", "/day"], "whole number"), (["--quota", "-5/day"], "whole number"),
    (["--quota", "5.5/day"], "whole number"), (["--quota", "1k/day"], "whole number"), (["--quota", "0/day"], "suspend"),
    (["--quota", "1000000000001/day"], "1000000000000"), (["--quota", "99999999999999999999/day"], "1000000000000"),
    (["--rolling-quota", "5"], "1000/24h"), (["--rolling-quota", "5/day"], "duration"), (["--rolling-quota", "0/1d"], "suspend"),
    (["--rolling-quota", "5/367d"], "366d"), (["--concurrency", "0"], "suspend"), (["--concurrency", "60001"], "60000"),
    (["--concurrency", "many"], "whole number"), (["--rate", "0/s"], "rate"), (["--rate", "a b=5/s"], "name"),
    (["--rate", "=5/s"], "name"), (["--rate", "none=5/s"], "name"), (["--rate", "x" * 65 + "=5/s"], "name"),
    (["--rate", "a=b=5/s"], "rate looks like"), (["--burst", "tokens=5", "--rate", "5/s"], "tokens"),
    (["--quota", "5/day", "--burst", "day=5"], "day"), (["--rate", "5/s", "--rate", "6/s"], "twice"),
    (["--rate", "a=5/s", "--quota", "a=9/day"], "twice"), (["--quota", "a=none"], "there are none"),
    (["--rate", "day=none", "--quota", "5/day"], "there are none"), (["--dry-run-limit", "day"], "there are none"),
])
def test_what_no_limit_can_be(keyloader, arguments, word):
    assert word in keyloader.refused("plan", "create", "gold", *arguments, status=2)
    assert [each["name"] for each in keyloader.json("plan", "list")] == ["default"]


@pytest.mark.parametrize("arguments,word", [
    (["--quota", "none"], "--quota day=none"), (["--quota", "moth=none"], "there are day, month"),
    (["--rate", "month=none"], "--quota month=none"), (["--rate", "day=5/s"], "already"),
    (["--rolling-quota", "5000/24h"], "already"), (["--enforce-limit", "week"], "there are day, month"),
])
def test_changes_that_do_not_fit_what_is_there(keyloader, arguments, word):
    before = plan(keyloader, "--quota", "5000/day", "--quota", "6000/month")
    assert word in keyloader.refused("plan", "set", "gold", *arguments, status=2)
    assert keyloader.json("plan", "show", "gold")["limits"] == before


def test_the_largest_amounts_reach_nginx(keyloader):
    key = keyloader.key("acme", "--rate", "1000000000/s", "--burst", "1000000000", "--quota", "1000000000000/year",
                        "--rolling-quota", "x=1000000000000/366d", "--concurrency", "60000")
    assert [(limit["name"], limit["kind"], limit["amount"]) for limit in described(keyloader, key)["limits"]] == [
        ("concurrency", 4, 60000), ("rate", 1, 10**9), ("x", 3, 10**12), ("year", 2, 10**12)]


def test_sixteen_are_enough(keyloader):
    names = [f"--concurrency=c{number:02}=5" for number in range(17)]
    assert "17 limits" in keyloader.refused("plan", "create", "gold", *names, status=2)
    assert len(plan(keyloader, *names[:16])) == 16
    key = keyloader.key("acme", "--plan", "gold", "--concurrency", "c03=7")
    sentence = keyloader.refused("key", "set", key["id"], "--concurrency", "another=7")
    assert key["id"] in sentence and "17 limits" in sentence
    plan(keyloader, "--concurrency", "c15=none", command="set")
    keyloader("key", "set", key["id"], "--concurrency", "another=7")
    # And now the plan is full.
    sentence = keyloader.refused("plan", "set", "gold", "--concurrency", "c15=5")
    assert key["id"] in sentence and "17 limits" in sentence


TOO_LITTLE = ["--quota", "1000/hour", "--quota", "999/day"]


def assert_names_both(sentence, *whose):
    sentence = sentence.replace("owner.", "")
    for word in ("day", "999/day", "hour", "1000/hour", "raise day or lower hour", *whose):
        assert word in sentence, sentence


def test_a_longer_period_that_allows_less_is_warned_of(keyloader):
    def said(*arguments):
        return keyloader(*arguments).stderr

    assert_names_both(said("plan", "create", "gold", *TOO_LITTLE), "plan gold")
    assert_names_both(said("owner", "create", "acme", *TOO_LITTLE), "owner acme")
    assert_names_both(said("key", "create", "--owner", "other", "--create-owner", *TOO_LITTLE), "plan default")
    plan(keyloader, "--quota", "day=none", command="set")
    assert_names_both(said("plan", "set", "gold", "--quota", "999/day"), "plan gold")
    plan(keyloader, "--quota", "day=none", command="set")
    keyloader("owner", "set", "acme", "--quota", "owner.day=none")
    assert_names_both(said("owner", "set", "acme", "--quota", "999/day"), "owner acme")
    # An owner's limits are shared, a key's are not: they do not compare.
    key = keyloader.key("acme", "--quota", "999/day")
    assert "ends first" not in said("key", "set", key["id"], "--name", "n")
    # A key's own together with its plan's, whichever of them changes.
    assert_names_both(said("key", "set", key["id"], "--plan", "gold"), key["id"], "plan gold")
    keyloader("plan", "set", "gold", "--quota", "hour=none")
    assert_names_both(said("plan", "set", "gold", "--quota", "1000/hour"), key["id"], "acme", "plan gold")
    # What replaces the plan's limit of its name is what counts.
    keyloader("plan", "set", "gold", "--quota", "500/hour")
    assert "ends first" not in said("key", "set", key["id"], "--quota", "998/hour")


def test_a_refused_change_changes_nothing(keyloader):
    plan(keyloader, "--quota", "1000/hour")
    before = keyloader.json("audit", "verify")
    keyloader.refused("plan", "set", "gold", "--quota", "0/day", status=2)
    assert keyloader.json("audit", "verify") == before


@pytest.mark.parametrize("arguments", [
    ["--rate", "100/s", "--quota", "99/minute"], ["--rate", "100/s", "--rate", "requests.h=99/h"],
    ["--rate", "tokens=90000/m", "--quota", "tokens.day=89999/day"], ["--quota", "10/week", "--quota", "9/month"],
    ["--quota", "10/month", "--quota", "9/year"], ["--quota", "10/day", "--rolling-quota", "9/30d"],
    ["--rolling-quota", "10/27d", "--quota", "9/month"], ["--rolling-quota", "x=10/30d", "--rolling-quota", "x.y=9/31d"],
    ["--quota", "requests=10/hour", "--quota", "9/day"]])
def test_pairs_of_which_one_always_ends_first(keyloader, arguments):
    assert "ends first. If that is not meant" in keyloader("plan", "create", "gold", *arguments).stderr


@pytest.mark.parametrize("arguments", [
    ["--rate", "100/s", "--quota", "100/minute"], ["--rate", "100/s", "--burst", "500", "--quota", "200/minute"],
    ["--rate", "tokens=90000/m", "--quota", "1000/day"], ["--concurrency", "100", "--quota", "5/day"],
    ["--rolling-quota", "x=10/30d", "--quota", "9/month"], ["--quota", "9/day", "--rolling-quota", "x=10/24h"],
    ["--rate", "a.x=100/s", "--rate", "b.x=5/m"]])
def test_pairs_of_which_either_may_end_first(keyloader, arguments):
    assert "ends first" not in keyloader("plan", "create", "gold", *arguments).stderr


def test_where_each_limit_comes_from(keyloader):
    plan(keyloader, "--rate", "100/s", "--quota", "1000000/month")
    keyloader("owner", "create", "a:b", "--rate", "500/s")
    key = keyloader.key("a:b", "--plan", "gold", "--quota", "month=5000000/month", "--concurrency", "3")
    shown = keyloader.json("key", "show", key["id"])
    used = {"used", "left", "percent", "resets", "nginx"}  # t/nginx/test_live_quota.py
    assert [{name: value for name, value in limit.items() if name not in used}
            for limit in shown["effective_limits"]] == [
        at_once("concurrency", 3) | {"from": "key"}, quota("month", 5000000, "month") | {"from": "key"},
        rate("rate", 100, SECOND, 100) | {"from": "plan:gold"}, rate("owner", 500, SECOND, 500) | {"from": "owner:a:b"}]
    assert [limit["name"] for limit in shown["limits"]] == ["concurrency", "month"]
    text = keyloader("key", "show", key["id"]).stdout
    for line in ("concurrency 3 at once (of the key)", "month 5000000/month (of the key)",
                 "rate 100/s burst 100 (of the plan gold)", "owner 500/s burst 500 (of the owner a:b)"):
        assert line in text
    other = keyloader.key("else")
    assert keyloader.json("key", "show", other["id"])["effective_limits"] == []
    assert "unlimited" in keyloader("key", "show", other["id"]).stdout


def test_all_of_it_reaches_nginx(keyloader):
    plan(keyloader, *ONE_OF_EACH)
    keyloader("owner", "create", "acme", *ONE_OF_EACH, "--no-publish")
    found = described(keyloader, keyloader.key("acme", "--plan", "gold", *ONE_OF_EACH))
    values = [("concurrency", 4, 0, 20, 0, 0), ("day", 3, 0, 5000, DAY, 0), ("month", 2, 5, 1000000, 0, 0),
              ("rate", 1, 0, 100, SECOND, 200)]
    fields = ("name", "kind", "unit", "amount", "period_ns", "burst")
    for limits in (found["limits"], found["plan_limits"]):
        assert [tuple(limit[field] for field in fields) for limit in limits] == values
    assert sorted(limit["name"].removeprefix("owner.") for limit in found["owner_limits"]) == [
        "concurrency", "day", "month", "owner"]


def test_import(keyloader):
    plan(keyloader, "--quota", "1000/hour")
    lines = [{"key": "an-imported-key-1", "owner": "acme", "rate": "100/s tokens=5/m", "burst": "200 tokens=7",
              "quota": "1000/day", "rolling_quota": ["w=5000/10d"], "concurrency": "20", "plan": "gold"},
             {"key": "an-imported-key-2", "owner": "acme", "plan": "gold"}]
    text = "\n".join(map(json.dumps, lines))
    keyloader("import", "-", "--format", "ndjson", "--create-owners", stdin=text)
    imported = {len(key["limits"]): key for key in keyloader.json("key", "list")}
    assert set(imported) == {0, 5}
    assert imported[5]["limits"] == [
        at_once("concurrency", 20), quota("day", 1000, "day"), rate("rate", 100, SECOND, 200),
        rate("tokens", 5, 60 * SECOND, 7), rolling("w", 5000, 10 * DAY)]


@pytest.mark.parametrize("column,value", [
    ("rate", "SECRETSECRET"), ("rate", "SECRET/SECRET=="), ("rate", "SECRETSECRET="), ("burst", "SECRETSECRET=5"),
    ("quota", "SECRETSECRET=5"), ("quota", "0/day"), ("rolling_quota", "SECRETSECRET=5/x"), ("concurrency", "SECRETSECRET="),
    ("concurrency", "60001")])
def test_import_refuses_without_showing(keyloader, column, value):
    line = json.dumps({"key": "an-imported-key-1", "owner": "acme", column: value})
    done = keyloader("import", "-", "--format", "ndjson", "--create-owners", "--json", stdin=line, status=1)
    refused = json.loads(done.stdout)["refused"]
    assert [(each["line"], each["column"]) for each in refused] == [(1, column)]
    assert "SECRET" not in done.stdout + done.stderr and value not in refused[0]["reason"]


def test_import_judges_limits_together(keyloader):
    plan(keyloader, "--quota", "1000/hour")
    line = json.dumps({"key": "an-imported-key-1", "owner": "acme", "quota": "999/day", "plan": "gold"})
    done = keyloader("import", "-", "--format", "ndjson", "--create-owners", "--json", stdin=line)
    warning = next(each for each in json.loads(done.stdout)["warnings"] if each["column"] == "limits")
    assert_names_both(warning["reason"], "plan gold")


def test_a_registry_of_the_first_schema_is_taken_over(keyloader):
    plan(keyloader, "--rate", "100/s", "--burst", "200")
    key = keyloader.key("acme", "--plan", "gold", "--rate", "7/m")
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        to_schema_4(database)
        for table in ("key_limits", "plan_limits", "owner_limits"):
            database.execute(f"ALTER TABLE {table} DROP COLUMN dry_run")
        database.executescript("DROP TABLE key_adjustments; DROP TABLE owner_adjustments; DROP INDEX keys_by_family;"
                               "DROP TRIGGER counters_only_grow;"
                               "ALTER TABLE info DROP COLUMN added; ALTER TABLE info DROP COLUMN removed;"
                               "ALTER TABLE info DROP COLUMN withheld; ALTER TABLE info DROP COLUMN rolled_back_seq;"
                               "DELETE FROM schema_versions WHERE version > 1")
    database.close()
    assert keyloader.json("plan", "show", "gold")["limits"] == [rate("rate", 100, SECOND, 200)]
    assert keyloader.json("key", "show", key["id"])["limits"] == [rate("rate", 7, 60 * SECOND, 7)]
    assert plan(keyloader, "--quota", "500/day", "--dry-run-limit", "day", command="set")[0]["dry_run"] is True
    keyloader("quota", "reset", key["id"])
    keyloader("audit", "verify")


PERIODS = {"s": (1, 1), "m": (60, 60), "h": (3600, 3600), "minute": (60, 60), "hour": (3600, 3600), "day": (86400, 86400),
           "week": (604800, 604800), "month": (28 * 86400, 31 * 86400), "year": (365 * 86400, 366 * 86400)}
NAMES = st.sampled_from(["rate", "day", "month", "year", "tokens", "tokens.day", "rate.x", "tokens.all", "requests", "requests.x", "x"])
WRITTEN = st.one_of(
    st.tuples(st.just("--rate"), NAMES, st.integers(1, 20), st.sampled_from("smh")),
    st.tuples(st.just("--quota"), NAMES, st.integers(1, 20), st.sampled_from(UNITS)),
    st.tuples(st.just("--rolling-quota"), NAMES, st.integers(1, 20), st.integers(1, 366).map("{}d".format)),
    st.tuples(st.just("--concurrency"), NAMES, st.integers(1, 20), st.just("")))


def measure(name):
    first = name.split(".")[0]
    return "requests" if first in ("rate", "day", "month", "year") else first


def period(option, text):
    return (int(text[:-1]) * 86400,) * 2 if option == "--rolling-quota" else PERIODS[text]


def makes_sense(limits):
    counted = [(measure(name), amount, period(option, time)) for option, name, amount, time in limits if time]
    return not any(a == b and longer[0] > shorter[1] and less < more
                   for a, less, longer in counted for b, more, shorter in counted)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WRITTEN, min_size=1, max_size=6, unique_by=lambda limit: limit[1]))
def test_any_limits_are_kept_as_written_and_warned_of_as_a_model_says(keyloader, limits):
    words = [word for option, name, amount, time in limits
             for word in (option, f"{name}={amount}" + (f"/{time}" if time else ""))]
    done = keyloader("plan", "set", "default", "--no-publish", "--json", *words)
    assert ("ends first" in done.stderr) == (not makes_sense(limits))
    kept = {limit["name"]: limit for limit in json.loads(done.stdout)["limits"]}
    assert set(kept) == {name for _, name, _, _ in limits}
    for option, name, amount, time in limits:
        assert kept[name]["amount"] == amount
        assert kept[name].get("window", time) == time
        if option in ("--rate", "--rolling-quota"):
            assert kept[name]["period_ns"] == period(option, time)[0] * SECOND
    if limits:
        for option, name, _, _ in limits:
            keyloader("plan", "set", "default", "--no-publish", option, f"{name}=none")
