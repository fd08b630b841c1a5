"""apikey_dry_run: what it names is decided, counted, logged, and let pass."""

import random

import pytest

from harness.keys import make_key

WRONG = make_key(random.Random(8))


@pytest.fixture(name="serve")
def _serve(registry, nginx, upstream):
    registry.plan("small", rate="1/h", burst=1)
    keys = {"small": registry.key(plan="small", scope="a:read"), "other": registry.key(scope="b:read")}

    def serve(mode):
        server = nginx(f'location / {{ apikey "api"; apikey_scope a:read; apikey_dry_run {mode}; apikey_log_level warn; '
                       f"proxy_pass {upstream.url}; proxy_set_header X-Owner $apikey_owner; }}")
        return server, keys

    return serve


def outcomes(server, count):
    return [entry["outcome"] for entry in server.logged(count)]


def test_limits(serve, upstream):
    server, keys = serve("limits")
    assert [server.status(key=keys["small"]) for _ in range(3)] == [200] * 3
    assert outcomes(server, 3) == ["ok", "rate_limited_dry_run", "rate_limited_dry_run"]
    assert upstream.last.header("X-Owner") == "tester", "it is who it is"
    assert server.status(key=keys["other"]) == 403
    assert server.status(key=WRONG) == 401
    assert server.metric("apikey_requests_total", outcome="rate_limited_dry_run") == 2
    assert server.metric("apikey_limited_total") == 0
    assert server.error_log().count("apikey: let pass: rate_limited_dry_run, key " + keys["small"].id) == 2


def test_scopes(serve):
    server, keys = serve("scopes")
    assert server.status(key=keys["other"]) == 200
    assert [server.status(key=keys["small"]) for _ in range(2)] == [200, 429]
    assert outcomes(server, 3) == ["scope_dry_run", "ok", "rate_limited"]


def test_everything(serve, upstream):
    server, keys = serve("on")
    assert [server.status(key=keys["small"]) for _ in range(2)] == [200, 200]
    assert [server.status(key=keys["other"]), server.status(key=WRONG), server.status()] == [200, 200, 200]
    assert outcomes(server, 5) == ["ok", "rate_limited_dry_run", "scope_dry_run", "unknown_dry_run", "missing_dry_run"]
    assert not upstream.last.header("X-Owner")
    assert WRONG not in upstream.requests[-2].text(), "hidden in dry run too"


def test_the_headers_are_as_if_it_counted(serve):
    server, keys = serve("limits")
    server.get(key=keys["small"])
    passed = server.get(key=keys["small"])
    assert (passed.headers["X-RateLimit-Limit"], passed.headers["X-RateLimit-Remaining"]) == ("1", "0")
    assert "Retry-After" not in passed.headers


def test_one_limit_of_a_plan(registry, nginx, upstream):
    registry.plan("trial", "--quota", "5/day", "--dry-run-limit", "rate", rate="2/h", burst=2)
    key = registry.key(plan="trial")
    server = nginx(f'location / {{ apikey "api"; apikey_scope any; proxy_pass {upstream.url}; }}')
    assert [server.status(key=key) for _ in range(6)] == [200] * 5 + [429]
    assert outcomes(server, 6) == ["ok"] * 2 + ["rate_limited_dry_run"] * 3 + ["quota_exceeded"]
