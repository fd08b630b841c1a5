"""A file system that does not answer holds up the thread that waits for it, and nobody else: nginx ends all the same."""

import os
import re
import signal
import time

import pytest

from harness.hanging import Hanging
from harness.server import is_alive
from harness.state import StateDir
from harness.store import LOCATION
from harness.waiting import wait_until

ENDS_WITHIN = 30  # seconds; a thread that reads is given up after 1 s, one that saves after 5 s: worker by worker, then master


def end(server, with_signal):
    """RETURNS: how long it took, in seconds."""
    everybody = [server.master, *server.workers()]
    begun = time.monotonic()
    os.kill(server.master, with_signal)
    server.process.wait(ENDS_WITHIN)
    wait_until(lambda: not any(map(is_alive, everybody)), ENDS_WITHIN, "the end of all")
    return time.monotonic() - begun


@pytest.mark.parametrize("with_signal", [signal.SIGQUIT, signal.SIGTERM])
def test_reading_a_snapshot_that_hangs(nginx, store, made, place, with_signal):
    store.put(made.snapshots[0])
    hanging = Hanging(place, store.path)
    server = nginx.make(LOCATION, store=store.path, workers=2, main=hanging.main)
    server.environment = hanging.environment
    server.start().wait_for_generation(made.first)
    hanging.begin()
    store.put(made.snapshots[1])
    wait_until(hanging.pids, what="a worker that hangs")
    assert server.status(key=made.keys[0]) == 200, "requests go on"
    server.allow_log("exited on signal 9")  # by nginx's master, which is not patient after SIGTERM
    end(server, with_signal)
    assert re.search(r"reading \S+keys.mdb does not come to an end", server.error_log())
    assert "signal 11" not in server.error_log() and "signal 6" not in server.error_log()


def test_a_reload_leaves_a_worker_that_hangs_behind(nginx, store, made, place):
    store.put(made.snapshots[0])
    hanging = Hanging(place, store.path)
    server = nginx.make(LOCATION, store=store.path, workers=1, main=hanging.main)
    server.environment = hanging.environment
    server.start().wait_for_generation(made.first)
    hanging.begin()
    store.put(made.snapshots[1])
    wait_until(hanging.pids, what="a worker that hangs")
    hanging.end()
    server.reload()
    server.wait_for_generation(made.number(1))
    assert server.status(key=made.keys[1]) == 200


@pytest.mark.parametrize("with_signal", [signal.SIGQUIT, signal.SIGTERM])
def test_writing_a_checkpoint_that_hangs(nginx, registry, place, with_signal):
    registry.plan("small", "--quota", "10/year")
    key = registry.key(plan="small")
    state = StateDir(place)
    hanging = Hanging(place, state.dir)
    server = nginx.make(LOCATION, http=f"apikey_zone zone=apikey:2m state={state.dir};", main=hanging.main)
    server.environment = hanging.environment
    server.start().wait_for_generation(registry.generation())
    server.allow_log("exited on signal 9")  # by nginx's master, which is not patient after SIGTERM
    hanging.begin()
    assert server.status(key=key) == 200
    wait_until(hanging.pids, what="a process that hangs")
    end(server, with_signal)
    assert "signal 11" not in server.error_log() and "signal 6" not in server.error_log()
    assert "writing the checkpoint" in server.error_log() and "does not come to an end" in server.error_log()
    hanging.end()
    server.start()
    server.wait_for_generation(registry.generation())
    assert server.get(key=key).headers["X-RateLimit-Remaining"] == "8", "memory has what the disk has not"
