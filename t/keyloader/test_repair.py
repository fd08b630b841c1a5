"""A repeated command repairs: success means that the published file has the registry's latest change. A command that finds
nothing to change says so, publishes what an earlier one left behind, and changes neither the registry nor the audit."""

import fcntl
import re
import signal
import subprocess
import time

import pytest

from harness.paths import KEYLOADER
from harness.waiting import wait_until
from test_publish import REVOKED, found

WHEN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def block(keyloader):
    (keyloader.dir / "history").rename(keyloader.dir / "aside")
    (keyloader.dir / "history").write_text("in the way")


def unblock(keyloader):
    (keyloader.dir / "history").unlink()
    (keyloader.dir / "aside").rename(keyloader.dir / "history")


@pytest.fixture
def busy(keyloader):
    """A registry in which every changing command has something to do."""
    keyloader("owner", "create", "acme")
    keyloader("owner", "create", "stopped")
    keyloader("owner", "suspend", "stopped")
    keyloader("owner", "create", "empty")
    keyloader("plan", "create", "gold", "--rate", "1/s")
    keyloader("role", "create", "clerk", "--scope", "a")
    keyloader.good = keyloader.key()["id"]
    keyloader.paused = keyloader.key()["id"]
    keyloader("key", "suspend", keyloader.paused)
    return keyloader


# What each says when it is repeated.
COMMANDS = [
    (["owner", "create", "new", "--team", "t"], "owner new exists already"),
    (["owner", "set", "acme", "--team", "t"], "owner acme is so already"),
    (["owner", "suspend", "acme"], "owner acme is suspended already"),
    (["owner", "resume", "stopped"], "owner stopped is not suspended"),
    (["owner", "delete", "empty"], f"owner empty was deleted already, at {WHEN}"),
    (["plan", "create", "new", "--rate", "5/s"], "plan new exists already"),
    (["plan", "set", "gold", "--rate", "5/s"], "plan gold is so already"),
    (["plan", "delete", "gold"], f"plan gold was deleted already, at {WHEN}"),
    (["role", "create", "new", "--scope", "a:b"], "role new exists already"),
    (["role", "set", "clerk", "--scope", "b"], "role clerk is so already"),
    (["role", "delete", "clerk"], f"role clerk was deleted already, at {WHEN}"),
    (["key", "set", "GOOD", "--name", "n", "--scope", "x"], "key_.* of acme is so already"),
    (["key", "suspend", "GOOD"], "key_.* of acme is suspended already, until it is resumed"),
    (["key", "resume", "PAUSED"], "key_.* of acme is not suspended"),
    (["key", "revoke", "GOOD", "--reason", "why"], rf"key_.* of acme is revoked already \({WHEN} by \S+, reason: why\)"),
    (["key", "revoke", "--owner", "acme"], rf"key_.* of acme is revoked already \({WHEN} by \S+\)"),
    (["key", "delete", "GOOD"], f"key_.* was deleted already, at {WHEN}"),
]


def words_of(busy, command):
    return [{"GOOD": busy.good, "PAUSED": busy.paused}.get(word, word) for word in command]


@pytest.mark.parametrize("command,sentence", COMMANDS, ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "")
def test_the_same_command_again(busy, command, sentence):
    words = words_of(busy, command)
    block(busy)
    failed = busy.refused(*words, status=3)
    assert "the registry has the change" in failed and "not published" in failed and "keyloader publish" in failed
    unblock(busy)
    entries = len([entry for entry in busy.audit() if entry["action"] != "publish"])
    before = busy.generation()
    done = busy(*words)
    assert re.match(sentence, done.stdout), done.stdout
    assert "published generation" in done.stdout and busy.generation() > before
    assert busy.json("publish")["renewed"] is True, "everything is published"
    # And once more: now there is nothing to do at all.
    before = busy.snapshot.read_bytes()
    again = busy(*words)
    assert re.match(sentence, again.stdout) and "was published before" in again.stdout
    assert busy.snapshot.read_bytes() == before
    assert len([entry for entry in busy.audit() if entry["action"] != "publish"]) == entries


@pytest.mark.parametrize("command", [command for command, _ in COMMANDS], ids=lambda command: " ".join(command[:2]))
def test_after_no_publish(busy, command):
    words = words_of(busy, command)
    before = busy.snapshot.read_bytes()
    assert "not published" in busy(*words, "--no-publish").stdout
    busy(*words, "--no-publish")
    assert busy.snapshot.read_bytes() == before, "as was asked"
    assert busy.json(*words)  # any answer, exit code 0
    assert busy.snapshot.read_bytes() != before and busy.json("publish")["renewed"] is True


@pytest.mark.parametrize("command", [["grant", "--amount", "5"], ["reset"]])
def test_quotas(keyloader, command):
    key = keyloader.key("acme", "--quota", "100/month")["id"]
    block(keyloader)
    keyloader.refused("quota", command[0], key, *command[1:], status=3)
    unblock(keyloader)
    keyloader("quota", command[0], key, *command[1:])
    assert keyloader.json("publish")["renewed"] is True


