"""keyloader key list: which keys, in which order and shape; and when each was used last."""

import csv
import io
import json
import sqlite3
import time
from datetime import datetime, timezone

import pytest

HOUR, DAY = 3600, 86_400


def at(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def used(keyloader, tmp_path, key, ago, owner_id="11" * 16, **counters):
    """A key was used so many seconds ago, as another node tells."""
    hour = (int(time.time()) - ago) // HOUR * HOUR
    line = {"type": "usage", "hour": at(hour), "node": "other", "instance": "0c" * 16, "key": key, "owner": "",
            "owner_id": owner_id, "admitted": 1, "cost": 1, "refunded": 0, "refused": {}, "bytes": 9,
            "upstream_seconds": 0, "complete": True, **counters}
    file = tmp_path / f"use-{key}-{ago}.ndjson"
    file.write_text(json.dumps(line) + "\n")
    keyloader("usage", "merge", file)
    return at(hour)


def make_old(keyloader, days):
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        assert database.execute("UPDATE keys SET created = ?", (int(time.time()) - days * DAY,)).rowcount > 0
    database.close()


@pytest.fixture
def some(keyloader):
    """Three keys: name → id."""
    keyloader("plan", "create", "gold", "--rate", "5/s", "--no-publish")
    keyloader("role", "create", "clerk", "--scope", "orders:read", "--scope", "orders:write", "--no-publish")
    made = {
        "nightly": keyloader.key("acme", "--name", "nightly", "--plan", "gold", "--meta", "crm=4711", "--expires", "10d"),
        "mobile app": keyloader.key("acme", "--name", "mobile app", "--role", "clerk", "--scope", "a:b", "--expires", "90d"),
        "night watch": keyloader.key("zeta", "--name", "night watch", "--env", "test", "--meta", "crm=4712")}
    keyloader.ids = {name: key["id"] for name, key in made.items()}
    return keyloader


def names(keyloader, *words):
    return [key["name"] for key in keyloader.json("key", "list", *words)]


@pytest.mark.parametrize("words,found", [
    (["--plan", "gold"], ["nightly"]), (["--plan", "default"], ["mobile app", "night watch"]),
    (["--name", "nightly"], ["nightly"]), (["--name", "night*"], ["nightly", "night watch"]), (["--name", "night"], []),
    (["--meta", "crm=4711"], ["nightly"]), (["--meta", "crm=4711", "--meta", "x=y"], []), (["--meta", "crm="], ["mobile app"]),
    (["--expires-within", "14d"], ["nightly"]), (["--expires-within", "100d"], ["nightly", "mobile app"]),
    (["--created", "1h"], ["nightly", "mobile app", "night watch"]), (["--created", "2100-01-01"], []),
    (["--owner", "acme", "--expires-within", "100d", "--name", "mobile*"], ["mobile app"]),
    (["--limit", "2"], ["nightly", "mobile app"]), (["--sort", "name"], ["mobile app", "night watch", "nightly"]),
    (["--sort", "name", "--reverse", "--limit", "1"], ["nightly"]),
    (["--sort", "expires"], ["nightly", "mobile app", "night watch"]),
    (["--sort", "expires", "--reverse"], ["mobile app", "nightly", "night watch"])])
def test_which_and_in_which_order(some, words, found):
    assert names(some, *words) == found


def test_what_has_ended_does_not_end_soon(some):
    some("key", "revoke", some.ids["nightly"])
    assert names(some, "--expires-within", "100d") == ["mobile app"]


@pytest.mark.parametrize("words,status,said", [
    (["--owner", "nobody"], 1, 'no owner "nobody"'), (["--plan", "silver"], 1, 'no plan "silver"'),
    (["--role", "cook"], 1, 'no role "cook"'),
    (["--env", "liv"], 1, 'no key of the environment "liv"; did you mean "live"? there are keys of live, test'), (["--meta", "crm"], 2, '--meta "crm"'), (["--limit", "0"], 2, "--limit 0"),
    (["--sort", "colour"], 2, 'no column "colour"; there are id, owner, env'),
    (["--columns", "id,colour"], 2, 'no column "colour"; there are id, owner, env'), (["--columns", "id,,name"], 2, '""'),
    (["--expires-within", "soon"], 2, '"soon"'), (["--created", "soon"], 2, "7d (ago)"), (["--reverse"], 2, "--sort"),
    (["-o", "xml"], 2, "xml"), (["-o", "csv", "--json"], 2, "--json")])
def test_what_it_does_not_know_it_says(some, words, status, said):
    assert said in some.refused("key", "list", *words, status=status)


def test_an_environment_without_keys_is_there_when_it_is_the_usual_one(keyloader):
    assert keyloader.json("key", "list", "--env", "live") == []


def test_shapes(some):
    rows = some.json("key", "list")
    assert json.loads(some("key", "list", "-o", "json").stdout) == rows
    assert [json.loads(line) for line in some("key", "list", "-o", "ndjson").stdout.splitlines()] == rows
    clerk = rows[1]
    assert (clerk["scopes"], clerk["roles"]) == (["a:b"], ["clerk"])
    assert clerk["effective_scopes"] == ["a:b", "orders:read", "orders:write"]
    assert some.json("key", "show", clerk["id"])["effective_scopes"] == clerk["effective_scopes"]
    assert "a:b orders:read orders:write" in some("key", "show", clerk["id"]).stdout
    table = some("key", "list").stdout.splitlines()
    assert table[0].split("  ")[0] == "ID" and "LAST USED" in table[0] and "a:b orders:read orders:write" in table[2]
    wide = some("key", "list", "-o", "wide").stdout.splitlines()
    assert "ROLES" in wide[0] and "clerk" in wide[2] and "crm=4711" in wide[1]
    chosen = some.json("key", "list", "--columns", "name,effective_scopes")
    assert chosen[1] == {"name": "mobile app", "effective_scopes": clerk["effective_scopes"]}
    lines = some("key", "list", "--columns", "name,plan", "--sort", "name").stdout.splitlines()
    assert lines[0].split() == ["NAME", "PLAN"] and lines[1].split("  ")[0] == "mobile app"


def test_csv(some):
    some("key", "set", some.ids["nightly"], "--name", 'a "quoted", name')
    rows = list(csv.DictReader(io.StringIO(some("key", "list", "-o", "csv").stdout)))
    assert [row["name"] for row in rows] == ['a "quoted", name', "mobile app", "night watch"]
    assert rows[0]["meta"] == "crm=4711" and rows[2]["expires"] == "" and rows[0]["id"] == some.ids["nightly"]
    assert some("key", "list", "--columns", "id,env", "-o", "csv", "--limit", "1").stdout == \
        f"id,env\n{some.ids['nightly']},live\n"


def test_many_keys_are_written_as_they_come(keyloader):
    lines = "".join(json.dumps({"key": f"ak_live_{n:040d}", "owner": "many", "name": f"n{n}"}) + "\n" for n in range(3000))
    keyloader("import", "-", "--format", "ndjson", "--create-owners", stdin=lines)
    assert len(keyloader.json("key", "list")) == 3000
    assert len(keyloader("key", "list", "-o", "ndjson", "--limit", "2000").stdout.splitlines()) == 2000


def test_last_used(some, tmp_path):
    assert {key["last_used"] for key in some.json("key", "list")} == {None}
    hour = used(some, tmp_path, some.ids["nightly"], 3 * DAY)
    used(some, tmp_path, some.ids["nightly"], 5 * DAY)
    refused = used(some, tmp_path, some.ids["mobile app"], 2 * DAY, admitted=0, cost=0, refused={"scope": 3})
    assert {key["name"]: key["last_used"] for key in some.json("key", "list")} == {
        "nightly": hour, "mobile app": refused, "night watch": None}
    assert hour in some("key", "list", "--name", "nightly").stdout and hour in some("key", "show", some.ids["nightly"]).stdout
    assert some.json("key", "show", some.ids["nightly"])["last_used"] == hour


def test_unused_for(some, tmp_path):
    said = some.refused("key", "list", "--unused-for", "90d")
    assert "no use was ever counted" in said and "usage collect" in said
    used(some, tmp_path, some.ids["nightly"], 100 * DAY)
    used(some, tmp_path, some.ids["mobile app"], 3 * DAY)
    assert names(some, "--unused-for", "90d") == [], "all are younger than that"
    make_old(some, 200)
    assert names(some, "--unused-for", "90d") == ["nightly", "night watch"]
    assert names(some, "--unused-for", "2d") == ["nightly", "mobile app", "night watch"]
    done = some("key", "list", "--unused-for", "150d", "--json")
    assert [key["name"] for key in json.loads(done.stdout)] == ["night watch"]
    assert "use is counted since" in done.stderr and "used before that" in done.stderr
    assert not some("key", "list", "--unused-for", "90d").stderr


def test_use_by_groups(some, tmp_path):
    today = int(time.time()) // DAY * DAY
    used(some, tmp_path, some.ids["nightly"], 3 * DAY, admitted=5, cost=10, refused={"scope": 2, "rate_limited": 1})
    used(some, tmp_path, some.ids["nightly"], 4 * DAY, admitted=2, cost=4)
    used(some, tmp_path, some.ids["mobile app"], 3 * DAY, admitted=40, cost=40)
    used(some, tmp_path, some.ids["night watch"], 3 * DAY, "22" * 16, admitted=1, cost=1)

    def groups(*words):
        return some.json("usage", *words)
    assert [(row["key"], row["admitted"], row["cost"], row["refused"]) for row in groups("--by", "key")] == [
        (some.ids["mobile app"], 40, 40, 0), (some.ids["nightly"], 7, 14, 3), (some.ids["night watch"], 1, 1, 0)]
    assert [row["key"] for row in groups("--top", "1")] == [some.ids["mobile app"]]
    assert [(row["owner_id"], row["admitted"]) for row in groups("--by", "owner")] == [("11" * 16, 47), ("22" * 16, 1)]
    assert [(row["plan"], row["admitted"]) for row in groups("--by", "plan")] == [("default", 41), ("gold", 7)]
    assert [(row["day"], row["admitted"]) for row in groups("--by", "day")] == [
        (at(today - 4 * DAY)[:10], 2), (at(today - 3 * DAY)[:10], 46)]
    assert groups("--by", "day", "--from", "today") == []
    table = some("usage", "--by", "key", "--top", "2").stdout.splitlines()
    assert len(table) == 3 and table[0].split()[:3] == ["OWNER", "KEY", "ADMITTED"]
    some.refused("usage", "--by", "colour", status=2)
    some.refused("usage", "--top", "0", status=2)
    some.refused("usage", "--by", "key", "--export", "csv", status=2)
    some.refused("usage", "collect", "--by", "key", status=2)


def test_over_needs_an_nginx_that_counts(some):
    assert "no nginx here counts them" in some.refused("usage", "--over", "80%")
    for text in ("x", "0%", "101%", "%", "8 0%"):
        assert "--over 80%" in some.refused("usage", "--over", text, status=2)
    some.refused("usage", "--over", "80%", "--by", "key", status=2)


def test_deleted_owners_keep_their_names(keyloader, tmp_path):
    for amount in (3, 5):
        owner = keyloader.json("owner", "create", "gone", "--no-publish")["id"]
        key = keyloader.key("gone", "--no-publish")["id"]
        used(keyloader, tmp_path, key, 3 * DAY, owner, admitted=amount)
        keyloader("key", "delete", key, "--no-publish")
        keyloader("owner", "delete", "gone", "--no-publish")
        if amount == 3:
            shown = keyloader.json("usage", "--owner", "gone")
            assert [(line["owner"], line["owner_id"], line["admitted"]) for line in shown["owners"]] == [("gone", owner, 3)]
            assert shown["owners"][0]["owner_deleted"] is not None
            month = at(int(time.time()) - 3 * DAY)[:7]
            assert keyloader.json("usage", "statement", "--owner", "gone", "--month", month)["owner"] == "gone"
            first = owner
    shown = keyloader.json("usage")["owners"]
    assert {(line["owner"], line["owner_id"], line["admitted"]) for line in shown} == {("gone", first, 3), ("gone", owner, 5)}
    assert keyloader("usage").stdout.count("gone (deleted)") == 2
    assert [row["owner"] for row in csv.DictReader(io.StringIO(keyloader("usage", "--export", "csv").stdout))] == ["gone"] * 2
    said = keyloader.refused("usage", "--owner", "gone")
    assert first in said and owner in said
    assert keyloader.json("usage", "--owner", owner)["total"]["admitted"] == 5
    keyloader("owner", "create", "gone", "--no-publish")
    assert keyloader.json("usage", "--owner", "gone")["total"]["admitted"] == 0, "the one that is there comes first"
