"""Requests that end before the phase in which keys are hidden: by their size, a `return`, a redirect, an error of syntax.

The error log is at `info`, so that all is seen that nginx ever writes but for its debug level.
"""

import base64
import re
import socket
import ssl
import subprocess

import httpx
import pytest

from harness.paths import REPOSITORY
from harness.waiting import free_port, wait_until

IMPORTED = "imported-key-of-somebody-7"  # of no form that could be recognised


@pytest.fixture(scope="module")
def server(stage):
    up = stage.upstream.url
    place = stage.place
    stage.tls_port = free_port()
    stage.plain_port = free_port()
    stage.strict_port = free_port()
    stage.key = stage.registry.key("alice")
    stage.registry.run("import", "-", "--format", "csv", stdin=f"key,owner\n{IMPORTED},alice\n")
    (place / "html" / "dir").mkdir(parents=True)
    (place / "html" / "dir" / "index.html").write_text("index")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", place / "tls.key", "-out", place / "tls.pem", "-days", "2", "-subj", "/CN=localhost"],
                   check=True, capture_output=True)
    return stage.nginx(f"""
        root {place}/html;
        apikey "api"; apikey_scope any; apikey_format any; apikey_from header:X-API-Key query:api_key bearer;
        location /plain     {{ proxy_pass {up}; }}
        location /small     {{ client_max_body_size 10; proxy_pass {up}; }}
        location /small-page {{ client_max_body_size 10; error_page 413 /page; proxy_pass {up}; }}
        location /page      {{ apikey off; return 413 "page"; }}
        location /proxied/  {{ proxy_pass {up}; }}
        location /dir       {{ }}
        location /return    {{ return 301 /plain?$args; }}
        location /absolute  {{ return 301 https://$host$request_uri; }}
        location /nested    {{ return 302 /login?next=$request_uri; }}
        location /encoded   {{ return 302 /login?next=%2Fx%3Fapi_key%3D$arg_api_key&a=1; }}
        location /elsewhere {{ return 301 https://elsewhere.example/?$args; }}
        location /rewritten {{ rewrite ^ /plain permanent; }}
        location /refused   {{ if ($request_uri ~ refused) {{ return 403 "$request_method"; }} }}
        location /inner     {{ internal; }}
        location /keeps     {{ apikey_hide on redirects=keep; return 301 /plain?$args; }}
        location /shown     {{ apikey_hide off; return 301 /plain?$args; }}
        location /off/      {{ apikey off; return 301 /plain?$args; }}
        location /limited   {{ limit_req zone=one; proxy_pass {up}; }}
        location /noted     {{ rewrite_log on; if ($args ~ none) {{ return 400; }} rewrite ^/noted$ /plain last; }}
        location ~ ^/k/(?<k>[^/]+)/ {{ apikey_from $k; proxy_pass {up}; }}
        location ~ ^/file/(?<name>[^/]+)/ {{ apikey_from $name; try_files /none =404; }}
    """, http=f"""
        limit_req_zone $server_name zone=one:1m rate=1r/m;
        log_format every escape=none '$request|$request_uri|$args|$uri|$http_x_api_key|$http_authorization|$arg_api_key|'
                                     '$http_referer|$apikey_request|$apikey_status';
        access_log {place}/every.log every;
        server {{
            listen 127.0.0.1:{stage.tls_port} ssl;
            ssl_certificate {place}/tls.pem; ssl_certificate_key {place}/tls.key;
            error_page 497 =301 https://$host:$server_port$request_uri;
            apikey "api"; apikey_scope any; apikey_format any; apikey_from header:X-API-Key query:api_key;
            location / {{ proxy_pass {up}; }}
        }}
        server {{
            listen 127.0.0.1:{stage.strict_port} ssl;
            ssl_certificate {place}/tls.pem; ssl_certificate_key {place}/tls.key;
            ssl_verify_client on; ssl_client_certificate {place}/tls.pem;
            apikey "api"; apikey_scope any; apikey_from query:api_key;
            location / {{ proxy_pass {up}; }}
        }}
        server {{
            listen 127.0.0.1:{stage.plain_port};
            apikey "api"; apikey_scope any; apikey_format any; apikey_from query:api_key;
            return 301 https://$host$request_uri;
        }}
    """, server=f"access_log {place}/every.log every; access_log {place}/nginx0/access.log harness; rewrite_log off;")


