"""apikey_cost and apikey_refund: what is taken first, what the answer settles, what is given back, to the token."""

import gzip
import re
import threading
import time

import pytest

from harness.chat import Chat, completion, cut, events
from harness.waiting import wait_until

# One token an hour: what is left is exact for as long as a test runs.
LIMITS = 'apikey "chat"; apikey_scope any; apikey_limit rate=1r/h burst=1000 name=tokens;'
SETTLED = "apikey_cost 1 of=tokens reserve=100 response=json:usage.total_tokens;"
PATH = "/v1/chat/completions"


@pytest.fixture
def chat():
    server = Chat()
    yield server
    server.close()


@pytest.fixture
def key(registry):
    return registry.key()


def gateway(nginx, chat, inside=SETTLED, *, server=LIMITS, locations="", **parts):
    return nginx(f"""location /v1/ {{ {inside} proxy_pass {chat.url}; }}
                     location = /whoami {{ apikey_whoami; }} {locations}""", server=server, **parts)


def ask(server, key, *, path=PATH, **more):
    """One request, and the end of it: what it costs is settled before its line is in the access log."""
    return to_its_end(server, path, lambda: server.request("POST", path, key=key, content=b'{"messages":[]}', **more))


def to_its_end(server, path, send):
    def count():
        return sum(line["request_uri"] == path for line in server.access_log())

    before = count()
    answer = send()
    wait_until(lambda: count() > before, what="the end of the request")
    return answer


def left(server, key, name="tokens"):
    limits = server.get("/whoami", key=key).json()["limits"]
    return next(limit["remaining"] for limit in limits if limit["name"] == name)


def misses(server, reason):
    return server.metric("apikey_cost_misses_total", reason=reason)


def test_the_answer_settles_what_was_reserved(nginx, chat, key):
    server = gateway(nginx, chat)
    chat.answer(completion(21))
    assert ask(server, key).status_code == 200
    assert left(server, key) == 979, "100 were taken first, 79 given back"
    chat.answer(completion(300))
    ask(server, key)
    assert left(server, key) == 679, "100 were taken first, 200 more charged"
    assert server.metric("apikey_cost_misses_total") == 0


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_streams_in_pieces_of_any_size(nginx, chat, key, size, end):
    server = gateway(nginx, chat, SETTLED + "proxy_buffering off;")
    stream = events(42, end)
    chat.stream(cut(stream, size))
    answer = ask(server, key)
    assert answer.content == stream, "the body goes on as it came"
    assert left(server, key) == 958


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_a_json_body_in_single_bytes(nginx, chat, key, buffering):
    server = gateway(nginx, chat, SETTLED + f"proxy_buffering {buffering};")
    chat.answer(cut(completion(42), 1))
    assert ask(server, key).content == completion(42)
    assert left(server, key) == 958


def test_nothing_is_held_up(nginx, chat, key):
    server = gateway(nginx, chat, SETTLED + "proxy_buffering off;")
    gates = [threading.Event() for _ in range(3)]
    pieces = [b'data: {"us', b'age":{"total_tok', b'ens":5}}\n', b"\ndata: [DONE]\n\n"]
    chat.stream([pieces[0], gates[0], pieces[1], gates[1], pieces[2], gates[2], pieces[3]])
    with server.stream("POST", PATH, headers={"X-API-Key": key.secret}) as answer:
        seen = answer.iter_raw()
        for piece, gate in zip(pieces, gates):
            assert next(seen) == piece, "each piece is here before the next one was sent"
            assert left(server, key) == 900, "the reserve is taken while the answer goes on"
            gate.set()
        assert b"".join(seen) == pieces[3]
    server.last_logged(PATH)
    assert left(server, key) == 995


