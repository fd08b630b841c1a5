"""What `nginx -t` says of locations that nobody can pass: each case is refused whatever comes, and each counter-example,
of which nothing is said, lets somebody in or is closed on purpose."""

import base64
import itertools
import re

import pytest

HTPASSWD = "user:{PLAIN}word\n"
ON = 'apikey "a"; apikey_scope any;'
PASSWORD = 'auth_basic "words"; auth_basic_user_file FILE;'
ADDRESS = 'apikey: nobody passes "/a": "deny all" refuses everybody before a key is asked for'
AUTHORIZATION = ('apikey_from: nobody passes "/a": the key and the password of auth_basic would both stand in '
                 "Authorization, and a request has one")
SCOPES = 'apikey_scope: nobody passes "/a": '
EXCEPT = 'apikey_scope: nobody passes the limit_except in "/a": its lines are for '


def cost(amount, size, limit="/a", place="/a"):
    return (f'apikey_cost: every request for "{place}" is refused: it costs {amount}, and a full bucket of limit '
            f'"{limit}" holds {size}')


# What stands in the server, and how the warning begins. ANSWER: what answers.
BARRED = {
    # allow and deny
    "deny": (f"location /a {{ {ON} deny all; ANSWER }}", ADDRESS),
    "deny, optional": ('location /a { apikey "a" optional; apikey_scope any; deny all; ANSWER }', ADDRESS),
    "deny, dry run": (f"location /a {{ {ON} apikey_dry_run on; deny all; ANSWER }}", ADDRESS),
    "deny before allow": (f"location /a {{ {ON} deny all; allow 127.0.0.1; ANSWER }}", ADDRESS),
    "some denied, then all": (f"location /a {{ {ON} deny 10.0.0.1; deny all; ANSWER }}", ADDRESS),
    "both of the server": (f"{ON} deny all; location /a {{ ANSWER }}", ADDRESS),
    "deny of the server": (f"deny all; location /a {{ {ON} ANSWER }}", ADDRESS),
    "deny, and of the other methods too": (
        f"location /a {{ {ON} deny all; limit_except GET {{ deny all; }} ANSWER }}", ADDRESS),
    "a server without locations": (f"{ON} deny all;", ADDRESS.replace('"/a"', '"server localhost"')),
    # one header for two
    "bearer and password": (f"location /a {{ {ON} apikey_from bearer; {PASSWORD} ANSWER }}", AUTHORIZATION),
    "scheme, basic and password": (
        f"{PASSWORD} location /a {{ {ON} apikey_from scheme:ApiKey basic; ANSWER }}", AUTHORIZATION),
    "not hidden": (f"location /a {{ {ON} apikey_from bearer; apikey_hide off; {PASSWORD} ANSWER }}", AUTHORIZATION),
    # more than the bucket holds
    "cost": (f"location /a {{ {ON} apikey_limit rate=10r/s; apikey_cost 11; ANSWER }}", cost(11, 10)),
    "burst": (f"location /a {{ {ON} apikey_limit rate=100r/s burst=5; apikey_cost 6; ANSWER }}", cost(6, 5)),
    "second limit": (
        f"location /a {{ {ON} apikey_limit rate=9r/s by=owner; apikey_limit rate=2r/s name=b; apikey_cost 3; ANSWER }}",
        cost(3, 2, "b")),
    "limit of the server": (
        f"apikey_limit rate=10r/s; location /a {{ {ON} apikey_cost 11; ANSWER }}", cost(11, 10, "server")),
    "by a variable": (
        f"location /a {{ {ON} apikey_limit rate=10r/s by=$server_port; apikey_cost 11; ANSWER }}", cost(11, 10)),
    "of a measure": (
        f"location /a {{ {ON} apikey_limit rate=10r/s name=tokens.s; apikey_cost 11 of=tokens; ANSWER }}",
        cost(11, 10, "tokens.s")),
    "of all others": (
        f"location /a {{ {ON} apikey_limit rate=10r/s; apikey_cost 1 of=tokens; apikey_cost 11 of=*; ANSWER }}",
        cost(11, 10)),
    "reserve": (
        f"location /a {{ {ON} apikey_limit rate=10r/s; apikey_cost 1 reserve=11 response=$upstream_http_x; ANSWER }}",
        cost(11, 10)),
    "anonymous": ('location /a { apikey "a" optional; apikey_scope any; apikey_limit rate=10r/s; apikey_cost 11; '
                  "ANSWER }", cost(11, 10)),
    # methods
    "no line for what is let in": (
        'location /a { apikey "a"; apikey_scope orders:write methods=POST,PUT; limit_except GET { deny all; } ANSWER }',
        SCOPES + "limit_except lets GET,HEAD get to lines that are for POST,PUT"),
    "no line inside limit_except": (
        'location /a { apikey "a"; apikey_scope orders:read methods=GET; '
        "limit_except GET { apikey_scope orders:write methods=GET; } ANSWER }", EXCEPT + "GET,HEAD"),
}

