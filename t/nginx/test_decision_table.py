"""The decision table of docs/design.md, one test per row: status, headers, body, log variables and metric.

All rows share one nginx and one registry. Each row says what the client sends and what everybody must see of it.
"""

import random
from dataclasses import dataclass, field

import pytest

from harness.keys import make_key
from harness.waiting import wait_until

MISSING_STORE = "/nonexistent/apikey/keys.mdb"


@dataclass
class Row:
    outcome: str
    status: int
    path: str = "/open"
    key: str = None  # name of a key of the fixture, or a text
    method: str = "GET"
    headers: dict = field(default_factory=dict)
    identity: bool = False  # $apikey_id is shown
    seen: bool = False  # the key was recognised
    env: str = None  # metric label, when known

    @property
    def name(self):
        return f"{self.outcome}-{self.key or 'none'}{self.path.replace('/', '-')}-{self.method}"


ROWS = [
    Row("off", 200, "/off"),
    Row("off", 200, "/off", key="good"),
    Row("preflight", 200, method="OPTIONS",
        headers={"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}),
    Row("missing", 401),
    Row("missing", 401, method="OPTIONS"),
    Row("anonymous", 200, "/optional"),
    Row("ok", 200, "/optional", key="good", identity=True, seen=True),
    Row("unknown", 401, "/optional", key="stranger"),
    Row("malformed", 401, key="ak_live_short"),
    Row("malformed", 401, key="x" * 257),
    Row("malformed", 401, key="bad-checksum"),
    Row("unavailable", 503, "/no-store", key="good"),
    Row("missing", 401, "/no-store"),
    Row("bypass", 200, "/no-store-open", key="good"),
    Row("unknown", 401, key="stranger"),
    Row("revoked", 401, key="revoked", seen=True),
    Row("suspended", 401, key="suspended", seen=True),
    Row("suspended", 401, key="of-suspended-owner", seen=True),
    Row("not_yet_valid", 401, key="future", seen=True),
    Row("expired", 401, key="expired", seen=True),
    Row("wrong_environment", 403, key="test-env", seen=True, env="test"),
    Row("ok", 200, "/any-env", key="test-env", identity=True, seen=True, env="test"),
    Row("wrong_address", 403, key="elsewhere", seen=True),
    Row("tls_required", 403, key="tls-only", seen=True),
    Row("wrong_origin", 403, key="browser", seen=True),
    Row("wrong_origin", 403, key="browser", headers={"Origin": "https://evil.example"}, seen=True),
    Row("ok", 200, key="browser", headers={"Origin": "https://app.example.com"}, identity=True, seen=True),
    Row("wrong_method", 403, key="posts", seen=True),
    Row("ok", 200, key="posts", method="POST", identity=True, seen=True),
    Row("wrong_host", 403, key="host-bound", seen=True),
    Row("ok", 200, key="host-bound", headers={"Host": "api.example.com"}, identity=True, seen=True),
    Row("scope", 403, "/scoped", key="good", seen=True),
    Row("scope", 403, "/scoped", key="writer", method="DELETE", seen=True),
    Row("ok", 200, "/scoped", key="reader", identity=True, seen=True),
    Row("ok", 200, "/scoped", key="reader", method="HEAD", identity=True, seen=True),
    Row("scope", 403, "/scoped", key="reader", method="POST", seen=True),
    Row("ok", 200, "/scoped", key="writer", method="POST", identity=True, seen=True),
    Row("ok", 200, "/scoped", key="wildcard", identity=True, seen=True),
    Row("rate_limited", 429, key="slow", seen=True),
    Row("ok", 200, key="good", identity=True, seen=True),
    Row("skipped", 200, "/satisfied"),
]


@pytest.fixture(scope="module")
def table(stage):
    registry = stage.registry
    registry.owner("gone")
    keys = {
        "good": registry.key("alice", name="good one", publish=False),
        "revoked": registry.key(publish=False),
        "suspended": registry.key(publish=False),
        "of-suspended-owner": registry.key("gone", publish=False),
        "future": registry.key(not_before="2099-01-01", publish=False),
        "expired": registry.key(expires="1s", publish=False),
        "test-env": registry.key(env="test", publish=False),
        "elsewhere": registry.key(allow_ip=["192.0.2.0/24", "2001:db8::/32"], publish=False),
        "tls-only": registry.key(require_tls=True, publish=False),
        "browser": registry.key(allow_origin="https://app.example.com", publish=False),
        "posts": registry.key(allow_method="POST", publish=False),
        "host-bound": registry.key(allow_host="api.example.com", publish=False),
        "reader": registry.key(scope="orders:read", publish=False),
        "writer": registry.key(scope=["orders:write", "other"], publish=False),
        "wildcard": registry.key(scope="orders:*", publish=False),
        "slow": registry.key(rate="1/h", burst=1, publish=False),
    }
    registry.revoke(keys["revoked"], "--no-publish")
    registry.run("key", "suspend", keys["suspended"].id, "--no-publish")
    registry.run("owner", "suspend", "gone")
    secret = keys["good"].secret
    texts = {name: key.secret for name, key in keys.items()}
    texts["bad-checksum"] = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    # Of the right form, with a right checksum, and never in this registry.
    texts["stranger"] = make_key(random.Random(1))
    server = stage.nginx(f"""
        apikey "api";
        location /open      {{ apikey_scope any; proxy_pass {stage.upstream.url}; }}
        location /off       {{ apikey off; proxy_pass {stage.upstream.url}; }}
        location /optional  {{ apikey "api" optional; apikey_scope any; proxy_pass {stage.upstream.url}; }}
        location /any-env   {{ apikey_environment any; apikey_scope any; proxy_pass {stage.upstream.url}; }}
        location /no-store  {{ apikey_use absent; apikey_scope any; proxy_pass {stage.upstream.url}; }}
        location /no-store-open {{ apikey_use lenient; apikey_scope any; proxy_pass {stage.upstream.url}; }}
        location /satisfied {{
            satisfy any; allow 127.0.0.1; deny all;
            apikey_scope any; proxy_pass {stage.upstream.url};
        }}
        location /scoped {{
            apikey_scope orders:read methods=GET;
            apikey_scope orders:write methods=POST;
            proxy_pass {stage.upstream.url};
        }}
    """, http=f"""
        apikey_store {MISSING_STORE} name=absent;
        apikey_store {MISSING_STORE}.2 name=lenient on_error=allow;
    """)
    assert server.status("/open", key=keys["slow"]) == 200  # its only token
    wait_until(lambda: server.status("/open", key=keys["expired"]) == 401, what="the end of a key's life")
    return server, texts, keys


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name[:60])
def test_row(table, stage, row):
    server, texts, keys = table
    labels = {"outcome": row.outcome}
    before = server.metric("apikey_requests_total", **labels)
    stage.upstream.clear()
    server.clear_access_log()

    answer = server.request(row.method, row.path, key=texts.get(row.key, row.key), headers=row.headers)

    assert answer.status_code == row.status, answer.text
    _check_headers(answer, row)
    _check_body(answer, row)
    assert bool(stage.upstream.requests) == (row.status == 200)
    _check_log(server.logged()[0], row, keys)
    counted = 0 if row.outcome == "off" else 1
    wait_until(lambda: server.metric("apikey_requests_total", **labels) == before + counted,
               what=f"apikey_requests_total{{outcome={row.outcome}}} to grow by {counted} from {before}")
    if row.env:
        assert server.metric("apikey_requests_total", env=row.env, **labels) >= 1


def _check_headers(answer, row):
    challenges = answer.headers.get_list("WWW-Authenticate")
    if row.status == 401:
        assert challenges == ['ApiKey realm="api"']
    elif row.outcome == "scope":
        assert len(challenges) <= 1
    else:
        assert challenges == []
    if row.status in (429, 503):
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["Cache-Control"] == "no-store"
    else:
        assert "Retry-After" not in answer.headers


def _check_body(answer, row):
    if row.status == 200:
        return
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Content-Length"]) > 0
    if row.method == "HEAD":
        return
    problem = answer.json()
    assert problem["status"] == row.status
    assert problem["type"] and problem["title"] and problem["detail"] and problem["instance"]
    if row.outcome == "scope" and row.method == "GET":
        assert "orders:read" in answer.text


def _check_log(entry, row, keys):
    assert entry["outcome"] == row.outcome
    assert entry["status"] == str(row.status)
    key = keys.get(row.key)
    assert entry["id"] == (key.id if row.identity else "")
    assert entry["seen_id"] == (key.id if row.seen else "")
    if row.outcome == "scope" and row.method == "GET":
        assert entry["required"] == "orders:read"
    if row.outcome == "rate_limited":
        assert entry["limit_name"] != "" and entry["remaining"] == "0"


def _without_what_differs(answer):
    headers = [(name, value) for name, value in answer.headers.multi_items() if name.lower() != "date"]
    body = answer.json()
    body.pop("instance")
    return answer.status_code, headers, body


def test_refusals_of_rows_3_5_and_6_are_the_same_for_all_reasons(table):
    server, texts, _ = table
    presented = ["ak_live_short", "x" * 257, texts["bad-checksum"], texts["stranger"], texts["revoked"],
                 texts["suspended"], texts["of-suspended-owner"], texts["future"], texts["expired"]]
    answers = [_without_what_differs(server.get("/open", key=text)) for text in presented]
    assert all(answer == answers[0] for answer in answers), answers


def test_the_same_header_twice_is_malformed(table):
    server, texts, _ = table
    server.clear_access_log()
    twice = [("X-API-Key", texts["good"]), ("X-API-Key", texts["good"])]
    assert server.get("/open", headers=twice).status_code == 401
    assert server.logged()[0]["outcome"] == "malformed"


def test_a_denied_request_costs_nothing(table, stage):
    server, _, _ = table
    key = stage.registry.key(rate="2/h", burst=2, scope="orders:read")
    server.wait_for_generation(stage.registry.generation())
    for _ in range(5):
        assert server.status("/scoped", key=key, headers={"X-Api-Key": key.secret}) == 401  # twice: malformed
        assert server.request("POST", "/scoped", key=key).status_code == 403
    assert [server.status("/scoped", key=key) for _ in range(3)] == [200, 200, 429]
