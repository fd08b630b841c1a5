"""Who may say which keys are good: owner, mode and kind of the file."""

import os
import pwd
import socket

import pytest

from harness.paths import IS_ROOT, worker_user
from harness.store import LOCATION

MODES = [0o660, 0o646, 0o666]
# Only root can give a file to somebody else.
OWNERS = {"nobody": "neither root nor the owner of its directory", worker_user(): "neither root nor"}


@pytest.fixture
def server(nginx, store, made):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(made.number(0))
    return server


def assert_not_trusted(server, made, sentence):
    server.wait_for_log(f"is not taken: .*{sentence}.*; generation {made.number(0)} stays active")
    assert server.metric("apikey_snapshot_adoptions_total", result="not_trusted") == 1
    assert server.status(key=made.keys[0]) == 200
    assert server.status(key=made.keys[1]) == 401


@pytest.mark.parametrize("mode", MODES)
def test_writable_by_others(server, store, made, mode):
    store.put(made.snapshots[1], mode=mode)
    assert_not_trusted(server, made, "group or others may write it")
    store.path.chmod(0o644)
    server.wait_for_generation(made.number(1))
    assert server.status(key=made.keys[1]) == 200


if IS_ROOT:
    @pytest.mark.parametrize("owner", OWNERS)
    def test_wrong_owner(server, store, made, owner):
        store.put(made.snapshots[1], owner=owner)
        assert_not_trusted(server, made, OWNERS[owner])
        os.chown(store.path, 0, -1)
        server.wait_for_generation(made.number(1))

    def test_the_directorys_owner_is_trusted(server, store, made):
        os.chown(store.dir, 1, 1)
        store.put(made.snapshots[1], owner="daemon")
        server.wait_for_generation(made.number(1))

    def test_but_not_when_that_is_the_workers_user(server, store, made):
        os.chown(store.dir, pwd.getpwnam(worker_user()).pw_uid, 0)
        store.put(made.snapshots[1], owner=worker_user())
        assert_not_trusted(server, made, "the workers' user")
        store.path.chmod(0o440)
        server.wait_for_generation(made.number(1))

    def test_unreadable(server, store, made):
        store.put(made.snapshots[1], mode=0o600)
        server.wait_for_log(r"is not taken: it cannot be opened.*stays active \(13: Permission denied\)")
        assert server.metric("apikey_snapshot_adoptions_total", result="unreadable") == 1
        assert server.status(key=made.keys[0]) == 200
        store.path.chmod(0o640)
        server.wait_for_generation(made.number(1))

    def test_a_directory_the_workers_may_not_enter(server, store, made):
        store.dir.chmod(0o700)
        server.wait_for_log("cannot be looked at by the workers")
        assert server.status(key=made.keys[0]) == 200
        store.put(made.snapshots[1])
        store.dir.chmod(0o755)
        server.wait_for_generation(made.number(1))


def test_no_regular_file(server, store, made):
    os.mkfifo(store.dir / "next")
    (store.dir / "next").chmod(0o644)
    (store.dir / "next").rename(store.path)
    assert_not_trusted(server, made, "not a regular file")
    store.put(made.snapshots[1])
    server.wait_for_generation(made.number(1))


def test_a_directory_in_its_place(server, store, made):
    store.path.unlink()
    store.path.mkdir()
    assert_not_trusted(server, made, "not a regular file")
    store.path.rmdir()
    store.put(made.snapshots[1])
    server.wait_for_generation(made.number(1))


def test_a_socket_in_its_place(server, store, made):
    store.path.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(store.path))
        server.wait_for_log("is not taken: it cannot be opened")
    assert server.status(key=made.keys[0]) == 200
    store.put(made.snapshots[1])
    server.wait_for_generation(made.number(1))
