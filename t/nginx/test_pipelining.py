"""Requests in one connection, each with a key of its own: hiding one writes over nothing of the next.

nginx reads what follows a request into the same buffer, and moves what it has of a request to a larger one when it does
not fit. So the lengths are tried at which a request, or its key, crosses the end of a buffer.
"""

import re

import pytest

from harness.waiting import wait_until

BUFFERS = "client_header_buffer_size 1k; large_client_header_buffers 4 4k;"
SOURCES = "apikey_from header:X-API-Key query:api_key cookie:session bearer;"


@pytest.fixture(scope="module", name="front")
def _front(stage):
    keys = [stage.registry.key(f"owner{i}", publish=i == 2) for i in range(3)]
    server = stage.nginx(f"""
        location /pass {{ apikey "api"; apikey_scope any; {SOURCES} proxy_pass {stage.upstream.url}; }}
        location /refused {{ apikey "api"; apikey_scope never:granted; {SOURCES} proxy_pass {stage.upstream.url}; }}
        location /early {{ apikey "api"; apikey_scope any; {SOURCES} return 204; }}
        location /moved {{ apikey "api"; apikey_scope any; {SOURCES} rewrite ^ /pass/moved?moved=1; }}
    """, server=BUFFERS)
    return server, keys


def request(path, key, number, pad, last):
    """The key stands in one of its places, in turn, behind a header that pushes it along."""
    secret = key.secret
    place = number % 4
    query = f"&api_key={secret}" if place == 0 else ""
    line = ["", f"X-API-Key: {secret}\r\n", f"Cookie: a=b; session={secret}; c=d\r\n",
            f"Authorization: Bearer {secret}\r\n"][place]
    return (f"GET {path}?n={number}{query}&z=9 HTTP/1.1\r\nHost: localhost\r\nX-Pad: {'p' * pad}\r\n{line}"
            f"X-After: {number}\r\n{'Connection: close' if last else 'X-Last: no'}\r\n\r\n").encode()


@pytest.mark.parametrize("paths", [("/pass", "/pass", "/pass"), ("/refused", "/pass", "/pass"), ("/early", "/pass", "/moved"),
                                   ("/pass", "/refused", "/pass")], ids=" ".join)
@pytest.mark.parametrize("first_place", range(4))
def test_three_keys_in_one_connection(stage, front, paths, first_place):
    server, keys = front
    server.clear_access_log()
    lines = 0
    for pad in (0, 1, 500, 640, 700, 760, 780, 800, 850, 900, 960, 2900, 3700):
        stage.upstream.requests.clear()
        numbers = [first_place + i for i in range(3)]
        sent = [request(paths[i], keys[i], numbers[i], pad, i == 2) for i in range(3)]
        data = b"".join(sent)
        with server.connect() as connection:
            # All but the end of the second request's headers first, so that the rest of it arrives while it is read.
            cut = len(sent[0]) + sent[1].index(b"X-After") - 60
            connection.sendall(data[:cut])
            if pad % 2 == 0:
                wait_until(lambda: len(server.access_log()) > lines, what="the first answer")
            connection.sendall(data[cut:])
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        expected = [{"/refused": b"403", "/early": b"204"}.get(path, b"200") for path in paths]
        assert re.findall(rb"HTTP/1\.1 (\d+) ", answer) == expected, pad
        seen = {request.header("X-After"): request for request in list(stage.upstream.requests)}
        assert sorted(seen) == sorted(str(numbers[i]) for i in range(3) if paths[i] in ("/pass", "/moved")), pad
        for number, got in seen.items():
            assert got.header("X-Pad") == ("p" * pad), (pad, number)
            assert f"n={number}" in got.path and "z=9" in got.path
            assert got.header("Cookie") == ("a=b; c=d" if int(number) % 4 == 2 else None)
            assert not any(key.secret in got.text() for key in keys)
        lines += 3
        entries = server.logged(lines)[-3:]
        assert [entry["owner"] for entry in entries if entry["outcome"] == "ok"] == \
            [f"owner{i}" for i in range(3) if paths[i] != "/refused"]
        assert [entry["status"] for entry in entries] == [code.decode() for code in expected]
    assert not any(key.secret in text for key in keys
                   for text in (server.error_log(), "".join(str(entry["redacted"]) for entry in server.access_log())))