def test_a_long_body_that_nginx_puts_into_a_file(nginx, chat, key):
    padding = b'{"padding":"' + b"x" * 20_000_000 + b'",'
    body = padding + completion(77)[1:]
    chat.answer(body)
    server = gateway(nginx, chat, SETTLED + "proxy_buffer_size 4k; proxy_buffers 2 4k; proxy_busy_buffers_size 4k;",
                     http="sendfile on;")
    with server.stream("POST", PATH, headers={"X-API-Key": key.secret}) as answer:
        seen = answer.iter_raw()
        start = next(seen)
        server.wait_for_log("an upstream response is buffered to a temporary file")
        assert start + b"".join(seen) == body
    server.last_logged(PATH)
    assert left(server, key) == 923


def test_below_nothing_and_back(nginx, chat, key):
    limits = LIMITS.replace("rate=1r/h burst=1000", "rate=100r/s burst=100")
    server = gateway(nginx, chat, SETTLED.replace("reserve=100", "reserve=10"), server=limits)
    chat.answer(completion(250))
    started = time.monotonic()
    assert ask(server, key).status_code == 200
    refused = ask(server, key)
    assert (refused.status_code, refused.headers["Retry-After"]) in [(429, "2"), (429, "1")]
    chat.answer(completion(1))
    wait_until(lambda: ask(server, key).status_code == 200, 5, "tokens coming back")
    assert time.monotonic() - started >= 1.6, "150 below nothing and 10 to be reserved, at 100 a second"


def test_how_far_below_nothing_is_known(nginx, chat, key):
    server = gateway(nginx, chat, server=LIMITS.replace("rate=1r/h burst=1000", "rate=1r/m burst=100"))
    chat.answer(completion(150))
    ask(server, key)
    refused = ask(server, key)
    assert refused.status_code == 429
    # 50 below nothing, and 100 are to be reserved: 150 minutes, less what a slow test took.
    assert 8990 <= int(refused.headers["Retry-After"]) <= 9000


def leave(server, key, chat, start, whole):
    """Sends a request, reads `start` of the answer and goes away while the stand-in waits."""
    gate = threading.Event()
    chat.stream([start, gate, *cut(whole[len(start):], 5)])
    with server.connect() as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key.secret}\r\n"
                           "Content-Length: 0\r\n\r\n".encode())
        seen = b""
        while start not in seen:
            seen += connection.recv(4096)
    server.logged(1)
    gate.set()


def test_a_client_that_leaves_before_the_figure_pays_the_reserve(nginx, chat, key):
    server = gateway(nginx, chat, SETTLED + "proxy_buffering off;")
    leave(server, key, chat, events(42)[:40], events(42))
    assert (left(server, key), misses(server, "aborted")) == (900, 1)


def test_a_client_that_leaves_after_the_figure_pays_it(nginx, chat, key):
    server = gateway(nginx, chat, SETTLED + "proxy_buffering off;")
    start = b'data: {"usage":{"total_tokens":42}}\n\n'
    leave(server, key, chat, start, start + events(None))
    assert (left(server, key), misses(server, "no_figure")) == (958, 0)


def test_a_header_settles_even_when_the_client_has_left(nginx, chat, key):
    server = gateway(nginx, chat, "apikey_cost 100 of=tokens response=$upstream_http_x_tokens; proxy_buffering off;")
    start, gate = events(None)[:40], threading.Event()
    chat.stream([start, gate, b"more"], headers={"X-Tokens": "250"})
    with server.connect() as connection:
        connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key.secret}\r\n\r\n".encode())
        assert connection.recv(4096)
    server.logged(1)
    gate.set()
    assert left(server, key) == 750


def test_a_compressed_body_is_left_alone(nginx, chat, key):
    server = gateway(nginx, chat)
    body = gzip.compress(completion(21))
    chat.answer(body, headers={"Content-Encoding": "gzip"})
    answer = server.stream("POST", PATH, headers={"X-API-Key": key.secret, "Accept-Encoding": "gzip"})
    with answer as seen:
        assert b"".join(seen.iter_raw()) == body
    server.logged(1)
    assert (left(server, key), misses(server, "encoded")) == (900, 1)


