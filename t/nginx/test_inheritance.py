"""Directives at http, server and location level: what is inherited, replaced, switched off."""

import pytest


@pytest.fixture
def reader(registry):
    return registry.key("alice", scope="a:read")


def location(upstream, path, inside=""):
    return f"location {path} {{ {inside} proxy_pass {upstream.url}; }}\n"


@pytest.mark.parametrize("level", ["http", "server", "location"])
def test_apikey_may_stand_at_every_level(reader, nginx, upstream, level):
    on = 'apikey "here"; apikey_scope any;'
    server = nginx(location(upstream, "/", on if level == "location" else ""), **(
        {} if level == "location" else {level: on}))
    answer = server.get("/")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'ApiKey realm="here"')
    assert server.status("/", key=reader) == 200


def test_off_inside_on_and_on_inside_off(reader, nginx, upstream):
    server = nginx(location(upstream, "/open", "apikey off;") + location(upstream, "/closed")
                   + location(upstream, "/other", 'apikey "other";'), server='apikey "api"; apikey_scope any;')
    assert [server.status(path) for path in ("/open", "/closed", "/other")] == [200, 401, 401]
    assert server.get("/other").headers["WWW-Authenticate"] == 'ApiKey realm="other"'


def test_nested_locations(reader, nginx, upstream):
    server = nginx(f"""location /a {{
        apikey "a"; apikey_scope a:read;
        location /a/open {{ apikey off; proxy_pass {upstream.url}; }}
        location /a/more {{ apikey_scope a:admin; proxy_pass {upstream.url}; }}
        proxy_pass {upstream.url};
    }}""")
    assert [server.status(path, key=reader) for path in ("/a", "/a/open", "/a/more")] == [200, 200, 403]
    assert [server.status(path) for path in ("/a", "/a/open", "/a/more")] == [401, 200, 401]


def test_scopes_of_an_inner_level_replace_the_outer_ones(reader, nginx, upstream):
    server = nginx(location(upstream, "/inherits") + location(upstream, "/replaces", "apikey_scope a:read;")
                   + location(upstream, "/any", "apikey_scope any;"),
                   server='apikey "api"; apikey_scope never:granted;')
    assert [server.status(path, key=reader) for path in ("/inherits", "/replaces", "/any")] == [403, 200, 200]


def test_sources_of_an_inner_level_replace_the_outer_ones(reader, nginx, upstream):
    server = nginx(location(upstream, "/outer") + location(upstream, "/inner", "apikey_from query:k;"),
                   server='apikey "api"; apikey_scope any; apikey_from header:X-Key bearer;')
    assert server.status("/outer", headers={"X-Key": reader.secret}) == 200
    assert server.status("/outer", headers={"Authorization": f"Bearer {reader.secret}"}) == 200
    assert server.status("/outer", key=reader) == 401
    assert server.status("/inner", headers={"X-Key": reader.secret}) == 401
    assert server.status(f"/inner?k={reader.secret}") == 200
    assert "Bearer" in server.get("/outer").headers["WWW-Authenticate"]
    assert "Bearer" not in server.get("/inner").headers["WWW-Authenticate"]


def test_environments_of_an_inner_level_replace_the_outer_ones(registry, nginx, upstream):
    live, test = registry.key(env="live"), registry.key(env="test")
    server = nginx(location(upstream, "/default") + location(upstream, "/test", "apikey_environment test;")
                   + location(upstream, "/both", "apikey_environment live test;")
                   + location(upstream, "/any", "apikey_environment any;"), server='apikey "api"; apikey_scope any;')
    paths = ("/default", "/test", "/both", "/any")
    assert [server.status(path, key=live) for path in paths] == [200, 403, 200, 200]
    assert [server.status(path, key=test) for path in paths] == [403, 200, 200, 200]


@pytest.mark.parametrize("outer,inner", [("on", "off"), ("off", "on")])
def test_hide(reader, nginx, upstream, outer, inner):
    server = nginx(location(upstream, "/outer") + location(upstream, "/inner", f"apikey_hide {inner};"),
                   server=f'apikey "api"; apikey_scope any; apikey_hide {outer};')
    for path, hidden in (("/outer", outer), ("/inner", inner)):
        assert server.status(path, key=reader) == 200
        assert upstream.last.header("X-API-Key") == (None if hidden == "on" else reader.secret)


def test_error_body_and_detail(registry, nginx, upstream):
    revoked = registry.key()
    registry.revoke(revoked)
    server = nginx(location(upstream, "/problem") + location(upstream, "/nginx", "apikey_error_body nginx;")
                   + location(upstream, "/holder", "apikey_error_detail holder;"),
                   server='apikey "api"; apikey_scope any;')
    assert server.get("/problem").headers["Content-Type"] == "application/problem+json"
    assert server.get("/nginx").headers["Content-Type"] == "text/html"
    assert "revoked" not in server.get("/problem", key=revoked).text.lower()
    assert "revoked" in server.get("/holder", key=revoked).text.lower()


def test_preflight(reader, nginx, upstream):
    server = nginx(location(upstream, "/allow") + location(upstream, "/check", "apikey_preflight check;"),
                   server='apikey "api"; apikey_scope any;')
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "PUT"}
    assert server.request("OPTIONS", "/allow", headers=preflight).status_code == 200
    assert server.request("OPTIONS", "/check", headers=preflight).status_code == 401
    assert server.request("OPTIONS", "/allow").status_code == 401


def test_use_chooses_the_store(registry, nginx, upstream, reader):
    server = nginx(location(upstream, "/default") + location(upstream, "/named", "apikey_use second;")
                   + location(upstream, "/absent", "apikey_use absent;"),
                   http=f"apikey_store {registry.dir}/../node/keys.mdb name=second;"
                        "apikey_store /nonexistent/keys.mdb name=absent;",
                   server='apikey "api"; apikey_scope any;')
    server.wait_for_generation(registry.generation(), store="second")
    assert [server.status(path, key=reader) for path in ("/default", "/named", "/absent")] == [200, 200, 503]


def test_inside_if(reader, nginx, upstream):
    server = nginx(f"""location / {{
        apikey "api"; apikey_scope any;
        if ($arg_open) {{ apikey off; proxy_pass {upstream.url}; }}
        proxy_pass {upstream.url};
    }}""")
    assert [server.status("/"), server.status("/?open=1"), server.status("/", key=reader)] == [401, 200, 200]


def test_log_level(reader, nginx, upstream):
    server = nginx(location(upstream, "/info") + location(upstream, "/notice", "apikey_log_level notice;"),
                   log_level="notice", server='apikey "api"; apikey_scope any;')
    server.status("/info", key="ak_live_wrong")
    server.status("/notice", key="ak_live_wrong")
    server.wait_for_log(r"\[notice\].*apikey: refused")
    assert "[info]" not in server.error_log()
