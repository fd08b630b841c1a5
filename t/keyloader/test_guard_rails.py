"""What commands say to mistakes: no-ops, unknown names, many keys at once, and a look before the leap."""

import re

import pytest

from harness.terminal import on_terminal

WHEN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def shop(keyloader):
    """An owner `web` with one key, a plan `gold`, a role `clerk`."""
    keyloader("plan", "create", "gold", "--rate", "1/s")
    keyloader("role", "create", "clerk", "--scope", "a")
    keyloader.made = keyloader.key("web", "--name", "storefront", "--plan", "gold", "--role", "clerk")
    keyloader.id = keyloader.made["id"]
    return keyloader


UNKNOWN = [
    (["key", "list", "--owner", "ghost"], 'no owner "ghost"'),
    (["key", "list", "--owner", "Web"], 'did you mean "web"?'),
    (["key", "list", "--plan", "Gold"], 'did you mean "gold"?'),
    (["key", "list", "--role", "clerks"], 'did you mean "clerk"?'),
    (["key", "create", "--owner", "Web"], 'did you mean "web"?'),
    (["key", "create", "--owner", "web", "--plan", "Gold"], 'did you mean "gold"?'),
    (["key", "create", "--owner", "web", "--role", "clrk"], 'did you mean "clerk"?'),
    (["key", "revoke", "--owner", "Web"], 'did you mean "web"?'),
    (["owner", "show", "wbe"], 'no owner "wbe"'),
    (["plan", "show", "golt"], 'did you mean "gold"?'),
    (["audit", "list", "--object", "ghost"], '"ghost"'),
    (["audit", "list", "--object", "GOLD"], 'did you mean "gold"?'),
    (["usage", "--owner", "ghost"], 'no owner "ghost"'),
    (["usage", "--owner", "Web"], 'did you mean "web"?'),
    (["quota", "show", "--owner", "Web"], 'did you mean "web"?'),
]


@pytest.mark.parametrize("command,words", UNKNOWN, ids=[" ".join(command) for command, _ in UNKNOWN])
def test_a_name_that_is_not_there(shop, command, words):
    assert words in shop.refused(*command)


USED_WRONGLY = [
    (["key", "set", "--name", "x"], "which key? give one or more ids, key_… (`keyloader key list` shows them)"),
    (["key", "revoke"], "which key?"),
    (["key", "show"], "which key?"),
    (["key", "revoke", "ID", "storefront"], "argument 2 is no key id"),
    (["key", "revoke", "key_tooshort"], 'argument 1, "key_tooshort", is no key id'),
    (["key", "set", "ID"], "nothing to set; give at least one of"),
    (["owner", "set", "web"], "nothing to set; give at least one of"),
    (["plan", "set", "gold"], "nothing to set; give at least one of"),
    (["role", "set", "clerk"], "nothing to set; give at least one"),
    (["owner", "create", "x", "--email", "notanemail"], '"notanemail" is no e-mail address'),
    (["owner", "set", "web", "--email", "a@b@c"], '"a@b@c" is no e-mail address'),
    (["plan", "create", "x", "--burst", "10"], '--burst needs a rate: there is none named "rate"; add --rate 10/s'),
    (["quota", "grant", "ID", "--amount", "-5"], '"-5" is no grant'),
    (["key", "revoke", "ID", "--dry-run", "--no-publish"], "--dry-run"),
]


@pytest.mark.parametrize("command,words", USED_WRONGLY, ids=[" ".join(command) for command, _ in USED_WRONGLY])
def test_used_wrongly(shop, command, words):
    before = shop.json("audit", "verify")
    assert words in shop.refused(*[shop.id if word == "ID" else word for word in command], status=2)
    assert shop.json("audit", "verify") == before


def test_an_owner_without_a_quota(shop):
    sentence = shop.refused("quota", "grant", "--owner", "web", "--amount", "5")
    assert "owner web has no quota; give it one with `keyloader owner set web --quota 1000000/month`" in sentence


def test_the_key_itself_in_place_of_its_id(shop):
    sentence = shop.refused("key", "revoke", shop.made["key"], status=2)
    assert "argument 1 is the key itself, now in your shell's history: revoke it" in sentence
    assert shop.made["key"][8:] not in sentence


