"""Values stay what was written: times, lists, bursts, nothing at all. No possible value stands for "not set", and what
follows from another value is not stored.
"""

import json
import sqlite3
from datetime import datetime, timedelta, timezone
from math import ceil, floor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.old_registry import to_schema_4

PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PAST = ["1970-01-01", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.5Z", "1970-01-01T12:00:00+12:00", "2020-01-01",
        "2020-01-01T00:00:00+02:00"]


def seconds_of(text):
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()


# Ends and starts

@pytest.mark.parametrize("text", PAST)
def test_an_end_in_the_past_is_refused_and_named(keyloader, text):
    made = keyloader.key()
    for command in (["key", "create", "--owner", "acme"], ["key", "set", made["id"]]):
        sentence = keyloader.refused(*command, "--expires", text, status=2)
        assert f'"{text}"' in sentence and "past" in sentence and "90d" in sentence and "revoke" in sentence
    assert keyloader.json("key", "show", made["id"])["expires"] is None
    assert len(keyloader.json("key", "list")) == 1


@pytest.mark.parametrize("text", [*PAST, "0"])
def test_an_end_in_the_past_is_refused_in_imports(keyloader, text):
    lines = [{"key": "imported-key-0123456789abcdef", "owner": "acme", "expires": text},
             {"key": "imported-key-fedcba9876543210", "owner": "acme"}]
    done = keyloader("import", "-", "--format", "ndjson", "--create-owners", "--partial", "--json",
                     stdin="\n".join(map(json.dumps, lines)))
    assert [(line["line"], line["column"]) for line in json.loads(done.stdout)["refused"]] == [(1, "expires")]
    assert text == "0" or text not in done.stdout
    csv = f"key,owner,expires\nimported-key-0123456789abcdef,acme,{text}\n"
    keyloader("import", "-", "--format", "csv", stdin=csv, status=1)


def test_numbers_are_not_times_in_imports(keyloader):
    line = {"key": "imported-key-0123456789abcdef", "owner": "acme", "expires": 0}
    done = keyloader("import", "-", "--format", "ndjson", "--create-owners", "--json", stdin=json.dumps(line), status=1)
    assert "expires must be a string" in done.stdout


@pytest.mark.parametrize("text", ["1970-01-01", "1970-01-01T01:00:00+01:00", "1970-01-01T00:00:00+00:01"])
def test_a_start_before_all_times_is_refused(keyloader, text):
    sentence = keyloader.refused("key", "create", "--owner", "acme", "--create-owner", "--not-before", text, status=2)
    assert f'"{text}"' in sentence and "none" in sentence


def test_a_start_in_the_past_is_a_fact(keyloader):
    assert keyloader.key("acme", "--not-before", "2020-01-01")["not_before"] == "2020-01-01T00:00:00Z"
    assert keyloader.key("acme", "--not-before", "1970-01-01T00:00:01Z")["not_before"] == "1970-01-01T00:00:01Z"


@pytest.mark.parametrize("text", ["2020-01-01", "none", "1970-01-01"])
def test_a_grant_ends_in_the_future(keyloader, text):
    made = keyloader.key("acme", "--quota", "10/day")
    keyloader.refused("quota", "grant", made["id"], "--amount", "5", "--until", text, status=2)
    assert keyloader.json("quota", "show", made["id"])[0]["granted"] == 0


def test_usage_is_asked_for_from_the_beginning(keyloader):
    assert keyloader.json("usage", "--from", "1970-01-01")["keys"] == []
    keyloader.refused("usage", "--from", "none", status=2)


# RFC 3339

@st.composite
def rfc3339(draw):
    """(text, the time it means)"""
    moment = draw(st.datetimes(datetime(2035, 1, 1), datetime(2099, 12, 31))).replace(microsecond=0)
    fraction = draw(st.one_of(st.just(""), st.text("0123456789", min_size=1, max_size=12).map(lambda digits: "." + digits)))
    offset = draw(st.one_of(st.sampled_from(["Z", "z", "+00:00", "-00:00"]),
                            st.builds("{}{:02}:{:02}".format, st.sampled_from("+-"), st.integers(0, 23),
                                      st.integers(0, 59))))
    text = moment.strftime(f"%Y-%m-%d{draw(st.sampled_from('Tt '))}%H:%M:%S") + fraction + offset
    east = timedelta(0) if offset in "Zz" else timedelta(hours=int(offset[1:3]), minutes=int(offset[4:6]))
    utc = moment.replace(tzinfo=timezone.utc) - (-east if offset[0] == "-" else east)
    return text, utc.timestamp() + (0.5 if fraction.strip(".0") else 0)


