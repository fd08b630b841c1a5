"""A key sent through any source, with good or bad outcome, is found nowhere afterwards.

Looked through: access and error logs, what the upstream, auth_request and mirror received, metrics, answers, and every
file of the registry's directory. nginx's own debug level is left out: it writes headers before any module runs.
"""

import base64

import pytest

SOURCES = "header:X-API-Key header:X-Other bearer basic query:api_key cookie:api_key"


def ways(secret):
    """Every way to send one key: (path suffix, headers)."""
    in_user = base64.b64encode(f"{secret}:".encode()).decode()
    in_password = base64.b64encode(f"key:{secret}".encode()).decode()
    return {
        "header": ("", {"X-API-Key": secret}),
        "other-header": ("", {"X-Other": secret}),
        "bearer": ("", {"Authorization": f"Bearer {secret}"}),
        "basic-user": ("", {"Authorization": f"Basic {in_user}"}),
        "basic-password": ("", {"Authorization": f"Basic {in_password}"}),
        "query": (f"?a=1&api_key={secret}&b=2", {}),
        "query-only": (f"?api_key={secret}", {}),
        "query-encoded": (f"?api_key={secret.replace('_', '%5F')}", {}),
        "cookie": ("", {"Cookie": f"theme=dark; api_key={secret}; lang=de"}),
        "twice": ("", [("X-API-Key", secret), ("X-API-Key", secret)]),
        "two-places": (f"?api_key={secret}", {"X-API-Key": secret}),
    }


WAYS = list(ways("x"))
PATHS = ["/plain", "/scoped", "/limited", "/optional", "/checked", "/mirrored", "/redirected", "/refused-by-address",
         "/satisfied", "/failing", "/absent", "/verify", "/whoami", "/no-upstream"]


@pytest.fixture(scope="module")
def server(stage):
    stage.upstream.answers["/checker"] = (200, {}, b"")
    stage.upstream.answers["/failing"] = (500, {}, b"broken")
    up = stage.upstream.url
    front = stage.nginx(f"""
        apikey "api"; apikey_scope any; apikey_from {SOURCES};
        location /plain     {{ proxy_pass {up}; }}
        location /scoped    {{ apikey_scope never:granted; proxy_pass {up}; }}
        location /limited   {{ limit_req zone=all; proxy_pass {up}; }}
        location /optional  {{ apikey "api" optional; proxy_pass {up}; }}
        location /checked   {{ auth_request /checker; proxy_pass {up}; }}
        location = /checker {{ internal; apikey off; proxy_pass {up}; proxy_pass_request_body off;
                               proxy_set_header X-Original-URI $request_uri; }}
        location /mirrored  {{ mirror /mirror; proxy_pass {up}; }}
        location = /mirror  {{ internal; apikey off; proxy_pass {up}; }}
        location /redirected {{ try_files /nothing @named; }}
        location @named     {{ proxy_pass {up}; }}
        location /refused-by-address {{ deny all; proxy_pass {up}; }}
        location /satisfied {{ satisfy any; allow 127.0.0.1; deny all; proxy_pass {up}; }}
        location /failing   {{ proxy_pass {up}; proxy_intercept_errors on; error_page 500 =502 @named; }}
        location /absent    {{ apikey_use absent; proxy_pass {up}; }}
        location /verify    {{ apikey_verify; }}
        location /whoami    {{ apikey_whoami; }}
        location /no-upstream {{ proxy_pass http://127.0.0.1:1; }}
    """, http="""
        limit_req_zone $server_name zone=all:1m rate=1r/m;
        apikey_store /nonexistent/apikey/keys.mdb name=absent;
    """)
    return front


def outcomes(stage):
    good = stage.registry.key("alice", publish=False)
    limited = stage.registry.key("alice", rate="1/h", burst=1, publish=False)
    expired = stage.registry.key("alice", not_before="2099-01-01", publish=False)
    revoked = stage.registry.key("alice")
    stage.registry.revoke(revoked)
    mistyped = good.secret[:20] + "X" + good.secret[21:]
    return {"good": good.secret, "limited": limited.secret, "early": expired.secret, "revoked": revoked.secret,
            "mistyped": mistyped}


def forms_of(secret):
    """The secret in every writing that was sent."""
    random_part = secret.split("_")[2]
    return [random_part, base64.b64encode(f"{secret}:".encode()).decode()[:40],
            base64.b64encode(f"key:{secret}".encode()).decode()[:40]]


def test_no_key_is_found_anywhere(server, stage):
    secrets = outcomes(stage)
    server.wait_for_generation(stage.registry.generation())
    stage.upstream.clear()
    answers = []
    for secret in secrets.values():
        for suffix, headers in ways(secret).values():
            for path in PATHS:
                answers.append(server.get(path + suffix, headers=headers))
    assert {200, 401, 403, 429, 502, 503} <= {answer.status_code for answer in answers}
    assert len(stage.upstream.requests) > 100
    server.logged(len(answers))

    places = {
        "the access log": server.access_log_path.read_text(),
        "the error log": server.error_log() + server.stderr(),
        "the upstream's requests": "\n".join(seen.text() for seen in list(stage.upstream.requests)),
        "the metrics": server.metrics_text(),
        "the answers": "\n".join(f"{answer.headers} {answer.text}" for answer in answers),
        "the audit": stage.registry.run("audit", "list", "--json").stdout,
    }
    places.update({str(path): path.read_bytes().decode("latin-1")
                   for path in stage.registry.dir.rglob("*") if path.is_file()})
    found = [f"{name} key in {place}" for name, secret in secrets.items() for form in forms_of(secret)
             for place, text in places.items() if form in text]
    assert found == []


def test_what_is_not_ours_is_left_alone(server, stage):
    key = stage.registry.key("alice")
    server.wait_for_generation(stage.registry.generation())
    stage.upstream.clear()
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2lnbmF0dXJl"
    answer = server.get(f"/plain?a=1&api_key={key.secret}&b=2",
                        headers={"Authorization": f"Bearer {jwt}", "Cookie": "theme=dark; lang=de", "X-More": "kept"})
    assert answer.status_code == 200
    seen = stage.upstream.last
    assert seen.path == "/plain?a=1&b=2"
    assert seen.header("Authorization") == f"Bearer {jwt}"
    assert seen.header("Cookie") == "theme=dark; lang=de"
    assert seen.header("X-More") == "kept"


def test_hide_off_hands_the_key_on(stage):
    key = stage.registry.key("alice")
    front = stage.nginx(f"""location / {{
        apikey "api"; apikey_scope any; apikey_hide off; proxy_pass {stage.upstream.url};
    }}""")
    assert front.status("/given", key=key) == 200
    assert stage.upstream.last.header("X-API-Key") == key.secret
    assert key.secret not in front.access_log_path.read_text() + front.error_log()


def test_redacted_request_line(server, stage):
    key = stage.registry.key("alice")
    server.wait_for_generation(stage.registry.generation())
    server.clear_access_log()
    assert server.status(f"/plain?a=1&api_key={key.secret}&b=2") == 200
    assert server.logged()[0]["redacted"] == "GET /plain?a=1&api_key=ak_live_****&b=2 HTTP/1.1"