def test_no_descriptors_left(keyloader):
    """At some limit the change can be made, but not published."""
    key = keyloader.key()
    before = keyloader.snapshot.read_bytes()
    codes = []
    for limit in range(4, 40):
        done = subprocess.run(["prlimit", f"--nofile={limit}", KEYLOADER, "key", "revoke", key["id"]], check=False,
                              capture_output=True, text=True, env=keyloader.environment())
        codes.append(done.returncode)
        if done.returncode == 3:
            break
    assert codes[-1] == 3 and "not published" in done.stderr, (codes, done.stderr)
    assert keyloader.snapshot.read_bytes() == before
    assert "revoked already" in keyloader("key", "revoke", key["id"]).stdout
    assert found(keyloader, key["key"])["flags"] == REVOKED


def test_killed_while_another_publishes(keyloader):
    key = keyloader.key()
    with open(keyloader.dir / "publish.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = keyloader.start("key", "revoke", key["id"])
        wait_until(lambda: keyloader.json("key", "show", key["id"])["state"] == "revoked", what="the change")
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert found(keyloader, key["key"])["flags"] == 0
    keyloader("key", "revoke", key["id"])
    assert found(keyloader, key["key"])["flags"] == REVOKED


@pytest.mark.parametrize("damage", ["missing", "damaged", "older"])
def test_a_keys_mdb_that_is_not_what_was_published(keyloader, damage):
    key = keyloader.key()
    older = keyloader.snapshot.read_bytes()
    keyloader("key", "revoke", key["id"])
    keyloader.snapshot.unlink()
    if damage != "missing":
        keyloader.snapshot.write_bytes(older if damage == "older" else older[:-5000])
    assert "revoked already" in keyloader("key", "revoke", key["id"]).stdout
    assert found(keyloader, key["key"])["flags"] == REVOKED


def test_a_second_revocation_keeps_reason_and_time(keyloader):
    key = keyloader.key()["id"]
    first = keyloader.json("key", "revoke", key, "--reason", "leaked")
    again = keyloader.json("key", "revoke", key, "--reason", "other")
    assert [again["revoked"], again["revoked_reason"]] == [first["revoked"], "leaked"]


def test_a_deleted_key(keyloader):
    key = keyloader.key()
    keyloader("key", "delete", key["id"], "--no-publish")
    assert found(keyloader, key["key"]), "nginx still has it"
    answer = keyloader.json("key", "delete", key["id"])
    assert answer["state"] == "deleted" and re.fullmatch(WHEN, answer["deleted"])
    assert found(keyloader, key["key"]) is None
    # Whoever wants it stopped has what was wanted; whoever wants to use it is told.
    assert "was deleted already" in keyloader("key", "revoke", key["id"]).stdout
    for command in (["suspend"], ["resume"], ["set", "--name", "x"]):
        assert "was deleted at" in keyloader.refused("key", command[0], key["id"], *command[1:])
    assert "no key" in keyloader.refused("key", "delete", "key_00000000000000000000")
    assert "no key" in keyloader.refused("key", "revoke", "key_00000000000000000000")


def test_one_deleted_before_beside_one_that_is_there(keyloader):
    first, second = keyloader.key()["id"], keyloader.key()["id"]
    keyloader("key", "delete", first)
    done = keyloader("key", "delete", first, second)
    assert f"deleted {second}" in done.stdout and f"{first} was deleted already" in done.stdout
    assert keyloader.json("key", "list") == []


def test_a_revoked_key_is_not_resumed(keyloader):
    key = keyloader.key()["id"]
    keyloader("key", "suspend", key)
    keyloader("key", "revoke", key)
    before = keyloader.json("audit", "verify")
    assert "revoked" in keyloader.refused("key", "resume", key)
    assert keyloader.json("audit", "verify") == before


@pytest.mark.parametrize("command", [["owner", "set", "acme"], ["plan", "set", "default"], ["role", "set", "clerk"],
                                     ["key", "set", "GOOD"]], ids=lambda command: command[0])
def test_set_with_nothing_to_set(busy, command):
    before = busy.json("audit", "verify")
    assert "nothing to set" in busy.refused(*words_of(busy, command), status=2)
    assert busy.json("audit", "verify") == before


@pytest.mark.parametrize("command", [["owner", "create", "acme", "--team", "x"], ["plan", "create", "gold", "--rate", "2/s"],
                                     ["role", "create", "clerk", "--scope", "b"]], ids=lambda command: command[0])
def test_creating_what_is_there_and_differs(busy, command):
    assert "already" in busy.refused(*command)


def test_suspending_for_longer_is_a_change(keyloader):
    key = keyloader.key()["id"]
    keyloader("key", "suspend", key, "--for", "15m")
    assert "suspended key_" in keyloader("key", "suspend", key, "--for", "24h").stdout
    assert keyloader.json("key", "suspend", key)["suspended_until"] is None


def test_an_owner_without_keys(keyloader):
    keyloader("owner", "create", "acme")
    assert "owner acme has no keys" in keyloader("key", "revoke", "--owner", "acme").stdout
    assert keyloader.json("key", "revoke", "--owner", "acme") == []


def test_import_again(keyloader):
    lines = "key,owner\nan-imported-key,acme\nanother-imported-key,acme\n"
    block(keyloader)
    sentence = keyloader("import", "-", "--format", "csv", "--create-owners", stdin=lines, status=3).stderr
    assert "not published" in sentence
    unblock(keyloader)
    before = keyloader.snapshot.read_bytes()
    keyloader("import", "-", "--format", "csv", stdin=lines, status=1)
    assert keyloader.snapshot.read_bytes() == before
    report = keyloader.json("import", "-", "--format", "csv", "--partial", stdin=lines)
    assert (report["imported"], len(report["refused"])) == (0, 2)
    assert found(keyloader, "an-imported-key") and keyloader.json("publish")["renewed"] is True


def test_init_again(bare):
    bare("init", "--no-publish", "--pepper", "2026")
    assert not bare.snapshot.exists()
    first = bare.json("audit", "verify")["entries"]
    done = bare("init")
    assert "already" in done.stdout and "published generation 1" in done.stdout
    bare("init", "--pepper", "2026")
    assert "pepper create" in bare.refused("init", "--pepper", "2027")
    assert bare.json("audit", "verify")["entries"] == first + 1
    bare.dir.chmod(0o700)
    bare("init")
    assert bare.dir.stat().st_mode & 0o7777 == 0o2750


def test_init_over_a_registry_that_was_never_finished(bare):
    bare.dir.mkdir()
    (bare.dir / "registry.db").touch()
    assert "created registry" in bare("init").stdout


def test_pepper_again(keyloader):
    keyloader("pepper", "create", "a")
    secret = (keyloader.dir / "peppers" / "a").read_bytes()
    assert "exists already" in keyloader("pepper", "create", "a").stdout
    assert (keyloader.dir / "peppers" / "a").read_bytes() == secret
    keyloader("pepper", "create", "b")
    assert "exists already" in keyloader.refused("pepper", "create", "a"), "it would not be the current one"
    (keyloader.dir / "peppers" / "b").unlink()
    keyloader.refused("pepper", "create", "b")
    assert not (keyloader.dir / "peppers" / "b").exists(), "another secret under its name would lose its keys"


def test_a_rollback_stays_when_there_was_nothing_to_change(keyloader):
    key = keyloader.key()["id"]
    keyloader.key()
    keyloader("key", "revoke", key)
    keyloader("snapshot", "rollback")
    rolled_back = keyloader.snapshot.read_bytes()
    assert "was published before" in keyloader("key", "revoke", key).stdout
    assert keyloader.snapshot.read_bytes() == rolled_back
    assert "published generation" in keyloader("publish").stdout, "which asks for the registry's content"
    assert keyloader.json("snapshot", "show")["rolled_back_to"] is None


def test_a_change_behind_a_rollback_is_published_by_its_repetition(keyloader):
    key = keyloader.key()["id"]
    keyloader.key()
    keyloader("snapshot", "rollback")
    keyloader("key", "revoke", key, "--no-publish")
    keyloader("key", "revoke", key)
    assert keyloader.json("publish")["renewed"] is True


def test_publishing_again_renews(keyloader):
    """For apikey_store max_age=: the snapshot says when it was made."""
    keyloader.key()
    before = keyloader.json("snapshot", "show")
    time.sleep(1.1)  # it says that in seconds
    done = keyloader("publish")
    assert done.stdout.startswith("nothing has changed; published generation 3 (1 key)")
    after = keyloader.json("snapshot", "show")
    assert (after["generation"], after["keys"]) == (3, 1) and after["created"] != before["created"]
    assert keyloader.json("publish") == {"generation": 4, "keys": 1, "renewed": True, "active": None}
    keyloader("plan", "create", "a", "--no-publish")
    assert keyloader.json("publish") == {"generation": 5, "keys": 1, "renewed": False, "active": None}


@pytest.mark.parametrize("arguments", [["--wait", "2s", "--no-wait"], ["--no-publish", "--wait", "2s"],
                                       ["--no-publish", "--no-wait"], ["--wait", "soon"]])
def test_options_that_contradict(keyloader, arguments):
    before = keyloader.json("audit", "verify")
    keyloader.refused("plan", "create", "x", *arguments, status=2)
    done = keyloader("key", "create", "--owner", "a", "--create-owner", *arguments, status=2)
    assert done.stdout == "" and keyloader.json("audit", "verify") == before
