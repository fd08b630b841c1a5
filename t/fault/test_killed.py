"""The worker that verifies for all is killed: another takes over, and nobody notices but the log."""

import os
import random
import signal

import pytest

from harness.keys import make_key
from harness.store import LOCATION
from harness.waiting import wait_until

COUNT = 20_000  # so that the verification lasts some milliseconds


@pytest.fixture
def many(registry, place):
    """Snapshots of many keys, and one key that is in all of them."""
    rng = random.Random(7)
    keys = [make_key(rng) for _ in range(COUNT)]
    path = place / "keys.csv"
    path.write_text("key,owner\n" + "".join(f"{key},owner\n" for key in keys))
    registry.run("import", path, "--format", "csv", "--create-owners", timeout=300)
    snapshots = [registry.snapshot.read_bytes()]
    while len(snapshots) < 8:
        registry.publish()
        snapshots.append(registry.snapshot.read_bytes())
    return keys[0], snapshots, registry.generation() - len(snapshots) + 1


def threads(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        return 0


def kill_the_verifier(server, tries=20_000):
    """RETURNS: True when a worker was caught with a second thread, and killed."""
    pids = server.workers()
    for _ in range(tries):
        for pid in pids:
            if threads(pid) > 1:
                os.kill(pid, signal.SIGKILL)
                return True
    return False


def test_another_worker_takes_over(nginx, store, many):
    key, snapshots, first = many
    store.put(snapshots[0])
    server = nginx(LOCATION, store=store.path, workers=3)
    server.allow_log("exited on signal 9")
    server.wait_for_generation(first)
    killed = 0
    for i, snapshot in enumerate(snapshots[1:], 1):
        store.put(snapshot)
        killed += kill_the_verifier(server)
        server.wait_for_generation(first + i)
        wait_until(lambda: len(server.workers()) == 3)
        assert [server.status(key=key) for _ in range(6)] == [200] * 6
    assert killed > 0, "no worker was caught verifying"
    wait_until(lambda: server.metric("apikey_worker_generation_skew") == 0, what="all workers' change-over")
