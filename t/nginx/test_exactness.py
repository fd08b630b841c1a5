"""Limits by rate are exact to the token: 4 workers, 200 keys, random costs, and more asked for than there is.

Every single answer is judged: no admission that rate · time + burst does not cover, in no window; no refusal while the
tokens were there. So it is with reloads, new snapshots, killed workers, and a clock that jumps. `-s` shows figures.
"""

import functools
import os
import random
import signal
import statistics
import time
import warnings
from collections import defaultdict
from typing import NamedTuple

import pytest

from harness.clock import WallClock
from harness.keys import make_key
from harness.ledger import Ledger, Limit, Taken
from harness.load import Load, Request
from harness.waiting import wait_until

WORKERS = 4
KEYS = 200
OWNERS = 20
COSTS = range(1, 10)
DEMAND = 4  # times of what the keys may have
SECONDS = 8
SECOND = 10**9
PLANS = {  # as keyloader is told, and what it is
    "per-second": ("36/s", Limit(36, SECOND, 75)),
    "per-minute": ("2160/m", Limit(2160, 60 * SECOND, 90)),
    "quick": ("42/s", Limit(42, SECOND, 100)),
    "odd": ("138000/h", Limit(138_000, 3600 * SECOND, 80)),
}
OWNER_LIMIT = Limit(375, SECOND, 800)  # of ten keys: less than all of them together, more than ten slow ones


class Key(NamedTuple):
    secret: str
    owner: int
    limit: Limit


@pytest.fixture
def keys(registry):
    rng = random.Random(9)
    for name, (rate, limit) in PLANS.items():
        registry.plan(name, "--quota", "1000000000/day", "--no-publish", rate=rate, burst=limit.burst)
    made, lines = [], ["key,owner,plan"]
    for number in range(KEYS):
        plan = rng.choice(list(PLANS))
        made.append(Key(make_key(rng), number % OWNERS, PLANS[plan][1]))
        lines.append(f"{made[-1].secret},owner{made[-1].owner},{plan}")
    registry.run("import", "-", "--format", "csv", "--create-owners", stdin="\n".join(lines) + "\n")
    return made


@pytest.fixture
def clock(place):
    return WallClock(place)


@pytest.fixture
def start(nginx, place, registry):
    (place / "ok.txt").write_text("ok")

    def start(clock=None):
        server = nginx.make(f"""
            location = /ok {{ try_files /ok.txt =500; }}
            location = /refunded {{ apikey_refund 502; try_files /none =502; }}
            location = /settled {{ apikey_cost 1 reserve={COSTS[-1]} response=$arg_cost; try_files /ok.txt =500; }}
        """, server=f"""
            root {place}; access_log off; keepalive_requests 1000000; add_header X-Worker $pid always;
            apikey "api"; apikey_scope any; apikey_cost $arg_cost;
        """, main=clock.main if clock else "", workers=WORKERS, listen=" reuseport", log_level="notice")
        server.environment = clock.environment if clock else None
        server.start()
        server.wait_for_generation(registry.generation())
        return server
    return start


# Load

def load_of(server, keys, *, size=8, paths=("/ok",), demand=DEMAND):
    """First much from every bucket, so that none is full again; then all keys in turn, each by two workers at once;
    at last what is left, one by one."""
    rng = random.Random(len(keys))

    @functools.cache
    def request(number, cost, path="/ok"):
        head = f"GET {path}?cost={cost} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {keys[number].secret}\r\n\r\n"
        return Request(number, cost, path, head.encode())

    def batches():
        order = list(range(len(keys)))
        for at in range(0, len(order), size):
            yield [request(number, COSTS[-1]) for number in order[at:at + size]]
        while True:
            rng.shuffle(order)
            for at in range(0, len(order), size):
                for _ in range(2):
                    yield [request(number, rng.choice(COSTS), rng.choice(paths)) for number in order[at:at + size]]

    rate = sum(key.limit.amount * SECOND / key.limit.period_ns for key in keys)
    last = ([request(number, COSTS[-1])] * 12 + [request(number, 1)] * 20 for number in range(len(keys)))
    return Load(server.port, batches(), last, per_second=demand * rate / statistics.mean(COSTS))


def run(server, keys, *disturbances, seconds=SECONDS, every=0.0, **how):
    """Load for so long, the disturbances in turn meanwhile. RETURNS: the load, and the workers that were killed."""
    killed = []
    with load_of(server, keys, **how) as load:
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            due = time.monotonic() + every if disturbances else end
            if disturbances:
                killed.append(disturbances[number % len(disturbances)](server))
                number += 1
            wait_until(lambda: time.monotonic() >= min(due, end), seconds + 10, "the next disturbance")
    return load, [pid for pid in killed if pid]


# Disturbances

