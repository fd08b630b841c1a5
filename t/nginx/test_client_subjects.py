"""Subjects that clients choose (values of variables, addresses, failed attempts): however many there are, keys and owners
keep what is theirs, during it and after it. Nobody gets more than its limit by being pushed out, and what was charged is
owed all the same.
"""

import random
import re
import socket

import pytest

from harness.flood import Flood, get
from harness.keys import make_key
from harness.waiting import wait_until

REAL_IP = "set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;"
ALL = 'apikey "api"; apikey_scope any; empty_gif;'
ANYBODY = 'apikey "api" optional; apikey_scope any; empty_gif;'
FLOODS = {
    "a variable": (60_000, ANYBODY + "apikey_limit rate=1r/h burst=1 by=$arg_t;"),
    "addresses": (32_000, ANYBODY + "apikey_limit rate=1r/h burst=1;"),
    "failed attempts": (32_000, ALL + "apikey_fail_limit rate=10r/m burst=20;"),
    "throttled attempts": (48_000, ALL + "apikey_fail_limit rate=1r/m burst=1;"),
}
OFTEN, NEW = 20, 200


def network(number) -> str:
    """An address of the /64 of that number."""
    return f"2001:db8:{number >> 16:x}:{number & 0xffff:x}::1"


def request_of(kind):
    if kind == "a variable":
        return lambda number: get(f"/flood?t={number}")
    if kind == "addresses":
        return lambda number: get("/flood", f"X-Real-IP: {network(number)}")
    wrong = f"X-API-Key: {make_key(random.Random(5))}"
    each = 3 if kind == "throttled attempts" else 1
    return lambda number: get("/flood", f"X-Real-IP: {network(number // each)}", wrong)


@pytest.fixture(name="customers", scope="module")
def _customers(stage):
    """Keys of owners of their own: OFTEN ones with 100r/s and a burst of 200, and three times NEW ones with 10/h."""
    numbers = random.Random(7)
    stage.registry.plan("often", rate="100/s", burst=200)
    stage.registry.plan("seldom", rate="10/h", burst=10)
    keys = {plan: [make_key(numbers) for _ in range(count)] for plan, count in (("often", OFTEN), ("seldom", 3 * NEW))}
    rows = [f"{key},{plan}-{number},{plan}" for plan in keys for number, key in enumerate(keys[plan])]
    stage.registry.run("import", "-", "--format", "csv", "--create-owners",
                       stdin="\n".join(["key,owner,plan", *rows]))
    return keys


@pytest.fixture(name="start")
def _start(stage):
    """start(location /flood) → nginx with the smallest zone, in which nobody has come yet."""
    started = []

    def start(flooded, *, more=""):
        server = stage.nginx(f"location /flood {{ {flooded} access_log off; }} location / {{ {ALL} }} {more}",
                             http="apikey_zone zone=apikey:1m; keepalive_requests 1000000;", server=REAL_IP,
                             log_level="error")
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


def first_answers(server, keys, path="/"):
    """What a full bucket says of the first request of each, and what else was answered."""
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(b"".join(get(path, f"X-API-Key: {key}") for key in keys))
        text = b""
        while text.count(b"\r\n\r\n") < len(keys):
            data = connection.recv(65536)
            assert data, text[-300:]
            text += data
    return set(re.findall(rb"HTTP/1\.1 (\d+) .*?X-RateLimit-Remaining: (\d+)", text, re.S))


@pytest.mark.parametrize("kind", FLOODS)
def test_keys_keep_what_is_theirs(start, customers, kind):
    count, location = FLOODS[kind]
    server = start(location)
    waves = [customers["seldom"][i * NEW:(i + 1) * NEW] for i in range(3)]
    with Flood(server.port, request_of(kind), count) as flood:
        assert first_answers(server, waves[0]) == {(b"200", b"9")}, "new ones, while it begins"
        wait_until(lambda: server.metric("apikey_zone_client_forced_evictions_total") > 0, 30, "a full table")
        assert first_answers(server, customers["often"]) == {(b"200", b"199")}, "during the flood"
        assert first_answers(server, waves[1]) == {(b"200", b"9")}, "new ones, during the flood"
        flood.wait()
    assert first_answers(server, customers["often"]) <= {(b"200", b"199"), (b"200", b"198")}, "after the flood"
    assert first_answers(server, waves[2]) == {(b"200", b"9")}, "new ones, after the flood"
    assert server.metric("apikey_zone_forced_evictions_total") == 0
    assert server.metric("apikey_zone_slots_used") <= OFTEN + 3 * NEW