def test_a_second_revocation(shop):
    user = shop.audit()[0]["actor"]["user"]
    shop("key", "revoke", shop.id, "--reason", "leak")
    again = shop("key", "revoke", shop.id, "--reason", "other").stdout
    assert re.match(rf"{shop.id} of web is revoked already \({WHEN} by .*{user}, reason: leak\); "
                    "the new reason is not stored\n", again), again
    assert "not stored" not in shop("key", "revoke", shop.id).stdout
    sentence = shop.refused("key", "resume", shop.id)
    assert re.search(rf"is revoked \({WHEN} by .*{user}, reason: leak\), and a revoked key stays refused", sentence)


def test_keys_of_a_suspended_owner(shop):
    shop("owner", "suspend", "web", "--reason", "unpaid")
    for answer in (shop.json("key", "list")[0], shop.json("key", "show", shop.id),
                   shop.json("find", stdin=shop.made["key"])):
        assert (answer["state"], answer["owner_suspended"]) == ("suspended", True)
    assert "suspended" in shop("key", "list").stdout and "suspended" in shop("find", stdin=shop.made["key"]).stdout
    assert "nginx refuses all keys of web" in shop("key", "show", shop.id).stdout
    assert shop.json("key", "list", "--state", "active") == []
    assert "owner web is suspended" in shop("key", "create", "--owner", "web").stderr
    shop("owner", "resume", "web")
    assert shop.json("key", "show", shop.id)["state"] == "active"
    assert "owner web is suspended" not in shop("key", "create", "--owner", "web").stderr


def test_what_is_likely_to_surprise(shop):
    assert "apikey_environment production" in shop("key", "create", "--owner", "web", "--env", "production").stderr
    assert "apikey_environment" not in shop("key", "create", "--owner", "web").stderr
    named = shop("key", "create", "--owner", "web", "--name", "storefront").stderr
    assert f'{shop.id} of web is called "storefront", too' in named
    assert "called" not in shop("key", "create", "--owner", "b", "--create-owner", "--name", "storefront").stderr


@pytest.mark.parametrize("command", [
    ["key", "revoke", "ID", "--reason", "x"], ["key", "revoke", "--owner", "web"], ["key", "suspend", "ID"],
    ["key", "delete", "ID"], ["key", "set", "ID", "--name", "other"], ["owner", "suspend", "web"],
    ["owner", "set", "web", "--team", "x"], ["plan", "set", "gold", "--rate", "2/s"],
    ["role", "set", "clerk", "--scope", "b"]], ids=lambda command: " ".join(command[:2]))
def test_dry_run(shop, command):
    words = [shop.id if word == "ID" else word for word in command]
    before = shop.json("audit", "verify"), shop.snapshot.read_bytes()
    said = shop(*words, "--dry-run").stdout
    assert said.startswith("dry run, nothing was changed; without --dry-run:\n")
    answer = shop.json(*words, "--dry-run")
    assert (answer[0] if isinstance(answer, list) else answer)["dry_run"] is True
    assert (shop.json("audit", "verify"), shop.snapshot.read_bytes()) == before
    assert shop(*words).stdout.startswith(said.split("\n")[1]), "it told what would be done"


@pytest.mark.parametrize("command,action", [
    (["key", "suspend", "ID"], "key.suspend"), (["key", "delete", "ID"], "key.delete"),
    (["owner", "suspend", "web"], "owner.suspend"), (["owner", "delete", "empty"], "owner.delete"),
    (["plan", "delete", "bare"], "plan.delete"), (["role", "delete", "bare"], "role.delete")],
    ids=lambda value: value if isinstance(value, str) else "")
def test_the_reason_is_in_the_audit(shop, command, action):
    shop("owner", "create", "empty")
    shop("plan", "create", "bare")
    shop("role", "create", "bare", "--scope", "b")
    shop(*[shop.id if word == "ID" else word for word in command], "--reason", "because of 4711")
    entry = [entry for entry in shop.audit() if entry["action"] == action][-1]
    assert entry["after"]["reason"] == "because of 4711"
    assert "because of 4711" in shop("audit", "list", "--action", action).stdout
    shop("audit", "verify")


@pytest.mark.parametrize("command,question", [
    (["key", "revoke", "--owner", "web"], "revoke 2 keys of web (2 active)?"),
    (["key", "suspend", "BOTH"], "suspend 2 keys (2 active)?"), (["key", "delete", "BOTH"], "delete 2 keys")],
    ids=lambda value: value if isinstance(value, str) else "")
