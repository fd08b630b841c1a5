"""What a refusal looks like: challenge, Retry-After, body, error_page, log line; and the rate headers."""

import re
import socket
import sqlite3

import pytest


@pytest.fixture(scope="module")
def server(stage):
    registry = stage.registry
    up = stage.upstream.url
    stage.key = registry.key("alice", publish=False)
    stage.revoked = registry.key("alice", publish=False)
    stage.suspended = registry.key("alice", publish=False)
    stage.early = registry.key("alice", not_before="2099-01-01", publish=False)
    stage.expired = registry.expired_key("alice", publish=False)
    stage.elsewhere = registry.key("alice", allow_ip="192.0.2.1", publish=False)
    registry.revoke(stage.revoked, "--no-publish")
    registry.run("key", "suspend", stage.suspended.id)
    html = stage.place / "pages"
    html.mkdir()
    (html / "denied.html").write_text("<p>denied</p>")
    stage.upstream.answers["/own-rates"] = (200, {"X-RateLimit-Limit": "7", "X-RateLimit-Remaining": "6",
                                                  "X-RateLimit-Reset": "5"}, b"ok")
    return stage.nginx(rf"""
        apikey "say \"hi\""; apikey_scope any; root {html};
        location /plain    {{ proxy_pass {up}; }}
        location /own-rates {{ proxy_pass {up}; }}
        location /bearer   {{ apikey_from header:X-API-Key bearer; proxy_pass {up}; }}
        location /only-bearer {{ apikey_from bearer; proxy_pass {up}; }}
        location /only-basic {{ apikey_from basic; proxy_pass {up}; }}
        location /only-scheme {{ apikey_from scheme:Token; proxy_pass {up}; }}
        location /only-query {{ apikey_from query:api_key; proxy_pass {up}; }}
        location /header-basic {{ apikey_from header:X-API-Key basic; proxy_pass {up}; }}
        location /schemes  {{ apikey_from bearer scheme:Token cookie:k scheme:apikey; proxy_pass {up}; }}
        location /scoped   {{ apikey_scope a:b c:d; proxy_pass {up}; }}
        location /scoped-bearer {{ apikey_from bearer; apikey_scope a:b c:d; proxy_pass {up}; }}
        location /unlisted {{ apikey_scope a:b methods=POST; proxy_pass {up}; }}
        location /nginx    {{ apikey_error_body nginx; proxy_pass {up}; }}
        location /holder   {{ apikey_error_detail holder; proxy_pass {up}; }}
        location /absent   {{ apikey_use absent; proxy_pass {up}; }}
        location /page     {{ error_page 401 403 /denied.html; proxy_pass {up}; }}
        location /page-ok  {{ error_page 401 =200 /denied.html; proxy_pass {up}; }}
        location /page-away {{ error_page 401 =302 https://login.example/; proxy_pass {up}; }}
        location /page-named {{ error_page 401 @denied; proxy_pass {up}; }}
        location @denied   {{ apikey off; return 401 "named\n"; }}
        location = /denied.html {{ apikey off; }}
        location /quiet    {{ apikey_log_level warn; proxy_pass {up}; }}
        location /no-rates {{ apikey_ratelimit_headers off; proxy_pass {up}; }}
        location /intercepted {{ proxy_intercept_errors off; proxy_pass {up}; }}
    """, http="apikey_store /nonexistent/apikey/keys.mdb name=absent;", workers=1)


REALM = r'realm="say \"hi\""'


@pytest.mark.parametrize("path,key,status,challenge", [
    ("/plain", None, 401, f"ApiKey {REALM}"),
    ("/plain", "ak_live_bad", 401, f"ApiKey {REALM}"),
    ("/bearer", None, 401, f"ApiKey {REALM}, Bearer {REALM}"),
    ("/bearer", "ak_live_bad", 401, f'ApiKey {REALM}, Bearer {REALM}, error="invalid_token"'),
    ("/only-bearer", None, 401, f"Bearer {REALM}"),
    ("/only-basic", None, 401, f"Basic {REALM}"),
    ("/only-scheme", None, 401, f"Token {REALM}"),
    ("/only-query", None, 401, f"ApiKey {REALM}"),
    ("/header-basic", None, 401, f"ApiKey {REALM}"),
    ("/schemes", None, 401, f"Token {REALM}, apikey {REALM}, Bearer {REALM}"),
    ("/scoped", "good", 403, f'ApiKey {REALM}, error="insufficient_scope", scope="a:b c:d"'),
    ("/unlisted", "good", 403, f'ApiKey {REALM}, error="insufficient_scope"'),
])
def test_challenges(server, stage, path, key, status, challenge):
    answer = server.get(path, key=stage.key if key == "good" else key)
    assert answer.status_code == status
    assert answer.headers.get_list("WWW-Authenticate") == [challenge]
    assert answer.headers["Cache-Control"] == "no-store"


