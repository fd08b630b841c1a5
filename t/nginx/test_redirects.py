"""One client request that passes through several locations: what is remembered, what is decided anew."""

import pytest


@pytest.fixture(scope="module")
def server(stage):
    registry = stage.registry
    up = stage.upstream.url
    registry.plan("five", rate="5/h", burst=5)
    stage.second = type(registry)(stage.place / "second")
    stage.here = registry.key("alice")
    stage.there = stage.second.key("bob")
    html = stage.place / "html"
    html.mkdir()
    (html / "index.html").write_text("index")
    stage.upstream.answers["/accel"] = (200, {"X-Accel-Redirect": "/inside/file"}, b"")
    stage.upstream.answers["/accel-scoped"] = (200, {"X-Accel-Redirect": "/scoped/file"}, b"")
    front = stage.nginx(f"""
        root {html};
        apikey "api"; apikey_scope any; apikey_use first;
        add_header V-Status $apikey_status always;
        add_header V-Id $apikey_id always;
        location /chain    {{ rewrite ^ /chain2 last; }}
        location /chain2   {{ try_files /none /chain3; }}
        location /chain3   {{ error_page 418 = @chain4; return 418; }}
        location @chain4   {{ proxy_pass {up}; }}
        location = /       {{ index index.html; }}
        location = /index.html {{ }}
        location /to-off   {{ try_files /none @off; }}
        location @off      {{ apikey off; proxy_pass {up}; proxy_set_header X-Id $apikey_id; }}
        location /accel    {{ proxy_pass {up}; }}
        location /accel-scoped {{ proxy_pass {up}; }}
        location /inside/  {{ internal; proxy_pass {up}; }}
        location /scoped/  {{ internal; apikey_scope a:b; proxy_pass {up}; }}
        location /to-scoped {{ try_files /none @scoped; }}
        location @scoped   {{ apikey_scope a:b; proxy_pass {up}; }}
        location /to-second {{ apikey "api" optional; try_files /none @second; }}
        location @second   {{ apikey_use second; proxy_pass {up}; }}
        location /first-then-second {{ try_files /none @second; }}
        location /other-source {{ apikey "api" optional; try_files /none @query; }}
        location @query    {{ apikey_from query:api_key; proxy_pass {up}; }}
        location /shown-then-hidden {{ apikey_hide off; try_files /none @hidden; }}
        location @hidden   {{ proxy_pass {up}; }}
    """, store=f"{registry.snapshot} name=first", http=f"apikey_store {stage.second.snapshot} name=second;")
    front.wait_for_generation(registry.generation(), store="first")
    front.wait_for_generation(stage.second.generation(), store="second")
    return front


@pytest.fixture
def key(stage, server):
    made = stage.registry.key(plan="five")
    server.wait_for_generation(stage.registry.generation(), store="first")
    return made


def remaining(server, key):
    count = 0
    while server.get("/index.html", key=key).status_code == 200:
        count += 1
        assert count < 20
    return count


@pytest.mark.parametrize("path", ["/chain", "/", "/to-off", "/accel", "/to-scoped"])
def test_charged_once(server, stage, path):
    key = stage.registry.key(plan="five", scope="a:b")
    server.wait_for_generation(stage.registry.generation(), store="first")
    answer = server.get(path, key=key)
    assert answer.status_code == 200
    assert (answer.headers["V-Status"], answer.headers["V-Id"]) == ("ok", key.id)
    assert answer.headers.get_list("X-RateLimit-Remaining") == ["4"]
    assert remaining(server, key) == 4


def test_an_identity_reaches_a_location_that_is_off(server, stage, key):
    stage.upstream.clear()
    assert server.status("/to-off", key=key) == 200
    assert stage.upstream.last.header("X-Id") == key.id
    assert stage.upstream.last.header("X-API-Key") is None


@pytest.mark.parametrize("path", ["/to-scoped", "/accel-scoped"])
def test_a_later_location_decides_for_itself(server, key, path):
    answer = server.get(path, key=key)
    assert answer.status_code == 403
    assert (answer.headers["V-Status"], answer.headers.get("V-Id", "")) == ("scope", "")
    assert answer.json()["required_scopes"] == ["a:b"]
    assert server.metric("apikey_requests_total", outcome="scope") >= 1


def test_a_later_location_may_use_another_store(server, stage):
    assert server.status("/to-second", key=stage.there) == 401  # unknown in the first: a bad key is not anonymous
    assert server.status("/first-then-second", key=stage.here) == 401  # unknown in the second
    answer = server.get("/first-then-second", key=stage.here)
    assert answer.headers["V-Status"] == "unknown"


def test_a_key_that_both_stores_know(server, stage):
    stage.second.run("import", "-", "--format", "csv", stdin=f"key,owner\n{stage.here.secret},bob\n")
    server.wait_for_generation(stage.second.generation(), store="second")
    stage.upstream.clear()
    answer = server.get("/first-then-second", key=stage.here)
    assert answer.status_code == 200
    assert answer.headers["V-Id"] not in ("", stage.here.id)  # who it is in the second
    assert stage.upstream.last.header("X-API-Key") is None


def test_a_later_location_may_read_another_source(server, stage):
    assert server.status(f"/other-source?api_key={stage.here.secret}&a=1") == 200
    assert stage.upstream.last.path == "/other-source?a=1"
    assert server.status("/other-source") == 401


def test_a_later_location_hides_what_the_first_left(server, stage):
    stage.upstream.clear()
    assert server.status("/shown-then-hidden", key=stage.here) == 200
    assert stage.upstream.last.header("X-API-Key") is None


def test_counted_once(server, stage):
    before = server.metric("apikey_requests_total", outcome="ok")
    assert server.status("/chain", key=stage.here) == 200
    assert server.metric("apikey_requests_total", outcome="ok") == before + 1
