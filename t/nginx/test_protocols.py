"""Every way a request reaches the access phase: protocol versions, redirects inside nginx, subrequests, upgrades.

The decision must be the same in all of them, and a client request is charged once.
"""

import asyncio
import json
import re
import ssl
import subprocess
import threading

import httpx
import pytest
import websockets

from harness.server import read_all
from harness.waiting import free_port, wait_until


def key_line(key):
    return f"X-API-Key: {key.secret}\r\n"


def spent(server, key, path="/plain"):
    """How many requests the key has left, by using them up."""
    count = 0
    while server.status(path, key=key) == 200:
        count += 1
        assert count < 20
    return count


@pytest.fixture(scope="module")
def server(stage):
    place = stage.place
    html = place / "html"
    html.mkdir()
    (html / "page.txt").write_text("a page")
    (html / "include.shtml").write_text('[<!--#include virtual="/inner" -->]')
    (html / "sorry.txt").write_text("sorry page")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-keyout", place / "tls.key", "-out", place / "tls.pem"],
                   check=True, capture_output=True)
    stage.tls_port = free_port()
    stage.registry.plan("five", rate="5/h", burst=5)
    up = stage.upstream.url
    return stage.nginx(f"""
        listen 127.0.0.1:{stage.tls_port} ssl http2;
        ssl_certificate {place}/tls.pem;
        ssl_certificate_key {place}/tls.key;
        root {html};
        apikey "api"; apikey_scope any;
        client_max_body_size 100m;
        location /plain     {{ proxy_pass {up}; }}
        location /static/   {{ alias {html}/; }}
        location /redirect  {{ try_files /nothing /inside; }}
        location /inside    {{ proxy_pass {up}; }}
        location /named     {{ try_files /nothing @named; }}
        location @named     {{ apikey_scope orders:read; proxy_pass {up}; }}
        location /scoped    {{ apikey_scope orders:read; error_page 403 /sorry.txt; proxy_pass {up}; }}
        location = /sorry.txt {{ apikey off; }}
        location /guarded-error {{ error_page 401 /still-guarded; proxy_pass {up}; }}
        location /still-guarded {{ proxy_pass {up}; }}
        location /broken    {{ proxy_pass {up}; proxy_intercept_errors on; error_page 500 = /plain-error; }}
        location /plain-error {{ proxy_pass {up}; }}
        location /include.shtml {{ ssi on; ssi_types *; }}
        location /inner     {{ proxy_pass {up}; }}
        location /mirrored  {{ mirror /mirror; proxy_pass {up}; }}
        location = /mirror  {{ internal; proxy_pass {up}/copy; }}
        location /rewritten {{ rewrite ^ /plain last; }}
        location /returned  {{ return 200 "returned\\n"; }}
    """)


@pytest.fixture
def key(stage, server):
    made = stage.registry.key(plan="five")
    server.wait_for_generation(stage.registry.generation())
    return made


@pytest.mark.parametrize("request_line,extra", [
    ("GET /plain HTTP/1.0", ""), ("GET /plain HTTP/1.1", "Host: localhost\r\nConnection: close\r\n"),
], ids=["1.0", "1.1"])
def test_http_1(server, key, request_line, extra):
    refused = server.raw(f"{request_line}\r\n{extra}\r\n".encode())
    assert b" 401 " in refused.split(b"\r\n", 1)[0]
    assert refused.count(b"WWW-Authenticate:") == 1
    passed = server.raw(f"{request_line}\r\n{extra}{key_line(key)}\r\n".encode())
    assert b" 200 " in passed.split(b"\r\n", 1)[0]
    assert spent(server, key) == 4


def test_http_0_9_has_no_headers_and_so_no_key(server):
    assert b"200 OK" not in server.raw(b"GET /plain\r\n")
    assert server.last_logged("/plain")["outcome"] == "missing"


def test_keep_alive(server, key):
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        answers = [client.get("/plain", headers={"X-API-Key": sent} if sent else {}).status_code
                   for sent in (None, key.secret, "wrong", key.secret, None)]
    assert answers == [401, 200, 401, 200, 401]
    assert spent(server, key) == 3


def test_pipelining(server, key):
    one = "GET /plain HTTP/1.1\r\nHost: localhost\r\n"
    with_key, without = f"{one}{key_line(key)}\r\n", f"{one}\r\n"
    last = f"{one}{key_line(key)}Connection: close\r\n\r\n"
    answer = server.raw((with_key + without + with_key + last).encode())
    assert re.findall(rb"HTTP/1\.1 (\d+) ", answer) == [b"200", b"401", b"200", b"200"]
    assert spent(server, key) == 2


def test_http_2(server, stage, key):
    with httpx.Client(http2=True, verify=False, trust_env=False) as client:
        url = f"https://127.0.0.1:{stage.tls_port}/plain"
        answers = [client.get(url, headers=headers)
                   for headers in ({}, {"X-API-Key": key.secret}, {"X-API-Key": "wrong"}, {"x-api-key": key.secret})]
    assert [answer.http_version for answer in answers] == ["HTTP/2"] * 4
    assert [answer.status_code for answer in answers] == [401, 200, 401, 200]
    assert answers[0].headers["www-authenticate"] == 'ApiKey realm="api"'
    assert answers[0].json()["status"] == 401
    assert spent(server, key) == 3


def test_http_2_streams_at_once(server, stage, key):
    async def many():
        async with httpx.AsyncClient(http2=True, verify=False, trust_env=False) as client:
            url = f"https://127.0.0.1:{stage.tls_port}/plain"
            return await asyncio.gather(*(client.get(url, headers={"X-API-Key": key.secret}) for _ in range(12)))
    statuses = [answer.status_code for answer in asyncio.run(many())]
    assert (statuses.count(200), statuses.count(429)) == (5, 7)