def test_challenge_of_a_bearer_without_the_scope(server, stage):
    answer = server.get("/scoped-bearer", headers={"Authorization": f"Bearer {stage.key.secret}"})
    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"].endswith(f'Bearer {REALM}, error="insufficient_scope", scope="a:b c:d"')


def test_the_body_of_a_refusal(server, stage):
    answer = server.get("/scoped", key=stage.key)
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert re.fullmatch("[0-9a-f]{32}", problem.pop("instance"))
    assert problem == {"type": "urn:apikey:problem:scope-missing", "title": "Forbidden", "status": 403,
                       "detail": "The API key lacks a scope that this request needs.",
                       "required_scopes": ["a:b", "c:d"]}


def test_a_method_that_no_scope_line_covers(server, stage):
    """No scope would help, so none is named."""
    answer = server.request("PUT", "/unlisted", key=stage.key)
    problem = answer.json()
    instance = problem.pop("instance")
    assert problem == {"type": "urn:apikey:problem:method-not-covered", "title": "Forbidden", "status": 403,
                       "detail": "No API key may use PUT here."}
    server.wait_for_log(rf'refused: scope .no apikey_scope covers PUT., key {stage.key.id}, owner "alice", '
                        rf'location "/unlisted", request_id {instance}')
    assert server.request("PURGE", "/unlisted", key=stage.key).json()["detail"] == "No API key may use this method here."


def test_the_log_line_names_scopes_and_the_request(server, stage):
    instance = server.get("/scoped", key=stage.key).json()["instance"]
    server.wait_for_log(rf'refused: scope .needs a:b or c:d., key {stage.key.id}, owner "alice", location "/scoped", '
                        rf"request_id {instance}")
    instance = server.get("/plain").json()["instance"]
    server.wait_for_log(rf'refused: missing, location "/plain", request_id {instance}')


def test_the_instance_is_the_request_id_of_the_log(stage):
    front = stage.nginx(f"""location / {{ apikey "api"; apikey_scope any; add_header X-Id $request_id always;
                                          proxy_pass {stage.upstream.url}; }}""")
    answer = front.get("/")
    assert answer.json()["instance"] == answer.headers["X-Id"]


def test_head_says_what_get_would(server):
    head, get = server.request("HEAD", "/plain"), server.get("/plain")
    assert head.status_code == 401 and head.content == b""
    assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(get.content))
    assert head.headers["Content-Type"] == "application/problem+json"


def test_http_1_0_and_keep_alive(server):
    answer = server.raw(b"GET /plain HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /plain HTTP/1.0\r\n\r\n")
    assert answer.count(b"HTTP/1.1 401 ") == 2
    head, _, rest = answer.partition(b"\r\n\r\n")
    length = int(re.search(rb"Content-Length: (\d+)", head).group(1))
    assert rest[length:].startswith(b"HTTP/1.1 401 ")


def test_nginx_own_body(server):
    answer = server.get("/nginx")
    assert answer.status_code == 401 and "<html>" in answer.text
    assert answer.headers["Content-Type"] == "text/html"


@pytest.mark.parametrize("name,detail", [
    ("revoked", "The API key has been revoked."), ("suspended", "The API key is suspended."),
    ("early", "The API key is not valid yet."), ("expired", "The API key has expired."),
    ("elsewhere", "The API key may not be used from this address."),
])
def test_details_for_the_holder(server, stage, name, detail):
    key = getattr(stage, name)
    assert server.get("/holder", key=key).json()["detail"] == detail
    assert server.get("/plain", key=key).json()["detail"] != detail


def test_an_unknown_key_has_no_holder(server, stage):
    unknown = server.get("/holder", key="ak_live_bad").json()
    assert unknown["detail"] == server.get("/plain", key=stage.revoked).json()["detail"]


