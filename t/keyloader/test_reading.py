"""Reading needs no write access: a group may read the registry while a writer runs, after it left, and after a crash.
And what is said where only a snapshot is."""

import grp
import os
import pwd
import signal
import sqlite3
import subprocess

import pytest

from harness.paths import KEYLOADER

NOBODY = pwd.getpwnam("nobody").pw_uid
GROUP = "games"  # a group of every Debian that owns nothing here
GID = grp.getgrnam(GROUP).gr_gid
READING = [["key", "list"], ["owner", "list"], ["plan", "show", "default"], ["role", "list"], ["audit", "list"],
           ["audit", "verify"], ["owner", "show", "acme"]]

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")


def as_nobody(tool, *arguments, groups=(GID,), stdin=""):
    done = subprocess.run([KEYLOADER, *arguments], input=stdin, capture_output=True, text=True, check=False, cwd="/",
                          env=tool.environment(),
                          user=NOBODY, group=65534, extra_groups=list(groups))
    return done


@pytest.fixture
def shared(bare):
    """A registry that a group may read, with a way to it."""
    for directory in bare.dir.parents:
        if directory.stat().st_uid == os.getuid() and len(directory.parts) > 2:
            directory.chmod(directory.stat().st_mode | 0o001)
    bare("init", "--group", "root", "--reader-group", GROUP)
    bare.made = bare.key()
    return bare


def check_reading(shared):
    for command in READING:
        done = as_nobody(shared, *command)
        assert done.returncode == 0, (command, done.stderr)
    assert shared.made["id"] in as_nobody(shared, "key", "list").stdout


@needs_root
def test_modes(shared):
    for name in ("registry.db", "registry.db-wal", "registry.db-shm"):
        status = (shared.dir / name).stat()
        assert (status.st_mode & 0o777, status.st_gid) == (0o640, GID), name
    assert shared.dir.stat().st_mode & 0o7777 == 0o2751
    shared("init")
    assert shared.dir.stat().st_mode & 0o7777 == 0o2751, "the group still gets through"
    assert "peppers" not in os.listdir(shared.dir) or (shared.dir / "peppers").stat().st_mode & 0o077 == 0


@needs_root
def test_readers_see_what_was_collected(shared):
    """Also where usage.db is made later, or was there before the group."""
    assert "nothing was collected" in as_nobody(shared, "usage", "--by", "owner").stderr
    shared("usage", "--by", "owner")  # makes the file
    for name in ("usage.db", "usage.db-wal", "usage.db-shm"):
        status = (shared.dir / name).stat()
        assert (status.st_mode & 0o777, status.st_gid) == (0o640, GID), name
    done = as_nobody(shared, "usage", "--by", "owner")
    assert done.returncode == 0, done.stderr
    listed = as_nobody(shared, "key", "list")
    assert "nobody may not see what nginx has counted since the last collection" in listed.stderr
    (shared.dir / "usage.db").chmod(0o600)
    assert "usage.db cannot be opened" in as_nobody(shared, "key", "list").stderr
    shared("init", "--reader-group", GROUP)
    assert as_nobody(shared, "usage", "--by", "owner").returncode == 0
    before = (shared.dir / "usage.db").read_bytes()
    refused = as_nobody(shared, "usage", "prune", "--before", "2026-01-01", "--yes")
    assert refused.returncode == 0 or "written" in refused.stderr
    assert (shared.dir / "usage.db").read_bytes() == before


@needs_root
def test_a_warning_without_a_pepper(bare):
    assert "digests" in bare("init", "--reader-group", GROUP).stderr
    other = bare.beside("other")
    assert "digests" not in other("init", "--pepper", "a", "--reader-group", GROUP).stderr
    assert "no-such-group" in bare.refused("init", "--reader-group", "no-such-group")


@needs_root
def test_after_the_writer_left(shared):
    assert (shared.dir / "registry.db-wal").stat().st_size == 0, "nothing that would be read into a backup"
    check_reading(shared)


@needs_root
@pytest.mark.parametrize("file", ["registry.db-wal", "registry.db-shm"])
def test_a_file_that_readers_need_was_removed(shared, file):
    (shared.dir / file).unlink()
    said = as_nobody(shared, "owner", "list").stderr
    assert "written" not in said and "registry.db cannot be read without registry.db-wal and registry.db-shm" in said
    shared("owner", "list")
    check_reading(shared)


@needs_root
def test_while_a_writer_runs(shared):
    writer = sqlite3.connect(shared.dir / "registry.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE owners SET team = 'half done'")
    check_reading(shared)
    assert "half done" not in as_nobody(shared, "owner", "list").stdout
    writer.execute("ROLLBACK")
    writer.close()


@needs_root
def test_after_a_crash(shared):
    child = os.fork()
    if child == 0:
        writer = sqlite3.connect(shared.dir / "registry.db", isolation_level=None)
        writer.execute("UPDATE owners SET team = 'written'")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (shared.dir / "registry.db-wal").stat().st_size > 0
    check_reading(shared)
    assert "written" in as_nobody(shared, "owner", "list").stdout


@needs_root
def test_changing_says_who_may(shared):
    before = shared.json("audit", "verify")
    done = as_nobody(shared, "key", "revoke", shared.made["id"])
    assert done.returncode == 1 and "it belongs to root, and you are nobody; run it as root: sudo -u root" in done.stderr
    assert shared.json("audit", "verify") == before


@needs_root
def test_who_may_not_even_read(shared):
    done = as_nobody(shared, "key", "list", groups=())
    assert done.returncode == 1 and "belongs to root, and you are nobody; run it as root: sudo -u root" in done.stderr


def test_only_a_snapshot(keyloader):
    node = keyloader.beside("second")
    node.dir.mkdir()
    keyloader.key()
    (node.dir / "keys.mdb").write_bytes(keyloader.snapshot.read_bytes())
    for command in (["key", "list"], ["key", "create", "--owner", "a"], ["audit", "list"], ["publish"]):
        sentence = node.refused(*command)
        assert "only a snapshot" in sentence and "snapshot show" in sentence and "registry.db back from a backup" in sentence
        assert "`keyloader init` would make another registry" in sentence
    sentence = node.refused("init")
    assert "holds a snapshot" in sentence and "refuse what it publishes" in sentence
    assert sorted(os.listdir(node.dir)) == ["keys.mdb"], "nothing was made"
    node("snapshot", "show")
    node("init", "--no-publish")
