"""A decision is about its own request: a refusal lasts over all passes of a request, and what a subrequest decides
changes nothing of the request it belongs to. What has reached an upstream is paid for."""

import subprocess

import httpx
import pytest

from harness.waiting import free_port, wait_until

TEXT = 'default_type text/plain; ssi on; ssi_types text/plain;'


def include(path):
    return f'<!--# include virtual="{path}" -->'


@pytest.fixture(scope="module")
def server(stage):
    registry = stage.registry
    up = stage.upstream.url
    registry.plan("three", rate="1/h", burst=3)
    registry.plan("thousand", rate="1/h", burst=1000)
    stage.second = type(registry)(stage.place / "second")
    stage.there = stage.second.key("bob", plan=stage.second.plan("three", rate="1/h", burst=3))
    stage.upstream.answers["/accel"] = (200, {"X-Accel-Redirect": "/inside/file"}, b"")
    stage.upstream.answers["/intercepted"] = (404, {}, b"")
    stage.upstream.answers["/mirrored"] = (200, {}, b"")
    html = stage.place / "html"
    html.mkdir()
    pages = {"refused-include": include("/ask/scoped"), "good-include": include("/ask/good"),
             "two-includes": include("/ask/scoped") + include("/ask/good") + include("/ask/second"),
             "whoami-include": include("/ask/whoami"), "refused-whoami": include("/ask/second-whoami"),
             "open-page": include("/ask/by-query?k=ak_live_wrong"), "guarded-include": include("/ask/second-limited"), "own-limit": include("/ask/once"), "dear": include("/ask/good"), "off": include("/ask/good")}
    for name, text in pages.items():
        (html / name).write_text(f"page {text} end")
    passes = "".join(f'location /{name}/ {{ error_page 401 403 429 @{name}; }} location @{name} {{ {inside} }}'
                     for name, inside in PASSES.items()).replace("UPSTREAM", up)
    front = stage.nginx(f"""
        root {html}; {TEXT}
        apikey "api"; apikey_scope any; apikey_use first;
        location = /refused-include {{ }}
        location = /good-include {{ }}
        location = /two-includes {{ }}
        location = /whoami-include {{ }}
        location = /refused-whoami {{ }}
        location = /own-limit {{ }}
        location = /dear {{ apikey_cost 600; }}
        location = /off {{ apikey off; add_header V-Status $apikey_status; }}
        location = /mirror {{ mirror /ask/scoped; try_files /good-include =404; }}
        location = /ask/scoped {{ apikey_scope nobody:has; apikey_verify; }}
        location = /ask/good {{ apikey_verify; }}
        location = /ask/once {{ apikey_limit rate=1r/h burst=1; apikey_verify; }}
        location = /ask/second {{ apikey_use second; apikey_verify; }}
        location = /ask/whoami {{ apikey_whoami; }}
        location = /ask/second-whoami {{ apikey_use second; apikey_whoami; }}
        location = /open-page {{ apikey "api" optional; set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP; }}
        location = /ask/by-query {{ apikey_from query:k; apikey_fail_limit rate=1r/h burst=2; apikey_verify;
                                    set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP; }}
        location = /guarded {{ satisfy any; auth_request /ask/second-limited; apikey_fail_limit rate=1r/h burst=2 block=all;
                               try_files /good-include =404; }}
        location = /ask/second-limited {{ apikey_use second; apikey_fail_limit rate=1r/h burst=2; apikey_verify; }}
        location = /guarded-include {{ apikey_fail_limit rate=1r/h burst=2 block=all; }}
        location = /asked-preflight {{ apikey off; auth_request /ask/good; proxy_pass {up}; }}
        location = /either {{ satisfy any; auth_request /ask/second; add_header V-Id $apikey_id;
                              try_files /good-include =404; }}
        location = /both {{ auth_request /ask/good; apikey_cost 600; try_files /good-include =404; }}
        location = /both-refused {{ auth_request /ask/good; apikey_scope nobody:has; }}
        location = /asked-off {{ apikey off; auth_request /ask/good; try_files /good-include =404; }}
        location = /asked-refused {{ auth_request /ask/scoped; error_page 403 = @after-question; }}
        location @after-question {{ add_header V-Status $apikey_status always; proxy_pass {up}; }}
        location = /me {{ apikey_whoami; }}
        {passes}
        location = /accel {{ proxy_pass {up}; }}
        location /inside/ {{ internal; apikey_scope nobody:has; apikey_refund 403; }}
        location = /intercepted {{ proxy_pass {up}; proxy_intercept_errors on; error_page 404 = @scoped;
                                   apikey_refund 403 404; }}
        location = /mirrored-then-refused {{ mirror /copy; error_page 404 = @scoped; }}
        location = /copy {{ internal; proxy_pass {up}/mirrored; }}
        location @scoped {{ apikey_scope nobody:has; apikey_refund 403; }}
        location = /refused-at-home {{ try_files /none @scoped; }}
    """, store=f"{registry.snapshot} name=first", http=f"apikey_store {stage.second.snapshot} name=second;")
    front.wait_for_generation(stage.second.generation(), store="second")
    return front


