"""A new snapshot comes into service by itself: noticed, verified once per node, changed over to by every worker."""

import os
import re
import signal
import time

import pytest

from harness.store import LOCATION, Generations, Store
from harness.waiting import wait_until

SLOW = 'location = /slow { apikey "api"; apikey_scope any; limit_rate 20k; alias %s; }'


@pytest.fixture
def store(place):
    return Store(place)


@pytest.fixture
def made(registry):
    return Generations(registry, 6)


def adoptions(server, generation):
    return len(re.findall(rf"generation {generation} with \d+ keys is active, verified", server.error_log()))


def copies_mapped(pid):
    """How many snapshots a worker has mapped."""
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps:
        return len({line.split()[4] for line in maps if "apikey-snapshot" in line})


def test_503_until_there_is_one(nginx, store, made):
    server = nginx(LOCATION, store=store.path, workers=4)
    server.wait_for_log("there is no snapshot yet at .*keys.mdb; until there is one requests are answered with 503")
    answer = server.get(key=made.keys[0])
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
    assert server.metric("apikey_snapshot_generation") == 0
    store.put(made.snapshots[0])
    wait_until(lambda: server.status(key=made.keys[0]) == 200)
    assert server.error_log().count("there is no snapshot yet") == 1


def test_a_start_waits_for_a_snapshot_that_is_there(nginx, store, made):
    """So a restart answers nobody with 503."""
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path, wait=False)
    assert server.status(key=made.keys[0]) == 200


def test_noticed_at_once(nginx, store, made):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(made.number(0))
    for i in range(1, 6):
        published = time.monotonic()
        store.put(made.snapshots[i])
        wait_until(lambda: server.status(key=made.keys[i]) == 200)  # pylint: disable=cell-var-from-loop
        # The timer alone, once a second, would miss this bound in one of five rounds almost surely.
        assert time.monotonic() - published < 0.5


def test_verified_once_by_one_worker(nginx, store, made):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path, workers=4)
    server.wait_for_generation(made.number(0))
    for i in range(1, 4):
        store.put(made.snapshots[i])
        server.wait_for_generation(made.number(i))
        wait_until(lambda: server.metric("apikey_worker_generation_skew") == 0, what="all workers' change-over")
        assert adoptions(server, made.number(i)) == 1
    assert server.metric("apikey_snapshot_adoptions_total", result="adopted") == 4
    assert server.metric("apikey_adoption_seconds_count") == 4
    wait_until(lambda: all(copies_mapped(pid) == 1 for pid in server.workers()), what="old copies unmapped")


def test_a_request_keeps_the_snapshot_it_began_with(nginx, store, made, place):
    big = place / "big"
    big.write_bytes(b"x" * 60_000)
    big.chmod(0o644)
    store.put(made.snapshots[0])
    server = nginx(SLOW % big, store=store.path, workers=1)
    server.wait_for_generation(made.number(0))
    with server.connect() as connection:
        connection.sendall(f"GET /slow HTTP/1.0\r\nX-API-Key: {made.keys[0].secret}\r\n\r\n".encode())
        assert b"200 OK" in connection.recv(1024)
        store.put(made.snapshots[1])
        server.wait_for_generation(made.number(1))
        while connection.recv(65536):
            pass
    assert server.last_logged("/slow")["generation"] == str(made.number(0))


def test_many_swaps_during_long_requests(nginx, store, made, place):
    """Whatever long requests keep, all others get the newest, and in the end nothing old is left."""
    big = place / "big"
    big.write_bytes(b"x" * 10_000_000)
    big.chmod(0o644)
    store.put(made.snapshots[0])
    server = nginx(SLOW % big + LOCATION, store=store.path, workers=1)
    connections = []
    try:
        for i in range(1, 6):
            connections.append(server.connect())
            connections[-1].sendall(f"GET /slow HTTP/1.0\r\nX-API-Key: {made.keys[0].secret}\r\n\r\n".encode())
            assert b"200 OK" in connections[-1].recv(100)
            store.put(made.snapshots[i])
            wait_until(lambda: server.status(key=made.keys[i]) == 200)  # pylint: disable=cell-var-from-loop
    finally:
        for connection in connections:
            connection.close()
    wait_until(lambda: copies_mapped(server.workers()[0]) == 1, what="old copies unmapped")


