"""publish: what may follow what, who publishes when several do, and what a crash or a full disk leaves behind."""

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest

from harness.old_registry import to_schema_5
from harness.paths import CAN_MOUNT, KEYLOADER
from snapshot_reader import Snapshot


REVOKED, SUSPENDED, REQUIRE_TLS = 1, 2, 4


def found(keyloader, secret):
    """What the active snapshot says of a key; None when it has no such key."""
    snapshot = Snapshot(keyloader.snapshot)
    record = snapshot.find(hashlib.sha256(secret.encode()).digest())
    if record is None:
        return None
    owner = snapshot.tables["owners"][record["owner"]]
    return snapshot.describe(record) | {"owner_suspended": owner[8] == 1, "bindings": record["bindings"] != 0}


def import_keys(keyloader, count, *arguments):
    lines = ["key,owner"] + [f"{number:06d}-{hashlib.sha256(str(number).encode()).hexdigest()},acme" for number in range(count)]
    return keyloader("import", "-", "--format", "csv", "--create-owners", *arguments, stdin="\n".join(lines))


def test_a_change_is_published_when_the_command_returns(keyloader):
    key = keyloader.key("acme", "--scope", "orders:read", "--name", "n")
    there = found(keyloader, key["key"])
    assert (there["id"], there["owner"], there["scopes"], there["flags"]) == (key["id"], "acme", ["orders:read"], 0)
    keyloader("key", "suspend", key["id"])
    assert found(keyloader, key["key"])["flags"] == SUSPENDED
    keyloader("key", "revoke", key["id"])
    assert found(keyloader, key["key"])["flags"] == REVOKED | SUSPENDED


def test_no_publish_and_publish(keyloader):
    generation = keyloader.generation()
    key = keyloader.key("acme", "--no-publish")
    assert found(keyloader, key["key"]) is None and keyloader.generation() == generation
    assert keyloader.json("publish") == {"generation": generation + 1, "keys": 1, "renewed": False, "active": None}
    assert found(keyloader, key["key"])["id"] == key["id"]


def test_generations_grow_by_one_and_five_are_kept(keyloader):
    for number in range(7):
        keyloader("plan", "create", f"p{number}", "--no-publish")
        keyloader("publish")
    listed = keyloader.json("snapshot", "list")
    assert [entry["generation"] for entry in listed] == [8, 7, 6, 5, 4]
    assert [entry["in_service"] for entry in listed] == [True] + [False] * 4
    assert len(list((keyloader.dir / "history").iterdir())) == 5


def test_nothing_temporary_is_left(keyloader):
    keyloader.key()
    names = {path.name for path in keyloader.dir.iterdir()}
    assert names - {"registry.db-wal", "registry.db-shm"} == {"registry.db", "keys.mdb", "history", "publish.lock"}


def test_what_was_deleted_step_by_step_is_intended(keyloader):
    keys = [keyloader.key("acme", "--no-publish")["id"] for _ in range(4)]
    keyloader("publish")
    for key in keys[:3]:
        keyloader("key", "delete", key, "--no-publish")
    assert keyloader.json("publish")["keys"] == 1
    assert keyloader.json("snapshot", "show")["allow_shrink"] is True, "for an nginx that knows no counters"
    keyloader.key()
    assert keyloader.json("snapshot", "show")["allow_shrink"] is False


def test_deleting_named_keys_is_intended(keyloader):
    keys = [keyloader.key("acme", "--no-publish")["id"] for _ in range(4)]
    keyloader("publish")
    keyloader("key", "delete", *keys[:3])
    shown = keyloader.json("snapshot", "show")
    assert shown["keys"] == 1 and shown["allow_shrink"] is True


