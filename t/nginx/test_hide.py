"""apikey_hide: the key is gone from the request, all the rest of it is untouched.

Every place in the header list counts, because a line is taken out by splitting the list where it stands.
"""

import re
import socket
import threading

import httpx
import pytest

from harness.waiting import wait_until

SOURCES = "header:X-API-Key header:X-Other bearer basic query:api_key query:key cookie:api_key"


@pytest.fixture(scope="module")
def server(stage):
    up = stage.upstream.url
    stage.key = stage.registry.key("alice")
    return stage.nginx(f"""
        apikey "api"; apikey_scope any; apikey_from {SOURCES};
        large_client_header_buffers 8 32k;
        location /plain    {{ proxy_pass {up}; }}
        location /with-uri {{ proxy_pass {up}/inside; }}
        location /optional {{ apikey "api" optional; proxy_pass {up}; }}
        location /satisfied {{ satisfy any; allow all; proxy_pass {up}; }}
        location /preflight {{ proxy_pass {up}; }}
        location /off      {{ apikey off; proxy_pass {up}; }}
        location /kept     {{ apikey_hide off; proxy_pass {up}; }}
        location /early    {{ set $early $apikey_id; proxy_pass {up}; proxy_set_header X-Early $early; }}
        location /read-before {{
            if ($http_x_api_key = nobody) {{ return 400; }}
            if ($remote_user = nobody) {{ return 400; }}
            if ($request_uri = nobody) {{ return 400; }}
            proxy_pass {up}; proxy_set_header X-Before "$http_x_api_key|$remote_user|$request_uri";
        }}
        location /shown    {{
            proxy_pass {up};
            proxy_set_header X-Shown "$http_x_api_key|$http_authorization|$remote_user|$arg_api_key|$cookie_api_key";
            proxy_set_header X-Line "$request|$request_uri|$args";
        }}
    """)


def raw_request(path, lines):
    text = f"GET {path} HTTP/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n"
    return text.encode()


def others(count, start=0):
    return [(f"X-Filler-{i}", f"value {i}") for i in range(start, start + count)]


def sent_on(headers):
    return [(name, value) for name, value in headers if name not in ("Host", "Connection")]


# nginx keeps headers in parts of 20.
@pytest.mark.parametrize("before", [0, 1, 2, 18, 19, 20, 21, 39, 40, 41])
@pytest.mark.parametrize("after", [0, 1, 2, 20, 21])
def test_a_header_is_taken_out_wherever_it_stands(server, stage, before, after):
    stage.upstream.clear()
    lines = [*others(before), ("X-API-Key", stage.key.secret), *others(after, before)]
    assert b" 200 " in server.raw(raw_request("/plain", lines)).split(b"\r\n", 1)[0]
    assert sent_on(stage.upstream.last.headers) == others(before + after)


@pytest.mark.parametrize("first,second,count", [(0, 0, 0), (0, 1, 3), (1, 1, 4), (2, 20, 22), (19, 20, 25), (20, 40, 45),
                                                (0, 44, 44), (20, 20, 20)])
def test_two_headers_are_taken_out(server, stage, first, second, count):
    stage.upstream.clear()
    fillers = others(count)
    lines = [*fillers[:first], ("X-API-Key", stage.key.secret), *fillers[first:second],
             ("X-Other", stage.key.secret), *fillers[second:]]
    assert b" 200 " in server.raw(raw_request("/plain", lines)).split(b"\r\n", 1)[0]
    assert sent_on(stage.upstream.last.headers) == fillers


def test_a_part_of_nothing_but_keys(server, stage):
    stage.upstream.clear()
    lines = [*others(20), *[("X-API-Key", stage.key.secret)] * 20, *others(5, 20)]
    assert b" 401 " in server.raw(raw_request("/plain", lines)).split(b"\r\n", 1)[0]
    lines[20:40] = [("X-Other", "")] * 20
    optional = server.raw(raw_request("/satisfied", lines)).split(b"\r\n", 1)[0]
    assert b" 200 " in optional
    assert sent_on(stage.upstream.last.headers) == others(25)


