"""The content handlers apikey_verify (auth_request, forward-auth) and apikey_whoami."""

import pytest


@pytest.fixture(scope="module")
def server(stage):
    registry = stage.registry
    up = stage.upstream.url
    registry.plan("five", rate="5/h", burst=5)
    stage.key = registry.key("alice", name="one", scope=["a:b", "c:d"], expires="2099-01-01T00:00:00Z")
    return stage.nginx(f"""
        apikey_scope any;
        location = /verify   {{ apikey "api"; apikey_verify; }}
        location = /optional {{ apikey "api" optional; apikey_verify; }}
        location = /scoped   {{ apikey "api"; apikey_scope x:y; apikey_verify; }}
        location = /query    {{ apikey "api"; apikey_from query:api_key; apikey_verify; }}
        location = /whoami   {{ apikey "api"; apikey_whoami; }}
        location = /guarded-verify {{ apikey "api"; deny all; apikey_verify; }}
        location /app {{
            auth_request /verify;
            auth_request_set $who $sent_http_x_apikey_owner;
            proxy_pass {up}; proxy_set_header X-Who $who; proxy_set_header X-Id $apikey_id;
        }}
        location /scoped-app {{ auth_request /scoped; proxy_pass {up}; }}
        location /query-app  {{ auth_request /query; proxy_pass {up}; }}
        location /twice {{ apikey "api"; auth_request /verify; proxy_pass {up}; }}
    """)


@pytest.fixture
def key(stage, server):
    made = stage.registry.key("bob", plan="five")
    server.wait_for_generation(stage.registry.generation())
    return made


def test_verify_tells_who_it_is(server, stage):
    answer = server.get("/verify", key=stage.key)
    assert (answer.status_code, answer.content) == (200, b"")
    headers = {name: value for name, value in answer.headers.items() if name.startswith("x-apikey-")}
    plan = {"x-apikey-plan": headers["x-apikey-plan"]} if "x-apikey-plan" in headers else {}
    assert headers == {"x-apikey-id": stage.key.id, "x-apikey-owner": "alice", "x-apikey-name": "one",
                       "x-apikey-env": "live", "x-apikey-scopes": "a:b c:d", **plan}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
def test_verify_takes_any_method(server, stage, method):
    assert server.request(method, "/verify", key=stage.key).status_code == 200


def test_verify_refuses_as_the_access_phase_does(server, stage):
    answer = server.get("/verify")
    assert answer.status_code == 401
    assert answer.headers.get_list("WWW-Authenticate") == ['ApiKey realm="api"']
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert server.get("/scoped", key=stage.key).json()["required_scopes"] == ["x:y"]


def test_verify_of_an_anonymous_request_names_nobody(server):
    answer = server.get("/optional")
    assert answer.status_code == 200
    assert not any(name.startswith("x-apikey-") for name in answer.headers)


def test_verify_charges_once(server, key):
    answers = [server.get("/verify", key=key) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[0].headers["X-RateLimit-Remaining"] == "4"
    assert int(answers[5].headers["Retry-After"]) >= 1


def test_verify_comes_after_other_access_rules(server, key):
    assert server.status("/guarded-verify", key=key) == 403
    assert server.get("/verify", key=key).headers["X-RateLimit-Remaining"] == "4"


def test_auth_request(server, stage, key):
    stage.upstream.clear()
    answer = server.get("/app", key=key)
    assert answer.status_code == 200
    seen = stage.upstream.last
    assert (seen.header("X-Who"), seen.header("X-Id"), seen.header("X-API-Key")) == ("bob", key.id, None)
    assert answer.headers["X-RateLimit-Remaining"] == "4"


def test_auth_request_refuses(server, stage):
    stage.upstream.clear()
    answer = server.get("/app")
    assert answer.status_code == 401
    assert answer.headers.get_list("WWW-Authenticate") == ['ApiKey realm="api"']
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert server.get("/scoped-app", key=stage.key).status_code == 403
    assert stage.upstream.requests == []


def test_auth_request_reads_the_clients_query(server, stage):
    stage.upstream.clear()
    assert server.status(f"/query-app?a=1&api_key={stage.key.secret}") == 200
    assert stage.upstream.last.path == "/query-app?a=1"
    assert server.status("/query-app?a=1") == 401


def test_auth_request_beside_apikey_is_charged_once(server, key):
    assert server.get("/twice", key=key).headers["X-RateLimit-Remaining"] == "4"
    assert server.get("/verify", key=key).headers["X-RateLimit-Remaining"] == "3"


def test_whoami(server, stage):
    answer = server.get("/whoami", key=stage.key)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    said = answer.json()
    said.pop("plan")
    assert said == {"id": stage.key.id, "name": "one", "owner": "alice", "env": "live", "scopes": ["a:b", "c:d"],
                    "not_before": None, "expires": 4070908800, "limits": [],
                    "generation": int(server.metric("apikey_snapshot_generation"))}


def test_whoami_charges_nothing(server, key):
    for _ in range(8):
        limits = server.get("/whoami", key=key).json()["limits"]
        assert [(limit["limit"], limit["remaining"], limit["reset"]) for limit in limits] == [(5, 5, 0)]
    assert server.status("/verify", key=key) == 200
    left = server.get("/whoami", key=key).json()["limits"][0]
    assert (left["remaining"], left["reset"] > 0) == (4, True)


def test_whoami_refuses(server):
    assert server.status("/whoami") == 401
    assert server.status("/whoami", key="ak_live_bad") == 401
    assert server.request("DELETE", "/whoami").status_code == 405


def test_whoami_head(server, stage):
    head = server.request("HEAD", "/whoami", key=stage.key)
    assert head.status_code == 200 and head.content == b""
    assert int(head.headers["Content-Length"]) == len(server.get("/whoami", key=stage.key).content)