def test_a_key_nobody_deleted_is_not_dropped(keyloader):
    keys = [keyloader.key() for _ in range(5)]
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        database.execute("DELETE FROM keys WHERE id = (SELECT max(id) FROM keys)")
    database.close()
    sentence = keyloader.refused("publish")
    assert keys[-1]["id"] in sentence and "--allow-shrink" in sentence
    assert found(keyloader, keys[-1]["key"])
    keyloader("publish", "--allow-shrink")
    assert found(keyloader, keys[-1]["key"]) is None


def test_an_older_copy_of_the_registry_brings_nothing_back(keyloader, tmp_path):
    key = keyloader.key()
    # What a backup does.
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        with sqlite3.connect(tmp_path / "copy.db") as copy:
            database.backup(copy)
    copy.close()
    database.close()
    keyloader("key", "revoke", key["id"])
    revoked = found(keyloader, key["key"])
    for path in keyloader.dir.glob("registry.db*"):
        path.unlink()
    shutil.copy(tmp_path / "copy.db", keyloader.dir / "registry.db")
    assert "older copy" in keyloader.refused("publish")
    assert "published" in keyloader.refused("owner", "create", "new", status=3)
    assert "older copy" in keyloader.refused("publish", "--allow-shrink")
    assert found(keyloader, key["key"]) == revoked
    generation = keyloader.generation()
    keyloader("key", "revoke", key["id"], "--no-publish")
    assert keyloader.json("publish", "--take-over", "--reason", "restored")["generation"] > generation
    keyloader("owner", "create", "another")


def test_another_registrys_snapshot_is_not_replaced(keyloader):
    other = keyloader.beside("other")
    other("init")
    shutil.copy(other.snapshot, keyloader.snapshot)
    sentence = keyloader.refused("publish", "--allow-shrink")
    assert "registry" in sentence and "--take-over" in sentence
    assert keyloader.snapshot.read_bytes() == other.snapshot.read_bytes()
    keyloader("publish", "--take-over", "--reason", "the other one was a test")
    assert keyloader.json("snapshot", "show")["registry_id"] == keyloader.json("init")["registry_id"]


@pytest.mark.parametrize("damage", [b"", b"not a snapshot", None])
def test_publishing_puts_a_damaged_snapshot_right(keyloader, damage):
    key = keyloader.key()
    content = keyloader.snapshot.read_bytes()
    keyloader.snapshot.unlink()
    if damage is not None:
        keyloader.snapshot.write_bytes(damage or content[:-100])
    keyloader("publish")
    keyloader("snapshot", "verify")
    assert found(keyloader, key["key"])


def test_when_publishing_fails_the_change_stays_and_it_says_so(keyloader):
    key = keyloader.key()
    shutil.rmtree(keyloader.dir / "history")
    (keyloader.dir / "history").write_text("in the way")
    before = keyloader.snapshot.read_bytes()
    sentence = keyloader.refused("key", "revoke", key["id"], status=3)
    assert "the registry has the change" in sentence and "keyloader publish" in sentence
    assert keyloader.snapshot.read_bytes() == before
    assert keyloader.json("key", "show", key["id"])["state"] == "revoked"
    (keyloader.dir / "history").unlink()
    keyloader("publish")
    assert keyloader.snapshot.read_bytes() != before