@pytest.fixture(params=["own", "imported"])
def secret(request, server, stage):
    return stage.key.secret if request.param == "own" else IMPORTED


class Logs:
    """What was logged from here on. Two requests of these tests may be logged after their answer was read: one that
    `server` does not send, and one whose body nginx does not read (it ends its side, and logs when we have ended ours).
    A test that sends such a request awaits its line, or the next test would take it for its own."""

    def __init__(self, server, stage):
        self._server, self._path = server, stage.place / "every.log"
        self._errors = len(server.error_log())
        self._accesses = len(self._path.read_text()) if self._path.exists() else 0

    def access(self, count=1):
        def lines():
            new = self._path.read_text()[self._accesses:].splitlines()
            return new if len(new) >= count else None
        return wait_until(lines, 5, f"{count} lines in the access log")

    def errors(self):
        return self._server.error_log()[self._errors:]


@pytest.fixture
def logs(server, stage):
    return Logs(server, stage)


def fields(line):
    names = ("request", "uri_sent", "args", "uri", "x_api_key", "authorization", "arg", "referer", "redacted", "status")
    return dict(zip(names, line.split("|")))


# What is asked, the status, and what stands in the access log as the request line.
ENDS = [
    ("GET", "/inner?a=1&api_key=KEY&b=2", 404, "GET /inner?a=1&b=2 HTTP/1.1"),
    ("GET", "/return?a=1&api_key=KEY", 301, "GET /return?a=1 HTTP/1.1"),
    ("GET", "/refused?api_key=KEY", 403, "GET /refused HTTP/1.1"),
    ("GET", "/proxied?a=1&api_key=KEY", 301, "GET /proxied?a=1 HTTP/1.1"),
    ("GET", "/rewritten?api_key=KEY&a=1", 301, "GET /rewritten?a=1 HTTP/1.1"),
    ("POST", "/small?api_key=KEY", 413, "POST /small HTTP/1.1"),
    ("POST", "/small-page?api_key=KEY", 413, "POST /small-page HTTP/1.1"),
    ("GET", "/refused?%61pi_key=KEY", 403, "GET /refused HTTP/1.1"),
]


@pytest.mark.parametrize("method,path,status,shown", ENDS)
def test_an_early_end_is_logged_without_the_key(server, secret, logs, method, path, status, shown):
    answer = server.request(method, path.replace("KEY", secret), key=secret,
                            content=b"x" * 20 if method == "POST" else None,
                            headers={"Authorization": f"Bearer {secret}", "Referer": f"http://x/?api_key={secret}"})
    assert answer.status_code == status
    line = logs.access()[-1]
    assert fields(line)["request"] == shown
    assert secret not in line
    # nginx writes the referrer, which is passed on later, into an error line as it came.
    assert secret not in re.sub(r"referrer: .*", "", logs.errors())
    assert secret not in f"{answer.headers}{answer.text}"


def test_a_413_in_the_error_log(server, secret, logs):
    assert server.request("POST", f"/small?a=1&api_key={secret}", content=b"x" * 20).status_code == 413
    logs.access()
    assert 'request: "POST /small?a=1&api_key=**** HTTP/1.1"' in logs.errors()
    assert "client intended to send too large body" in logs.errors()


def test_other_arguments_of_the_log_stay(server, secret, logs):
    assert server.status(f"/return?a=1&api_key={secret}&b=%20x") == 301
    shown = fields(logs.access()[-1])
    assert (shown["uri_sent"], shown["args"]) == ("/return?a=1&b=%20x", "a=1&b=%20x")
    assert re.fullmatch(r"apikey:[0-9a-f]{16}", shown["arg"])