def test_what_nginx_compresses_itself_was_seen_before(nginx, chat, key):
    server = gateway(nginx, chat, SETTLED + "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;")
    chat.answer(completion(21))
    answer = ask(server, key, headers={"Accept-Encoding": "gzip"})
    assert (answer.headers["Content-Encoding"], answer.content) == ("gzip", completion(21))
    assert left(server, key) == 979


@pytest.mark.parametrize("body, content_type, reason", [
    (completion(None), "application/json", "no_figure"),
    (b'{"usage":null}', "application/json", "no_figure"),
    (b"", "application/json", "no_figure"),
    (events(None), "text/event-stream", "no_figure"),
    (b'{"usage":{"total_tokens":"21"}}', "application/json", "not_a_number"),
    (b'{"usage":{"total_tokens":-21}}', "application/json", "not_a_number"),
    (b'data: {"usage":{"total_tokens":[21]}}\n\n', "text/event-stream", "not_a_number"),
    (b'{"usage":{"total_tokens":1000000000001}}', "application/json", "too_large"),
    (b"<html>no</html>", "text/html", "not_json"),
    (b'{"usage":{"total_tokens":21}}{', "application/json", "not_json"),
    (b'{"usage":{"total_tokens":21}', "application/json", "not_json"),
    (events(21), "application/json", "not_json"),
])
def test_without_a_figure_the_reserve_stays_and_is_counted(nginx, chat, key, body, content_type, reason):
    server = gateway(nginx, chat)
    chat.answer(body, content_type=content_type)
    assert ask(server, key).content == body
    assert (left(server, key), misses(server, reason)) == (900, 1)
    assert server.metric("apikey_cost_misses_total") == 1


def test_a_head_has_no_body(nginx, chat, key):
    server = gateway(nginx, chat, "apikey_cost 7 of=tokens response=json:usage.total_tokens;")
    assert server.request("HEAD", "/v1/x", key=key).status_code in (200, 501)
    server.logged(1)
    assert (left(server, key), misses(server, "head")) == (993, 1)


@pytest.mark.parametrize("status, remains", [(502, 1000), (503, 1000), (504, 1000), (500, 979), (200, 979)])
def test_refund_by_the_final_status(nginx, chat, key, status, remains):
    server = gateway(nginx, chat, SETTLED + "apikey_refund 502 503 504;")
    chat.answer(completion(21), status=status)
    assert ask(server, key).status_code == status
    assert left(server, key) == remains
    assert server.metric("apikey_cost_misses_total") == 0


def test_refund_when_the_upstream_is_not_there(nginx, chat, key):
    server = gateway(nginx, chat, "apikey_cost 30; apikey_refund 502 503 504;")
    chat.close()
    server.allow_log(r"connect\(\) failed")
    assert [ask(server, key).status_code for _ in range(3)] == [502] * 3
    assert left(server, key) == 1000


def test_refund_of_an_error_page(nginx, chat, key):
    server = gateway(nginx, chat, SETTLED + "apikey_refund 503; proxy_intercept_errors on; error_page 500 =503 /sorry;",
                     locations='location = /sorry { apikey off; return 503 "sorry"; }')
    chat.answer(completion(21), status=500)
    assert ask(server, key).status_code == 503
    assert left(server, key) == 1000


def test_free(nginx, chat, key):
    server = gateway(nginx, chat, "apikey_cost 0;", locations=f"location /dear {{ apikey_cost 1000; proxy_pass {chat.url}; }}")
    assert {ask(server, key).status_code for _ in range(4)} == {200}
    assert left(server, key) == 1000
    assert [ask(server, key, path="/dear").status_code for _ in range(2)] == [200, 429]
    assert ask(server, key).status_code == 200, "what is free passes an exhausted limit"


