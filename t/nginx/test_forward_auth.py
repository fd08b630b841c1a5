"""apikey_verify as the judge of other proxies: it decides about the request that they ask about, believes nobody else,
and what it answers reaches the client. docs/forward-auth.md is run as it is."""

import contextlib
import re
import subprocess

import httpx
import pytest

from harness.paths import REPOSITORY
from harness.waiting import accepts, free_port, wait_until

PAGE = (REPOSITORY / "docs" / "forward-auth.md").read_text()
BLOCKS = re.findall(r"^```(\w+ ?\w*)\n(.*?)^```", PAGE, re.M | re.S)
FULL = ("apikey_verify method=$http_x_forwarded_method uri=$http_x_forwarded_uri host=$http_x_forwarded_host "
        "scheme=$http_x_forwarded_proto address=$http_x_forwarded_for trusted=127.0.0.1;")


def block(kind, number=0):
    return [text for name, text in BLOCKS if name == kind][number]


@pytest.fixture(scope="module")
def server(stage):
    registry = stage.registry
    registry.plan("three", rate="1/h", burst=3)
    stage.keys = {
        "reader": registry.key("alice", scope="orders:read"),
        "writer": registry.key("alice", scope=["orders:read", "orders:write"]),
        "other": registry.key("alice", scope="invoices:read"),
        "method": registry.key("alice", scope="orders:read", allow_method="GET"),
        "host": registry.key("alice", scope="orders:read", allow_host="shop.example.com"),
        "network": registry.key("alice", scope="orders:read", allow_ip="192.0.2.0/24"),
        "here": registry.key("alice", scope="orders:read", allow_ip="127.0.0.0/8"),
        "tls": registry.key("alice", scope="orders:read", require_tls=True),
    }
    scopes = "apikey_scope orders:read methods=GET; apikey_scope orders:write methods=POST,PUT,PATCH,DELETE;"
    up = stage.upstream.url
    return stage.nginx(f"""
        apikey "orders"; {scopes}
        location = /full {{ apikey_from header:X-API-Key query:key; add_header V-Uri $http_x_forwarded_uri always;
                            access_log {stage.place}/uri.log uri; {FULL} }}
        location = /method {{ apikey_verify method=$http_x_forwarded_method trusted=127.0.0.0/8; }}
        location = /bare {{ apikey_verify; }}
        location = /bare-any {{ apikey_scope orders:read; apikey_verify; }}
        location = /no-content {{ apikey_scope any; apikey_verify status=204; }}
        location = /strangers {{ apikey_verify method=$http_x_forwarded_method trusted=192.0.2.0/24,2001:db8::/32,unix:; }}
        location = /real {{ set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;
                            apikey_verify method=$request_method trusted=127.0.0.1; }}
        location /inside {{ apikey off; auth_request /full; proxy_pass {up}; }}
    """, http="log_format uri '$http_x_forwarded_uri $request $apikey_status';")


def question(server, key=None, path="/full", **said):
    """What a proxy sends; `said`: in place of what it would say. None: not at all; a list: several lines."""
    parts = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/orders/7", "X-Forwarded-Host": "shop.example.com",
             "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    for name, value in said.items():
        parts["X-Forwarded-" + name.capitalize().replace("For_", "For")] = value
    pairs = [(name, one) for name, value in parts.items() if value is not None
             for one in (value if isinstance(value, list) else [value])]
    return server.get(path, key=key, headers=pairs)


# What it decides about

@pytest.mark.parametrize("method, reader, writer", [("GET", 200, 200), ("HEAD", 200, 200), ("POST", 403, 200),
                                                    ("DELETE", 403, 200), ("PATCH", 403, 200), ("OPTIONS", 403, 403)])
@pytest.mark.parametrize("path", ["/full", "/method"])
def test_the_original_method_chooses_the_scopes(server, stage, method, reader, writer, path):
    assert question(server, stage.keys["reader"], path, Method=method).status_code == reader
    assert question(server, stage.keys["writer"], path, Method=method).status_code == writer


