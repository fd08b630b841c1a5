"""How many keys were ever added and removed travels with every snapshot: a chain of intended changes is always taken, in
whatever order nginx looks, and a copy of the registry that has gone its own way is not."""

import json
import random
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from harness.old_registry import to_schema_4
from snapshot_reader import Snapshot

WRITER = Path(__file__).resolve().parent / "snapshot_writer.py"


class Node:
    """The rule by which nginx takes a snapshot, written from docs/snapshot-format.md."""

    def __init__(self, min_keep):
        self.min_keep = min_keep
        self.now = None

    def takes(self, path):
        """RETURNS: whether it takes this file, or has it already; then it is the active one."""
        meta = Snapshot(path).meta
        if self.now == meta:
            return True
        if self.now is not None and not self._may_follow(meta):
            return False
        self.now = meta
        return True

    def _may_follow(self, meta):
        number = lambda from_meta, name: int(from_meta.get(name, 0))  # noqa: E731
        if meta["registry_id"] != self.now["registry_id"] or number(meta, "generation") <= number(self.now, "generation"):
            return False
        expected = number(self.now, "keys")
        if "added" in meta and "added" in self.now:
            more, fewer = (number(meta, name) - number(self.now, name) for name in ("added", "removed"))
            if more < 0 or fewer < 0:
                return False
            expected += more - fewer
        elif "added" in meta:
            expected -= number(meta, "removed")
        return number(meta, "keys") * 100 >= self.min_keep * expected or "allow_shrink" in meta


def meta_of(keyloader):
    meta = Snapshot(keyloader.snapshot).meta
    return int(meta["added"]), int(meta["removed"]), int(meta["keys"])


def ids(keyloader):
    return [key["id"] for key in keyloader.json("key", "list")]


def counters_in_registry(keyloader):
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        found = database.execute("SELECT added, removed, withheld FROM info").fetchone()
    database.close()
    return found


def test_everything_that_adds_or_removes_keys_counts(keyloader):
    assert meta_of(keyloader) == (0, 0, 0)
    key = keyloader.key()["id"]
    assert meta_of(keyloader) == (1, 0, 1)
    lines = "key,owner\n" + "".join(f"an-imported-key-{number},acme\n" for number in range(5))
    keyloader("import", "-", "--format", "csv", stdin=lines)
    assert meta_of(keyloader) == (6, 0, 6)
    keyloader("key", "revoke", key)
    keyloader("key", "suspend", key)
    assert meta_of(keyloader) == (6, 0, 6), "a revoked key is still there"
    keyloader("key", "delete", *ids(keyloader)[:2])
    assert meta_of(keyloader) == (6, 2, 4)
    keyloader.key("acme", "--no-publish")
    keyloader("key", "delete", ids(keyloader)[-1], "--no-publish")
    keyloader("publish")
    assert meta_of(keyloader) == (7, 3, 4), "also what was never published"
    shown = keyloader.json("snapshot", "show")
    assert (shown["added"], shown["removed"], shown["requires"]) == (7, 3, [])


def test_what_is_not_committed_does_not_count(keyloader):
    keyloader.key()
    lines = "key,owner\nan-imported-key,acme\nshort,acme\n"
    keyloader("import", "-", "--format", "csv", stdin=lines, status=1)
    keyloader.refused("key", "delete", ids(keyloader)[0], "key_00000000000000000000")
    assert counters_in_registry(keyloader) == (1, 0, 0)


@pytest.mark.parametrize("min_keep", [50, 80, 100])
def test_two_deletions_before_nginx_looks(keyloader, min_keep):
    """10 -> 6 -> 4 keys, then a revocation."""
    keys = [keyloader.key("acme", "--no-publish")["id"] for _ in range(10)]
    keyloader("publish")
    node = Node(min_keep)
    assert node.takes(keyloader.snapshot)
    keyloader("key", "delete", *keys[:4])
    keyloader("key", "delete", *keys[4:6])
    keyloader("key", "revoke", keys[9])
    assert node.takes(keyloader.snapshot)


def test_a_rollback_books_what_it_leaves_out(keyloader):
    keyloader.key()
    old = keyloader.generation()
    keys = [keyloader.key()["id"] for _ in range(3)]
    node = Node(100)
    assert node.takes(keyloader.snapshot) and meta_of(keyloader) == (4, 0, 4)
    keyloader("snapshot", "rollback", "--to", old, "--allow-shrink")
    assert meta_of(keyloader) == (4, 3, 1) and node.takes(keyloader.snapshot)
    # Again, and further back: what was left out already is not booked twice.
    keyloader("snapshot", "rollback", "--to", old, "--allow-shrink")
    assert meta_of(keyloader) == (4, 3, 1) and node.takes(keyloader.snapshot)
    keyloader("key", "delete", keys[0], "--no-publish")
    keyloader("publish")
    # All three that were left out come back, and one of them was deleted meanwhile.
    assert meta_of(keyloader) == (7, 4, 3) and node.takes(keyloader.snapshot)
    assert counters_in_registry(keyloader) == (7, 4, 0)


def test_allow_shrink_books_what_is_gone(keyloader):
    for _ in range(5):
        keyloader.key()
    node = Node(100)
    assert node.takes(keyloader.snapshot)
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        database.execute("DELETE FROM keys WHERE id IN (SELECT id FROM keys LIMIT 3)")
    database.close()
    sentence = keyloader.refused("publish")
    assert "key_" in sentence and "nobody deleted it" in sentence and "--allow-shrink" in sentence
    active = keyloader.snapshot.rename(keyloader.dir / "moved")
    sentence = keyloader.refused("publish")
    assert "2 keys" in sentence and "5 added and 0 removed" in sentence and "--allow-shrink" in sentence
    active.rename(keyloader.snapshot)
    keyloader("publish", "--allow-shrink")
    assert meta_of(keyloader) == (5, 3, 2) and node.takes(keyloader.snapshot)
    keyloader.key()
    assert node.takes(keyloader.snapshot)


