"""When a window ends, and what Retry-After promises: at the named second the same request passes, a second before not.

nginx's wall clock is stopped and set to the moments that matter; no test waits for one to come. Limits by rate count on
a clock that cannot be set: there, requests are repeated until one passes.
"""

import random
import time
from datetime import datetime, timezone

import pytest

from harness.clock import WallClock

ENDS = {  # a moment at which a window of the unit ends
    "minute": "2040-05-17T10:01:00",
    "hour": "2040-05-17T11:00:00",
    "day": "2040-05-18T00:00:00",
    "week": "2040-05-21T00:00:00",  # a Monday
    "month": "2040-03-01T00:00:00",  # after a leap day
    "year": "2041-01-01T00:00:00",
}
LENGTHS = {"minute": 60, "hour": 3600, "day": 86_400, "week": 7 * 86_400, "month": 29 * 86_400, "year": 365 * 86_400}
TOLERANCE = 10  # seconds: so far workers' clocks may differ, see docs/limits.md


def moment(text) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp())


@pytest.fixture
def clock(place):
    return WallClock(place)


@pytest.fixture
def start(nginx, registry, clock, place):
    (place / "ok.txt").write_text("ok")

    def start(at=None):
        if at is not None:
            clock.stand_at(at)
        server = nginx.make("location / { try_files /ok.txt =500; }", main=clock.main,
                            server=f'root {place}; apikey "api"; apikey_scope any; apikey_cost $arg_cost;')
        server.environment = clock.environment
        server.start()
        server.wait_for_generation(registry.generation())
        return server
    return start


def ask(server, key, cost=1):
    """RETURNS: None when it passes, else after how many seconds it will."""
    answer = server.get(f"/?cost={cost}", key=key)
    assert answer.status_code in (200, 429), answer.text
    return int(answer.headers["Retry-After"]) if answer.status_code == 429 else None


def use_up(server, key, cost=1):
    """RETURNS: how many passed, and the first refusal's Retry-After."""
    passed = 0
    while (wait := ask(server, key, cost)) is None:
        passed += 1
    return passed, wait


# Calendar windows

@pytest.mark.parametrize("unit", ENDS)
def test_a_window_ends_at_its_moment(registry, start, clock, unit):
    key, end = registry.key(quota=f"3/{unit}"), moment(ENDS[unit])
    server = start(end - 0.001)
    assert use_up(server, key) == (3, 1)
    clock.stand_at(end)
    answer = server.get("/?cost=1", key=key)
    assert answer.status_code == 200
    length = {"month": 31 * 86_400}.get(unit, LENGTHS[unit])  # after a February there is a March
    told = {name.lower(): value for name, value in answer.headers.items()}
    assert (told["x-ratelimit-limit"], told["x-ratelimit-remaining"]) == ("3", "2")
    assert told["x-ratelimit-reset"] == str(length)
    assert use_up(server, key) == (2, length)
    clock.stand_at(end + length - 0.001)
    assert ask(server, key) == 1
    clock.stand_at(end + length)
    assert ask(server, key) is None


@pytest.mark.parametrize("unit", ENDS)
def test_retry_after_of_a_calendar_quota(registry, start, clock, unit):
    rng = random.Random(unit)
    keys = [registry.key(quota=f"7/{unit}") for _ in range(4)]
    server = start(moment(ENDS[unit]))
    for key in keys:
        now = moment(ENDS[unit]) - rng.randrange(2000, LENGTHS[unit] * 1000) / 1000
        clock.stand_at(now)
        assert ask(server, key, cost=3) is None
        assert use_up(server, key, cost=3)[0] == 1
        wait = ask(server, key, cost=3)
        assert ask(server, key) is None, "what is left is there for whom it is enough"
        clock.stand_at(now + wait - 1)
        assert ask(server, key, cost=3) is not None
        clock.stand_at(now + wait)
        assert ask(server, key, cost=3) is None