def test_it_answers_200_or_204(server, stage):
    answer = question(server, stage.keys["reader"])
    assert (answer.status_code, answer.content, answer.headers["X-Apikey-Owner"]) == (200, b"", "alice")
    assert answer.headers["Content-Length"] == "0"
    assert server.get("/no-content", key=stage.keys["reader"]).status_code == 204


@pytest.mark.parametrize("key, said, status", [
    ("method", {}, 200), ("method", {"Method": "POST"}, 403),
    ("host", {}, 200), ("host", {"Host": "SHOP.example.com:8443"}, 200), ("host", {"Host": "shop.example.com."}, 200),
    ("host", {"Host": "evil.example.com"}, 403),
    ("network", {}, 200), ("network", {"For_": "198.51.100.1"}, 403), ("here", {}, 403),
    ("here", {"For_": "127.0.0.9"}, 200),
    ("tls", {}, 200), ("tls", {"Proto": "http"}, 403), ("tls", {"Proto": "wss"}, 200), ("tls", {"Proto": "ws"}, 403),
])
def test_what_a_key_is_bound_to_is_the_original_request(server, stage, key, said, status):
    assert question(server, stage.keys[key], **said).status_code == status


@pytest.mark.parametrize("key, status", [("reader", 200), ("method", 200), ("host", 403), ("here", 403), ("tls", 403)])
def test_what_the_question_does_not_say_is_not_guessed(server, stage, key, status):
    assert question(server, stage.keys[key], "/method", Host="127.0.0.1").status_code == status


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_method_a_location_whose_scopes_name_methods_is_refused(server, stage, method):
    assert server.request(method, "/bare", key=stage.keys["writer"]).status_code == 403
    assert server.last_logged("/bare")["outcome"] == "wrong_method"
    assert server.request(method, "/bare-any", key=stage.keys["writer"]).status_code == 200
    assert server.request(method, "/bare-any", key=stage.keys["method"]).status_code == 403


@pytest.mark.parametrize("part, values, what", [
    ("Method", [None, ""], "does not say it"), ("Method", [["GET", "GET"], ["GET", "POST"]], "says it more than once"),
    ("Method", ["GET, POST", "GET,GET", "get", "BREW"], "names no method|does not say"),
    ("Uri", [None, ""], "does not say it"), ("Uri", [["/a", "/b"]], "more than once"),
    ("Uri", ["orders", "/a, /b", "https://x/"], "is not a URI"),
    ("Host", [None, ""], "does not say it"), ("Host", [["a", "b"]], "more than once"),
    ("Host", ["a, b", "a b", "a:b", "a:80, b", "[::1", "a/b", ":80", "."], "is not a host"),
    ("Proto", [None, ""], "does not say it"), ("Proto", [["https", "http"]], "more than once"),
    ("Proto", ["https,http", "ftp", "https, http", "httpss"], "neither http nor https"),
    ("For_", [None, ""], "does not say it"), ("For_", [["192.0.2.7", "192.0.2.8"]], "more than once"),
    ("For_", ["192.0.2.7, 10.0.0.1", "unknown", "192.0.2.0/24", "192.0.2.7:80", "_hidden"], "is not an address"),
])
def test_every_part_is_said_exactly_once(server, stage, part, values, what):
    for value in values:
        before = len(re.findall("apikey_verify: refused", server.error_log()))
        answer = question(server, stage.keys["reader"], **{part: value})
        assert (answer.status_code, answer.headers["Content-Type"]) == (403, "application/problem+json"), value
        wait_until(lambda: len(re.findall("apikey_verify: refused", server.error_log())) == before + 1, what="a line")
        line = re.findall(r"apikey_verify: refused: the question (.*), as (\w+)= of location \"/full\"", server.error_log())[-1]
        assert re.search(what, line[0]) and line[1] == {"Proto": "scheme", "For_": "address"}.get(part, part.lower())


def test_a_header_that_only_variables_take_for_the_same(stage):
    front = stage.nginx(f"location = /full {{ apikey \"orders\"; apikey_scope any; {FULL} }}",
                        server="underscores_in_headers on;")
    assert question(front, stage.keys["reader"]).status_code == 200
    pairs = [("X_Forwarded_Method", "GET"), ("X-Forwarded-Uri", "/"), ("X-Forwarded-Host", "a"),
             ("X-Forwarded-Proto", "http"), ("X-Forwarded-For", "192.0.2.7")]
    assert front.get("/full", key=stage.keys["reader"], headers=pairs).status_code == 200
    assert front.get("/full", key=stage.keys["reader"], headers=pairs + [("X-Forwarded-Method", "GET")]).status_code == 403


