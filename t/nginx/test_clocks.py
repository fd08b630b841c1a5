"""A wall clock that is set is spoken of: once for each time, by all workers together."""

import re
import time

from harness.clock import WallClock
from harness.waiting import wait_until

MOVED = re.compile(r"\[warn\].*the wall clock moved (\d+) s (ahead|back) against the monotonic clock")


def test_each_jump_is_said_once(nginx, registry, place):
    registry.key()
    clock = WallClock(place)
    server = nginx.make('location / { apikey "api"; apikey_scope any; empty_gif; }', main=clock.main, workers=3)
    server.environment = clock.environment
    server.start().wait_for_generation(registry.generation())

    def said():
        return [(int(seconds), where) for seconds, where in MOVED.findall(server.error_log())]

    def all_have_looked():
        """Every worker looks once a second; that one of them says nothing can only be waited for."""
        until = time.monotonic() + 3
        wait_until(lambda: time.monotonic() > until, what="three seconds")

    all_have_looked()
    clock.shift(4)
    all_have_looked()
    assert said() == [], "less than 5 s is nothing"
    clock.shift(3600)
    wait_until(said, what="the line of the first jump")
    all_have_looked()
    server.reload()
    all_have_looked()
    clock.shift(0)
    wait_until(lambda: len(said()) == 2, what="the line of the second jump")
    all_have_looked()
    (first, ahead), (second, back) = said()
    assert (ahead, back) == ("ahead", "back")
    assert 3598 <= first <= 3602 and 3598 <= second <= 3602