# Where a refused request may be led to: what it shows there is what was decided before.
SHOWN = '"$apikey_status $apikey_limit_name [$apikey_id$apikey_owner] $apikey_seen_owner\n"'
PASSES = {
    "same": f"return 200 {SHOWN};",
    "off": f"apikey off; return 200 {SHOWN};",
    "realm": f'apikey "other"; return 200 {SHOWN};',
    "optional": f'apikey "other" optional; return 200 {SHOWN};',
    "store": f"apikey_use second; return 200 {SHOWN};",
    "source": f"apikey_from query:k; return 200 {SHOWN};",
    "scopes": f"apikey_scope any; set $early $apikey_owner; return 200 {SHOWN};",
    "off-twice": f"apikey off; try_files /none @off-again; }} location @off-again {{ return 200 {SHOWN};",
    "proxied": 'apikey off; proxy_pass UPSTREAM; proxy_set_header V-Status $apikey_status; '
               'proxy_set_header V-Id $apikey_id;',
}


@pytest.fixture
def key(stage, server):
    made = stage.registry.key("alice", plan="three")
    server.wait_for_generation(stage.registry.generation(), store="first")
    return made


@pytest.fixture
def dear(stage, server):
    made = stage.registry.key("alice", plan="thousand")
    server.wait_for_generation(stage.registry.generation(), store="first")
    return made


def left(server, key):
    return server.get("/me", key=key).json()["limits"][0]["remaining"]


def ask(server, path, key=None, **more):
    """One request whose end has been logged: what it costs is settled then. RETURNS: its answer, its log line."""
    before = len(server.access_log())
    answer = server.get(path, key=key, **more)
    server.logged(before + 1)
    return answer, server.access_log()[-1]


# Later passes

def outcomes(server):
    return {sample: value for sample, value in server.metrics().items() if sample.startswith("apikey_requests_total")}


def counted(server, before):
    after = outcomes(server)
    return [sample.partition('outcome="')[2].partition('"')[0] for sample in after
            if after[sample] != before.get(sample, 0)]


@pytest.mark.parametrize("name", [name for name in PASSES if name != "proxied"])
def test_who_is_over_a_limit_stays_so_in_every_later_pass(server, key, name):
    statuses = [server.status(f"/{name}/x", key=key) for _ in range(3)]
    assert statuses == [404] * 3, "let in, and nothing there"
    before = outcomes(server)
    answer, line = ask(server, f"/{name}/x", key)
    assert answer.text == "rate_limited rate [] alice\n"
    assert (line["outcome"], line["limit_name"], line["id"], line["owner"]) == ("rate_limited", "rate", "", "")
    assert (line["seen_id"], line["seen_owner"]) == (key.id, "alice")
    assert answer.headers["Retry-After"]
    wait_until(lambda: counted(server, before) == ["rate_limited"], what="the request in the metrics")


@pytest.mark.parametrize("name", list(PASSES))
@pytest.mark.parametrize("credential, outcome, seen", [
    (None, "missing", ""), ("ak_live_wrong", "malformed", ""), ("stranger", "unknown", ""), ("revoked", "revoked", "alice")])
def test_every_refusal_is_shown_as_what_it_was(server, stage, name, credential, outcome, seen):
    if credential == "stranger":
        credential = stage.there
    if credential == "revoked":
        credential = stage.registry.key("alice")
        stage.registry.revoke(credential)
        server.wait_for_generation(stage.registry.generation(), store="first")
    stage.upstream.clear()
    answer, line = ask(server, f"/{name}/x", credential)
    assert (line["outcome"], line["id"], line["seen_owner"]) == (outcome, "", seen)
    if name == "proxied":
        assert (stage.upstream.last.header("V-Status"), stage.upstream.last.header("V-Id")) == (outcome, None)
        assert stage.upstream.last.header("X-API-Key") is None
    else:
        assert answer.text == f"{outcome}  [] {seen}\n"
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_later_pass_that_does_not_decide_is_logged_as_it_was_counted(server, stage, nginx_of, key):
    front = nginx_of('error_page 404 = @gone; location @gone { apikey_scope nobody:has; return 410; }')
    assert front.status("/nothing", key=key) == 410
    assert front.last_logged()["outcome"] == "ok"
    wait_until(lambda: front.metric("apikey_requests_total", outcome="ok") == 1, what="the request in the metrics")