@pytest.mark.parametrize("path,location", [
    ("/proxied?a=1&api_key=KEY&b=2", "/proxied/?a=1&b=2"),
    ("/proxied?api_key=KEY", "/proxied/"),
    ("/dir?a=1&api_key=KEY", "/dir/?a=1"),
    ("/return?api_key=KEY&a=1", "/plain?a=1"),
    ("/return?a=1", "/plain?a=1"),
    ("/rewritten?api_key=KEY&a=1", "/plain?a=1"),
    ("/nested?a=1&api_key=KEY", "/login?next=/nested?a=1"),
    ("/keeps?a=1&api_key=KEY", "/plain?a=1&api_key=KEY"),
    ("/shown?a=1&api_key=KEY", "/plain?a=1&api_key=KEY"),
    ("/off/?a=1&api_key=KEY", "/plain?a=1&api_key=KEY"),
    ("/absolute?api_key=KEY&a=1", "https://localhost/absolute?a=1"),
    ("/encoded?api_key=KEY", "/login?next=%2Fx%3Fapi_key%3D****&a=1"),
    ("/elsewhere?api_key=KEY", "https://elsewhere.example/?api_key=KEY"),
])
def test_redirects_drop_the_key_and_keep_the_rest(server, secret, path, location):
    header = {"X-API-Key": secret} if path.startswith("/dir") else {}
    answer = server.get(path.replace("KEY", secret), headers={"Host": "localhost", **header})
    assert answer.status_code in (301, 302)
    found = answer.headers["Location"]
    prefix = f"http://localhost:{server.port}"
    assert found.removeprefix(prefix) == location.replace("KEY", secret)


def test_a_location_of_an_upstream_stays(server, stage):
    stage.upstream.answers["/plain/moved"] = (302, {"Location": "/plain?api_key=its-own"}, b"")
    assert server.get("/plain/moved", key=stage.key).headers["Location"].endswith("/plain?api_key=its-own")


def test_plain_http_to_a_tls_port(server, stage, secret, logs):
    answer = httpx.get(f"http://127.0.0.1:{stage.tls_port}/a?b=1&api_key={secret}", trust_env=False)
    assert answer.status_code == 301
    assert answer.headers["Location"] == f"https://127.0.0.1:{stage.tls_port}/a?b=1"
    assert secret not in logs.access()[-1]


def test_tls_itself(server, stage, logs):
    context = ssl.create_default_context(cafile=str(stage.place / "tls.pem"))
    context.check_hostname = False
    answer = httpx.get(f"https://127.0.0.1:{stage.tls_port}/a?b=1&api_key={stage.key.secret}", trust_env=False, verify=context)
    assert answer.status_code == 200 and answer.json()["path"] == "/a?b=1"
    logs.access()


def test_a_server_that_only_leads_to_https(server, stage, secret, logs):
    answer = httpx.get(f"http://127.0.0.1:{stage.plain_port}/a?b=1&api_key={secret}", trust_env=False)
    assert answer.headers["Location"] == "https://127.0.0.1/a?b=1"
    line = logs.access()[-1]
    assert secret not in line and fields(line)["request"] == "GET /a?b=1 HTTP/1.1"


