"""conf/snippets/apikey-log.conf: one JSON line for each decision, with the `instance` that the client was shown and no key."""

import json
import random

import pytest

from harness.example import apikey_log
from harness.keys import make_key
from harness.waiting import wait_until

UNKNOWN = make_key(random.Random(11))


class Log:
    def __init__(self, path):
        self.path = path

    def text(self):
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def entries(self):
        return [json.loads(line) for line in self.text().splitlines()]

    def of(self, answer):
        """The line of a refusal."""
        instance = answer.json()["instance"]
        return wait_until(lambda: next((each for each in self.entries() if each["instance"] == instance), None),
                          what=f"the line of {instance}")


@pytest.fixture(scope="module")
def log(stage):
    return Log(stage.place / "apikey.log")


@pytest.fixture(scope="module")
def server(stage, log):
    registry, up = stage.registry, stage.upstream.url
    stage.key = registry.key("ac\"me\\ ☃", scope="orders:read", publish=False)
    stage.test_key = registry.key("acme", env="test", scope="orders:read", publish=False)
    stage.slow = registry.key("acme", scope="orders:read", rate="1/h", burst=1, publish=False)
    stage.revoked = registry.key("acme", scope="orders:read")
    registry.revoke(stage.revoked)
    return stage.nginx(f"""
        apikey "api"; apikey_from header:X-API-Key query:api_key; apikey_scope orders:read; add_header X-Id $request_id always;
        location /orders {{ proxy_pass {up}; }}
        location /write  {{ apikey_scope orders:write orders:admin; proxy_pass {up}; }}
        location /open   {{ apikey off; proxy_pass {up}; }}
        location /limited {{ apikey_limit rate=1r/h name=address; apikey "api" optional; proxy_pass {up}; }}
        location /failing {{ apikey_fail_limit rate=1r/h burst=1; proxy_pass {up}; }}
        location /asks   {{ apikey off; auth_request /question; proxy_pass {up}; }}
        location = /question {{ internal; apikey_verify; }}
        location = /verify {{ apikey_verify; }}
        location /absent {{ apikey_use absent; proxy_pass {up}; }}
    """, http=f"apikey_store /nonexistent/apikey/keys.mdb name=absent; {apikey_log(log.path)}", workers=1)


def test_a_request_that_was_let_in(server, stage, log):
    answer = server.get("/orders/7?a=b", key=stage.key, headers={"Origin": "https://shop.example", "Host": "api.example"})
    assert answer.status_code == 200
    entry = wait_until(lambda: next((e for e in log.entries() if e["instance"] == answer.headers["X-Id"]), None),
                       what="the line")
    assert entry.pop("time")[:2] == "20" and entry.pop("seconds") >= 0
    assert entry == {
        "instance": answer.headers["X-Id"], "status": 200, "outcome": "ok", "key": stage.key.id,
        "owner": "ac\"me\\ ☃", "env": "live", "required": "", "limit": "", "remaining": "", "location": "/orders",
        "generation": str(stage.registry.generation()), "address": "127.0.0.1", "scheme": "http", "method": "GET",
        "host": "api.example", "origin": "https://shop.example", "request": "GET /orders/7?a=b HTTP/1.1"}


@pytest.mark.parametrize("path,key,status,expected", [
    ("/orders", None, 401, {"outcome": "missing", "key": "", "owner": "", "env": ""}),
    ("/orders", "revoked", 401, {"outcome": "revoked", "key": "revoked", "owner": "acme", "env": "live"}),
    ("/orders", UNKNOWN, 401, {"outcome": "unknown", "key": "", "owner": ""}),
    ("/orders", "ak_live_bad", 401, {"outcome": "malformed", "key": ""}),
    ("/write", "key", 403, {"outcome": "scope", "key": "key", "required": "orders:write orders:admin",
                            "location": "/write"}),
    ("/orders", "test_key", 403, {"outcome": "wrong_environment", "key": "test_key", "env": "test"}),
    ("/absent", "key", 503, {"outcome": "unavailable", "key": "", "generation": ""}),
])
def test_refusals(server, stage, log, path, key, status, expected):
    known = getattr(stage, key, None) if key else None
    answer = server.get(path, key=known or key)
    assert answer.status_code == status
    entry = log.of(answer)
    assert entry["status"] == status
    for name, value in expected.items():
        assert entry[name] == (getattr(stage, value).id if name == "key" and value else value), name