@pytest.fixture(scope="module")
def made(lasting):
    return lasting.key("acme", "--no-publish")


@PROPERTY
@given(end=rfc3339())
def test_every_rfc3339_time_is_an_end_never_later(lasting, made, end):
    text, meant = end
    changed = lasting.json("key", "set", made["id"], "--not-before", "none", "--expires", text, "--no-publish")
    assert seconds_of(changed["expires"]) == floor(meant)


@PROPERTY
@given(start=rfc3339())
def test_every_rfc3339_time_is_a_start_never_earlier(lasting, made, start):
    text, meant = start
    changed = lasting.json("key", "set", made["id"], "--expires", "none", "--not-before", text, "--no-publish")
    assert seconds_of(changed["not_before"]) == ceil(meant)


@pytest.mark.parametrize("text", ["2040-01-01T12:00", "2040-01-01 12:00:00", "2040-01-01T14:00+0200", "2040-01-01T12:00:00.5"])
def test_seconds_and_zone_may_be_left_out(keyloader, text):
    assert keyloader.key("acme", "--expires", text)["expires"] == "2040-01-01T12:00:00Z"


def test_a_leap_second_is_the_next_midnight(keyloader):
    for text in ("2040-12-31T23:59:60Z", "2041-01-01T00:59:60+01:00", "2040-12-31T23:59:60.5z"):
        assert keyloader.key("acme", "--expires", text)["expires"] == "2041-01-01T00:00:00Z"


@pytest.mark.parametrize("text", [
    "2040-01-01T12:00:60Z", "2040-01-01T12:00:61Z", "2040-01-01T12:00:00.Z", "2040-01-01T12:00.5Z", "2040-01-01T12:00:00,5Z",
    "2040-01-01T12:00:0Z", "2040-01-01T", "2040-01-01X12:00:00Z", "2040-01-01T12:00:00+24:00",
    "2040-01-01T12:00:00+02:60", "2040-01-01T12:00:00+2", "2040-01-01T12:00:00 Z", "2040-1-1", "2040-01-01T12", "204-01-01",
])
def test_what_is_no_time(keyloader, text):
    keyloader.refused("key", "create", "--owner", "acme", "--create-owner", "--expires", text, status=2)


# Lists

def imported(keyloader, **fields):
    """RETURNS: (the key, or None; what the report says of the line)"""
    line = {"key": "imported-key-0123456789abcdef", "owner": "acme", **fields}
    done = keyloader("import", "-", "--format", "ndjson", "--create-owners", "--partial", "--json", "--no-publish",
                     stdin=json.dumps(line))
    refused = json.loads(done.stdout)["refused"]
    keys = [key for key in keyloader.json("key", "list") if key["prefix"] == ""]
    if keys:
        keyloader("key", "delete", keys[0]["id"], "--no-publish")
    return (keys[0] if keys else None), (refused[0] if refused else None)


@pytest.mark.parametrize("column,elements", [
    ("scopes", ["orders:read *"]), ("scopes", ["orders:read", "* x"]), ("scopes", [""]), ("scopes", ["a", " "]),
    ("scopes", ["a\tb"]), ("scopes", ["a\n*"]), ("scopes", ["none", "a"]), ("roles", ["clerk admin"]),
    ("allow_ip", ["10.0.0.0/8 0.0.0.0/0"]), ("allow_ip", ["none", "10.0.0.0/8"]), ("rate", ["5/s tokens=9/s"]),
    ("burst", ["5 tokens=9"]), ("quota", ["5/day month=9/month"]), ("rolling_quota", ["5/1h x=9/2h"]),
    ("concurrency", ["5 x=9"]), ("concurrency", ["5 "]),
])
def test_an_element_of_a_list_stays_one(keyloader, column, elements):
    key, refusal = imported(keyloader, **{column: elements})
    assert key is None
    assert refusal["column"] == column
    assert all(len(word) < 3 or word == "none" or word not in refusal["reason"] for word in elements)


@settings(PROPERTY, max_examples=30)
@given(words=st.lists(st.text("ab:* .-", min_size=0, max_size=6), min_size=1, max_size=4))
def test_scopes_are_those_of_the_list_or_refused(lasting, words):
    key, refusal = imported(lasting, scopes=words)
    if key is None:
        assert refusal["column"] == "scopes"
    else:
        assert key["scopes"] == sorted(set(words))