def test_a_symbolic_link_is_swapped(nginx, store, made):
    """As Kubernetes does: keys.mdb → ..data/keys.mdb, ..data → ..2024_1, and ..data is renamed over."""
    def version(i):
        directory = store.dir / f"..version{i}"
        directory.mkdir(mode=0o755)
        store.write_beside(made.snapshots[i], name=f"..version{i}/keys.mdb")
        (store.dir / "..data_tmp").symlink_to(directory.name)
        (store.dir / "..data_tmp").rename(store.dir / "..data")

    version(0)
    store.path.symlink_to("..data/keys.mdb")
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(made.number(0))
    for i in range(1, 4):
        swapped = time.monotonic()
        version(i)
        wait_until(lambda: server.status(key=made.keys[i]) == 200)  # pylint: disable=cell-var-from-loop
        assert time.monotonic() - swapped < 0.5


def test_a_directory_that_comes_later(nginx, store, made):
    path = store.dir / "a" / "b" / "keys.mdb"
    server = nginx(LOCATION, store=path)
    server.wait_for_log("there is no snapshot yet")
    path.parent.mkdir(parents=True)
    store.write_beside(made.snapshots[0], name="a/b/keys.mdb.next").rename(path)
    server.wait_for_generation(made.number(0))
    assert server.status(key=made.keys[0]) == 200


def test_a_reload_takes_the_copy_from_the_old_workers(nginx, store, made):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path, workers=3)
    server.wait_for_generation(made.number(0))
    store.put(made.snapshots[1][:9000])  # were the file read again, there would be nothing to serve from
    server.wait_for_log("is not taken")
    for _ in range(3):
        server.reload()
        assert [server.status(key=made.keys[0]) for _ in range(9)] == [200] * 9
    assert adoptions(server, made.number(0)) == 1
    assert "verified by itself" not in server.error_log()


def test_a_worker_that_was_killed_takes_it_from_another(nginx, store, made):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path, workers=3)
    server.allow_log(r"exited on signal 9")
    server.wait_for_generation(made.number(0))
    for _ in range(3):
        before = server.workers()
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: len(server.workers()) == 3 and server.workers() != before)  # pylint: disable=cell-var-from-loop
        assert [server.status(key=made.keys[0]) for _ in range(9)] == [200] * 9
    assert "verified by itself" not in server.error_log()


def test_when_all_were_killed_the_file_is_verified_again(nginx, store, made):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path, workers=2)
    server.allow_log(r"exited on signal 9")
    server.wait_for_generation(made.number(0))
    # The master is stopped meanwhile, or it would start a new worker while one that has the copy still lives.
    os.kill(server.master, signal.SIGSTOP)
    for pid in server.workers():
        os.kill(pid, signal.SIGKILL)
    os.kill(server.master, signal.SIGCONT)
    server.wait_for_log(r"has generation \d+, verified by itself")
    assert server.metric("apikey_snapshot_generation") == made.number(0)
    wait_until(lambda: [server.status(key=made.keys[0]) for _ in range(6)] == [200] * 6)


def test_max_age(nginx, store, made):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path, store_args="max_age=1s", workers=3)
    server.wait_for_log("is older than max_age; it stays active")
    assert server.metric("apikey_snapshot_stale") == 1
    assert server.status(key=made.keys[0]) == 200
    assert server.error_log().count("is older than max_age") == 1


def test_max_age_that_denies(registry, nginx, store):
    key = registry.key()
    store.put(registry.snapshot.read_bytes())
    server = nginx(LOCATION, store=store.path, store_args="max_age=2s on_stale=deny")
    server.wait_for_log("is older than max_age; requests are answered with 503")
    assert server.status(key=key) == 503
    registry.publish()
    store.put(registry.snapshot.read_bytes())
    wait_until(lambda: server.status(key=key) == 200, what="a fresh snapshot in service")
    assert server.metric("apikey_snapshot_stale") == 0