def test_rollback_brings_back_content_but_no_revoked_key(keyloader):
    keep = keyloader.key("acme", "--scope", "a:b", "--meta", "x=y", "--rate", "3/s", "--allow-ip", "10.0.0.0/8")
    revoked, suspended, deleted = keyloader.key(), keyloader.key(), keyloader.key()
    stopped = keyloader.key("stopped")
    good = keyloader.generation()
    content = found(keyloader, keep["key"])
    keyloader("key", "set", keep["id"], "--scope", "none", "--rate", "none", "--allow-ip", "none", "--meta", "none",
              "--no-publish")
    keyloader("key", "revoke", revoked["id"], "--no-publish")
    keyloader("key", "suspend", suspended["id"], "--no-publish")
    keyloader("owner", "suspend", "stopped", "--no-publish")
    keyloader("key", "delete", deleted["id"], "--no-publish")
    late = keyloader.key()
    before = keyloader.generation()

    assert content["limits"][0]["amount"] == 3 and content["meta"] == {"x": "y"} and content["scopes"] == ["a:b"]
    back = keyloader.json("snapshot", "rollback", "--to", good)
    assert back["generation"] == before + 1 and back["rolled_back_to"] == good and back["keys"] == 4
    assert (back["refused_since"], back["dropped"]) == (2, 1)
    shown = keyloader.json("snapshot", "show")
    assert shown["rolled_back_to"] == good and shown["generation"] == before + 1
    assert found(keyloader, keep["key"]) == content
    assert found(keyloader, deleted["key"]) is None and found(keyloader, late["key"]) is None
    assert [found(keyloader, key["key"])["flags"] for key in (revoked, suspended)] == [REVOKED, SUSPENDED]
    assert found(keyloader, stopped["key"])["owner_suspended"] is True
    keyloader("publish")
    assert found(keyloader, late["key"]) and found(keyloader, keep["key"]) != content
    assert [entry["action"] for entry in keyloader.audit()].count("snapshot.rollback") == 1


def test_rollback_says_what_comes_next(keyloader):
    keyloader.key()
    assert "next publish" in keyloader("snapshot", "rollback", "--allow-shrink").stdout


def test_rollback_to_what_is_not_kept(keyloader):
    assert "nothing to roll back" in keyloader.refused("snapshot", "rollback")
    assert "42" in keyloader.refused("snapshot", "rollback", "--to", "42")


def test_a_change_after_a_rollback_is_published(keyloader):
    key = keyloader.key()
    keyloader.key()
    keyloader("snapshot", "rollback")
    before = found(keyloader, key["key"])
    keyloader("key", "revoke", key["id"])
    assert found(keyloader, key["key"]) != before


def test_eight_at_once(keyloader):
    children = [keyloader.start("key", "create", "--owner", "acme", "--create-owner") for _ in range(8)]
    secrets = [child.communicate()[0].strip() for child in children]
    assert [child.returncode for child in children] == [0] * 8
    assert all(found(keyloader, secret) for secret in secrets)
    keyloader("snapshot", "verify")
    keyloader("audit", "verify")


def test_two_publishers_never_race(keyloader):
    import_keys(keyloader, 2000)
    first = keyloader.generation()
    children = [keyloader.start("plan", "create", f"p{number}") for number in range(6)]
    for child in children:
        assert child.wait() == 0
        child.communicate()
    # Who waited finds its change published by another, or publishes it.
    assert first < keyloader.generation() <= first + 6
    assert keyloader.json("publish")["renewed"] is True
    assert all(f"p{number}".encode() in keyloader.snapshot.read_bytes() for number in range(6))
    keyloader("snapshot", "verify")


@pytest.mark.parametrize("delay", [0.005, 0.02, 0.05, 0.1, 0.2, 0.3])
def test_kill_9_leaves_the_old_or_the_new(keyloader, delay):
    import_keys(keyloader, 3000)
    key = keyloader.key()
    before = keyloader.snapshot.read_bytes()
    child = keyloader.start("key", "revoke", key["id"])
    time.sleep(delay)  # the moment of death, not a wait for an event
    child.send_signal(signal.SIGKILL)
    child.communicate()
    keyloader("snapshot", "verify")
    state = keyloader.json("key", "show", key["id"])["state"]
    if keyloader.snapshot.read_bytes() != before:
        assert state == "revoked", "what is published is in the registry"
    keyloader("audit", "verify")
    keyloader("key", "revoke", key["id"])
    assert found(keyloader, key["key"])["flags"] == REVOKED
    keyloader("snapshot", "verify")
    assert list(keyloader.dir.glob("keys.mdb.new.*")) == []