def test_a_free_reserve_still_finds_an_exhausted_limit(nginx, chat, key):
    server = gateway(nginx, chat, SETTLED.replace("reserve=100", "reserve=0"))
    chat.answer(completion(5))
    ask(server, key)
    assert left(server, key) == 995
    chat.answer(completion(2000))
    assert [ask(server, key).status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("value, remains", [("5", 995), ("0", 1000), ("1.5", 998), ("1e2", 900)])
def test_a_cost_from_a_variable(nginx, chat, key, value, remains):
    server = gateway(nginx, chat, "apikey_cost $http_x_cost;")
    assert ask(server, key, headers={"X-Cost": value}).status_code == 200
    assert left(server, key) == remains


@pytest.mark.parametrize("value", [None, "", "abc", "-5", "5 apples"])
def test_a_variable_that_is_no_number_costs_1(nginx, chat, key, value):
    server = gateway(nginx, chat, "apikey_cost $http_x_cost;")
    for _ in range(2):
        assert ask(server, key, headers={} if value is None else {"X-Cost": value}).status_code == 200
    assert (left(server, key), misses(server, "bad_variable")) == (998, 2)
    said = re.findall(r'\[error\].*apikey_cost: a variable of location "/v1/" holds no number', server.error_log())
    assert 1 <= len(said) <= 2, "at most once a second and worker"
    assert server.request("POST", PATH).status_code == 401
    assert misses(server, "bad_variable") == 2, "without a key there is nothing to charge"


def test_a_cost_that_is_too_large_is_the_largest(nginx, chat, key):
    server = gateway(nginx, chat, "apikey_cost $http_x_cost;",
                     server=LIMITS.replace("burst=1000", "burst=1000000000"))
    assert ask(server, key, headers={"X-Cost": "9" * 30}).status_code == 200
    assert left(server, key) == 0
    assert ask(server, key, headers={"X-Cost": "1"}).status_code == 429


@pytest.mark.parametrize("said, remains, reason", [
    ("21", 979, None), ("2000", 0, None), ("0", 1000, None), ("20.2", 979, None),
    (None, 900, "no_figure"), ("many", 900, "not_a_number"), ("10, 11", 900, "not_a_number")])
def test_a_figure_from_a_header(nginx, chat, key, said, remains, reason):
    server = gateway(nginx, chat, "apikey_cost 100 of=tokens response=$upstream_http_x_tokens;")
    chat.answer(completion(5), headers={} if said is None else {"X-Tokens": said})
    ask(server, key)
    assert left(server, key) == remains
    assert server.metric("apikey_cost_misses_total") == (0 if reason is None else misses(server, reason) == 1)


def test_each_measure_has_its_own_cost(nginx, chat, key):
    limits = LIMITS + "apikey_limit rate=1r/h burst=50 name=calls; apikey_limit rate=1r/h burst=500 name=tokens.day;"
    costs = "apikey_cost 3; apikey_cost 100 of=tokens response=json:usage.total_tokens;"
    server = gateway(nginx, chat, costs, server=limits)
    chat.answer(completion(21))
    ask(server, key)
    assert [left(server, key, name) for name in ("tokens", "tokens.day", "calls")] == [979, 479, 47]


def test_without_a_line_for_it_a_limit_counts_requests(nginx, chat, key):
    server = gateway(nginx, chat, server=LIMITS + "apikey_limit rate=1r/h burst=50 name=calls;")
    ask(server, key)
    assert left(server, key, "calls") == 49


def test_lines_of_an_inner_level_replace_the_outer_ones(nginx, chat, key):
    inner = "".join(f"location {path} {{ {said} proxy_pass {chat.url}; }}"
                    for path, said in (("/same", ""), ("/other", "apikey_cost 2;"),
                                       ("/keeps", "apikey_cost 2; apikey_refund 500;")))
    server = gateway(nginx, chat, "", server=LIMITS + "apikey_cost 10; apikey_refund 200;", locations=inner)
    for path, remains in (("/same", 1000), ("/other", 1000), ("/keeps", 998)):
        ask(server, key, path=path)
        assert left(server, key) == remains


def test_a_request_refused_by_a_limit_costs_nothing(nginx, chat, key):
    limits = LIMITS + "apikey_limit rate=1r/h burst=1 name=calls;"
    server = gateway(nginx, chat, "apikey_cost 100 of=tokens;", server=limits)
    assert [ask(server, key).status_code for _ in range(3)] == [200, 429, 429]
    assert left(server, key) == 900


def test_internal_redirects_charge_and_settle_once(nginx, chat, key):
    server = gateway(nginx, chat, "", server=LIMITS + SETTLED,
                     locations=f"location /try {{ try_files /none @model; }} location @model {{ proxy_pass {chat.url}; }}")
    chat.answer(completion(21))
    ask(server, key, path="/try")
    assert left(server, key) == 979
    assert server.metric("apikey_cost_misses_total") == 0, "apikey_whoami has nothing to settle"


def test_auth_request_charges_and_the_answer_settles(nginx, chat, key):
    server = gateway(nginx, chat, "", server=LIMITS, locations=f"""
        location = /verify {{ internal; apikey_verify; {SETTLED} apikey_refund 502; }}
        location /app {{ apikey off; auth_request /verify; proxy_pass {chat.url}; }}""")
    chat.answer(completion(21))
    assert ask(server, key, path="/app").status_code == 200
    assert left(server, key) == 979
    chat.answer(completion(21), status=502)
    ask(server, key, path="/app")
    assert left(server, key) == 979


def test_a_cached_answer_costs_what_it_says(nginx, chat, key, place):
    cached = SETTLED + "proxy_cache answers; proxy_cache_valid 200 1m; proxy_cache_methods POST;"
    server = gateway(nginx, chat, cached, http=f"proxy_cache_path {place}/cache keys_zone=answers:1m;")
    chat.answer(completion(21))
    for remains in (979, 958):
        assert ask(server, key).content == completion(21)
        assert left(server, key) == remains
    assert len(chat.requests) == 1


def test_an_unfinished_answer_counts_as_far_as_it_came(nginx, chat, key):
    server = gateway(nginx, chat)
    whole = b'{"usage":{"total_tokens":42},"text":"' + b"x" * 50_000
    chat.answer(whole, headers={"Connection": "close"})
    chat.headers["Content-Length"] = str(len(whole) + 1)
    server.allow_log("upstream prematurely closed connection")
    with server.connect() as connection:
        connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key.secret}\r\n\r\n".encode())
        while connection.recv(65536):
            pass
    server.logged(1)
    assert left(server, key) == 958