def test_words_in_one_text_are_a_list_still(keyloader):
    keyloader("role", "create", "clerk", "--scope", "x")
    key, _ = imported(keyloader, scopes=" b  a:* ", roles="clerk", rate="5/s tokens=9/s", allow_ip=["10.0.0.1"])
    assert (key["scopes"], key["roles"], key["allow_ip"]) == (["a:*", "b"], ["clerk"], ["10.0.0.1"])
    assert [limit["name"] for limit in key["limits"]] == ["rate", "tokens"]


@pytest.mark.parametrize("options", [
    ["--scope", "none", "--scope", "a"], ["--scope", "a", "--scope", "none"], ["--allow-host", "none", "--allow-host", "a"],
    ["--role", "none", "--role", "none"], ["--allow-ip", "none", "--allow-ip", "10.0.0.1"],
])
def test_none_stands_alone(keyloader, options):
    sentence = keyloader.refused("key", "create", "--owner", "acme", "--create-owner", *options, status=2)
    assert "none" in sentence and "alone" in sentence


@pytest.mark.parametrize("option", ["--expires", "--not-before", "--name", "--plan", "--env", "--scope", "--role", "--allow-ip",
                                    "--allow-origin", "--allow-host", "--allow-method", "--meta", "--rate", "--quota"])
def test_nothing_at_all_is_no_value(keyloader, option):
    made = keyloader.key("acme", "--scope", "a", "--allow-ip", "10.0.0.1", "--expires", "90d")
    keyloader.refused("key", "set", made["id"], option, "", status=2)
    assert keyloader.json("key", "show", made["id"])["allow_ip"] == ["10.0.0.1"]


def test_nothing_at_all_does_not_mean_everything(keyloader):
    made = keyloader.key()
    keyloader.refused("key", "list", "--owner", "", status=2)
    keyloader.refused("key", "suspend", made["id"], "--for", "", status=2)
    keyloader.refused("owner", "suspend", "acme", "--for", "", status=2)
    keyloader.refused("usage", "--owner", "", status=2)
    assert keyloader.json("key", "show", made["id"])["state"] == "active"


# Bursts

def limits_of(plan):
    return {limit["name"]: (limit["amount"], limit["burst"]) for limit in plan["limits"]}


def test_a_burst_that_nobody_wrote_follows_the_rate(keyloader):
    keyloader("plan", "create", "gold", "--rate", "10/s", "--rate", "tokens=5/m", "--burst", "tokens=5")
    changed = keyloader.json("plan", "set", "gold", "--rate", "1000/s", "--rate", "tokens=50/m")
    assert limits_of(changed) == {"rate": (1000, 1000), "tokens": (50, 5)}
    changed = keyloader.json("plan", "set", "gold", "--burst", "7", "--burst", "tokens=none")
    assert limits_of(changed) == {"rate": (1000, 7), "tokens": (50, 50)}
    changed = keyloader.json("plan", "set", "gold", "--rate", "20/s", "--rate", "tokens=60/m")
    assert limits_of(changed) == {"rate": (20, 7), "tokens": (60, 60)}


@pytest.mark.parametrize("holder", ["owner", "key"])
def test_so_it_does_for_keys_and_owners(keyloader, holder):
    made = keyloader.key("acme", "--rate", "10/s")
    keyloader("owner", "set", "acme", "--rate", "10/s")
    changed = keyloader.json(holder, "set", made["id"] if holder == "key" else "acme", "--rate", "1000/s")
    assert [limit["burst"] for limit in changed["limits"]] == [1000]


def test_the_snapshot_has_the_burst_that_follows(keyloader):
    made = keyloader.key("acme", "--rate", "10/s", "--rate", "x=10/s", "--burst", "x=3")
    shown = keyloader.json("key", "show", made["id"])["effective_limits"]
    assert [limit["burst"] for limit in shown] == [10, 3]


def test_a_registry_from_before_forgets_bursts_that_follow(keyloader):
    """The burst of the rate was stored then. One that equals it is taken for one that nobody wrote."""
    made = keyloader.key("acme", "--rate", "10/s", "--rate", "wide=10/s", "--burst", "wide=30")
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        database.execute("UPDATE key_limits SET burst = amount WHERE burst = 0")
        to_schema_4(database)
        database.execute("DELETE FROM schema_versions WHERE version > 3")
    database.close()
    assert limits_of(keyloader.json("key", "show", made["id"])) == {"rate": (10, 10), "wide": (10, 30)}
    changed = keyloader.json("key", "set", made["id"], "--rate", "1000/s", "--rate", "wide=1000/s")
    assert limits_of(changed) == {"rate": (1000, 1000), "wide": (1000, 30)}