def test_many_at_once_on_a_terminal(shop, command, question):
    both = [shop.id, shop.key("web")["id"]]
    words = [each for word in command for each in (both if word == "BOTH" else [word])]
    before = shop.json("audit", "verify")
    for answer in ("n", "", "no", "yesterday"):
        code, said = on_terminal(shop.environment(), *words, answer=answer)
        assert code == 1 and question in said and "nothing was changed" in said, said
    assert shop.json("audit", "verify") == before
    code, said = on_terminal(shop.environment(), *words, answer="y")
    assert code == 0 and question in said, said
    assert shop.json("audit", "verify") != before


def test_what_does_not_ask(shop):
    other = shop.key("web")["id"]
    code, said = on_terminal(shop.environment(), "key", "suspend", shop.id, answer="")
    assert code == 0 and "?" not in said, "one key"
    code, said = on_terminal(shop.environment(), "key", "suspend", shop.id, other, "--yes", answer="")
    assert code == 0 and "?" not in said, "--yes"
    shop("key", "revoke", "--owner", "web")  # no terminal
    assert {key["state"] for key in shop.json("key", "list")} == {"revoked"}


def test_a_key_typed_on_a_terminal_is_not_shown(shop):
    code, said = on_terminal(shop.environment(), "find", answer=shop.made["key"])
    assert code == 0 and shop.id in said and shop.made["key"] not in said


def test_a_longer_period_that_allows_less(keyloader):
    done = keyloader("plan", "create", "odd", "--rate", "50/s", "--quota", "20/day")
    assert "plan odd: day allows 20/day, less than rate with 50/s" in done.stderr and "so day ends first" in done.stderr
    assert len(keyloader.json("plan", "show", "odd")["limits"]) == 2


@pytest.mark.parametrize("words", [["key", "create", "--owner", "new", "--create-owner"],
                                   ["owner", "create", "new"], ["plan", "create", "new", "--rate", "1/s"],
                                   ["role", "create", "new", "--scope", "a:b"], ["pepper", "create", "new"],
                                   ["node", "prune"], ["publish"], ["snapshot", "rollback"], ["init"],
                                   ["snapshot", "install", "SNAPSHOT"], ["import", "KEYS", "--format", "csv"],
                                   ["quota", "grant", "--owner", "web", "--amount", "5"],
                                   ["quota", "reset", "--owner", "web"]], ids=" ".join)
def test_a_dry_run_makes_nothing(shop, words, tmp_path):
    shop("owner", "set", "web", "--quota", "100/day")
    shop("key", "set", shop.id, "--name", "unpublished", "--no-publish")
    (tmp_path / "keys.csv").write_text("key,owner\nan-imported-key-of-another-system,web\n")
    words = [{"SNAPSHOT": shop.snapshot, "KEYS": tmp_path / "keys.csv"}.get(word, word) for word in words]
    before = {path: path.read_bytes() for path in shop.dir.rglob("*") if path.is_file() and path.name != "registry.db-shm"}
    said = shop(*words, "--dry-run").stdout
    assert said.startswith("dry run, nothing was changed; without --dry-run:\n") and "ak_live_" not in said
    assert shop.json(*words, "--dry-run")["dry_run"] is True
    assert before == {path: path.read_bytes() for path in shop.dir.rglob("*")
                      if path.is_file() and path.name != "registry.db-shm"}


@pytest.mark.parametrize("action", ["suspend", "delete"])
def test_an_owner_is_not_stopped_by_a_slip(shop, action):
    shop("owner", "create", "empty")
    before = shop.json("owner", "show", "empty")
    code, said = on_terminal(shop.environment(), "owner", action, "empty", answer="")
    assert code == 1 and f"{action} owner empty (0 keys)? [y/N]" in said and "nothing was changed" in said
    assert shop.json("owner", "show", "empty") == before
    code, said = on_terminal(shop.environment(), "owner", action, "empty", "--yes", answer="")
    assert code == 0 and "[y/N]" not in said


def test_why_is_kept_of_a_rollback(shop):
    shop("key", "set", shop.id, "--name", "x")
    shop("snapshot", "rollback", "--reason", "the wrong name")
    entry = [each for each in shop.json("audit", "list") if each["action"] == "snapshot.rollback"][-1]
    assert entry["after"]["reason"] == "the wrong name"
