"""Waiting for events, never for time to pass.

Used by the harness and by tests. Nothing here sleeps longer than a few milliseconds at a time.
"""

import socket
import time


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts(port) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