def test_whoever_is_not_trusted_is_refused(server, stage):
    assert question(server, stage.keys["reader"], "/strangers").status_code == 403
    assert "comes from none of these networks" in server.error_log()
    assert server.last_logged("/strangers")["outcome"] == "wrong_address"


def test_trusted_is_who_connects_and_realip_says_whose_request_it_is(server, stage):
    headers = {"X-Forwarded-For": "203.0.113.9, 192.0.2.7"}
    assert server.get("/real", key=stage.keys["network"], headers=headers).status_code == 200
    assert server.get("/real", key=stage.keys["network"], headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 403
    assert server.get("/real", key=stage.keys["here"]).status_code == 403, "nobody said whose request it is"


def test_failed_attempts_are_the_original_clients(stage):
    front = stage.nginx(f'location = /full {{ apikey "orders"; apikey_scope any; apikey_fail_limit rate=1r/h; {FULL} }}')
    statuses = [question(front, "ak_live_wrong", For_=address).status_code
                for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2")]
    assert statuses == [401, 429, 401]


def test_in_a_subrequest_the_parameters_are_the_clients_and_do_not_count(server, stage):
    def status(method, key, **headers):
        pairs = {name.replace("_", "-"): value for name, value in headers.items()}
        return server.request(method, "/inside", key=stage.keys[key], headers=pairs).status_code

    lie = {"X_Forwarded_Method": "GET", "X_Forwarded_For": "192.0.2.7", "X_Forwarded_Proto": "https",
           "X_Forwarded_Host": "shop.example.com", "X_Forwarded_Uri": "/"}
    assert status("GET", "reader") == 200
    assert status("POST", "reader", **lie) == 403
    assert status("POST", "writer", X_Forwarded_Method="nonsense") == 200
    assert [status("GET", key, **lie) for key in ("network", "tls", "host")] == [403] * 3
    assert status("GET", "here", **lie) == 200


def test_a_key_in_the_original_query_is_found_and_redacted(server, stage):
    secret = stage.keys["reader"].secret
    answer = question(server, Uri=f"/orders/7?a=1&key={secret}&b=2")
    assert answer.status_code == 200
    assert answer.headers["V-Uri"] == "/orders/7?a=1&key=ak_live_****&b=2"
    wrong = secret[:-1] + ("x" if secret[-1] != "x" else "y")
    assert question(server, Uri=f"/orders/7?key={wrong}").status_code == 401
    assert question(server, stage.keys["writer"], Uri=f"/orders/7?key={secret}").status_code == 401, "two keys that differ"
    assert question(server, Uri=f"/orders/7?key={secret}", Method="POST").status_code == 403
    wait_until(lambda: (stage.place / "uri.log").read_text().count("key=ak_live_****") >= 4, what="the log")
    assert secret[:-6] not in (stage.place / "uri.log").read_text() + server.error_log()


def test_a_preflight_is_asked_about_too(server, stage):
    def ask(**headers):
        pairs = {"X-Forwarded-Uri": "/", "X-Forwarded-Host": "a", "X-Forwarded-Proto": "https",
                 "X-Forwarded-For": "192.0.2.7", "Origin": "https://a.example", "Access-Control-Request-Method": "PUT",
                 **{name.replace("_", "-"): value for name, value in headers.items()}}
        return server.get("/full", headers=pairs).status_code

    assert ask(X_Forwarded_Method="OPTIONS") == 200
    assert ask(X_Forwarded_Method="POST") == 401
    wait_until(lambda: (stage.place / "uri.log").read_text().split()[-1] == "missing", what="the log")
    assert (stage.place / "uri.log").read_text().splitlines()[-2].endswith(" preflight")


# Who may be believed

def guarded(*, listen="", inside="", server=""):
    return f"""server {{ listen 127.0.0.1:PORT; {listen} {server}
        location = /v {{ {inside} apikey "a"; apikey_scope any; apikey_verify method=$http_x_method; }} }}"""


@pytest.mark.parametrize("parts, is_right", [
    ({}, True), ({"listen": "listen *:PORT2;"}, False), ({"listen": "listen [::]:PORT2;"}, False),
    ({"listen": "listen unix:PLACE/judge.sock; listen 127.9.9.9:PORT2; listen [::1]:PORT2;"}, True),
    ({"listen": "listen *:PORT2;", "inside": "allow 10.0.0.0/8; deny all;"}, True),
    ({"listen": "listen *:PORT2;", "server": "allow 10.0.0.0/8; deny all;"}, True),
    ({"listen": "listen *:PORT2;", "inside": "allow all;"}, False),
    ({"listen": "listen *:PORT2 ssl;", "server": "TLS ssl_verify_client on;"}, True),
    ({"listen": "listen *:PORT2 ssl;", "server": "TLS ssl_verify_client optional;"}, False),
    ({"listen": "listen *:PORT2;", "server": "TLS ssl_verify_client on;"}, False),
])
def test_the_configuration_says_who_is_believed(stage, server, parts, is_right):
    text = guarded(**parts)
    certificate = make_certificate(stage.place)
    tls = f"ssl_certificate {certificate}; ssl_certificate_key {certificate}; ssl_client_certificate {certificate};"
    for name, value in (("PORT2", str(free_port())), ("PORT", str(free_port())), ("PLACE", str(stage.place)), ("TLS", tls)):
        text = text.replace(name, value)
    right, said = stage.nginx.check(http=text)
    assert right == is_right, said
    assert right or ("apikey_verify" in said and '"/v"' in said and "trusted=" in said)


def make_certificate(place):
    path = place / "certificate.pem"
    if not path.exists():
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=judge",
                        "-keyout", path, "-out", place / "only.pem"], check=True, capture_output=True)
        path.write_bytes(path.read_bytes() + (place / "only.pem").read_bytes())
    return path


