"""keyloader owner, plan, role: making, changing, showing and removing what keys refer to."""

import pytest


def test_owner_from_birth_to_death(keyloader):
    made = keyloader.json("owner", "create", "acme", "--email", "a@b.example", "--team", "billing", "--meta", "crm=4711",
                          "--meta", "tier=x")
    assert made["meta"] == {"crm": "4711", "tier": "x"} and len(made["id"]) == 32
    shown = keyloader.json("owner", "show", "acme")
    assert (made.pop("generation"), made.pop("active")) == (2, None)
    assert {**made, "keys": 0, "quotas": []} == shown
    # Absent keeps, a value sets, none clears.
    changed = keyloader.json("owner", "set", "acme", "--team", "none", "--meta", "tier=", "--meta", "new=1")
    assert (changed["email"], changed["team"], changed["meta"]) == ("a@b.example", "", {"crm": "4711", "new": "1"})
    assert changed["id"] == made["id"]
    assert keyloader.json("owner", "set", "acme", "--meta", "none")["meta"] == {}
    assert "acme" in keyloader("owner", "list").stdout
    keyloader("owner", "delete", "acme")
    assert keyloader.json("owner", "list") == []
    assert "acme" in keyloader.refused("owner", "show", "acme")


def test_owner_with_keys_is_not_deleted(keyloader):
    key = keyloader.key("acme")
    assert "1 key" in keyloader.refused("owner", "delete", "acme")
    keyloader("key", "delete", key["id"])
    keyloader("owner", "delete", "acme")


def test_owner_suspended_and_resumed(keyloader):
    keyloader("owner", "create", "acme")
    limited = keyloader.json("owner", "suspend", "acme", "--for", "24h")
    assert limited["suspended"] is True and limited["suspended_until"].endswith("Z")
    assert keyloader.json("owner", "suspend", "acme")["suspended_until"] is None
    assert keyloader.json("owner", "resume", "acme")["suspended"] is False


def test_owner_twice(keyloader):
    keyloader("owner", "create", "acme")
    before = keyloader.json("audit", "verify")
    assert "already, just like this" in keyloader("owner", "create", "acme").stdout
    assert "already" in keyloader.refused("owner", "create", "acme", "--team", "x")
    assert keyloader.json("audit", "verify") == before


@pytest.mark.parametrize("name", ["", "two\nlines", " space", "none", "x" * 129, "bell\a"])
def test_owner_names_that_are_none(keyloader, name):
    keyloader.refused("owner", "create", name, status=2)


def test_owner_names_in_other_scripts(keyloader):
    assert keyloader.json("owner", "create", "Zażółć, 多言語 & Söhne")["name"] == "Zażółć, 多言語 & Söhne"


def test_plan_from_birth_to_death(keyloader):
    assert keyloader.json("plan", "create", "gold", "--rate", "100r/s", "--burst", "200")["limits"] == [
        {"name": "rate", "kind": "rate", "amount": 100, "period_ns": 10**9, "burst": 200, "dry_run": False}]
    # The burst stays as it was when only the rate is named.
    assert keyloader.json("plan", "set", "gold", "--rate", "30/m")["limits"][0]["burst"] == 200
    assert keyloader.json("plan", "set", "gold", "--burst", "none")["limits"][0]["burst"] == 30
    assert keyloader.json("plan", "set", "gold", "--rate", "none")["limits"] == []
    assert keyloader.json("plan", "show", "gold")["name"] == "gold"
    keyloader("plan", "delete", "gold")
    assert "gold" in keyloader.refused("plan", "show", "gold")


def test_plan_default_stays(keyloader):
    keyloader("plan", "set", "default", "--rate", "10/s")
    assert "default" in keyloader.refused("plan", "delete", "default")


def test_plan_in_use_is_not_deleted(keyloader):
    keyloader("plan", "create", "gold", "--rate", "1/s")
    key = keyloader.key("acme", "--plan", "gold")
    assert "gold" in keyloader.refused("plan", "delete", "gold")
    assert keyloader.json("key", "set", key["id"], "--plan", "none")["plan"] == "default"
    keyloader("plan", "delete", "gold")


@pytest.mark.parametrize("arguments", [["--rate", "fast"], ["--rate", "0/s"], ["--rate", "1/s", "--burst", "0"],
                                       ["--burst", "5"], ["--rate", "none", "--burst", "5"]])
def test_limits_that_are_none(keyloader, arguments):
    keyloader.refused("plan", "create", "x", *arguments, status=2)
    assert [plan["name"] for plan in keyloader.json("plan", "list")] == ["default"]


def test_role_is_expanded_in_the_snapshot(keyloader):
    keyloader("role", "create", "clerk", "--scope", "orders:write", "--scope", "orders:read", "--scope", "orders:read")
    assert keyloader.json("role", "list")[0]["scopes"] == ["orders:read", "orders:write"]
    key = keyloader.key("acme", "--role", "clerk", "--scope", "users:*")
    assert key["roles"] == ["clerk"] and key["scopes"] == ["users:*"]
    before = keyloader.snapshot.read_bytes()
    assert b"orders:read" in before and b"users:*" in before and b"invoices:*" not in before
    keyloader("role", "set", "clerk", "--scope", "invoices:*")
    assert b"invoices:*" in keyloader.snapshot.read_bytes()
    assert "clerk" in keyloader.refused("role", "delete", "clerk")
    keyloader("key", "set", key["id"], "--role", "none")
    keyloader("role", "delete", "clerk")
    assert keyloader.json("role", "list") == []


def test_role_without_scopes(keyloader):
    keyloader("role", "create", "clerk", "--scope", "a:b")
    assert keyloader.json("role", "set", "clerk", "--scope", "none")["scopes"] == []


@pytest.mark.parametrize("scope", ["a b", "*:a", "a:", ":a", "a::b", "ä", "a" * 129])
def test_scopes_that_are_none(keyloader, scope):
    keyloader.refused("role", "create", "clerk", "--scope", scope, status=2)


@pytest.mark.parametrize("family", ["plan", "role"])
@pytest.mark.parametrize("name", ["", "two words", "-x", "none", "ä", "x" * 65])
def test_labels_that_are_none(keyloader, family, name):
    keyloader.refused(family, "create", "--", name, status=2)