def test_several_windows_at_once(registry, start, clock):
    """The refusal that lasts longest is the one that is told."""
    key, now = registry.key(quota=["2/minute", "4/hour"]), moment("2040-05-17T10:57:30")
    server = start(now)
    assert use_up(server, key) == (2, 30)
    clock.stand_at(now + 29.999)
    assert ask(server, key) == 1
    clock.stand_at(now + 30)
    assert use_up(server, key) == (2, 120), "the minute's two are used, and the hour's four"
    clock.stand_at(now + 90)
    assert ask(server, key, cost=2) == 60, "the next minute has begun"
    clock.stand_at(now + 149.999)
    assert ask(server, key, cost=2) == 1
    clock.stand_at(now + 150)
    assert use_up(server, key, cost=2) == (1, 60)


def test_a_refusal_by_one_window_takes_nothing_of_the_other(registry, start, clock):
    key, now = registry.key(quota=["4/minute", "7/hour"]), moment("2040-05-17T10:58:00")
    server = start(now)
    assert use_up(server, key, cost=2) == (2, 60)
    clock.stand_at(now + 60)
    assert use_up(server, key, cost=2) == (1, 60)
    assert ask(server, key) is None, "one is left of the hour, and two of the minute"
    assert ask(server, key) == 60


# Rolling quotas

@pytest.mark.parametrize("quota, tokens, period", [("6/60s", 6, 60), ("7/60s", 7, 60), ("5/30d", 5, 30 * 86_400),
                                                   ("9/1h", 9, 3600)])
def test_retry_after_of_a_rolling_quota(registry, start, clock, quota, tokens, period):
    rng = random.Random(quota)
    key = registry.key(rolling_quota=quota)
    now = moment("2040-05-17T10:00:00") + 0.5
    server = start(now)
    passed, _ = use_up(server, key)
    assert passed == tokens
    begun, costs = now, passed
    for _ in range(12):
        cost = rng.randrange(1, 4)
        wait = ask(server, key, cost)
        if wait is None:
            costs += cost
            continue
        clock.stand_at(now + wait - 1)
        assert ask(server, key, cost) is not None
        now += wait
        clock.stand_at(now)
        assert ask(server, key, cost) is None
        costs += cost
        assert costs <= tokens + (now - begun) * tokens / period


def test_a_rolling_quota_is_whole_after_its_period(registry, start, clock):
    key, now = registry.key(rolling_quota="6/60s"), moment("2040-05-17T10:00:00")
    server = start(now)
    assert use_up(server, key) == (6, 10)
    clock.stand_at(now + 59)
    assert use_up(server, key)[0] == 5
    clock.stand_at(now + 59 + 60)
    assert use_up(server, key)[0] == 6
    clock.stand_at(now + 3600)
    assert use_up(server, key)[0] == 6, "never more than the whole"


# A clock that is set

def test_a_clock_set_back_gives_nothing(registry, start, clock):
    """What was used stays used, in the window of the corrected clock; and that ends when it says."""
    calendar, rolling = registry.key(quota="4/minute"), registry.key(rolling_quota="6/60s")
    now = moment("2040-05-17T10:00:30")
    server = start(now)
    assert (use_up(server, calendar), use_up(server, rolling)) == ((4, 30), (6, 10))
    for back in (5, 40, 3600, 40 * 86_400, 3 * 365 * 86_400):
        clock.stand_at(now - back)
        waits = ask(server, calendar), ask(server, rolling)
        assert None not in waits, f"set back by {back} s"
        assert waits[0] <= 60 + TOLERANCE and waits[1] <= 10 + TOLERANCE, "nor does it lock anybody out"
    now -= back
    for key, wait, amount in ((calendar, waits[0], 4), (rolling, waits[1], 1)):
        clock.stand_at(now + wait - 1)
        assert ask(server, key) is not None
        clock.stand_at(now + wait)
        assert use_up(server, key)[0] == amount