def test_the_location_that_ends_the_request_says_where_the_figure_stands(nginx, chat, key):
    server = gateway(nginx, chat, "", locations=f"""location /try {{ try_files /none @model; }}
        location @model {{ {SETTLED} proxy_pass {chat.url}; }}""")
    chat.answer(completion(21))
    ask(server, key, path="/try")
    assert left(server, key) == 979


def test_forgotten_by_a_later_refusal(nginx, chat, registry):
    key = registry.key(scope="a")
    server = gateway(nginx, chat, "", server=LIMITS.replace("apikey_scope any;", "apikey_scope a;") + "apikey_cost 10;",
                     locations=f"""location /try {{ try_files /none @other; }}
                             location @other {{ apikey_scope b; proxy_pass {chat.url}; }}""")
    assert ask(server, key, path="/try").status_code == 403
    assert left(server, key) == 1000


# What nobody may cut: an answer that says what it costs comes as a whole

DOCUMENT = b'{"padding":"' + b"x" * 4000 + b'",' + completion(500)[1:]
PART = {"Range": "bytes=0-9"}


@pytest.fixture
def ranged(nginx, upstream, place):
    html = place / "html"
    html.mkdir()
    (html / "document").write_bytes(DOCUMENT)
    upstream.answers["/whole"] = (200, {"Accept-Ranges": "bytes", "ETag": '"1"'}, DOCUMENT)
    upstream.answers["/later"] = upstream.answers["/whole"]
    upstream.answers["/part"] = (206, {"Content-Range": f"bytes 0-9/{len(DOCUMENT)}"}, DOCUMENT[:10])
    upstream.answers["/unchanged"] = (304, {"ETag": '"1"'}, b"")
    upstream.answers["/none"] = (204, {}, b"")
    upstream.answers["/accel"] = (200, {"X-Accel-Redirect": "/document"}, b"")
    up, metered = upstream.url, "apikey_cost 1 of=tokens response=json:usage.total_tokens;"
    return nginx(f"""
        root {html};
        location = /whoami {{ apikey_whoami; }}
        location = /document {{ {metered} }}
        location = /forced {{ {metered} proxy_force_ranges on; proxy_pass {up}/whole; }}
        location = /proxied {{ {metered} proxy_pass {up}/whole; }}
        location = /cached {{ {metered} proxy_cache answers; proxy_cache_valid 200 1m; proxy_pass {up}/whole; }}
        location = /part {{ {metered} proxy_pass {up}; }}
        location = /unchanged {{ {metered} proxy_pass {up}; }}
        location = /none {{ {metered} proxy_pass {up}; }}
        location = /sliced {{ {metered} slice 1k; proxy_set_header Range $slice_range; proxy_pass {up}/sliced; }}
        location = /later {{ try_files /absent @later; }}
        location @later {{ {metered} proxy_force_ranges on; proxy_pass {up}; }}
        location = /asks {{ apikey off; auth_request /question; proxy_force_ranges on; proxy_pass {up}/whole; }}
        location = /question {{ internal; {metered} apikey_verify; }}
        location = /accel {{ {metered} proxy_pass {up}; }}
        location = /plain {{ apikey_cost 1 of=*; proxy_force_ranges on; proxy_pass {up}/whole; }}
    """, server=LIMITS, http=f"proxy_cache_path {place}/cache keys_zone=answers:1m;")