def scgi_server(seen):
    """Takes one SCGI request and notes the HTTP_X_ parameters it came with."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                size = b""
                while (digit := stream.read(1)) != b":":
                    size += digit
                fields = stream.read(int(size)).split(b"\0")[:-1]
                seen.append({name: value for name, value in zip(fields[::2], fields[1::2]) if name.startswith(b"HTTP_X_")})
                stream.write(b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nok")
    threading.Thread(target=serve, daemon=True).start()
    return listener


@pytest.mark.parametrize("before,after", [(0, 0), (0, 3), (3, 0), (1, 1), (19, 5), (20, 0), (20, 5), (5, 30)])
def test_scgi_gets_all_other_headers(stage, nginx, registry, before, after):
    seen = []
    with scgi_server(seen) as listener:
        key = registry.key("alice")
        server = nginx(f"""location / {{
            apikey "api"; apikey_scope any; scgi_pass 127.0.0.1:{listener.getsockname()[1]}; }}""")
        lines = [*others(before), ("X-API-Key", key.secret), *others(after, before)]
        assert b" 200 " in server.raw(raw_request("/", lines)).split(b"\r\n", 1)[0]
        wait_until(lambda: seen, what="the SCGI request")
    assert sorted(seen[0]) == sorted(f"HTTP_X_FILLER_{i}".encode() for i in range(before + after))


def test_http_2(stage, server):
    """Headers that come from the compression table a second time are hidden, and still there for a third."""
    registry = stage.registry
    key = registry.key("alice")
    front = stage.nginx(f"""
        apikey "api"; apikey_scope any; apikey_from {SOURCES};
        location / {{ proxy_pass {stage.upstream.url}; }}
    """, listen=" http2")
    # httpx speaks HTTP/2 without TLS when told that the server does.
    with httpx.Client(http1=False, http2=True, trust_env=False) as client:
        for _ in range(3):
            stage.upstream.clear()
            headers = [("a", "1"), ("x-api-key", key.secret), ("cookie", "c=1"), ("cookie", f"api_key={key.secret}"),
                       ("z", "2")]
            answer = client.get(f"{front.url}/x?b=1&api_key={key.secret}", headers=headers)
            assert answer.status_code == 200 and answer.http_version == "HTTP/2"
            assert stage.upstream.last.header("x-api-key") is None
            assert stage.upstream.last.header("cookie") == "c=1"
            assert stage.upstream.last.header("a") == "1" and stage.upstream.last.header("z") == "2"
            assert stage.upstream.last.path == "/x?b=1"


@pytest.mark.parametrize("sent,left", [
    ("api_key=KEY", None),
    ("a=1; api_key=KEY", "a=1"),
    ("api_key=KEY; a=1", "a=1"),
    ("a=1; api_key=KEY; b=2", "a=1; b=2"),
    ("a=1;api_key=KEY;b=2", "a=1;b=2"),
    ("api_key=foreign; api_key=KEY", "api_key=foreign"),
    ("api_key=KEY; api_key=foreign", "api_key=foreign"),
    ("a=api_key=KEYED", "a=api_key=KEYED"),
    ("api_key=foreign", "api_key=foreign"),
    ("api_key=KEY; api_key=KEY", None),
])
def test_cookies(server, stage, sent, left):
    stage.upstream.clear()
    server.get("/satisfied", headers={"Cookie": sent.replace("KEY", stage.key.secret)})
    expected = left and left.replace("KEY", stage.key.secret)
    assert stage.upstream.last.header("Cookie") == expected


@pytest.mark.parametrize("sent,left", [
    ("?api_key=KEY", ""),
    ("?a=1&api_key=KEY", "?a=1"),
    ("?api_key=KEY&a=1", "?a=1"),
    ("?a=1&api_key=KEY&b=2", "?a=1&b=2"),
    ("?api_key=KEY&api_key=KEY", ""),
    ("?a=1&api_key=KEY&b=2&api_key=KEY&c=3", "?a=1&b=2&c=3"),
    ("?a=1&key=KEY&b=2&api_key=KEY&c=3", "?a=1&b=2&c=3"),
    ("?%61pi_key=KEY&a=%20x", "?a=%20x"),
    ("?api_key=broken", ""),
    ("?api_key", ""),
    ("?a=1&&api_key=KEY&&b=2", "?a=1&&&b=2"),
    ("?a=b%26api_key=c", "?a=b%26api_key=c"),
    ("?a=1", "?a=1"),
])
@pytest.mark.parametrize("path,seen", [("/satisfied/%7Ea%20b", "/satisfied/%7Ea%20b")])
def test_queries(server, stage, path, seen, sent, left):
    stage.upstream.clear()
    server.get(path + sent.replace("KEY", stage.key.secret))
    assert stage.upstream.last.path == seen + left


def test_a_proxy_pass_with_an_uri(server, stage):
    stage.upstream.clear()
    assert server.status(f"/with-uri/x?a=1&api_key={stage.key.secret}") == 200
    assert stage.upstream.last.path == "/inside/x?a=1"


def test_variables_show_what_is_left(server, stage):
    stage.upstream.clear()
    assert server.status(f"/shown?a=1&api_key={stage.key.secret}&b=2", headers={
        "X-API-Key": stage.key.secret, "Cookie": f"api_key={stage.key.secret}"}) == 200
    seen = stage.upstream.last
    name = r"apikey:[0-9a-f]{16}"  # the same in every place, see test_neighbours.py
    assert re.fullmatch(rf"({name})[|]{{3}}\1[|]\1", seen.header("X-Shown"))
    assert seen.header("X-Line") == "GET /shown?a=1&b=2 HTTP/1.1|/shown?a=1&b=2|a=1&b=2"


def test_what_was_read_before_names_the_key(server, stage):
    """nginx remembers where the value of $request_uri stands; what stands there is overwritten, with what still tells
    clients apart. The others are computed again."""
    stage.upstream.clear()
    secret = stage.key.secret
    assert server.get(f"/read-before?api_key={secret}", auth=(secret, "x"), headers={
        "X-API-Key": secret}).status_code == 200
    name = stage.upstream.last.header("X-Before").split("|")[0]
    assert re.fullmatch(r"apikey:[0-9a-f]{16}", name)
    overwritten = name.ljust(len(secret), "*")
    assert stage.upstream.last.header("X-Before") == f"{name}|{name}|/read-before?api_key={overwritten}"


def test_reading_an_identity_in_the_rewrite_phase_hides_too(server, stage):
    stage.upstream.clear()
    assert server.status("/early", key=stage.key) == 200
    assert stage.upstream.last.header("X-API-Key") is None
    assert stage.upstream.last.header("X-Early") == stage.key.id


@pytest.mark.parametrize("is_good", [True, False])
def test_an_authorization_of_ours_is_removed(server, stage, is_good):
    """Whatever has our whole form, with a wrong checksum, too."""
    stage.upstream.clear()
    secret = stage.key.secret
    wrong = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    server.get("/satisfied", headers={"Authorization": f"Bearer {secret if is_good else wrong}"})
    assert stage.upstream.last.header("Authorization") is None


@pytest.mark.parametrize("value", ["Bearer eyJh.eyJz.c2ln", "Basic YWxpY2U6cGFzc3dvcmQ=", "Digest username=x"])
def test_an_authorization_of_somebody_else_stays(server, stage, value):
    stage.upstream.clear()
    assert server.status("/plain", key=stage.key, headers={"Authorization": value}) == 200
    assert stage.upstream.last.header("Authorization") == value


@pytest.mark.parametrize("path", ["/plain", "/optional", "/satisfied"])
def test_bad_keys_are_hidden_too(server, stage, path):
    stage.upstream.clear()
    answer = server.get(path + "?api_key=ak_live_wrong", headers={"X-Other": "nonsense"})
    assert answer.status_code == (200 if path == "/satisfied" else 401)
    for seen in stage.upstream.requests:
        assert "wrong" not in seen.text() and "nonsense" not in seen.text()


def test_a_preflight_hides(server, stage):
    stage.upstream.clear()
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET", "X-API-Key": stage.key.secret}
    assert server.request("OPTIONS", "/preflight", headers=headers).status_code == 200
    assert stage.upstream.last.header("X-API-Key") is None


def test_off_leaves_everything_alone(server, stage):
    stage.upstream.clear()
    assert server.status(f"/off?api_key={stage.key.secret}", key=stage.key) == 200
    assert stage.upstream.last.header("X-API-Key") == stage.key.secret
    assert stage.upstream.last.path == f"/off?api_key={stage.key.secret}"


def test_hide_off_leaves_everything_there(server, stage):
    stage.upstream.clear()
    assert server.status(f"/kept?api_key={stage.key.secret}", key=stage.key) == 200
    assert stage.upstream.last.header("X-API-Key") == stage.key.secret
    assert stage.upstream.last.path == f"/kept?api_key={stage.key.secret}"
    assert server.last_logged("/kept")["redacted"] == "GET /kept?api_key=ak_live_**** HTTP/1.1"


def test_the_next_request_of_a_connection_is_untouched(server, stage):
    stage.upstream.clear()
    head = f"GET /plain?api_key={stage.key.secret} HTTP/1.1\r\nHost: x\r\nX-API-Key: {stage.key.secret}\r\nX-Last: 1\r\n"
    answer = server.raw((head + "\r\n" + head + "\r\n" + head + "Connection: close\r\n\r\n").encode())
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert [seen.path for seen in stage.upstream.requests] == ["/plain"] * 3