@pytest.mark.parametrize("line, needle", [
    ("apikey_verify status=201;", "status=200 or status=204"), ("apikey_verify status=200 status=204;", "second status="),
    ("apikey_verify method=GET;", "names no variable"), ("apikey_verify method=$a method=$b;", "second time"),
    ("apikey_verify path=$uri;", "is not known"), ("apikey_verify trusted=;", "list of networks"),
    ("apikey_verify trusted=10.0.0.1/8;", "list of networks"), ("apikey_verify trusted=any;", "list of networks"),
    ("apikey_verify trusted=10.0.0.0/8 trusted=unix:;", "second trusted="), ("apikey_verify; apikey_verify;", "duplicate"),
])
def test_mistakes(stage, server, line, needle):
    right, said = stage.nginx.check(f'location /v {{ set $a 1; set $b 2; apikey "a"; apikey_scope any; {line} }}')
    assert not right and "apikey_verify" in said and needle in said, said


# Through real proxies, and as the others ask

class Judged:
    """A client's request through a proxy: what came of it, and what the service behind the proxy has seen."""

    def __init__(self, send, upstream, headers):
        self.send, self.upstream, self.headers = send, upstream, headers  # headers: does the proxy hand them on?


@pytest.fixture(scope="module")
def judge(stage, server):
    text = (block("nginx server") + block("nginx server", 1)).replace("http://127.0.0.1:3000", stage.upstream.url)
    front = stage.nginx.make(text)
    front.write_config(locations=text.replace("127.0.0.1:8080", f"127.0.0.1:{front.port}"))
    front.start()
    front.wait_for_generation(stage.registry.generation())
    return front


@contextlib.contextmanager
def running(command, port, log, **environment):
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment or None)
    try:
        wait_until(lambda: accepts(port) or process.poll() is not None, 20, f"{command[0]} listening")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(20)


def client_of(port):
    def send(method, path, **more):
        with httpx.Client(trust_env=False, timeout=20) as client:
            return client.request(method, f"http://127.0.0.1:{port}{path}", **more)
    return send


