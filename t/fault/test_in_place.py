"""A file in service that is written into: what was verified stays what is used."""

import pytest

from harness.store import LOCATION, flip
from harness.waiting import wait_until

WRITES = {
    "cp of a newer snapshot": lambda store, made: store.overwrite(made.snapshots[1]),
    "cp of noise": lambda store, made: store.overwrite(b"\xa5" * len(made.snapshots[0])),
    "cp of a cut one": lambda store, made: store.overwrite(made.snapshots[1][:10000]),
    "truncate -s 0": lambda store, made: store.overwrite(b""),
    "a flipped bit": lambda store, made: _write_at(store, flip(made.snapshots[0], 20000)),
    "zeros": lambda store, made: _write_at(store, bytes(len(made.snapshots[0]))),
}


def _write_at(store, data):
    """Without a truncation first."""
    with open(store.path, "r+b") as file:
        file.write(data)


@pytest.mark.parametrize("name", WRITES)
def test_private_memory(nginx, store, made, name):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path, workers=3)
    server.wait_for_generation(made.number(0))
    WRITES[name](store, made)
    server.wait_for_log(rf"overwritten in place.*; generation {made.number(0)} stays active")
    assert [server.status(key=made.keys[0]) for _ in range(10)] == [200] * 10
    assert server.status(key=made.keys[1]) == 401
    store.put(made.snapshots[2])
    server.wait_for_generation(made.number(2))
    assert server.status(key=made.keys[1]) == 200
    assert server.error_log().count("overwritten in place") == 1
    assert server.metric("apikey_snapshot_adoptions_total", result="refused") == 1


@pytest.mark.parametrize("name", WRITES)
def test_mapped_file(nginx, store, made, name):
    """What changes under a mapping may make keys `unavailable`, but no good key bad, and no worker die."""
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path, store_args="memory=mapped", workers=3)
    server.wait_for_generation(made.number(0))
    before = server.workers()
    WRITES[name](store, made)
    server.wait_for_log(rf"overwritten in place.*; generation {made.number(0)} stays active")
    assert {server.status(key=made.keys[0]) for _ in range(10)} <= {200, 503}
    store.put(made.snapshots[2])
    server.wait_for_generation(made.number(2))
    assert [server.status(key=made.keys[0]) for _ in range(10)] == [200] * 10
    assert server.workers() == before, "a worker died"


def test_a_recreated_file_is_not_taken_for_an_overwritten_one(nginx, store, made):
    """File systems give the number of a deleted inode to the next file."""
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(made.number(0))
    store.path.unlink()
    store.put(made.snapshots[1])
    server.wait_for_generation(made.number(1))
    assert "overwritten" not in server.error_log()


def test_a_link_more_or_less_changes_nothing(nginx, store, made):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(made.number(0))
    (store.dir / "history.mdb").hardlink_to(store.path)
    (store.dir / "history.mdb").unlink()
    store.put(made.snapshots[1])
    wait_until(lambda: server.metric("apikey_snapshot_generation") == made.number(1))
    assert server.metric("apikey_snapshot_adoptions_total", result="adopted") == 2
    assert "is not taken" not in server.error_log()