@pytest.fixture
def nginx_of(stage):
    def make(locations):
        return stage.nginx(locations, server='apikey "api"; apikey_scope any;')
    return make


# What was sent to an upstream

@pytest.mark.parametrize("path", ["/accel", "/intercepted", "/mirrored-then-refused"])
def test_an_upstream_is_not_driven_by_refusals_in_a_later_pass(server, stage, key, path):
    stage.upstream.clear()
    statuses = [ask(server, path, key)[0].status_code for _ in range(24)]
    assert statuses == [403] * 3 + [429] * 21
    assert len(stage.upstream.requests) == 3
    assert left(server, key) == 0


def test_who_is_refused_before_any_upstream_pays_nothing(server, key):
    assert [ask(server, "/refused-at-home", key)[0].status_code for _ in range(5)] == [403] * 5
    assert left(server, key) == 3


# Subrequests

@pytest.mark.parametrize("path", ["/refused-include", "/two-includes", "/whoami-include", "/refused-whoami", "/mirror",
                                  "/good-include"])
def test_what_a_page_includes_changes_nothing_of_the_page(server, key, path):
    answers = [ask(server, path, key) for _ in range(6)]
    assert [answer.status_code for answer, _ in answers] == [200] * 3 + [429] * 3
    assert [line["outcome"] for _, line in answers] == ["ok"] * 3 + ["rate_limited"] * 3
    assert {line["id"] for _, line in answers[:3]} == {key.id}
    assert [answer.headers["X-RateLimit-Remaining"] for answer, _ in answers[:3]] == ["2", "1", "0"]


def test_a_page_is_counted_once_and_as_itself(server, key):
    before = outcomes(server)
    answer, _ = ask(server, "/two-includes", key)
    assert answer.status_code == 200
    assert counted(server, before) == ["ok"]


def test_a_cost_stays_what_the_page_says(server, dear):
    assert ask(server, "/dear", dear)[0].status_code == 200
    assert left(server, dear) == 400


def test_a_question_before_costs_nothing_more(server, dear):
    answer, _ = ask(server, "/both", dear)
    assert (answer.status_code, answer.headers["X-RateLimit-Remaining"]) == (200, "400")
    assert left(server, dear) == 400
    assert ask(server, "/both", dear)[0].status_code == 429
    assert left(server, dear) == 400, "what the question took is given back with the refusal"
    assert ask(server, "/both-refused", dear)[0].status_code == 403
    assert left(server, dear) == 400


def test_the_limit_of_an_included_location_is_its_own(server, dear):
    for remaining in (999, 998):
        answer, line = ask(server, "/own-limit", dear)
        assert (answer.status_code, line["outcome"]) == (200, "ok")
        assert left(server, dear) == remaining
    assert server.status("/ask/once", key=dear) == 429, "the page has used its one"


def test_a_question_to_another_store_decides_for_its_own(server, stage, key):
    answer, line = ask(server, "/either", key)
    assert (answer.status_code, answer.headers["V-Id"], line["outcome"]) == (200, key.id, "ok")
    answer, line = ask(server, "/either", stage.there)
    assert (answer.status_code, line["outcome"], line["id"]) == (200, "ok", stage.there.id)
    answer, line = ask(server, "/either")
    assert (answer.status_code, line["outcome"]) == (401, "missing")


def test_where_a_location_asks_for_nothing_the_question_speaks(server, key):
    answer, line = ask(server, "/asked-off", key)
    assert (answer.status_code, line["outcome"], line["id"]) == (200, "ok", key.id)
    assert left(server, key) == 2
    answer, line = ask(server, "/asked-off")
    assert (answer.status_code, line["outcome"]) == (401, "missing")
    answer, line = ask(server, "/off", key)
    assert (answer.status_code, line["outcome"]) == (200, "ok")
    assert left(server, key) == 1


def test_who_a_question_refused_stays_refused(server, stage, key):
    stage.upstream.clear()
    answer, line = ask(server, "/asked-refused", key)
    assert (answer.status_code, answer.headers["V-Status"], line["outcome"]) == (403, "scope", "scope")
    assert stage.upstream.requests == []
    assert left(server, key) == 3


@pytest.mark.parametrize("path", ["/guarded", "/guarded-include"])
def test_what_another_store_does_not_know_is_no_failed_attempt(server, dear, path):
    assert [ask(server, path, dear)[0].status_code for _ in range(5)] == [200] * 5


def test_a_guess_in_what_is_included_is_a_failed_attempt(server):
    for _ in range(2):
        assert ask(server, "/open-page?k=ak_live_wrong", headers={"X-Real-IP": "192.0.2.1"})[0].status_code == 200
    assert server.status("/ask/by-query?k=ak_live_wrong", headers={"X-Real-IP": "192.0.2.1"}) == 429
    assert server.status("/ask/by-query?k=ak_live_wrong", headers={"X-Real-IP": "192.0.2.2"}) == 401


