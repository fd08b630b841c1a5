"""audit revert: takes back what one entry changed, and never gives access back."""

import pytest


@pytest.fixture
def shop(keyloader):
    """An owner `web` with one key of plan `gold`."""
    keyloader("plan", "create", "gold", "--rate", "10/s", "--quota", "1000/day")
    keyloader("role", "create", "clerk", "--scope", "a", "--scope", "b")
    made = keyloader.key("web", "--plan", "gold", "--scope", "orders:read", "--scope", "orders:write")
    keyloader.id = made["id"]
    keyloader.admin = keyloader.json("admin", "create", "--owner", "web", "--role", "admin")["id"]
    return keyloader


def last_change(tool):
    return [entry for entry in tool.json("audit", "list") if entry["action"] != "publish"][-1]


def changed(tool, *command):
    """Runs it. RETURNS: the number of its entry."""
    tool(*command)
    return str(last_change(tool)["seq"])


def test_a_limit_of_a_plan_goes_back(shop):
    before = shop.json("plan", "show", "gold")
    entry = changed(shop, "plan", "set", "gold", "--rate", "1000/s", "--quota", "day=none")
    said = shop("audit", "revert", entry, "--reason", "wrong plan").stdout
    assert "rate 1000/s → 10/s" in said and "day 1000/day" in said
    assert shop.json("plan", "show", "gold") == before
    made = last_change(shop)
    assert (made["action"], made["object"]) == ("plan.revert", "gold")
    assert made["after"]["reason"] == f"entry {entry} reverted: wrong plan"
    assert "published generation" in said
    shop("audit", "verify")


def test_only_what_the_entry_changed_goes_back(shop):
    entry = changed(shop, "key", "set", shop.id, "--name", "a", "--rate", "5/s", "--meta", "crm=1")
    shop("key", "set", shop.id, "--meta", "desk=2", "--quota", "70/month")
    shop("audit", "revert", entry)
    key = shop.json("key", "show", shop.id)
    assert (key["name"], key["meta"]) == ("", {"desk": "2"})
    assert [limit["name"] for limit in key["limits"]] == ["month"]


def test_what_was_changed_again_is_named(shop):
    entry = changed(shop, "plan", "set", "gold", "--rate", "20/s", "--concurrency", "3")
    later = changed(shop, "plan", "set", "gold", "--rate", "30/s")
    before = shop.json("plan", "show", "gold")
    said = shop.refused("audit", "revert", entry)
    assert "limits.rate of plan gold has been changed since" in said and f"entry {later} (plan.set by" in said
    assert shop.json("plan", "show", "gold") == before


def test_the_burst_goes_back_to_following_the_rate(shop):
    entry = changed(shop, "plan", "set", "gold", "--rate", "20/s", "--burst", "7")
    shop("audit", "revert", entry)
    shop("plan", "set", "gold", "--rate", "40/s")
    rate = [limit for limit in shop.json("plan", "show", "gold")["limits"] if limit["name"] == "rate"][0]
    assert rate["burst"] == 40


def test_twice_changes_nothing(shop):
    entry = changed(shop, "owner", "set", "web", "--team", "billing")
    shop("audit", "revert", entry)
    number = last_change(shop)["seq"]
    assert f"nothing is left of entry {entry}" in shop("audit", "revert", entry).stdout
    assert last_change(shop)["seq"] == number


def test_a_revert_can_be_reverted(shop):
    entry = changed(shop, "owner", "set", "web", "--team", "billing")
    undo = changed(shop, "audit", "revert", entry)
    shop("audit", "revert", undo)
    assert shop.json("owner", "show", "web")["team"] == "billing"


def test_dry_run(shop):
    entry = changed(shop, "owner", "set", "web", "--team", "billing")
    assert "team billing → none" in shop("audit", "revert", entry, "--dry-run").stdout
    assert shop.json("owner", "show", "web")["team"] == "billing"