# Nothing is said of these, and somebody passes.
OPEN = {
    "allow": f"location /a {{ {ON} allow 127.0.0.1; deny all; ANSWER }}",
    "satisfy any": f"location /a {{ {ON} satisfy any; deny all; ANSWER }}",
    "all addresses of one kind": f"location /a {{ {ON} deny ::/0; ANSWER }}",
    "some denied": f"location /a {{ {ON} deny 10.0.0.0/8; ANSWER }}",
    "deny of the server only": f"{ON} deny all; location /a {{ allow all; ANSWER }}",
    "other methods": f"location /a {{ {ON} deny all; limit_except GET {{ allow all; }} ANSWER }}",
    "locations inside": f"location /a {{ {ON} deny all; location /a {{ allow all; ANSWER }} }}",
    "rewritten": f"{ON} deny all; location /a {{ rewrite ^ /b last; }} location /b {{ allow all; ANSWER }}",
    "header and password": f"location /a {{ {ON} {PASSWORD} ANSWER }}",
    "password is enough": f"location /a {{ {ON} apikey_from bearer; satisfy any; {PASSWORD} ANSWER }}",
    "password off": f"{PASSWORD} location /a {{ {ON} apikey_from bearer; auth_basic off; ANSWER }}",
    "password without a file": f'location /a {{ {ON} apikey_from bearer; auth_basic "words"; ANSWER }}',
    "password by variable": f'set $off off; location /a {{ {ON} apikey_from bearer; auth_basic $off; '
                            "auth_basic_user_file FILE; ANSWER }",
    "password and no key": f'location /a {{ apikey "a" optional; apikey_scope any; apikey_from bearer; {PASSWORD} '
                           "ANSWER }",
    "password, dry run": f"location /a {{ {ON} apikey_from bearer; apikey_dry_run on; {PASSWORD} ANSWER }}",
    "all of the bucket": f"location /a {{ {ON} apikey_limit rate=1r/h burst=11; apikey_cost 11; ANSWER }}",
    "free": f"location /a {{ {ON} apikey_limit rate=10r/s; apikey_cost 0; ANSWER }}",
    "cost, dry run": f"location /a {{ {ON} apikey_dry_run limits; apikey_limit rate=10r/s; apikey_cost 11; ANSWER }}",
    "cost by variable": f"location /a {{ {ON} apikey_limit rate=10r/s; apikey_cost $connection_requests; ANSWER }}",
    "of another measure": f"location /a {{ {ON} apikey_limit rate=10r/s; apikey_cost 11 of=tokens; ANSWER }}",
    "of a measure that does not count here": (
        f"apikey_limit rate=5r/s name=tokens; location /a {{ {ON} apikey_cost 1 of=requests; ANSWER }} "
        f"location /b {{ {ON} apikey_cost 2 of=tokens; ANSWER }}"),
    "requests in flight": f"location /a {{ {ON} apikey_concurrency 1; apikey_cost 50; ANSWER }}",
    "less in an if": f"location /a {{ {ON} apikey_limit rate=10r/s; apikey_cost 11; "
                     "if ($request_method = GET) { apikey_cost 1; } ANSWER }",
    "less for other methods": f"location /a {{ {ON} apikey_limit rate=10r/s; apikey_cost 11; "
                              "limit_except GET { apikey_cost 1; } ANSWER }",
    "password, satisfied at a cost": f"location /a {{ {ON} satisfy any; allow all; apikey_limit rate=10r/s; "
                                     "apikey_cost 11; ANSWER }",
    "redirected": f"apikey_limit rate=10r/s; {ON} location /a {{ error_page 404 = @b; try_files /none @b; }} "
                  "location @b { apikey_cost 11; ANSWER }",
    "methods for both": 'location /a { apikey "a"; apikey_scope orders:read methods=GET; '
                        "apikey_scope orders:write methods=POST; limit_except GET { deny all; } ANSWER }",
    "methods for one": 'location /a { apikey "a"; apikey_scope orders:write methods=POST; '
                       "limit_except GET { allow all; } ANSWER }",
    "inherited by limit_except": 'location /a { apikey "a"; apikey_scope orders:read methods=GET; '
                                 "limit_except GET { allow 127.0.0.1; deny all; } ANSWER }",
    "no limit_except": 'location /a { apikey "a"; apikey_scope orders:write methods=POST; ANSWER }',
    "scopes, dry run": 'location /a { apikey "a"; apikey_scope orders:write methods=POST; apikey_dry_run scopes; '
                       "limit_except GET { deny all; } ANSWER }",
}

# Nor of these, which are closed on purpose or not asked by clients.
CLOSED = {
    "a location closes itself": f"{ON} location / {{ ANSWER }} location ~ /\\.ht {{ deny all; }}",
    "internal": f"location /a {{ internal; {ON} deny all; ANSWER }}",
    "methods closed": f"location /a {{ {ON} limit_except GET {{ deny all; }} ANSWER }}",
    "methods closed, with a line for others": (
        'location /a { apikey "a"; apikey_scope orders:read methods=GET; '
        "limit_except GET { deny all; apikey_scope orders:read methods=GET; } ANSWER }"),
    "a question": f"location /a {{ {ON} deny all; apikey_verify; }}",
    "whoami": f"location /a {{ {ON} apikey_limit rate=10r/s; apikey_cost 11; apikey_whoami; }}",
    "off": "location /a { apikey off; deny all; ANSWER }",
    "returned": "location /a { apikey off; return 403; }",
}