def replaced(text, stage, judge, port):
    for old, new in (("127.0.0.1:8080", f"127.0.0.1:{judge.port}"), (":8000", f"127.0.0.1:{port}"),
                     ("127.0.0.1:3000", f"127.0.0.1:{stage.upstream.port}"), ("/etc/haproxy", str(stage.place))):
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def through_caddy(stage, judge):
    port = free_port()
    path = stage.place / "Caddyfile"
    path.write_text("{\n admin off\n auto_https off\n}\n" + replaced(block("caddyfile"), stage, judge, port)
                    .replace(f"127.0.0.1:{port} {{", f"http://127.0.0.1:{port} {{"))
    with running(["caddy", "run", "--adapter", "caddyfile", "--config", path], port, stage.place / "caddy.log",
                 HOME=str(stage.place), PATH="/usr/bin:/bin"):
        yield client_of(port)


@pytest.fixture(scope="module")
def through_haproxy(stage, judge):
    port = free_port()
    (stage.place / "apikey.lua").write_text(replaced(block("lua"), stage, judge, port))
    path = stage.place / "haproxy.cfg"
    path.write_text(replaced(block("haproxy"), stage, judge, port))
    with running(["haproxy", "-db", "-f", path], port, stage.place / "haproxy.log"):
        yield client_of(port)


@pytest.fixture(scope="module")
def through_nginx(judge):
    return client_of(judge.port)


def wanted_by_traefik():
    return re.search(r"address: http://10.0.0.5:8080(\S+)", block("yaml"))[1]


@pytest.fixture(scope="module")
def through_traefik(stage, judge):
    """As Traefik does: a GET with the client's headers, and its own over them; an answer but 2xx is the client's."""
    def send(method, path, headers=None, **_):
        lines = dict(headers or {})
        for name in [name for name in lines if name.lower().startswith("x-forwarded-")]:
            del lines[name]
        lines |= {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "shop.example.com", "X-Forwarded-Method": method,
                  "X-Forwarded-Port": "80", "X-Forwarded-Proto": "http", "X-Forwarded-Server": "edge",
                  "X-Forwarded-Uri": path, "X-Real-Ip": "127.0.0.1"}
        answer = judge.raw(f"GET {wanted_by_traefik()} HTTP/1.1\r\nHost: 127.0.0.1:{judge.port}\r\n".encode()
                           + b"User-Agent: httpx\r\n" + "".join(f"{n}: {v}\r\n" for n, v in lines.items()).encode()
                           + b"Accept-Encoding: gzip\r\nConnection: close\r\n\r\n")
        judged = parsed(answer)
        if not 200 <= judged.status_code < 300:
            return judged
        passed = {name: judged.headers[name] for name in ("X-Apikey-Id", "X-Apikey-Owner")}
        return client_of(stage.upstream.port)(method, path, headers=passed)
    return send


@pytest.fixture(scope="module")
def through_envoy(stage, judge):
    """As Envoy does: the original method, a prefix and the original path, Host, listed headers; only 200 lets in."""
    text = block("yaml", 1)
    prefix = re.search(r"path_prefix: (\S+)", text)[1]
    listed = re.findall(r"- exact: (\S+)", text.partition("authorization_response")[0])
    handed_on = re.findall(r"- exact: (\S+)", text.partition("allowed_client_headers")[2])

    def send(method, path, headers=None, **_):
        lines = {name.lower(): value for name, value in (headers or {}).items() if name.lower() in listed}
        lines["x-forwarded-for"] = ", ".join(filter(None, [lines.get("x-forwarded-for"), "127.0.0.3"]))
        lines["x-forwarded-proto"] = "http"
        judged = parsed(judge.raw(
            f"{method} {prefix}{path} HTTP/1.1\r\nhost: shop.example.com\r\ncontent-length: 0\r\n".encode()
            + "".join(f"{n}: {v}\r\n" for n, v in lines.items()).encode() + b"connection: close\r\n\r\n"))
        if judged.status_code != 200:
            return httpx.Response(judged.status_code, content=judged.content,
                                  headers={n: judged.headers[n] for n in handed_on if n in judged.headers})
        passed = {name: judged.headers[name] for name in ("X-Apikey-Id", "X-Apikey-Owner")}
        return client_of(stage.upstream.port)(method, path, headers=passed)
    return send


