"""keyloader key and find: issuing, showing, changing and ending keys; the secret exists once."""

import re
import subprocess
import zlib
from datetime import datetime, timedelta, timezone

import pytest

from harness.paths import KEYLOADER

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def check_of(text):
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits


def moment(text):
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def test_the_key_alone_on_standard_output(keyloader):
    done = keyloader("key", "create", "--owner", "acme", "--create-owner")
    key = done.stdout.removesuffix("\n")
    assert re.fullmatch(r"ak_live_[0-9A-Za-z]{38}", key)
    assert key[-6:] == check_of(key[:-6])
    assert key not in done.stderr and key[8:-6] not in done.stderr
    assert re.search(r"key_[0-9a-v]{20}", done.stderr)


def test_prefix_and_environment(keyloader):
    made = keyloader.key("acme", "--prefix", "shop", "--env", "test")
    assert made["key"].startswith("shop_test_")
    assert (made["prefix"], made["env"]) == ("shop", "test")


def test_keys_differ_and_use_the_whole_alphabet(keyloader):
    secrets = [keyloader("key", "create", "--owner", "a", "--create-owner", "--no-publish").stdout[8:40]
               for _ in range(30)]
    assert len(set(secrets)) == 30
    assert set("".join(secrets)) == set(ALPHABET)


def test_the_secret_is_nowhere(keyloader):
    made = [keyloader.key(), keyloader.key("acme", "--name", "second")]
    keyloader("key", "revoke", made[0]["id"])
    outputs = "".join(keyloader(*words).stdout for words in
                      (["key", "list"], ["key", "list", "--json"], ["key", "show", made[1]["id"]], ["audit", "list", "--json"]))
    for key in made:
        secret = key["key"][8:40]
        assert secret not in outputs
        for path in keyloader.dir.rglob("*"):
            assert path.is_dir() or secret.encode() not in path.read_bytes(), path


def test_every_field(keyloader):
    keyloader("plan", "create", "gold", "--rate", "5/s")
    keyloader("role", "create", "clerk", "--scope", "x:y")
    made = keyloader.key(
        "acme", "--name", "nightly", "--scope", "b", "--scope", "a:*", "--role", "clerk", "--plan", "gold", "--rate", "7/m",
        "--burst", "9", "--expires", "2040-02-29", "--not-before", "2030-01-01T12:00:00+02:00", "--allow-ip", "10.0.0.0/8",
        "--allow-ip", "2001:db8::/32", "--allow-origin", "HTTPS://App.Example.com", "--allow-method", "GET",
        "--allow-host", "API.example.com", "--require-tls", "--meta", "team=a=b", "--meta", "x=ü")
    shown = keyloader.json("key", "show", made["id"])
    assert {name: shown[name] for name in shown if name != "created"} == {
        "id": made["id"], "family": made["id"], "digest_method": "sha256", "owner": "acme", "plan": "gold",
        "name": "nightly", "env": "live", "prefix": "ak", "scopes": ["a:*", "b"], "roles": ["clerk"],
        "admin_scopes": [], "hint": made["key"][-4:], "ref": "",
        "limits": [{"name": "rate", "kind": "rate", "amount": 7, "period_ns": 60 * 10**9, "burst": 9, "dry_run": False}],
        "allow_ip": ["10.0.0.0/8", "2001:db8::/32"], "allow_origin": ["https://app.example.com"],
        "allow_method": ["GET"], "allow_host": ["api.example.com"], "require_tls": True,
        "meta": {"team": "a=b", "x": "ü"}, "not_before": "2030-01-01T10:00:00Z", "expires": "2040-02-29T00:00:00Z",
        "suspended": False, "suspended_until": None, "revoked": None, "revoked_reason": "", "state": "not_yet_valid", "owner_suspended": False,
        "effective_scopes": ["a:*", "b", "x:y"], "last_used": None, "effective_limits": [{**made["limits"][0], "from": "key"}]}
    cleared = keyloader.json(
        "key", "set", made["id"], "--name", "none", "--scope", "none", "--role", "none", "--plan", "none", "--rate", "none",
        "--expires", "none", "--not-before", "none", "--allow-ip", "none", "--allow-origin", "none", "--allow-method", "none",
        "--allow-host", "none", "--no-require-tls", "--meta", "none")
    assert cleared["state"] == "active" and cleared["plan"] == "default" and cleared["require_tls"] is False
    assert [name for name in ("name", "scopes", "roles", "limits", "allow_ip", "allow_origin", "allow_method",
                              "allow_host", "meta", "expires", "not_before") if cleared[name]] == []