def written(server, place, answer):
    (place / "htpasswd").write_text(HTPASSWD)
    (place / "htpasswd").chmod(0o644)
    return server.replace("FILE", str(place / "htpasswd")).replace("ANSWER", answer)


def warnings(server):
    is_right, said = server.check()
    assert is_right, said
    lines = [re.sub(r" in \S+:\d+$", "", line.partition("[warn] ")[2]) for line in said.splitlines() if "[warn]" in line]
    return [line for line in lines if "limits of" not in line]  # where a measure is no longer counted


def answers(server, key):
    """Statuses of GET and POST, with the key wherever it may stand, and with a password."""
    def authorization(scheme, text):
        return {"Authorization": f"{scheme} {text}"}

    def basic(text):
        return authorization("Basic", base64.b64encode(text.encode()).decode())

    presented = [{"X-API-Key": key}, {"X-API-Key": key} | basic("user:word"), basic("user:word"), basic(f"{key}:"),
                 authorization("Bearer", key), authorization("ApiKey", key), {}]
    return [server.request(method, "/a", headers=headers).status_code
            for method, headers in itertools.product(("GET", "POST"), presented)]


@pytest.mark.parametrize("name", BARRED)
def test_nobody_can_pass(nginx, place, registry, upstream, name):
    body, begin = BARRED[name]
    server = nginx.make(server=written(body, place, f"proxy_pass {upstream.url};"))
    said = warnings(server)
    assert len(said) == 1 and said[0].startswith(begin), said
    assert "; write " in said[0]
    key = registry.key(scope="orders:*").secret
    server.start()
    server.wait_for_generation(registry.generation())
    if name in PASSED_BY_OTHER_METHODS:
        assert 200 not in answers(server, key)[7:]
    else:
        assert 200 not in answers(server, key)


PASSED_BY_OTHER_METHODS = {"no line inside limit_except"}


@pytest.mark.parametrize("name", OPEN)
def test_somebody_passes(nginx, place, registry, upstream, name):
    server = nginx.make(server=written(OPEN[name], place, f"proxy_pass {upstream.url};"))
    assert warnings(server) == []
    key = registry.key(scope="orders:*").secret
    server.start()
    server.wait_for_generation(registry.generation())
    assert 200 in answers(server, key)


@pytest.mark.parametrize("name", CLOSED)
def test_closed_on_purpose(nginx, place, name):
    assert warnings(nginx.make(server=written(CLOSED[name], place, "empty_gif;"))) == []


@pytest.mark.parametrize("share,amount,holds", [("1/3", 4, "3, share=1/3 of 10"), ("1/3", 3, None), ("1/1", 10, None),
                                                ("1/100", 1, None), ("1/100", 2, "1, share=1/100 of 10")])
def test_a_share_of_the_bucket(nginx, share, amount, holds):
    said = warnings(nginx.make(f"location /a {{ {ON} apikey_limit rate=10r/s; apikey_cost {amount}; empty_gif; }}",
                               http=f"apikey_zone zone=apikey:2m share={share};"))
    assert [line.partition("; write")[0] for line in said] == ([cost(amount, holds)] if holds else [])


LINE = "apikey_scope orders:read methods=GET;"
QUESTION = 'apikey_verify: "/v" refuses every key that a proxy asks about: its apikey_scope has methods='


@pytest.mark.parametrize("on,parameters,warns", [
    (f'apikey "a"; {LINE}', "trusted=127.0.0.1", True),
    (f'apikey "a"; {LINE}', "uri=$http_x_uri trusted=127.0.0.1", True),
    (f'apikey "a"; {LINE} apikey_dry_run scopes;', "trusted=127.0.0.1", True),
    (f'apikey "a"; {LINE}', "method=$http_x_method trusted=127.0.0.1", False),
    (f'apikey "a"; {LINE}', "", False),  # for auth_request
    ('apikey "a"; apikey_scope orders:read;', "trusted=127.0.0.1", False),
    (f'apikey "a" optional; {LINE}', "trusted=127.0.0.1", False),
    (f'apikey "a"; {LINE} apikey_dry_run on;', "trusted=127.0.0.1", False)])
def test_a_proxy_that_does_not_say_the_method(nginx, registry, on, parameters, warns):
    server = nginx.make(f"location /v {{ {on} apikey_verify {parameters}; }}")
    assert [line[:len(QUESTION)] for line in warnings(server)] == ([QUESTION] if warns else [])
    key = registry.key(scope="orders:read")
    server.start()
    server.wait_for_generation(registry.generation())
    if parameters:
        passes = {200} & {server.status("/v", key=key, headers={"X-Method": "GET", "X-Uri": "/"}), server.status("/v")}
        assert bool(passes) != warns