@pytest.fixture
def small_disk(tmp_path):
    """2 MiB of disk, when we may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0755", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place):
    with open(place / "filler", "wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            pass


if CAN_MOUNT:
    def test_full_disk(bare, small_disk):
        bare.dir = small_disk / "node"
        bare.snapshot = bare.dir / "keys.mdb"
        bare("init")
        key = bare.key()
        before = bare.snapshot.read_bytes()
        fill(small_disk)
        done = subprocess.run([KEYLOADER, "key", "revoke", key["id"]], capture_output=True, text=True,
                              env=bare.environment(), check=False)
        # The registry may find no room already, or the snapshot alone: each says so with a status of its own.
        is_changed = done.returncode == 3
        assert done.returncode in (1, 3) and is_changed != ("nothing was changed" in done.stderr), done.stderr
        assert "full" in done.stderr.lower() or "no space" in done.stderr.lower()
        bare("snapshot", "verify")
        assert bare.snapshot.read_bytes() == before
        (small_disk / "filler").unlink()
        assert ("revoked already" in bare("key", "revoke", key["id"]).stdout) == is_changed
        assert found(bare, key["key"])["flags"] == REVOKED
        bare("audit", "verify")
        assert bare.snapshot.read_bytes() != before


def test_file_size_limit_leaves_the_old_snapshot(keyloader):
    """Another way for writing to fail, open to everybody: RLIMIT_FSIZE."""
    import_keys(keyloader, 3000)
    before = keyloader.snapshot.read_bytes()
    keyloader("plan", "create", "gold", "--no-publish")
    limit = ["prlimit", f"--fsize={len(before) // 2}", KEYLOADER, "publish"]
    done = subprocess.run(limit, capture_output=True, env=keyloader.environment(), check=False)
    assert done.returncode != 0
    assert keyloader.snapshot.read_bytes() == before
    keyloader("publish")
    assert list(keyloader.dir.glob("keys.mdb.new.*")) == []


def test_100_000_keys(keyloader):
    """No figure here, as machines differ; but the shape: import, publish, and one revocation that is published."""
    assert "100000 key(s)" in import_keys(keyloader, 100_000).stdout
    assert keyloader.json("snapshot", "show")["keys"] == 100_000
    key = keyloader.key()
    assert found(keyloader, key["key"])["flags"] == 0
    keyloader("key", "revoke", key["id"])
    assert found(keyloader, key["key"])["flags"] == REVOKED


def test_a_progress_bar_on_a_terminal_only(keyloader):
    """import reads from us, so that it lasts as long as we like."""
    ours, terminal = os.openpty()
    shown = []
    for stderr in (terminal, subprocess.PIPE):
        child = subprocess.Popen([KEYLOADER, "import", "-", "--format", "csv", "--create-owners"], stdin=subprocess.PIPE,
                                 stdout=subprocess.DEVNULL, stderr=stderr, env=keyloader.environment())
        child.stdin.write(b"key,owner\n")
        child.stdin.flush()
        time.sleep(1.2)  # what is shown after a second is shown after this
        child.stdin.write(b"\n".join(f"{os.urandom(20).hex()},acme".encode() for _ in range(600)))
        child.stdin.close()
        shown.append(os.read(ours, 4096) if stderr == terminal else child.stderr.read())
        assert child.wait() == 0
    assert b"importing" in shown[0] and shown[1] == b""
    os.close(ours)
    os.close(terminal)


def test_a_snapshot_from_before_scopes_were_reserved_is_replaced(keyloader):
    """nginx goes by the file: until there is another one, the key has what it had."""
    key = keyloader.key("acme", "--scope", "x")["id"]
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        to_schema_5(database)
        database.execute("UPDATE keys SET scopes = 'apikey:admin'")
    database.close()
    before = keyloader.generation()
    assert keyloader.json("key", "show", key)["effective_scopes"] == []
    assert "changes that are not published" in keyloader("status", status=3).stderr
    assert keyloader.json("publish")["generation"] == before + 1