@pytest.mark.parametrize("path", ["/redirect", "/rewritten"])
def test_an_internal_redirect_is_charged_once(server, stage, key, path):
    stage.upstream.clear()
    assert server.get(path, key=key).status_code == 200
    assert stage.upstream.last.header("X-API-Key") is None
    assert spent(server, key) == 4


def test_an_error_page_below_a_guarded_location_is_charged_once(server, stage, key):
    stage.upstream.answers["/broken"] = (500, {}, b"broken")
    assert server.get("/broken", key=key).status_code == 200
    assert spent(server, key) == 4


def test_a_named_location_decides_anew_for_itself(server, stage, key):
    refused = server.get("/named", key=key)
    assert refused.status_code == 403
    assert "orders:read" in refused.text
    reader = stage.registry.key(plan="five", scope="orders:read")
    server.wait_for_generation(stage.registry.generation())
    assert server.get("/named", key=reader).status_code == 200
    assert spent(server, reader) == 4


def test_error_page_shows_the_page_and_keeps_the_status(server, key):
    answer = server.get("/scoped", key=key)
    assert (answer.status_code, answer.text) == (403, "sorry page")


def test_a_refused_request_stays_refused_in_a_guarded_error_page(server):
    answer = server.get("/guarded-error")
    assert answer.status_code == 401
    assert len(answer.headers.get_list("WWW-Authenticate")) == 1


def test_static_files(server, key):
    assert server.status("/static/page.txt") == 401
    answer = server.get("/static/page.txt", key=key)
    assert (answer.status_code, answer.text) == (200, "a page")
    part = server.get("/static/page.txt", key=key, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.text) == (206, "page")


def test_subrequests_are_part_of_their_request(server, stage, key):
    assert server.status("/include.shtml") == 401
    stage.upstream.clear()
    answer = server.get("/include.shtml", key=key)
    assert answer.status_code == 200
    assert json.loads(answer.text.strip("[]\n"))["path"] == "/inner"
    assert stage.upstream.last.header("X-API-Key") is None
    assert spent(server, key) == 4


def test_a_mirror_gets_no_key_and_costs_nothing(server, stage, key):
    stage.upstream.clear()
    assert server.status("/mirrored", key=key) == 200
    wait_until(lambda: len(stage.upstream.requests) == 2, what="request and mirror at the upstream")
    assert all(key.secret not in seen.text() for seen in stage.upstream.requests)
    assert spent(server, key) == 4
    stage.upstream.clear()
    assert server.status("/mirrored") == 401
    assert stage.upstream.requests == []


def test_return_comes_before_access_as_nginx_documents(server):
    assert server.status("/returned") == 200


def test_a_websocket_upgrade(stage, server):
    port = free_port()
    ready = threading.Event()
    done = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def echo(socket, *_):
        async for message in socket:
            await socket.send(f"{socket.request_headers.get('X-API-Key')} {message}")

    async def serve():
        async with websockets.serve(echo, "127.0.0.1", port):
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    key = stage.registry.key(plan="five")
    front = stage.nginx(f"""location /ws {{
        apikey "api"; apikey_scope any;
        proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
    }}""")

    async def talk(headers):
        async with websockets.connect(f"ws://127.0.0.1:{front.port}/ws", extra_headers=headers) as socket:
            await socket.send("one")
            first = await socket.recv()
            await socket.send("two")
            return first, await socket.recv()

    assert asyncio.run(talk({"X-API-Key": key.secret})) == ("None one", "None two")
    with pytest.raises(websockets.exceptions.InvalidStatusCode) as refused:
        asyncio.run(talk({}))
    assert refused.value.status_code == 401
    loop.call_soon_threadsafe(done.set)
    thread.join(10)
    loop.close()


def test_a_refused_upload_is_not_read(server, stage):
    stage.upstream.clear()
    head = (b"POST /plain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\nExpect: 100-continue\r\n"
            b"X-API-Key: ak_live_wrong\r\nConnection: close\r\n\r\n")
    with server.connect() as connection:
        connection.sendall(head)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 401 "), answer[:100]
    assert b"100 Continue" not in answer
    assert stage.upstream.requests == []


def test_an_accepted_upload_is_asked_for(server, stage, key):
    stage.upstream.clear()
    body = b"x" * 1_000_000
    with server.connect() as connection:
        connection.sendall((f"POST /plain HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
                            f"Expect: 100-continue\r\n{key_line(key)}Connection: close\r\n\r\n").encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")
    assert stage.upstream.last.body == body


def test_a_refused_upload_that_does_not_wait(server, stage):
    stage.upstream.clear()
    answer = server.request("POST", "/plain", key="ak_live_wrong", content=b"y" * 3_000_000)
    assert answer.status_code == 401
    assert stage.upstream.requests == []


def test_tls_satisfies_a_key_bound_to_tls(server, stage):
    bound = stage.registry.key(require_tls=True)
    server.wait_for_generation(stage.registry.generation())
    assert server.status("/plain", key=bound) == 403
    context = ssl.create_default_context(cafile=str(stage.place / "tls.pem"))
    context.check_hostname = False
    with httpx.Client(verify=context, trust_env=False) as client:
        answer = client.get(f"https://127.0.0.1:{stage.tls_port}/plain", headers={"X-API-Key": bound.secret})
    assert answer.status_code == 200