def test_a_flood_of_failures_locks_no_good_key_out(start, customers):
    """block=all refuses an address for its own failures, never because others have filled the table."""
    server = start(ALL + "apikey_fail_limit rate=1r/h burst=1;",
                   more=f"location /blocking {{ {ALL} apikey_fail_limit rate=1r/h burst=1 block=all; }}")
    with Flood(server.port, request_of("failed attempts"), 32_000) as flood:
        flood.wait()
        for number in range(OFTEN):
            address = {"X-Real-IP": network(1_000_000 + number)}
            assert server.status("/blocking", key=customers["often"][number], headers=address) == 200
    # And for its own it does, whatever room there is.
    address = {"X-Real-IP": network(2_000_000)}
    assert server.status("/blocking", key=make_key(random.Random(9)), headers=address) in (401, 429)
    assert server.status("/blocking", key=customers["often"][0], headers=address) == 429


def test_who_is_pushed_out_gets_no_more(start):
    """All the time one value is asked for, and all the time others push it out: it gets its burst, once."""
    limit = "apikey_limit rate=1r/h burst=5 by=$arg_t name=few;"
    server = start(ANYBODY + limit, more=f"location /few {{ {ANYBODY} {limit} }}")
    statuses = []
    # Each of the others comes twice, so that one of them owes more than the value does after its first request.
    with Flood(server.port, lambda number: get(f"/flood?t={number // 2}"), 60_000) as flood:
        while flood.answered < 60_000:
            statuses.append(server.status("/few?t=me"))
    assert server.metric("apikey_zone_client_forced_evictions_total") > 1000
    assert 0 < statuses.count(200) <= 5
    assert set(statuses) == {200, 429}


def test_a_newcomer_waits_no_longer_than_its_own_limit_says(start):
    server = start(FLOODS["a variable"][1], more=f"location /own {{ {ANYBODY} apikey_limit rate=1r/s burst=3 by=$arg_t; }}")
    with Flood(server.port, request_of("a variable"), 60_000) as flood:
        flood.wait()
    answers = [server.get(f"/own?t={number}") for number in range(20)]
    assert {answer.status_code for answer in answers} == {429}, "exact: each might have been here and used its burst"
    assert {answer.headers["Retry-After"] for answer in answers if answer.status_code == 429} <= {"1", "2"}


def test_what_was_charged_beyond_the_limit_stays_owed(start):
    """Whoever has overdrawn a limit and was pushed out still owes it all, in every location that has the limit. Limits
    whose costs are never settled do not pay for it."""
    tokens = "apikey_limit rate=1r/s burst=10 by=$arg_t name=tokens;"
    server = start(ANYBODY + "apikey_limit rate=1r/h burst=3 by=$arg_t;",
                   more=f"location /settled {{ {ANYBODY} {tokens} apikey_cost 1 of=tokens response=$arg_cost; }}"
                        f"location /fixed {{ {ANYBODY} {tokens} }}"
                        f"location /other {{ {ANYBODY} apikey_limit rate=1r/s burst=10 by=$arg_t; }}")
    assert server.status("/settled?t=me&cost=3600") == 200
    wait_until(lambda: server.status("/fixed?t=me") == 429, what="the cost to be charged")
    with Flood(server.port, lambda number: get(f"/flood?t={number // 3}"), 90_000) as flood:
        flood.wait()
    for path in ("/fixed?t=me", "/settled?t=me&cost=1"):
        answer = server.get(path)
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) > 3000, path
    answers = [server.get(f"/other?t={number}") for number in range(20)]
    assert {answer.headers["Retry-After"] for answer in answers if answer.status_code == 429} <= {"1", "2"}


@pytest.mark.parametrize("kind", ["a variable", "addresses"])
def test_requests_in_flight_of_many_values_leave_room_for_keys(stage, start, place, kind):
    """Held by a slow answer each, until the table of client-chosen subjects has no room left."""
    (place / "slow").write_bytes(b"." * 100_000)
    by = "by=$arg_t" if kind == "a variable" else ""
    four = "".join(f"apikey_concurrency 1 {by} name=flights-{kind[-4:]}-{number};" for number in range(4))
    stage.registry.plan(f"one {kind}".replace(" ", "-"), "--concurrency", "1", rate="1000/s")
    keys = [stage.registry.key(f"{kind} {number}", plan=f"one {kind}".replace(" ", "-"), publish=False)
            for number in range(5)]
    stage.registry.publish()
    server = start(f'apikey "api" optional; apikey_scope any; {four} root {place}; '
                   "try_files /slow =404; limit_rate 1000;",
                   more=f"location /team {{ {ALL} apikey_concurrency 1 by=owner; }}")
    server.allow_log("apikey_zone")
    held = []
    try:
        statuses = []
        while 503 not in statuses and len(held) < 900:
            connection = server.connect()
            held.append(connection)
            number = len(held)
            connection.sendall(get(f"/flood?t={number}", f"X-Real-IP: {network(number)}"))
            statuses.append(int(connection.recv(12, socket.MSG_WAITALL).split()[1]))
        assert statuses.count(503) == 1 and set(statuses) == {200, 503}
        assert [server.status(path, key=key) for key in keys for path in ("/", "/team")] == [200] * 10
    finally:
        for connection in held:
            connection.close()
