"""Waiting for events, never for time to pass.

Used by the harness and by tests. Nothing here sleeps longer than a few milliseconds at a time.
"""

import itertools
import os
import socket
import time
from contextlib import suppress


def wait_until(predicate, timeout=10.0, what="the condition", interval=0.005):
    """Calls `predicate` until it returns something true and returns that; fails with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not come true within {timeout} s (last value: {value!r})")
        time.sleep(interval)


# Below the range from which the kernel takes ports for connections (ip_local_port_range, from 32768): one that is opened
# before the server listens could get the port. Another process of tests begins elsewhere.
_PORTS = range(10_000, 30_000)
_turn = itertools.count(os.getpid() * 7919)


def free_port() -> int:
    while True:
        port = _PORTS[next(_turn) % len(_PORTS)]
        with socket.socket() as probe, suppress(OSError):  # taken
            probe.bind(("127.0.0.1", port))
            return port


def accepts(port) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