def backup(keyloader, path):
    with sqlite3.connect(keyloader.dir / "registry.db") as database, sqlite3.connect(path) as copy:
        database.backup(copy)
    copy.close()
    database.close()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_and_whenever_nginx_looks(keyloader, tmp_path, seed):
    """Random changes, publishes, rollbacks and looks: what the registry publishes is always taken; a copy's never."""
    rng = random.Random(seed)
    nodes = [Node(100), Node(80), Node(50)]
    fork, count = None, 0

    def create():
        nonlocal count
        count += 1
        lines = "key,owner\n" + "".join(f"key-{count}-of-import-{n},acme\n" for n in range(rng.randint(1, 6)))
        keyloader("import", "-", "--format", "csv", "--create-owners", *quietly(), stdin=lines)

    def quietly():
        return rng.choice([[], [], ["--no-publish"]])

    def delete():
        there = ids(keyloader)
        if there:
            keyloader("key", "delete", *rng.sample(there, rng.randint(1, len(there))), *quietly())

    def revoke():
        there = ids(keyloader)
        if there:
            keyloader("key", "revoke", rng.choice(there), *quietly())

    def roll_back():
        kept = keyloader.json("snapshot", "list")
        if len(kept) > 1:
            keyloader("snapshot", "rollback", "--allow-shrink", "--to", rng.choice(kept[1:])["generation"])

    def publish():
        keyloader("publish")

    for step in range(30):
        rng.choice([create, create, delete, revoke, roll_back, publish])()
        for node in nodes:
            if rng.random() < 0.4:
                assert node.takes(keyloader.snapshot), (step, node.now, Snapshot(keyloader.snapshot).meta)
        if step == 15:
            fork = keyloader.beside("fork")
            fork.dir.mkdir()
            backup(keyloader, fork.dir / "registry.db")
    create()
    delete()
    keyloader("publish")
    for node in nodes:
        assert node.takes(keyloader.snapshot)
    fork("registry", "adopt", "--reason", "used beside the original by mistake")
    # The copy adds more than the original has, but has removed less; then the other way round.
    fork("import", "-", "--format", "csv", "--create-owners",
         stdin="key,owner\n" + "".join(f"key-{n}-of-the-copy,acme\n" for n in range(300)))
    for _ in range(3):
        for node in nodes:
            assert not node.takes(fork.snapshot)
        fork("plan", "create", f"p{_}")
    while fork.generation() <= keyloader.generation():
        fork("plan", "set", "default", "--rate", f"{fork.generation()}/s")
    for node in nodes:
        assert not node.takes(fork.snapshot), "not by its generation either"
        assert node.takes(keyloader.snapshot)


def age(keyloader):
    """Makes the registry one of the schema before counters."""
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        to_schema_4(database)
        database.execute("DROP TRIGGER counters_only_grow")
        for column in ("added", "removed", "withheld", "rolled_back_seq"):
            database.execute(f"ALTER TABLE info DROP COLUMN {column}")
        database.execute("DELETE FROM schema_versions WHERE version > 2")
    database.close()


def without_counters(keyloader, secrets):
    """Puts a keys.mdb of an older builder in place, with these keys and the generation that keys.mdb has."""
    shown = keyloader.json("snapshot", "show")
    unsealed, sealed = keyloader.dir / "old.mdb", keyloader.dir / "old.sealed"
    unsealed.unlink(missing_ok=True)
    lines = "".join(json.dumps({"key": key["key"], "owner": "acme", "id": key["id"]}) + "\n" for key in secrets)
    subprocess.run([WRITER, unsealed, "--generation", str(shown["generation"]), "--registry-id", shown["registry_id"]],
                   input=lines, text=True, check=True)
    keyloader("snapshot", "seal", unsealed, "--out", sealed)
    shutil.move(sealed, keyloader.snapshot)


def test_an_upgrade_frees_an_nginx_that_is_stuck(keyloader):
    """An nginx that has 10 keys without counters refused 4 of them; what the upgraded registry publishes it takes."""
    keys = [keyloader.key("acme", "--no-publish") for _ in range(10)]
    keyloader("publish")
    without_counters(keyloader, keys)
    node = Node(50)
    assert node.takes(keyloader.snapshot)
    keyloader("key", "delete", *[key["id"] for key in keys[:4]])
    keyloader("key", "delete", *[key["id"] for key in keys[4:6]])
    without_counters(keyloader, keys[6:])
    age(keyloader)
    assert not node.takes(keyloader.snapshot)
    keyloader("key", "revoke", keys[9]["id"])
    assert counters_in_registry(keyloader) == (10, 6, 0)
    assert node.takes(keyloader.snapshot)
    keyloader("key", "delete", *[key["id"] for key in keys[6:]])
    assert node.takes(keyloader.snapshot)


def test_a_snapshot_without_counters_is_published_again(keyloader):
    key = keyloader.key()
    without_counters(keyloader, [key])
    assert keyloader.json("publish")["renewed"] is False
    assert meta_of(keyloader) == (1, 0, 1)


def test_counters_never_fall(keyloader):
    keyloader.key()
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        for column in ("added", "removed"):
            with pytest.raises(sqlite3.IntegrityError):
                database.execute(f"UPDATE info SET {column} = {column} - 1")
    database.close()
