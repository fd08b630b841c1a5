"""Requests in flight: counted over all workers, and let go of however a request ends."""

import os
import signal
import socket

import pytest

from harness.waiting import wait_until


class Holding:
    """An upstream that answers when it is told to."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.settimeout(10)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def accept(self):
        connection, _ = self._listener.accept()
        connection.settimeout(10)
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += connection.recv(65536)
        return connection

    def close(self):
        self._listener.close()


@pytest.fixture(name="holding")
def _holding():
    upstream = Holding()
    yield upstream
    upstream.close()


def answer(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    connection.close()


def start(server, holding, key, path="/"):
    """A request that is at the upstream. RETURNS: (the client's connection, the upstream's)."""
    client = server.connect()
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key.secret}\r\n\r\n".encode())
    return client, holding.accept()


def status_of(client):
    return int(client.recv(65536).split()[1])


@pytest.fixture(name="two_at_once")
def _two_at_once(registry, nginx, holding):
    registry.plan("two", "--concurrency", "2")
    key = registry.key(plan="two")
    server = nginx(f'location / {{ apikey "api"; apikey_scope any; proxy_pass {holding.url}; }}'
                   'location = /me { apikey "api"; apikey_whoami; }', workers=2)
    server.allow_log(r"exited on signal 9")
    return server, holding, key


def left(server, key):
    return server.get("/me", key=key).json()["limits"][0]["remaining"]


def test_one_too_many_is_refused_and_an_answer_makes_room(two_at_once):
    server, holding, key = two_at_once
    held = [start(server, holding, key) for _ in range(2)]
    refused = server.get(key=key)
    assert refused.status_code == 429
    assert refused.json()["type"] == "urn:apikey:problem:concurrency-limited" and refused.json()["limit"] == "concurrency"
    assert refused.headers["Retry-After"] == "1"
    assert (refused.headers["X-RateLimit-Limit"], refused.headers["X-RateLimit-Remaining"]) == ("2", "0")
    answer(held[0][1])
    assert status_of(held[0][0]) == 200
    wait_until(lambda: left(server, key) == 1, what="room for one more")
    again = start(server, holding, key)
    assert server.status(key=key) == 429
    for client, connection in (held[1], again):
        answer(connection)
        assert status_of(client) == 200
    wait_until(lambda: left(server, key) == 2, what="nobody in flight")


def test_a_client_that_goes_away_makes_room(two_at_once):
    server, holding, key = two_at_once
    for client, _ in [start(server, holding, key) for _ in range(2)]:
        client.close()
    wait_until(lambda: left(server, key) == 2, what="nobody in flight")


def test_an_upstream_that_fails_makes_room(two_at_once):
    server, holding, key = two_at_once
    server.allow_log(r"upstream prematurely closed")
    client, connection = start(server, holding, key)
    connection.close()
    assert status_of(client) == 502
    wait_until(lambda: left(server, key) == 2, what="nobody in flight")


def test_a_refused_request_holds_nothing(registry, nginx, holding):
    registry.plan("narrow", "--concurrency", "2", rate="1/h", burst=1)
    key = registry.key(plan="narrow")
    server = nginx(f'location / {{ apikey "api"; apikey_scope any; proxy_pass {holding.url}; }}'
                   'location = /me { apikey "api"; apikey_whoami; }')
    client, connection = start(server, holding, key)
    assert [server.status(key=key) for _ in range(5)] == [429] * 5
    remaining = {limit["name"]: limit["remaining"] for limit in server.get("/me", key=key).json()["limits"]}
    assert remaining == {"concurrency": 1, "rate": 0}
    answer(connection)
    assert status_of(client) == 200


def test_a_killed_worker_lets_go_of_all_it_held(two_at_once):
    server, holding, key = two_at_once
    held = [start(server, holding, key) for _ in range(2)]
    old = server.workers()
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(server.workers()) == 2 and not set(server.workers()) & set(old), what="new workers")
    wait_until(lambda: left(server, key) == 2, what="what the dead held is let go of")
    for client, connection in held:
        client.close()
        connection.close()
    again = [start(server, holding, key) for _ in range(2)]
    assert server.status(key=key) == 429
    for client, connection in again:
        answer(connection)
        assert status_of(client) == 200


def test_a_killed_worker_does_not_let_go_for_the_living(registry, nginx, holding):
    registry.plan("many", "--concurrency", "20")
    key = registry.key(plan="many")
    server = nginx(f'location / {{ apikey "api"; apikey_scope any; proxy_pass {holding.url}; }}'
                   'location = /me { apikey "api"; apikey_whoami; }', workers=4)
    server.allow_log(r"exited on signal 9")
    held = [start(server, holding, key) for _ in range(16)]
    assert left(server, key) == 4
    killed = server.workers()[0]
    os.kill(killed, signal.SIGKILL)
    # Once it is reaped its connections are closed.
    wait_until(lambda: killed not in server.workers() and len(server.workers()) == 4, what="a worker in its place")

    def is_open(client):
        client.setblocking(False)
        try:
            return client.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        finally:
            client.setblocking(True)

    wait_until(lambda: left(server, key) == 20 - sum(is_open(client) for client, _ in held),
               what="the room that the dead worker's requests took, and no more")
    for client, connection in held:
        if is_open(client):
            answer(connection)
            assert status_of(client) == 200
    wait_until(lambda: left(server, key) == 20, what="nobody in flight")


def test_it_is_kept_over_a_reload(two_at_once):
    server, holding, key = two_at_once
    held = [start(server, holding, key) for _ in range(2)]
    server.reload(wait_for_old=False)
    assert server.status(key=key) == 429
    for client, connection in held:
        answer(connection)
        assert status_of(client) == 200
    wait_until(lambda: left(server, key) == 2, what="nobody in flight")


def test_of_a_location(registry, nginx, holding):
    key, other = registry.key(), registry.key()
    server = nginx(f'location /key {{ apikey "api"; apikey_scope any; apikey_concurrency 1; proxy_pass {holding.url}; }}'
                   f'location /owner {{ apikey "api"; apikey_scope any; apikey_concurrency 1 by=owner name=team; '
                   f"proxy_pass {holding.url}; }}")
    first = start(server, holding, key, "/key")
    assert server.status("/key", key=key) == 429
    second = start(server, holding, other, "/key")
    third = start(server, holding, key, "/owner")
    refused = server.get("/owner", key=other)
    assert (refused.status_code, refused.json()["limit"]) == (429, "team")
    for client, connection in (first, second, third):
        answer(connection)
        assert status_of(client) == 200


BESIDE = {
    "without a name": "apikey_limit rate=1000r/s burst=1000; apikey_concurrency 2;",
    "by owner without a name": "apikey_limit rate=1000r/s burst=1000 by=owner; apikey_concurrency 2 by=owner;",
    "of one name": "apikey_limit rate=1000r/s burst=1000 name=a; apikey_concurrency 2 name=a;",
    "of one name, by a variable": "apikey_limit rate=1000r/s by=$arg_t name=a; apikey_concurrency 2 by=$arg_t name=a;",
    "of one name, the other way round": "apikey_concurrency 2 name=a; apikey_limit rate=1000r/s burst=1000 name=a;",
    "with another rate between them":
        "apikey_limit rate=1000r/s burst=1000 name=a; apikey_limit rate=900r/s name=b; apikey_concurrency 2 name=a;",
}


@pytest.mark.parametrize("name", BESIDE)
def test_beside_a_rate_it_is_a_counter_of_its_own(registry, nginx, holding, name):
    """Kind is part of what a counter is: both are enforced, and each request is charged once."""
    key = registry.key()
    server = nginx(f'location / {{ apikey "api"; apikey_scope any; {BESIDE[name]} proxy_pass {holding.url}; }}', workers=2)
    held = [start(server, holding, key, "/?t=x") for _ in range(2)]
    refused = [server.get("/?t=x", key=key) for _ in range(3)]
    assert [answer.json()["type"] for answer in refused] == ["urn:apikey:problem:concurrency-limited"] * 3
    for client, connection in held:
        answer(connection)
        assert status_of(client) == 200


def test_a_redirected_request_takes_from_both_kinds_once(registry, nginx):
    key = registry.key()
    both = "apikey_limit rate=1r/h burst=3 name=a; apikey_concurrency 1 name=a;"
    server = nginx(f'location /start {{ apikey "api"; apikey_scope any; {both} try_files /none @there; }}'
                   f'location @there {{ apikey "api"; apikey_scope any; {both} empty_gif; }}', workers=1)
    answers = [server.get("/start", key=key) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["type"] == "urn:apikey:problem:rate-limited"


def test_of_the_key_beside_a_rate_of_its_plan(registry, nginx, holding):
    """A limit of a key replaces its plan's of the same kind and name, not one that only has the same name."""
    registry.plan("both", "--rate", "api=3/h", "--burst", "api=3")
    key = registry.key("alice", "--concurrency", "api=1", plan="both")
    server = nginx(f'location / {{ apikey "api"; apikey_scope any; proxy_pass {holding.url}; }}'
                   'location /free/ { apikey "api"; apikey_scope any; empty_gif; }'
                   'location = /me { apikey "api"; apikey_whoami; }')
    client, connection = start(server, holding, key)
    assert server.get("/free/", key=key).json()["type"] == "urn:apikey:problem:concurrency-limited"
    limits = {limit["kind"]: limit["remaining"] for limit in server.get("/me", key=key).json()["limits"]}
    assert limits == {"rate": 2, "concurrency": 0}
    answer(connection)
    assert status_of(client) == 200
    wait_until(lambda: server.status("/free/", key=key) == 200, what="the end of the first")
    assert [server.status("/free/", key=key) for _ in range(2)] == [200, 429], "the plan's rate is enforced as well"
    assert [(limit["name"], limit["from"]) for limit in registry.json("key", "show", key.id)["effective_limits"]] == \
        [("api", "key"), ("api", "plan:both")]