WIDENS = [
    (["key", "set", "ID", "--scope", "orders:read"], "scope orders:write", "--scope orders:read --scope orders:write`"),
    (["key", "set", "ID", "--expires", "30d"], "no end", "--expires none"),
    (["key", "set", "ID", "--not-before", "30d"], "no begin", "--not-before none"),
    (["key", "set", "ID", "--allow-ip", "10.0.0.0/8"], "every address", "--allow-ip none"),
    (["key", "set", "ID", "--allow-origin", "https://a.example"], "every origin", "--allow-origin none"),
    (["key", "set", "ID", "--allow-method", "GET"], "every method", "--allow-method none"),
    (["key", "set", "ID", "--allow-host", "a.example"], "every host", "--allow-host none"),
    (["key", "set", "ID", "--require-tls"], "without TLS", "--no-require-tls"),
    (["admin", "set", "ADMIN", "--may-grant", "a:b"], "the right to give every scope", "`keyloader admin set ADMIN "
     "--may-grant none`"),
    (["admin", "set", "ADMIN", "--team", "shop"], "every team", "`keyloader admin set ADMIN --team none`"),
    (["key", "suspend", "ID"], "it stopped key", "`keyloader key resume ID` does"),
    (["key", "suspend", "ID", "--for", "3h"], "it stopped key", "`keyloader key resume ID` does"),
    (["key", "revoke", "ID", "--reason", "leak"], "a revoked key stays revoked", "key create --owner web"),
    (["key", "delete", "ID"], "a deleted key is forgotten", "key create --owner web"),
    (["owner", "suspend", "web"], "it stopped owner web", "`keyloader owner resume web` does"),
    (["role", "set", "clerk", "--scope", "a"], "scope b", "`keyloader role set clerk --scope a --scope b`"),
]


@pytest.mark.parametrize("command,what,way", WIDENS, ids=[" ".join(command) for command, _, _ in WIDENS])
def test_access_is_never_given_back(shop, command, what, way):
    entry = changed(shop, *[{"ID": shop.id, "ADMIN": shop.admin}.get(word, word) for word in command])
    number = last_change(shop)["seq"]
    said = shop.refused("audit", "revert", entry)
    assert what in said and way.replace("ID", shop.id).replace("ADMIN", shop.admin) in said
    assert last_change(shop)["seq"] == number


NARROWS = [
    (["key", "set", "ID", "--scope", "*"], "scopes", ["orders:read", "orders:write"]),
    (["key", "set", "ID", "--role", "clerk"], "roles", []),
    (["role", "set", "clerk", "--scope", "*"], None, None),
]


@pytest.mark.parametrize("command,field,value", NARROWS, ids=[" ".join(command) for command, _, _ in NARROWS])
def test_what_was_given_too_much_goes(shop, command, field, value):
    entry = changed(shop, *[shop.id if word == "ID" else word for word in command])
    shop("audit", "revert", entry)
    if field:
        assert shop.json("key", "show", shop.id)[field] == value
    else:
        assert shop.json("role", "list")[0]["scopes"] == ["a", "b"]


def test_a_longer_validity_goes_back(shop):
    shop("key", "set", shop.id, "--expires", "30d")
    expires = shop.json("key", "show", shop.id)["expires"]
    entry = changed(shop, "key", "set", shop.id, "--expires", "60d")
    shop("audit", "revert", entry)
    assert shop.json("key", "show", shop.id)["expires"] == expires


def test_resuming_goes_back_to_suspended(shop):
    shop("owner", "suspend", "web")
    entry = changed(shop, "owner", "resume", "web")
    shop("audit", "revert", entry)
    assert shop.json("owner", "show", "web")["suspended"]


@pytest.mark.parametrize("kind", ["plan", "role", "owner"])
def test_what_nothing_referred_to_comes_back(shop, kind):
    words = {"plan": ["--rate", "7/s"], "role": ["--scope", "x"], "owner": ["--team", "ops"]}[kind]
    shop(kind, "create", "free", *words)
    was = [each for each in shop.json(kind, "list") if each["name"] == "free"]
    entry = changed(shop, kind, "delete", "free")
    shop("audit", "revert", entry)
    assert [each for each in shop.json(kind, "list") if each["name"] == "free"] == was
    assert f"there is a {kind} free again" in shop.refused("audit", "revert", entry)


def test_one_of_the_same_name_is_another(shop):
    shop("owner", "create", "free")
    entry = changed(shop, "owner", "set", "free", "--team", "ops")
    shop("owner", "delete", "free")
    shop("owner", "create", "free", "--team", "ops")
    assert "the owner free of then was deleted, the one of today is another" in shop.refused("audit", "revert", entry)


def test_a_plan_that_is_gone_does_not_come_with_its_key(shop):
    shop("plan", "create", "silver", "--rate", "3/s")
    shop("key", "set", shop.id, "--plan", "silver")
    entry = changed(shop, "key", "set", shop.id, "--plan", "gold")
    shop("plan", "delete", "silver")
    assert 'there is no plan "silver"' in shop.refused("audit", "revert", entry)


OTHERS = [
    ("1", "only changes of plans, owners, roles and keys can"),
    ("2", "`keyloader plan delete default` removes it"),
    ("9999", "the audit has no entry 9999"),
]


@pytest.mark.parametrize("entry,words", OTHERS)
def test_what_cannot_be_reverted(shop, entry, words):
    assert words in shop.refused("audit", "revert", entry)


@pytest.mark.parametrize("word", ["0x7", "gold", "-1", "", "99999999999999999999"])
def test_no_number(shop, word):
    shop.refused("audit", "revert", word, status=2)
