"""Identity variables where nginx itself uses them before our access phase: limit_req, limit_conn, map, set, if."""

import threading

import pytest

from harness.waiting import wait_until


@pytest.fixture
def keys(registry):
    return {"alice": registry.key("alice", publish=False), "alice2": registry.key("alice", publish=False),
            "bob": registry.key("bob")}


def test_limit_req_by_owner(registry, nginx, upstream, keys):
    server = nginx(f"""location / {{
        apikey "api"; apikey_scope any; limit_req zone=owners burst=1 nodelay; limit_req_status 430;
        proxy_pass {upstream.url};
    }}""", http="limit_req_zone $apikey_owner zone=owners:1m rate=1r/m;")
    assert [server.status(key=keys["alice"]) for _ in range(3)] == [200, 200, 430]
    assert server.status(key=keys["alice2"]) == 430, "another key of the same owner shares the limit"
    assert server.status(key=keys["bob"]) == 200
    # An empty value is not limited by limit_req; the access phase refuses it.
    assert [server.status() for _ in range(4)] == [401] * 4
    assert [server.status(key="ak_live_wrong") for _ in range(4)] == [401] * 4


def test_limit_req_logs_no_key(registry, nginx, upstream, keys):
    server = nginx(f"""location / {{
        apikey "api"; apikey_scope any; apikey_from query:api_key; limit_req zone=owners; limit_req_status 430;
        proxy_pass {upstream.url};
    }}""", http="limit_req_zone $apikey_owner zone=owners:1m rate=1r/m;")
    secret = keys["alice"].secret
    statuses = [server.status(f"/?a=1&api_key={secret}&b=2") for _ in range(2)]
    assert statuses == [200, 430]
    server.wait_for_log("limiting requests")
    assert secret not in server.error_log()
    assert secret not in server.access_log_path.read_text()


def test_limit_conn_by_key(registry, nginx, upstream, keys, place):
    server = nginx(f"""location / {{
        apikey "api"; apikey_scope any; limit_conn keys 1; limit_conn_status 430;
        proxy_pass {upstream.url};
    }}""", http="limit_conn_zone $apikey_id zone=keys:1m;")
    entered, leave = threading.Event(), threading.Event()

    class SlowAnswer:
        """Unpacked by the upstream when it answers: holds the request until the test lets it go."""

        def __iter__(self):
            entered.set()
            assert leave.wait(20)
            return iter((200, {}, b"slow"))

    upstream.answers["/slow"] = SlowAnswer()
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(server.status("/slow", key=keys["alice"])))
    thread.start()
    try:
        assert entered.wait(10)
        assert server.status("/fast", key=keys["alice"]) == 430
        assert server.status("/fast", key=keys["alice2"]) == 200
    finally:
        leave.set()
        thread.join(20)
    assert statuses == [200]
    wait_until(lambda: server.status("/fast", key=keys["alice"]) == 200, what="the connection's slot to be free")


def test_map_set_and_if(registry, nginx, upstream):
    registry.plan("gold", rate="100/s")
    gold = registry.key("alice", plan="gold", publish=False)
    plain = registry.key("bob")
    server = nginx(f"""location / {{
        apikey "api"; apikey_scope any;
        set $who "$apikey_owner/$apikey_plan";
        if ($apikey_owner = bob) {{ set $is_bob yes; }}
        proxy_set_header X-Pool $pool; proxy_set_header X-Who $who; proxy_set_header X-Bob $is_bob;
        proxy_pass {upstream.url};
    }}""", http="map $apikey_plan $pool { gold fast; default slow; }")
    assert server.status(key=gold) == 200
    assert upstream.last.header("X-Pool") == "fast"
    assert upstream.last.header("X-Who") == "alice/gold"
    assert upstream.last.header("X-Bob") is None
    assert server.status(key=plain) == 200
    assert upstream.last.header("X-Pool") == "slow"
    assert upstream.last.header("X-Who") == "bob/default"
    assert upstream.last.header("X-Bob") == "yes"


def test_reading_a_variable_early_charges_nothing_twice(registry, nginx, upstream):
    key = registry.key(rate="3/h", burst=3)
    server = nginx(f"""location / {{
        apikey "api"; apikey_scope any; set $early "$apikey_id$apikey_status"; limit_req zone=owners burst=100 nodelay;
        proxy_pass {upstream.url};
    }}""", http="limit_req_zone $apikey_owner zone=owners:1m rate=100r/s;")
    assert [server.status(key=key) for _ in range(4)] == [200, 200, 200, 429]


def test_an_early_variable_does_not_let_the_key_through(registry, nginx, upstream, keys):
    server = nginx(f"""location / {{
        apikey "api"; apikey_scope any; set $early $apikey_owner; proxy_pass {upstream.url}; mirror /mirror;
    }}
    location = /mirror {{ internal; proxy_pass {upstream.url}; }}""")
    assert server.status(key=keys["alice"]) == 200
    wait_until(lambda: len(upstream.requests) == 2, what="request and mirror at the upstream")
    assert all(keys["alice"].secret not in seen.text() for seen in upstream.requests)


def test_client_cannot_set_identity(registry, nginx, upstream, keys):
    server = nginx(f"""location / {{
        apikey "api" optional; apikey_scope any; proxy_set_header X-Owner $apikey_owner; proxy_pass {upstream.url};
    }}""")
    forged = {"apikey_owner": "root", "Apikey-Owner": "root", "X-Apikey-Owner": "root", "X-Owner": "root"}
    assert server.status("/?apikey_owner=root", headers=forged) == 200
    assert upstream.last.header("X-Owner") is None
    assert server.last_logged()["owner"] == ""