def test_set_keeps_what_is_not_named(keyloader):
    made = keyloader.key("acme", "--scope", "a", "--expires", "90d", "--allow-ip", "10.0.0.1", "--require-tls")
    changed = keyloader.json("key", "set", made["id"], "--name", "new")
    secret = made.pop("key")
    assert changed == {**made, "name": "new", "state": "active", "generation": made["generation"] + 1}
    assert keyloader.json("find", stdin=secret)["id"] == made["id"]


@pytest.mark.parametrize("text,seconds", [("30s", 30), ("15m", 900), ("24h", 86400), ("90d", 90 * 86400), ("2w", 14 * 86400)])
def test_durations(keyloader, text, seconds):
    before = datetime.now(timezone.utc)
    expires = moment(keyloader.key("acme", "--expires", text)["expires"])
    assert abs(expires - before - timedelta(seconds=seconds)) < timedelta(seconds=30)


@pytest.mark.parametrize("option,value", [
    ("--expires", "tomorrow"), ("--expires", "0d"), ("--expires", "2026-02-30"), ("--expires", "2026-13-01"),
    ("--expires", "2026-01-01T25:00:00Z"), ("--expires", "99999999w"), ("--expires", "-1d"), ("--expires", "1y"),
    ("--allow-ip", "10.0.0.1/8"), ("--allow-ip", "300.1.1.1"), ("--allow-origin", "example.com"),
    ("--allow-method", "get"), ("--allow-host", "a_b c"), ("--scope", "*:x"), ("--env", "Live"), ("--prefix", "x"),
    ("--meta", "novalue"), ("--meta", "Upper=x"), ("--name", "two\nlines"), ("--rate", "1/y"), ("--burst", "1"),
])
def test_values_that_are_none(keyloader, option, value):
    sentence = keyloader.refused("key", "create", "--owner", "acme", "--create-owner", f"{option}={value}", status=2)
    assert len(sentence.split()) > 5
    assert keyloader.json("key", "list") == [] and keyloader.json("owner", "list") == []


def test_expiry_before_beginning(keyloader):
    keyloader.refused("key", "create", "--owner", "a", "--create-owner", "--expires", "1d", "--not-before", "2d", status=2)


@pytest.mark.parametrize("option", ["--plan", "--role"])
def test_unknown_plan_or_role(keyloader, option):
    assert "nosuch" in keyloader.refused("key", "create", "--owner", "a", "--create-owner", option, "nosuch")
    assert keyloader.json("owner", "list") == []


def test_unknown_owner(keyloader):
    assert "--create-owner" in keyloader.refused("key", "create", "--owner", "nobody")


def test_suspend_and_resume(keyloader):
    key = keyloader.key()["id"]
    assert keyloader.json("key", "suspend", key, "--for", "15m")["state"] == "suspended"
    assert keyloader.json("key", "show", key)["suspended_until"] is not None
    assert keyloader.json("key", "resume", key)["state"] == "active"
    assert keyloader.json("key", "suspend", key)["suspended_until"] is None


def test_revoke_is_for_ever_and_once(keyloader):
    key = keyloader.key()["id"]
    revoked = keyloader.json("key", "revoke", key, "--reason", "leaked")
    assert revoked["state"] == "revoked" and revoked["revoked_reason"] == "leaked"
    again = keyloader.json("key", "revoke", key, "--reason", "other")
    assert again["revoked_reason"] == "leaked"
    assert "revoked" in keyloader.refused("key", "resume", key)
    assert keyloader.json("key", "show", key)["state"] == "revoked"
    assert [entry["action"] for entry in keyloader.audit("--object", key)] == ["key.create", "key.revoke"]