# CORS preflights

PREFLIGHT = "OPTIONS /p HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: PUT\r\n"


@pytest.mark.parametrize("body", ["Content-Length: 20\r\n\r\nPUT /evil HTTP/1.1\r\n", "Content-Length: 0\r\n\r\n", "\r\n",
                                  "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"])
@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_preflight_carries_neither_body_nor_another_method(stage, nginx_of, name, body):
    front = nginx_of(f"location / {{ proxy_pass {stage.upstream.url}; }}")
    stage.upstream.clear()
    answer = front.raw(f"{PREFLIGHT}{name}: DELETE\r\n{name.lower()}: PATCH\r\nConnection: close\r\n{body}".encode())
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert answer.count(b"HTTP/1.1") == 1
    seen = stage.upstream.last
    assert (len(stage.upstream.requests), seen.method, seen.body) == (1, "OPTIONS", b"")
    left_over = {header.lower() for header, _ in seen.headers}
    assert not left_over & {name.lower(), "transfer-encoding", "x-http-method"}
    assert seen.header("Content-Length") in (None, "0")
    assert seen.header("Origin") == "https://a.example"
    assert front.last_logged()["outcome"] == "preflight"


def test_a_preflight_with_underscores_in_its_headers(stage, nginx):
    front = stage.nginx(f"location / {{ proxy_pass {stage.upstream.url}; }}",
                        server='underscores_in_headers on; apikey "api"; apikey_scope any;')
    front.raw(f"{PREFLIGHT}X_HTTP_Method_Override: DELETE\r\nConnection: close\r\n\r\n".encode())
    assert [name for name, _ in stage.upstream.last.headers if "method_override" in name.lower()] == []


def test_a_preflight_over_http_2(stage, nginx, server):
    certificate = stage.place / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x", "-keyout",
                    stage.place / "key.pem", "-out", certificate], check=True, capture_output=True)
    port = free_port()
    front = stage.nginx(http=f"""server {{
        listen 127.0.0.1:{port} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {stage.place}/key.pem;
        apikey "api"; apikey_scope any; location / {{ proxy_pass {stage.upstream.url}; }} }}""")
    stage.upstream.clear()
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "PUT", "X-HTTP-Method-Override": "PUT"}
    with httpx.Client(http2=True, verify=False, trust_env=False) as client:
        for content in (b"", b"hello", b"x" * 60_000):
            answer = client.request("OPTIONS", f"https://127.0.0.1:{port}/p", headers=headers, content=content)
            assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
            assert (stage.upstream.last.body, stage.upstream.last.header("X-HTTP-Method-Override")) == (b"", None)
            assert stage.upstream.last.header("Content-Length") in (None, "0")


def test_a_preflight_that_a_question_lets_pass_carries_neither(server, stage):
    stage.upstream.clear()
    answer = server.raw(f"{PREFLIGHT.replace('/p', '/asked-preflight')}X-HTTP-Method-Override: DELETE\r\nConnection: close\r\n"
                        "Content-Length: 5\r\n\r\nhello".encode())
    assert answer.startswith(b"HTTP/1.1 200"), answer
    seen = stage.upstream.last
    assert (seen.method, seen.body, seen.header("X-HTTP-Method-Override")) == ("OPTIONS", b"", None)
    assert server.last_logged("/asked-preflight")["outcome"] == "preflight"


def test_what_is_no_preflight_keeps_its_body(stage, nginx_of, key):
    front = nginx_of(f"location / {{ proxy_pass {stage.upstream.url}; }}")
    answer = front.request("POST", "/p", key=key, content=b"hello", headers={"X-HTTP-Method-Override": "PUT"})
    assert answer.status_code == 200
    assert (stage.upstream.last.body, stage.upstream.last.header("X-HTTP-Method-Override")) == (b"hello", "PUT")


def test_a_preflight_counts_for_its_address(stage, nginx_of, dear):
    front = nginx_of(f"location / {{ apikey_limit rate=1r/h burst=2; apikey_cost 5; proxy_pass {stage.upstream.url}; }} "
                     f"location /dear {{ apikey_limit rate=1r/h burst=7; apikey_cost 5; proxy_pass {stage.upstream.url}; }}")
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "PUT"}
    answers = [front.request("OPTIONS", "/", headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["Retry-After"]) > 3000
    assert sorted(line["outcome"] for line in front.logged(3)) == ["preflight", "preflight", "rate_limited"]
    assert front.request("OPTIONS", "/dear", headers=headers).status_code == 200
    assert front.status("/dear", key=dear) == 200, "the key's own is another one"
    assert front.request("OPTIONS", "/dear", headers=headers).headers["X-RateLimit-Remaining"] == "5"