def reload(server):
    server.reload()


def kill(server):
    pid = random.choice(server.workers())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(set(server.workers()) - {pid}) == WORKERS, what="a new worker")
    return pid


class Publisher:
    """New snapshots in which the rates are what they were."""

    def __init__(self, registry):
        self.registry, self.count = registry, 0

    def __call__(self, server):
        self.count += 1
        plan = list(PLANS)[self.count % len(PLANS)]
        changes = (("plan", "set", plan, "--concurrency", 1000 + self.count),
                   ("plan", "set", plan, "--quota", f"{10**9 + self.count}/day"),
                   ("owner", "create", f"newcomer{self.count}"),
                   ("publish",))
        self.registry.run(*changes[self.count % len(changes)])
        server.wait_for_generation(self.registry.generation())


class Stepper:
    """Sets the wall clock back and forth, by minutes, hours and days."""

    def __init__(self, clock):
        self.clock, self.rng = clock, random.Random(4)

    def __call__(self, server):
        self.clock.shift(self.rng.choice((-1, 1)) * self.rng.choice((0.5, 75, 3600, 86_400, 400 * 86_400)))


# Judgement

class Account(NamedTuple):
    excess: object     # what was admitted too much, in words
    unjustified: list  # refusals that need not have been
    shares: object     # Ledger.shares() when one token was refused last; None if less was asked for than there was


def sort_by_key(records, count):
    by_key = [[] for _ in range(count)]
    for record in records:
        by_key[record.key].append(record)
    return by_key


def admitted(answers):
    return [Taken(a.sent, a.answered, a.cost) for a in answers if a.status == 200]


def refused(answers):
    return [a for a in answers if a.status == 429]


def needed(request):
    return COSTS[-1] if request.path == "/settled" else request.cost


def held(answers):
    """What was taken first and given back when the request ended."""
    return ([Taken(a.sent, a.ended, a.cost) for a in answers if a.status == 502] +
            [Taken(a.sent, a.ended, needed(a) - a.cost) for a in answers if a.status == 200 and a.path == "/settled"])


def lost_by_kills(lost, killed):
    """Of each kill one request may have been charged and not answered: the dearest one, at any time it was there."""
    by_kill = defaultdict(list)
    for number, request in enumerate(lost):
        if request.worker in killed or request.worker == 0:
            by_kill[request.worker or f"unknown {number}"].append(request)
    return [Taken(min(r.sent for r in some), max(r.lost for r in some), max(r.cost for r in some))
            for some in by_kill.values()]


def account_of(limit, answers, maybe=()) -> Account:
    ledger = Ledger(limit, admitted(answers), maybe, held(answers))
    refusals = refused(answers)
    unjustified = [f"cost {needed(a)}, {left:.3f} left" for a in refusals
                   if (left := ledger.least_left(a.sent, a.answered)) >= needed(a)]
    shares = None
    if refusals:
        last = min((a for a in refusals if a.sent > refusals[-1].sent - SECOND), key=lambda a: (needed(a), -a.sent))
        if needed(last) == 1 and ledger.was_never_full(last.answered):
            shares = ledger.shares(last.sent, last.answered, needed(last))
    return Account(ledger.excess(), unjustified, shares)


def judge(load, keys, killed):
    """RETURNS: the shares of the keys that always asked for more than there was, and how many keys felt a kill."""
    answers, lost = sort_by_key(load.answers, len(keys)), sort_by_key(load.lost, len(keys))
    accounts = [account_of(key.limit, some) for key, some in zip(keys, answers)]
    too_much = [account.excess for account in accounts if account.excess]
    assert not too_much, f"more than rate · time + burst, for {len(too_much)} keys: {too_much[:5]}"
    short = [number for number, account in enumerate(accounts) if account.unjustified]
    assert len(short) <= len(killed), (f"refused with tokens there, {len(short)} keys, {len(killed)} kills: "
                                       f"{[accounts[number].unjustified[:3] for number in short[:5]]}")
    for number in short:
        accounts[number] = account_of(keys[number].limit, answers[number], lost_by_kills(lost[number], killed))
        assert not accounts[number].unjustified, "more than one request's cost was lost by a kill"
    return [account.shares for account in accounts if account.shares is not None], len(short)