@pytest.mark.parametrize("path,status,text", [
    ("/page", 401, "<p>denied</p>"), ("/page-ok", 200, "<p>denied</p>"), ("/page-named", 401, "named\n"),
])
def test_error_page_takes_over(server, path, status, text):
    answer = server.get(path)
    assert (answer.status_code, answer.text) == (status, text)
    assert len(answer.headers.get_list("WWW-Authenticate")) == 1


def test_error_page_may_redirect(server):
    answer = server.get("/page-away")
    assert (answer.status_code, answer.headers["Location"]) == (302, "https://login.example/")


def test_an_upstreams_own_refusal_is_not_touched(server, stage):
    stage.upstream.answers["/intercepted"] = (401, {"Content-Type": "text/plain"}, b"upstream says no")
    answer = server.get("/intercepted", key=stage.key)
    assert (answer.status_code, answer.text) == (401, "upstream says no")
    assert "WWW-Authenticate" not in answer.headers


def test_too_many_requests(server, stage):
    key = stage.registry.key(rate="1/m", burst=1)
    server.wait_for_generation(stage.registry.generation())
    first = server.get("/plain", key=key)
    assert first.status_code == 200
    assert [first.headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining")] == ["1", "0"]
    # The interval of a token is rounded up a little, and seconds are whole.
    assert 59 <= int(first.headers["X-RateLimit-Reset"]) <= 61
    assert "Retry-After" not in first.headers
    second = server.get("/plain", key=key)
    assert second.status_code == 429
    assert 50 <= int(second.headers["Retry-After"]) <= 61
    assert second.headers["X-RateLimit-Remaining"] == "0"
    problem = second.json()
    assert problem["type"] == "urn:apikey:problem:rate-limited" and problem["limit"]


def test_rate_headers_replace_the_upstreams(server, stage):
    key = stage.registry.key(rate="10/m", burst=10)
    server.wait_for_generation(stage.registry.generation())
    assert server.get("/own-rates", key=key).headers.get_list("X-RateLimit-Limit") == ["10"]
    assert server.get("/own-rates", key=stage.key).headers.get_list("X-RateLimit-Limit") == ["7"]  # no limit of ours
    assert "X-RateLimit-Limit" not in server.get("/no-rates", key=key).headers


def test_no_rate_headers_before_the_key_is_known(server, stage):
    assert "X-RateLimit-Limit" not in server.get("/plain").headers
    assert "X-RateLimit-Limit" not in server.get("/plain", key=stage.revoked).headers


def test_unavailable(server, stage):
    answer = server.get("/absent", key=stage.key)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["type"] == "urn:apikey:problem:unavailable"
    for _ in range(50):
        server.get("/absent", key=stage.key)
    lines = re.findall(r"apikey: unavailable.*", server.error_log())
    assert 1 <= len(lines) <= 10  # once a second
    assert "has no snapshot to decide by" in lines[0]


def test_one_log_line_a_refusal(server, stage):
    before = len(re.findall("apikey: refused", server.error_log()))
    server.get("/plain", key=stage.revoked)
    line = server.wait_for_log(r"\[info\].*apikey: refused: revoked, key (\S+), owner \"alice\", location \"/plain\"")
    assert line.group(1) == stage.revoked.id
    assert len(re.findall("apikey: refused", server.error_log())) == before + 1
    server.get("/quiet")
    server.wait_for_log(r'\[warn\].*apikey: refused: missing, location "/quiet"')


def test_a_large_upload_is_refused_unread(server):
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"PUT /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000000\r\n\r\n")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ") or answer.startswith(b"HTTP/1.1 401 ")


def test_names_in_the_log_are_shown_as_escapes(registry, nginx):
    """A name that an older keyloader let in, or another machine's snapshot brought."""
    key = registry.key("alice", scope="a")
    with sqlite3.connect(registry.dir / "registry.db") as database:
        database.execute("UPDATE owners SET name = ?", ('x\u009b31m\u202e"\x1b' + 200 * "ü",))
    database.close()
    registry.publish()
    server = nginx('location / { apikey "api"; apikey_scope b; return 204; location /in { empty_gif; } }')
    assert server.status("/in", key=key) == 403
    line = server.wait_for_log(r"refused: scope.*").group(0)
    assert 'owner "x\\u009b31m\\u202e?\\x1büü' in line
    assert not {"\u009b", "\u202e", "\x1b", "\ufffd"} & set(line)