def test_revoke_all_of_an_owner(keyloader):
    mine = [keyloader.key("acme")["id"] for _ in range(3)]
    other = keyloader.key("other")["id"]
    assert [key["id"] for key in keyloader.json("key", "revoke", "--owner", "acme")] == mine
    states = {key["id"]: key["state"] for key in keyloader.json("key", "list")}
    assert states == {**dict.fromkeys(mine, "revoked"), other: "active"}
    keyloader.refused("key", "revoke", status=2)
    keyloader.refused("key", "revoke", mine[0], "--owner", "acme", status=2)


def test_several_ids_are_one_transaction(keyloader):
    keys = [keyloader.key()["id"] for _ in range(2)]
    generation = keyloader.generation()
    keyloader.refused("key", "revoke", keys[0], "key_00000000000000000000", keys[1])
    assert [key["state"] for key in keyloader.json("key", "list")] == ["active", "active"]
    keyloader("key", "revoke", *keys)
    assert keyloader.generation() == generation + 1


def test_delete(keyloader):
    key = keyloader.key()
    keyloader("key", "delete", key["id"])
    assert keyloader.json("key", "list") == []
    assert "was deleted at" in keyloader.refused("key", "show", key["id"])
    assert "no key" in keyloader.refused("key", "show", "key_00000000000000000000")
    keyloader.refused("find", stdin=key["key"])


def test_list_filters(keyloader):
    keyloader("role", "create", "clerk", "--scope", "a")
    first = keyloader.key("acme", "--role", "clerk")["id"]
    second = keyloader.key("acme", "--env", "test")["id"]
    third = keyloader.key("other")["id"]
    keyloader("key", "revoke", third)
    def ids(*words):
        return [key["id"] for key in keyloader.json("key", "list", *words)]
    assert ids() == [first, second, third]
    assert ids("--owner", "acme") == [first, second]
    assert ids("--env", "test") == [second]
    assert ids("--role", "clerk") == [first]
    assert ids("--state", "revoked") == [third]
    assert "no owner" in keyloader.refused("key", "list", "--owner", "nobody")
    keyloader.refused("key", "list", "--state", "odd", status=2)


@pytest.mark.parametrize("text", ["{}", "{}\n", "{}\r\n"])
def test_find(keyloader, text):
    key = keyloader.key("acme", "--name", "one")
    done = keyloader("find", stdin=text.format(key["key"]))
    assert key["id"] in done.stdout and "acme" in done.stdout and "active" in done.stdout
    assert key["key"][8:40] not in done.stdout + done.stderr


@pytest.mark.parametrize("secret,status", [("ak_live_unknown0000000000000000", 1), ("x" * 1000, 1), ("", 2), ("\n", 2)])
def test_find_what_is_not_there(keyloader, secret, status):
    sentence = keyloader.refused("find", stdin=secret, status=status)
    assert not secret.strip() or secret not in sentence


def test_a_key_in_place_of_its_id_is_not_echoed(keyloader):
    key = keyloader.key()["key"]
    for command in ("show", "revoke", "set", "suspend", "delete"):
        done = keyloader("key", command, key, status=2)
        assert key not in done.stdout + done.stderr


def test_a_key_nobody_can_read_is_not_made(keyloader):
    keyloader.key()
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([KEYLOADER, "key", "create", "--owner", "acme"], stdout=full, stderr=subprocess.PIPE,
                              env=keyloader.environment(), check=False)
    assert done.returncode == 1 and b"standard output" in done.stderr
    assert len(keyloader.json("key", "list")) == 1


@pytest.mark.parametrize("words,said,state", [
    (["suspend"], "is revoked", "revoked"), (["set", "--name", "old"], "stays refused whatever is set", "revoked")])
def test_a_change_of_a_revoked_key_says_that_it_is_revoked(keyloader, words, said, state):
    key = keyloader.key()["id"]
    keyloader("key", "revoke", key, "--reason", "leak")
    entries = len(keyloader.audit("--object", key))
    done = keyloader("key", words[0], key, *words[1:])
    assert said in done.stdout + done.stderr and "reason: leak" in done.stdout + done.stderr
    assert keyloader.json("key", "show", key)["state"] == state
    assert len(keyloader.audit("--object", key)) == entries + (words[0] == "set")