def judge_with_enough_demand(server, keys, *disturbances, statuses=(200, 429), **how):
    """Every run is judged; where this machine could not ask for more than there is, again with half of the keys."""
    while True:
        load, killed = run(server, keys, *disturbances, **how)
        assert {answer.status for answer in load.answers} == set(statuses)
        shares, short = judge(load, keys, killed)
        show(load, keys, shares, f"{len(killed)} workers killed, felt by {short} keys")
        if len(shares) >= 0.9 * len(keys):
            assert min(of_what_could_be_taken for _, of_what_could_be_taken in shares) >= 0.999
            return load, shares
        warnings.warn(f"{len(load.answers)} requests were not enough for {len(keys)} keys: only {len(shares)} of them "
                      f"always asked for more than there was; again with half of the keys")
        keys = keys[len(keys) // 2:]
        assert len(keys) >= 10, "this machine is too slow to ask ten keys for more than their rate"
        wait_until_full()


def wait_until_full():
    """All buckets are full again so long after the last request."""
    full = time.monotonic() + max(limit.burst * limit.period_ns / limit.amount for _, limit in PLANS.values()) / 1e9
    wait_until(lambda: time.monotonic() > full, 60, "full buckets")


def show(load, keys, shares, kills):
    asked, taken = (sum(needed(a) for a in load.answers), sum(a.cost for a in load.answers if a.status == 200))
    print(f"\n{len(load.answers)} requests, {len(load.lost)} lost, {kills}; {asked} tokens asked for, {taken} taken; "
          f"{len(shares)} of {len(keys)} keys always asked for more than they had")
    for what, of_keys in zip(("rate · time + burst", "the same, less what nobody could take"), zip(*shares)):
        print(f"  taken of {what}: least {min(of_keys):.5f}, median {statistics.median(of_keys):.5f}")


def test_undisturbed(keys, start):
    server = start()
    load, _ = judge_with_enough_demand(server, keys)
    assert not load.lost
    assert server.metric("apikey_zone_forced_evictions_total") == 0


def test_reloads_and_new_snapshots(keys, start, registry):
    judge_with_enough_demand(start(), keys, reload, Publisher(registry), every=0.1)


def test_killed_workers(keys, start):
    server = start()
    server.allow_log("exited on signal 9")
    judge_with_enough_demand(server, keys, kill, every=0.4)


def test_the_wall_clock_jumps(keys, start, clock):
    judge_with_enough_demand(start(clock), keys, Stepper(clock), every=0.1)


def test_everything_at_once_for_30_s(keys, start, clock, registry):
    server = start(clock)
    server.allow_log("exited on signal 9")
    publish, step = Publisher(registry), Stepper(clock)
    _, shares = judge_with_enough_demand(server, keys, step, publish, kill, step, publish, step, reload, publish,
                                         seconds=30, every=0.2)
    # After so long the part of a token that was left is less than a thousandth.
    assert min(of_all for of_all, _ in shares) >= 0.999


def test_what_is_given_back_is_there_again(keys, start):
    """A third of the requests are refunded, another third pay the most first and are settled to what they cost."""
    judge_with_enough_demand(start(), keys, statuses=(200, 429, 502), paths=("/ok", "/refunded", "/settled"),
                             demand=2 * DEMAND)


def test_a_limit_of_the_owner_on_top_is_taken_with_the_keys_or_not_at_all(keys, start, registry):
    for number in range(OWNERS):
        limit = ("--rate", f"{OWNER_LIMIT.amount}/s", "--burst", OWNER_LIMIT.burst)
        registry.run("owner", "set", f"owner{number}", *limit, "--no-publish")
    more = [word for number in range(12) for word in ("--quota", f"requests.{number}=1000000000/day")]
    for plan in PLANS:  # the more limits there are, the longer it takes to take them all, and the more often it fails
        registry.run("plan", "set", plan, *more, "--no-publish")
    registry.publish()
    load, _ = run(start(), keys, size=1, demand=1.5 * DEMAND)
    by_key = sort_by_key(load.answers, len(keys))
    by_owner = [[a for a in load.answers if keys[a.key].owner == owner] for owner in range(OWNERS)]
    # Whoever takes one limit and then finds the other one taken has held tokens of the first.
    books = [[Ledger(limit, admitted(answers), (), [Taken(a.sent, a.answered, a.cost) for a in refused(answers)])
              for limit, answers in zip(limits, lists)]
             for limits, lists in (([key.limit for key in keys], by_key), ([OWNER_LIMIT] * OWNERS, by_owner))]
    assert not [excess for book in books for ledger in book if (excess := ledger.excess())]
    decided_by = [0, 0]
    for a in refused(load.answers):
        # What it may have held itself was there for it.
        left = [ledger.least_left(a.sent, a.answered) + a.cost
                for ledger in (books[0][a.key], books[1][keys[a.key].owner])]
        assert min(left) < a.cost, f"refused with {left} tokens there for {a.cost}"
        if max(left) >= a.cost:
            decided_by[left.index(min(left))] += 1
    print(f"\n{len(load.answers)} requests, {len(refused(load.answers))} refused: {decided_by[0]} by nothing but the "
          f"key's limit, {decided_by[1]} by nothing but the owner's")
    assert min(decided_by) > 0