def fetch(server, key, path, method="GET", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return to_its_end(server, path, lambda: server.request(method, path, key=key, headers=headers))


@pytest.mark.parametrize("path", ["/document", "/forced", "/proxied", "/cached", "/later", "/asks"])
@pytest.mark.parametrize("headers", [PART, {"Range": "bytes=-5"}, {"Range": "bytes=0-1,3-4"},
                                     {"Range": "bytes=0-9", "If_Range": '"1"'}, {"Range": "bytes=99999-"}, {}])
def test_a_part_is_not_to_be_had(ranged, upstream, key, path, headers):
    for number in (1, 2):
        answer = fetch(ranged, key, path, **headers)
        assert (answer.status_code, answer.content) == (200, DOCUMENT)
        assert "Accept-Ranges" not in answer.headers and "Content-Range" not in answer.headers
        assert left(ranged, key) == 1000 - number * 500
    assert [seen for seen in upstream.requests if seen.header("Range") or seen.header("If-Range")] == []


def test_what_is_not_metered_may_be_cut(ranged, key):
    assert fetch(ranged, key, "/plain", **PART).status_code == 206


@pytest.mark.parametrize("path, method, headers, reason", [
    ("/document", "HEAD", {}, "head"), ("/proxied", "HEAD", {}, "head"), ("/cached", "HEAD", {}, "head"),
    ("/unchanged", "GET", {}, "not_modified"), ("/cached", "GET", {"If_None_Match": '"1"'}, "not_modified"),
    ("/part", "GET", {}, "partial"), ("/none", "GET", {}, "no_figure")])
def test_what_has_no_body_keeps_the_reserve_and_is_counted_by_kind(ranged, key, path, method, headers, reason):
    fetch(ranged, key, path, method, **headers)
    assert (left(ranged, key), misses(ranged, reason)) == (999, 1)
    assert ranged.metric("apikey_cost_misses_total") == 1


def test_a_static_file_that_has_not_changed(ranged, key):
    since = fetch(ranged, key, "/document").headers["Last-Modified"]
    answer = fetch(ranged, key, "/document", If_Modified_Since=since)
    assert (answer.status_code, left(ranged, key), misses(ranged, "not_modified")) == (304, 499, 1)


def test_slices_are_parts(ranged, upstream, key):
    answers = upstream.answers

    class Slices(dict):
        def get(self, path, default=None):
            if path != "/sliced":
                return answers.get(path, default)
            first, last = (int(n) for n in upstream.last.header("Range").removeprefix("bytes=").split("-"))
            piece = DOCUMENT[first:last + 1]
            whole = f"bytes {first}-{first + len(piece) - 1}/{len(DOCUMENT)}"
            return 206, {"Content-Range": whole, "ETag": '"1"'}, piece

    upstream.answers = Slices()
    answer = fetch(ranged, key, "/sliced")
    assert (answer.status_code, answer.content) == (200, DOCUMENT)
    assert (left(ranged, key), misses(ranged, "slice")) == (999, 1)


def test_an_internal_redirect_takes_the_range_along_to_nobody(ranged, key):
    answer = fetch(ranged, key, "/accel", **PART)
    assert (answer.status_code, answer.content, left(ranged, key)) == (200, DOCUMENT, 500)


# Measures

def test_costs_are_matched_by_measure_over_redirects(nginx, chat, key):
    limits = "apikey_limit rate=1r/h burst=1000 name=calls; apikey_limit rate=1r/h burst=1000 name=tokens;"
    server = nginx(f"""
        location /try {{ {limits} apikey_cost 1 of=calls; apikey_cost 10 of=tokens; try_files /none @model; }}
        location @model {{ apikey_cost 10 of=tokens response=json:usage.total_tokens; apikey_cost 5 of=calls;
                           proxy_pass {chat.url}; }}
        location = /whoami {{ {limits} apikey_whoami; }}""", server='apikey "chat"; apikey_scope any;')
    chat.answer(completion(400))
    assert ask(server, key, path="/try").status_code == 200
    assert (left(server, key, "calls"), left(server, key, "tokens")) == (999, 600)


@pytest.fixture
def endpoints(nginx, registry, upstream):
    """A plan with limits for single endpoints. RETURNS: what makes a server, a key."""
    registry.plan("gold", "--rate", "search=2/h", "--rate", "export.big=1/h", "--rate", "100/h", "--rate", "images=5/h")
    key = registry.key(plan="gold")

    def make(locations="", **parts):
        return nginx(f"""
            location = /search {{ apikey_cost 1 of=search; proxy_pass {upstream.url}; }}
            location = /export {{ apikey_cost 1 of=export; proxy_pass {upstream.url}; }}
            location = /other {{ proxy_pass {upstream.url}; }}
            location = /priced {{ apikey_cost 3; proxy_pass {upstream.url}; }}
            location = /all {{ apikey_cost 1 of=*; proxy_pass {upstream.url}; }}
            location = /required {{ apikey_limit require=search; proxy_pass {upstream.url}; }}
            location = /open {{ apikey off; return 204; }}
            location = /whoami {{ apikey_whoami; }}
            {locations}""", server='apikey "api"; apikey_scope any;', **parts)
    return make, key


def taken(server, key):
    limits = server.get("/whoami", key=key).json()["limits"]
    return {limit["name"]: limit["limit"] - limit["remaining"] for limit in limits if limit["limit"] != limit["remaining"]}


def test_what_a_location_names_counts_only_where_it_is_named(endpoints):
    make, key = endpoints
    server = make()
    for path, wanted in (("/other", {"rate": 1, "images": 1}), ("/search", {"rate": 2, "images": 2, "search": 1}),
                         ("/priced", {"rate": 5, "images": 5, "search": 1})):
        assert ask(server, key, path=path).status_code == 200
        assert taken(server, key) == wanted
    assert ask(server, key, path="/priced").status_code == 429, "images"


def test_of_all_restores_what_counts(endpoints):
    make, key = endpoints
    server = make()
    assert ask(server, key, path="/all").status_code == 200
    assert taken(server, key) == {"rate": 1, "images": 1, "search": 1, "export.big": 1}
    assert ask(server, key, path="/all").status_code == 429
    assert ask(server, key, path="/required").status_code == 200
    assert taken(server, key)["search"] == 2, "who asks for a limit counts it"
    assert ask(server, key, path="/search").status_code == 429
    assert ask(server, key, path="/other").status_code == 200


def test_limits_of_a_location_itself_count_there_and_of_a_server_where_they_are_named(nginx, registry, upstream):
    key = registry.key()
    server = nginx(f"""
        location = /search {{ apikey_cost 1 of=search; proxy_pass {upstream.url}; }}
        location = /own {{ apikey_limit rate=1r/h burst=9 name=search.own; proxy_pass {upstream.url}; }}
        location = /other {{ proxy_pass {upstream.url}; }}""",
        server='apikey "api"; apikey_scope any; apikey_limit rate=1r/h burst=7 name=search;')
    names = {}
    for path in ("/search", "/own", "/other"):
        names[path] = server.request("POST", path, key=key).headers.get("X-RateLimit-Limit")
    assert names == {"/search": "7", "/own": "9", "/other": None}


def test_the_test_of_the_configuration_lists_where_it_no_longer_counts(endpoints, nginx, registry):
    make, _ = endpoints
    said = make().check()[1]
    lines = re.findall(r'limits of "(\w+)" count only .* no longer in (.*); write', said)
    assert lines == [("search", '"/export", "/other", "/priced"'), ("export", '"/search", "/other", "/priced", "/required"')]
    many = "".join(f"location = /x{number} {{ apikey_limit rate=1r/s; }}" for number in range(25))
    said = make(many).check()[1]
    assert all(f'"/x{number}"' in said for number in range(25))
    # Another store knows nothing of it.
    second = type(registry)(registry.dir.parent / "second")
    text = ('apikey "x"; apikey_scope any; apikey_use first; location = /a { apikey_cost 1 of=search; } '
            'location = /b { apikey_use second; }')
    good, said = nginx.check(server=text, store=f"{registry.snapshot} name=first",
                             http=f"apikey_store {second.snapshot} name=second;")
    assert good and "count only" not in said


def test_a_level_has_as_many_costs_as_it_likes(nginx, registry, upstream):
    names = [f"m{number}" for number in range(12)]
    registry.plan("wide", *(word for name in names for word in ("--rate", f"{name}=1/h", "--burst", f"{name}=1000")))
    key = registry.key(plan="wide")
    costs = "".join(f"apikey_cost {number + 1} of={name};" for number, name in enumerate(names))
    server = nginx(f"location / {{ {costs} proxy_pass {upstream.url}; }} location = /whoami {{ apikey_whoami; }}",
                   server='apikey "api"; apikey_scope any;')
    assert ask(server, key, path="/").status_code == 200
    assert taken(server, key) == {name: number + 1 for number, name in enumerate(names)}


def test_survives_a_reload_in_the_middle(nginx, chat, key):
    server = gateway(nginx, chat, SETTLED + "proxy_buffering off;")
    gate = threading.Event()
    stream = events(21)
    chat.stream([stream[:50], gate, stream[50:]])
    with server.stream("POST", PATH, headers={"X-API-Key": key.secret}) as answer:
        seen = answer.iter_raw()
        start = next(seen)
        server.reload(wait_for_old=False)
        assert left(server, key) == 900
        gate.set()
        assert start + b"".join(seen) == stream
    server.last_logged(PATH)
    assert left(server, key) == 979