# nginx refuses these while it reads the request.
UNREAD = {
    "no host": (400, "GET /?api_key=KEY HTTP/1.1\r\nX-API-Key: KEY\r\n\r\n"),
    "bad length": (400, "GET /?api_key=KEY HTTP/1.1\r\nHost: x\r\nX-API-Key: KEY\r\nContent-Length: x\r\n\r\n"),
    "trace": (405, "TRACE /?api_key=KEY HTTP/1.1\r\nHost: x\r\nX-API-Key: KEY\r\n\r\n"),
    "connect": (405, "CONNECT /?api_key=KEY HTTP/1.1\r\nHost: x\r\nX-API-Key: KEY\r\n\r\n"),
    "encoding": (501, "GET /?api_key=KEY HTTP/1.1\r\nHost: x\r\nX-API-Key: KEY\r\nTransfer-Encoding: gzip\r\n\r\n"),
    "version": (505, "GET /?api_key=KEY HTTP/7.1\r\nHost: x\r\n\r\n"),
    "bad line": (400, "GET /?a=1&api_key=KEY HTTP/1.1 more\r\nHost: x\r\n\r\n"),
    "bad method": (400, "get /?a=1&api_key=KEY HTTP/1.1\r\nHost: x\r\n\r\n"),
    "bad host": (400, "GET http://a..b/?api_key=KEY HTTP/1.1\r\nHost: x\r\n\r\n"),
    "two hosts": (400, "GET /?api_key=KEY HTTP/1.1\r\nX-API-Key: KEY\r\nHost: x\r\nHost: x\r\n\r\n"),
    "bad header": (400, "GET /?api_key=KEY HTTP/1.1\r\nHost: x\r\nX-API-Key: KEY\r\nX-Bad: a\0b\r\n\r\n"),
    "long header": (400, "GET /?api_key=KEY HTTP/1.1\r\nHost: x\r\nX-API-Key: KEY\r\nX-Long: " + "y" * 40000 + "\r\n\r\n"),
    "long line": (414, "GET /?api_key=KEY&a=" + "y" * 40000 + " HTTP/1.1\r\nHost: x\r\n\r\n"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_nginx_cannot_read_is_in_no_access_log(server, secret, logs, name):
    status, text = UNREAD[name]
    server.raw(text.replace("KEY", secret).encode())
    line = logs.access()[-1]
    assert secret not in line, line
    assert server.last_logged()["status"] in (str(status), "400", "414", "494")


def partial(port, text):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(text.encode())


def test_reading_that_is_broken_off(server, stage, logs):
    head = f"GET /plain?api_key={stage.key.secret} HTTP/1.1\r\nHost: x\r\nX-API-Key: {stage.key.secret}\r\n"
    partial(server.port, head)
    wait_until(lambda: "prematurely closed" in logs.errors(), what="the end of the connection")
    assert stage.key.secret not in logs.access()[-1]
    impatient = stage.nginx('location / { apikey "api"; apikey_scope any; apikey_from query:api_key header:X-API-Key; }',
                            server="client_header_timeout 100ms;")
    with impatient.connect() as connection:
        connection.sendall(head.encode())
        impatient.wait_for_log("client timed out")
    assert stage.key.secret not in impatient.last_logged()["request"]
    impatient.stop()


def test_a_client_certificate_that_is_missing(server, stage, logs):
    context = ssl.create_default_context(cafile=str(stage.place / "tls.pem"))
    context.check_hostname = False
    answer = httpx.get(f"https://127.0.0.1:{stage.strict_port}/a?b=1&api_key={stage.key.secret}", trust_env=False,
                       verify=context)
    assert answer.status_code == 400
    assert stage.key.secret not in logs.access()[-1]


def test_rewrite_log(server, stage, logs):
    assert server.status(f"/noted?api_key={stage.key.secret}") == 200
    assert stage.key.secret not in logs.access()[-1]


def test_what_nginx_writes_before_any_module(server, stage):
    """docs/security.md lists these messages, and no other of what all tests above have caused holds a key."""
    lines = [line for path in stage.place.glob("nginx*/error.log") for line in path.read_text().splitlines()]
    lines = [re.sub(r", referrer: .*", "", line) for line in lines]
    lines = [line for line in lines if stage.key.secret in line or IMPORTED in line]
    assert {re.search(r"\[(\w+)\]", line)[1] for line in lines} == {"info", "notice"}
    messages = {re.sub(r"^.*?\*\d+ ", "", line) for line in lines}
    page = (REPOSITORY / "docs" / "security.md").read_text()
    listed = re.findall(r"^  - `(.*?)`", page, re.M)
    assert [message[:80] for message in messages if not any(known in message for known in listed)] == []
    assert [known for known in listed if not any(known in message for message in messages)] == []


def test_a_dropped_header_is_printed_by_nginx(stage, nginx, registry):
    """A name that nginx does not take: the whole line is printed at info, before any module."""
    key = registry.key("alice")
    server = nginx('location / { apikey "api"; apikey_scope any; empty_gif; }')
    assert server.status(headers={"X_API_Key": key.secret}) == 401
    assert f'client sent invalid header line: "X_API_Key: {key.secret}"' in server.error_log()


def test_a_key_in_the_path(server, stage, secret, logs):
    stage.upstream.clear()
    assert server.status(f"/k/{secret}/orders?a=1") == 200
    assert stage.upstream.last.path == f"/k/{secret}/orders?a=1"  # it says what is asked for
    line = logs.access()[-1]
    shown = fields(line)
    assert shown["request"] == "GET /k/****/orders?a=1 HTTP/1.1"
    form = "ak_live_****" if secret.startswith("ak_") else "****"
    assert shown["redacted"] == f"GET /k/{form}/orders?a=1 HTTP/1.1"
    if secret.startswith("ak_"):
        assert secret not in line
    assert secret not in logs.errors()


def test_an_encoded_key_in_the_path(server, stage, logs):
    encoded = stage.key.secret.replace("_", "%5F").replace("a", "%61")
    assert server.status(f"/k/{encoded}/orders") == 200
    line = logs.access()[-1]
    assert stage.key.secret not in line and encoded not in line


def test_a_path_that_ends_early(server, stage, logs):
    assert server.status(f"/inner/k/{stage.key.secret}/x") == 404
    assert stage.key.secret not in logs.access()[-1]
    assert stage.key.secret not in logs.errors()


def test_limit_req_prints_a_clean_line(server, secret, logs):
    codes = {server.status(f"/limited?api_key={secret}&a=1") for _ in range(3)}
    assert 503 in codes
    assert "limiting requests" in logs.errors() and secret not in logs.errors()


@pytest.mark.parametrize("where", [
    {"path": "/plain?token=KEY&a=1", "seen": "path", "left": "/plain?token=NAME&a=1"},
    {"path": "/plain?a=xKEYy", "seen": "path", "left": "/plain?a=xNAMEy"},
    {"path": "/plain", "header": ("X-Token", "KEY"), "left": "NAME"},
    {"path": "/plain", "header": ("X-Token", "Token KEY; a=1"), "left": "Token NAME; a=1"},
    {"path": "/plain", "header": ("Cookie", "a=1; session=KEY; b=2"), "left": "a=1; session=NAME; b=2"},
    {"path": "/plain", "header": ("Referer", "https://app.example/?api_key=KEY"), "left": "https://app.example/?api_key=NAME"},
    {"path": "/plain", "header": ("Authorization", "Token KEY"), "left": "Token NAME"},
    {"path": "/plain", "header": ("Authorization", "Basic BASE64"), "left": "ApiKey NAME"},
    {"path": "/plain?token=ENCODED", "seen": "path", "left": "/plain?token=NAME"},
])
def test_a_copy_in_a_place_that_is_no_source(server, stage, secret, logs, where):
    stage.upstream.clear()
    texts = {"KEY": secret, "BASE64": base64.b64encode(f"user:{secret}".encode()).decode(),
             "ENCODED": "".join(f"%{ord(c):02x}" for c in secret)}

    def fill(text):
        for name, value in texts.items():
            text = text.replace(name, value)
        return text
    header = where.get("header")
    answer = server.get(fill(where["path"]), key=secret, headers={header[0]: fill(header[1])} if header else {})
    assert answer.status_code == 200
    seen = stage.upstream.last
    found = seen.path if where.get("seen") == "path" else seen.header(header[0])
    assert re.fullmatch(re.escape(where["left"]).replace("NAME", r"apikey:[0-9a-f]{16}"), found), found
    assert secret not in seen.text() + logs.access()[-1] + logs.errors()


def test_another_key_is_no_copy(server, stage):
    """What is sent on may be about keys: only the one that was presented is hidden."""
    other = stage.registry.key("bob")
    stage.upstream.clear()
    assert server.status(f"/plain?about={other.secret}", key=stage.key, headers={"X-About": other.secret}) == 200
    assert stage.upstream.last.path == f"/plain?about={other.secret}"
    assert stage.upstream.last.header("X-About") == other.secret


def test_pipelined_requests_are_not_touched(server, stage, secret):
    """What is overwritten when one ends must not reach into the next, wherever its buffer is."""
    stage.upstream.clear()
    filler = "X-Filler: " + "y" * 900 + "\r\n"
    for many in (0, 1, 5):
        head = (f"GET /refused?api_key={secret} HTTP/1.1\r\nHost: x\r\nX-API-Key: {secret}\r\n{filler * many}\r\n"
                f"GET /plain?a=1&api_key={secret} HTTP/1.1\r\nHost: x\r\nX-API-Key: {secret}\r\nX-Last: 1\r\n{filler * many}")
        answer = server.raw((head + "\r\n" + head + "\r\n" + head + "Connection: close\r\n\r\n").encode())
        assert answer.count(b"HTTP/1.1 200 ") == 3 and answer.count(b"HTTP/1.1 403 ") == 3
    assert [seen.path for seen in stage.upstream.requests] == ["/plain?a=1"] * 9
    assert {seen.header("X-Last") for seen in stage.upstream.requests} == {"1"}


def test_http_2_ends_early(stage, server):
    front = stage.nginx(f"""
        apikey "api"; apikey_scope any; apikey_format any; apikey_from query:api_key header:X-API-Key;
        location /refused {{ if ($request_uri ~ refused) {{ return 403; }} }}
        location /proxied/ {{ proxy_pass {stage.upstream.url}; }}
    """, listen=" http2")
    with httpx.Client(http1=False, http2=True, trust_env=False) as client:
        for secret in (stage.key.secret, IMPORTED):
            front.clear_access_log()  # a line may come after its answer, and that of the first key is there already
            answer = client.get(f"{front.url}/refused?a=1&api_key={secret}", headers={"x-api-key": secret})
            assert answer.status_code == 403 and answer.http_version == "HTTP/2"
            assert client.get(f"{front.url}/proxied?a=1&api_key={secret}").headers["location"].endswith("/proxied/?a=1")
            assert client.get(f"{front.url}/proxied/?a=1&api_key={secret}").status_code == 200
            assert front.last_logged("/proxied/")["redacted"] == (
                f"GET /proxied/?a=1&api_key={'ak_live_' if secret.startswith('ak_') else ''}**** HTTP/2.0")
            assert secret not in front.access_log_path.read_text()
    front.stop()


def test_a_port_without_such_a_source_is_logged_as_ever(stage, server):
    front = stage.nginx(f'location / {{ apikey "api"; apikey_scope any; proxy_pass {stage.upstream.url}; }}')
    assert front.status("/a?api_key=whatever", key=stage.key) == 200
    assert front.last_logged("/a")["request"] == "GET /a?api_key=whatever HTTP/1.1"
    front.stop()


@pytest.mark.parametrize("source,header,value", [
    ("$http_x_token", "X-Token", "KEY"), ("$http_X_TOKEN", "x-token", "KEY"), ("$cookie_token", "Cookie", "token=KEY; a=1"),
    ("$http_authorization", "Authorization", "KEY"), ("$arg_token", None, None),
])
def test_variables_that_name_a_place(stage, server, secret, source, header, value):
    front = stage.nginx(f"""location / {{
        apikey "api"; apikey_scope any; apikey_format any; apikey_from {source}; proxy_pass {stage.upstream.url}; }}""")
    stage.upstream.clear()
    query = f"?a=1&token={secret}" if header is None else "?a=1"
    answer = front.get("/x" + query, headers={header: value.replace("KEY", secret)} if header else {})
    assert answer.status_code == 200
    seen = stage.upstream.last
    assert secret not in seen.text() and seen.path == "/x?a=1"
    if header == "Cookie":
        assert seen.header("Cookie") == "a=1"
    elif header:
        assert seen.header(header) is None
    assert secret not in front.access_log_path.read_text() + front.error_log()
    front.stop()


def test_a_variable_that_names_no_place_is_warned_of(nginx):
    right, said = nginx.check('location ~ ^/k/(?<k>.+)$ { apikey "api"; apikey_scope any; apikey_from $k; }')
    assert right and 'apikey_from: "$k"' in said and "goes to the upstream as it is" in said
    right, said = nginx.check('location /x { apikey "api"; apikey_scope any; apikey_from $http_x_token; }')
    assert right and "warn" not in said