def parsed(raw):
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines]
    if ("Transfer-Encoding", "chunked") in headers:
        body = body.partition(b"\r\n")[2].rpartition(b"\r\n0\r\n")[0]
        headers.remove(("Transfer-Encoding", "chunked"))
    return httpx.Response(int(first.split()[1]), headers=headers, content=body)


PROXIES = ["nginx", "caddy", "haproxy", "traefik", "envoy"]


@pytest.fixture(params=PROXIES)
def proxy(request):
    return request.getfixturevalue(f"through_{request.param}"), request.param


def test_who_may_comes_through(proxy, stage):
    send, name = proxy
    stage.upstream.clear()
    answer = send("GET", "/orders/7", headers={"X-API-Key": stage.keys["reader"].secret, "X-Apikey-Owner": "me"})
    assert answer.status_code == 200, answer.text
    seen = stage.upstream.last
    owner = seen.header("X-Owner") if name == "nginx" else seen.header("X-Apikey-Owner")
    assert (owner, seen.path, seen.header("X-API-Key") or None) == ("alice", "/orders/7", None)


@pytest.mark.parametrize("method, key, status", [("POST", "reader", 403), ("DELETE", "reader", 403), ("POST", "writer", 200),
                                                 ("DELETE", "writer", 200), ("GET", "other", 403)])
def test_a_reader_does_not_write(proxy, stage, method, key, status):
    send, _ = proxy
    stage.upstream.clear()
    lie = {"X-API-Key": stage.keys[key].secret, "X-Forwarded-Method": "GET", "X-HTTP-Method": "GET"}
    answer = send(method, "/orders/7", headers=lie)
    assert answer.status_code == status
    assert [seen.method for seen in stage.upstream.requests] == ([method] if status == 200 else [])
    if status == 403 and key != "other":
        assert 'scope="orders:write"' in answer.headers["WWW-Authenticate"]


def test_a_stranger_is_challenged(proxy, stage):
    send, name = proxy
    stage.upstream.clear()
    answer = send("GET", "/orders/7")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'ApiKey realm="orders"')
    assert stage.upstream.requests == []
    if name != "nginx":
        assert answer.json()["type"] == "urn:apikey:problem:key-required"


def test_who_is_over_the_limit_is_told_when_to_come_back(proxy, stage, judge):
    send, _ = proxy
    key = stage.registry.key("alice", scope="orders:read", plan="three")
    judge.wait_for_generation(stage.registry.generation())
    answers = [send("GET", "/orders/7", headers={"X-API-Key": key.secret}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 3000 < int(answers[3].headers["Retry-After"]) <= 3600


def test_a_clients_own_address_does_not_count(proxy, stage):
    send, _ = proxy
    lie = {"X-API-Key": stage.keys["network"].secret, "X-Forwarded-For": "192.0.2.7", "X-Real-IP": "192.0.2.7"}
    assert send("GET", "/orders/7", headers=lie).status_code == 403
    assert send("GET", "/orders/7", headers={"X-API-Key": stage.keys["here"].secret}).status_code == 200
    assert send("GET", "/orders/7", headers={"X-API-Key": stage.keys["tls"].secret,
                                             "X-Forwarded-Proto": "https"}).status_code == 403


def test_a_path_leads_envoy_to_no_other_prefix(through_envoy, stage):
    key = {"X-API-Key": stage.keys["reader"].secret}
    assert through_envoy("GET", "/v1/orders?x=1", headers=key).status_code == 200
    assert through_envoy("GET", "/../../verify/orders", headers=key).status_code in (403, 404)


def test_a_judge_that_is_away_is_503(stage, judge):
    text = block("nginx server", 1).replace("http://127.0.0.1:3000", stage.upstream.url)
    front = stage.nginx(text.replace("127.0.0.1:8080", f"127.0.0.1:{free_port()}"))
    front.allow_log("connect.. failed")
    stage.upstream.clear()
    assert front.status("/orders/7", key=stage.keys["reader"]) == 503
    assert stage.upstream.requests == []