def test_steps_at_the_change_of_a_window_give_nothing(registry, start, clock):
    """Back and forth over a window's end by no more than clocks differ: one window's amount, not two."""
    key, end = registry.key(quota="5/minute"), moment("2040-05-17T10:01:00")
    server = start(end - 1)
    assert use_up(server, key)[0] == 5
    clock.stand_at(end + 1)
    passed = use_up(server, key)[0]
    for step in (-1, 1, -5, 3, -TOLERANCE + 1, 8):
        clock.stand_at(end + step)
        passed += use_up(server, key)[0]
    assert passed == 5


@pytest.mark.parametrize("seed", range(3))
def test_each_end_of_a_window_gives_the_amount_once(registry, start, clock, seed):
    """A clock set at random. Only going on past the end of a window, as time does, gives a quota anew."""
    rng = random.Random(seed)
    key, amount = registry.key(quota="5/minute"), 5
    now = moment("2040-05-17T10:00:30")
    server = start(now)
    passed, ends, counted = use_up(server, key)[0], 1, now // 60
    for _ in range(40):
        now += rng.choice((-1, 1)) * rng.choice((1, 7, 30, 61, 200, 4000))
        clock.stand_at(now)
        # The window of the corrected clock counts on with what was used before it was set back.
        is_corrected = now // 60 < counted and counted * 60 > now + TOLERANCE
        ends += now // 60 > counted
        counted = now // 60 if is_corrected else max(counted, now // 60)
        passed += use_up(server, key)[0]
        assert passed == amount * ends


def test_a_rolling_quota_under_a_clock_that_is_set(registry, start, clock):
    """Never more than the amount and what has come in the seconds the clock went forward."""
    rng = random.Random(5)
    key = registry.key(rolling_quota="6/60s")
    now = moment("2040-05-17T10:00:00")
    server = start(now)
    passed, forward = 0, 0
    for step in [0] + [rng.choice((-4000, -61, -15, -7, 1, 7, 30, 45)) for _ in range(40)]:
        now += step
        forward += max(step, 0)
        clock.stand_at(now)
        passed += use_up(server, key)[0]
        assert passed <= 6 + forward / 10
    assert passed > 6


# Rates

@pytest.mark.parametrize("rate, cost, interval", [("5/s", 1, 0.2), ("40/m", 1, 1.5), ("4/s", 3, 0.75)])
def test_retry_after_of_a_rate(registry, start, clock, rate, cost, interval):
    """Each refusal's promise is held against the first request that passes; the wall clock jumps about meanwhile."""
    key = registry.key(rate=rate, burst=cost)
    server, rng = start(), random.Random(rate)
    taken, refused = time.monotonic(), []
    assert ask(server, key, cost) is None
    while True:
        clock.shift(rng.choice((-1, 1)) * rng.randrange(10**6))
        sent = time.monotonic()
        wait = ask(server, key, cost)
        answered = time.monotonic()
        if wait is not None:
            refused.append((sent, answered, wait))
        elif refused:
            break
        else:
            taken = sent  # the machine was so slow that a token had come
    assert answered >= taken + interval, "not before its time"
    for refusal_sent, refusal_answered, wait in refused:
        assert answered > refusal_sent + wait - 1, "one second before it does not pass"
        assert not any(other_sent >= refusal_answered + wait for other_sent, _, _ in refused), "at the second it does"


def test_retry_after_of_a_rate_in_whole_seconds(registry, start):
    """To the second, where the exact moment is known from what was taken before."""
    key = registry.key(rate="6/h", burst=6)
    server = start()
    before = time.monotonic()
    assert [ask(server, key, 2) for _ in range(3)] == [None] * 3
    taken = time.monotonic()
    for cost in (1, 2, 6):
        sent = time.monotonic()
        wait = ask(server, key, cost)
        answered = time.monotonic()
        # `cost` tokens are there between these two moments; ten minutes each.
        assert before + 600 * cost - answered <= wait < taken + 600 * cost - sent + 1