def test_a_limit_that_is_used_up(server, stage, log):
    assert server.status("/orders", key=stage.slow) == 200
    answer = server.get("/orders", key=stage.slow)
    assert answer.status_code == 429
    entry = log.of(answer)
    assert (entry["outcome"], entry["limit"], entry["key"]) == ("rate_limited", "rate", stage.slow.id)
    server.wait_for_log(rf'refused: rate_limited, key {stage.slow.id}, owner "acme", limit "rate", location "/orders", '
                        rf'request_id {entry["instance"]}')


def test_a_limit_that_refuses_without_a_key_is_named(server, log):
    assert server.status("/limited") == 200
    answer = server.get("/limited")
    assert answer.status_code == 429
    entry = log.of(answer)
    assert (entry["outcome"], entry["limit"], entry["key"]) == ("rate_limited", "address", "")
    server.wait_for_log(rf'refused: rate_limited, limit "address", location "/limited", request_id {entry["instance"]}')


def test_throttled_attempts(server, log):
    server.get("/failing", key=UNKNOWN)
    answer = server.get("/failing", key=UNKNOWN)
    assert answer.status_code == 429
    entry = log.of(answer)
    assert entry["outcome"] == "throttled"
    server.wait_for_log(rf'throttled: too many failed attempts from 127.0.0.1, .*, request_id {entry["instance"]}')


def test_an_unavailable_store_is_logged_with_a_request(server, stage, log):
    entry = log.of(server.get("/absent", key=stage.key))
    line = server.wait_for_log(r'unavailable: store "/nonexistent/apikey/keys.mdb" has no snapshot to decide by, '
                               r"request_id ([0-9a-f]{32}),")
    assert line.group(1) in {each["instance"] for each in log.entries() if each["outcome"] == "unavailable"}
    assert entry["location"] == "/absent"


@pytest.mark.parametrize("path,where", [("/asks", "/question"), ("/verify", "/verify")])
def test_questions_have_the_request_id_of_who_asks(server, stage, log, path, where):
    answer = server.get(path, key=stage.revoked)
    assert answer.status_code == 401
    entry = log.of(answer)
    assert entry["instance"] == answer.headers["X-Id"]
    assert (entry["outcome"], entry["key"], entry["location"]) == ("revoked", stage.revoked.id, where)
    server.wait_for_log(rf'refused: revoked, key {stage.revoked.id}, owner "acme", location "{where}", '
                        rf'request_id {entry["instance"]}')


def test_nothing_is_logged_where_the_module_is_off(server, stage, log):
    assert server.status("/open", key=stage.key) == 200
    log.of(server.get("/orders"))  # a later line
    assert "/open" not in log.text()


def test_no_key_is_in_it_wherever_it_was_sent(server, stage, log):
    for path, key in (("/orders", stage.key), ("/write", stage.key), ("/orders", stage.revoked)):
        server.get(f"{path}?api_key={key.secret}", headers={"Origin": key.secret, "Referer": key.secret})
        server.get(path, key=key, headers={"Origin": f"https://{key.secret}.example"})
    log.of(server.get(f"/orders?api_key={UNKNOWN}", headers={"Origin": UNKNOWN}))
    for secret in (stage.key.secret, stage.revoked.secret, UNKNOWN):
        assert secret not in log.text() and secret[-30:] not in log.text()


def test_hostile_bytes_leave_each_line_whole(server, stage, log):
    server.raw(b'GET /orders/"x\x1b[31m\xff HTTP/1.1\r\nHost: a\r\nOrigin: "\\\x01"\r\nConnection: close\r\n\r\n')
    log.of(server.get("/orders"))
    assert all(isinstance(entry["instance"], str) for entry in log.entries())
