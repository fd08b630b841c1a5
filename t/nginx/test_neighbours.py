"""Directives of nginx and of other modules that read a place in which keys are hidden.

Each is tried with two customers: what was theirs alone stays theirs alone.
"""

import re

import pytest

from harness.waiting import wait_until

PSEUDONYM = r"apikey:[0-9a-f]{16}"


@pytest.fixture(scope="module")
def server(stage):
    up = stage.upstream.url
    stage.a, stage.b = stage.registry.key("alice"), stage.registry.key("bob")
    a, b = stage.a.secret, stage.b.secret
    cache = "proxy_cache all; proxy_cache_valid 200 1h; add_header X-Cache $upstream_cache_status always;"
    return stage.nginx(f"""
        apikey "api"; apikey_scope any; apikey_from header:apikey header:X-API-Key query:api_key cookie:api_key bearer basic;
        location /plain       {{ proxy_pass {up}; }}
        location /limited     {{ limit_req zone=keys; proxy_pass {up}; }}
        location /limited-early {{ set $early $http_apikey; if ($http_apikey = nobody) {{ return 400; }}
                                 limit_req zone=early; proxy_pass {up}; }}
        location /split       {{ proxy_pass {up}; proxy_set_header X-Split $split; }}
        location /vary        {{ {cache} proxy_cache_key $uri; proxy_pass {up}; }}
        location /by-key      {{ {cache} proxy_cache_key "$uri $http_apikey"; proxy_pass {up}; }}
        location /by-early    {{ set $early $http_apikey; {cache} proxy_cache_key "$uri $early"; proxy_pass {up}; }}
        location /by-if       {{ if ($http_apikey = nobody) {{ return 400; }}
                                 {cache} proxy_cache_key "$uri $http_apikey"; proxy_pass {up}; }}
        location /by-uri      {{ if ($request_uri = nobody) {{ return 400; }}
                                 {cache} proxy_cache_key "$request_uri"; proxy_pass {up}; }}
        location /by-authorization {{ {cache} proxy_cache_key "$uri $http_authorization"; proxy_pass {up}; }}
        location /by-argument {{ {cache} proxy_cache_key "$uri $arg_api_key"; proxy_pass {up}; }}
        location /by-cookie   {{ {cache} proxy_cache_key "$uri $cookie_api_key"; proxy_pass {up}; }}
        location /by-id       {{ {cache} proxy_cache_key $scheme$proxy_host$request_uri$apikey_id; proxy_pass {up}; }}
        location /mapped      {{ apikey_hide on before=$client,$volatile; proxy_pass {up};
                                 proxy_set_header X-Client "$client|$volatile|$http_apikey"; }}
        location /mapped-early {{ apikey_hide on before=$client; set $id $apikey_id; proxy_pass {up};
                                 proxy_set_header X-Client "$client|$id"; }}
        location /mapped-too-late {{ proxy_pass {up}; proxy_set_header X-Client $client; }}
        location /handed-on   {{ proxy_pass {up}; proxy_set_header Authorization $http_authorization;
                                 proxy_set_header X-User $remote_user; }}
        location /shown       {{ proxy_pass {up}; proxy_set_header X-Shown
                                 "$http_apikey|$http_x_api_key|$arg_api_key|$cookie_api_key|$http_authorization|$remote_user";
                                 proxy_set_header X-Left "$http_cookie|$args|$request_uri"; }}
        location /off         {{ apikey off; proxy_pass {up}; proxy_set_header X-Shown "$http_apikey|$arg_api_key"; }}
        location /kept        {{ apikey_hide off; proxy_pass {up}; proxy_set_header X-Shown "$http_apikey|$arg_api_key"; }}
        location /optional    {{ apikey "api" optional; {cache} proxy_cache_key $uri; proxy_pass {up}; }}
        location /included    {{ ssi on; ssi_types text/plain; proxy_pass {up}; }}
    """, http=f"""
        proxy_cache_path {stage.place}/cache keys_zone=all:1m;
        limit_req_zone $http_apikey zone=keys:1m rate=1r/m;
        limit_req_zone $early zone=early:1m rate=1r/m;
        split_clients "$http_apikey" $split {{ 50% left; * right; }}
        map $http_apikey $client {{ default nobody; {a} alice; {b} bob; }}
        map $http_apikey $volatile {{ volatile; default nobody; {a} alice; {b} bob; }}
        log_format named '$uri $http_apikey $arg_api_key';
    """, server=f"access_log {stage.place}/named.log named; access_log {stage.place}/nginx0/access.log harness;")


def shown(stage, name="X-Shown"):
    return stage.upstream.last.header(name).split("|")


def test_every_place_of_one_key_shows_the_same(server, stage):
    """Good, unknown and malformed keys alike."""
    seen = {}
    for name, secret in {"a": stage.a.secret, "b": stage.b.secret, "unknown": stage.a.secret[:-8] + "Xx" + stage.a.secret[-6:],
                         "malformed": "no-key-at-all"}.items():
        stage.upstream.clear()
        before = len(stage.upstream.requests)
        answer = server.get(f"/shown?a=1&api_key={secret}", headers={"apikey": secret, "X-API-Key": secret,
                                                                    "Cookie": f"c=1; api_key={secret}"})
        if answer.status_code == 200:
            assert len(stage.upstream.requests) == before + 1
            values = shown(stage)
            assert re.fullmatch(PSEUDONYM, values[0])
            assert values == [values[0]] * 4 + ["", ""]
            assert shown(stage, "X-Left") == ["c=1", "a=1", "/shown?a=1"]
            seen[name] = values[0]
    assert seen["a"] != seen["b"]
    for path in ("/shown", "/plain"):  # the same in every phase, for every request
        for _ in range(3):
            server.get("/shown", headers={"apikey": stage.a.secret})
            assert shown(stage)[0] == seen["a"]


def test_malformed_keys_have_names_too(server, stage):
    log = stage.place / "named.log"
    size = len(log.read_text()) if log.exists() else 0
    texts = ["ak_live_mistyped", "ak_live_mistyped", "ak_live_another"]
    assert [server.status("/plain", headers={"apikey": text}) for text in texts] == [401] * 3
    server.last_logged("/plain")
    names = [line.split()[1] for line in log.read_text()[size:].splitlines() if line.startswith("/plain ")]
    assert names[0] == names[1] != names[2]
    assert all(re.fullmatch(PSEUDONYM, name) for name in names)


def test_bearer_and_basic(server, stage):
    secret = stage.a.secret
    server.get("/shown", headers={"apikey": secret})
    name = shown(stage)[0]
    assert server.status("/shown", headers={"Authorization": f"Bearer {secret}"}) == 200
    assert shown(stage)[4:] == [f"ApiKey {name}", ""]
    assert server.get("/shown", auth=(secret, "x")).status_code == 200
    assert shown(stage)[4:] == [f"ApiKey {name}", name]
    assert server.get("/shown", auth=("somebody", secret)).status_code == 200
    assert shown(stage)[4:] == [f"ApiKey {name}", "somebody"]
    assert server.get("/handed-on", auth=(secret, "x")).status_code == 200
    assert stage.upstream.last.header("Authorization") == f"ApiKey {name}"
    assert stage.upstream.last.header("X-User") == name


def test_what_is_missing_stays_missing(server, stage):
    assert server.status("/shown", headers={"apikey": stage.a.secret}) == 200
    assert shown(stage)[1:] == [""] * 5
    assert server.status("/handed-on", headers={"apikey": stage.a.secret, "Authorization": "Bearer a.jwt.b"}) == 200
    assert stage.upstream.last.header("Authorization") == "Bearer a.jwt.b"


def test_other_locations_read_what_was_sent(server, stage):
    secret = stage.a.secret
    for path in ("/off", "/kept"):
        assert server.status(f"{path}?api_key={secret}", headers={"apikey": secret}) == 200
        assert shown(stage) == [secret, secret]


@pytest.mark.parametrize("path", ["/limited", "/limited-early"])
def test_a_limit_of_each_key(server, stage, path):
    """One request a minute, for each of them."""
    first = [server.status(path, headers={"apikey": key.secret}) for key in (stage.a, stage.b)]
    again = [server.status(path, headers={"apikey": key.secret}) for key in (stage.a, stage.b)]
    assert (first, again) == ([200, 200], [503, 503])


def test_split_clients(server, stage):
    def side(key):
        assert server.status("/split", headers={"apikey": key.secret}) == 200
        return stage.upstream.last.header("X-Split")
    keys = [stage.registry.key("alice", publish=False) for _ in range(16)]
    stage.registry.publish()
    server.wait_for_generation(stage.registry.generation())
    sides = {key.id: side(key) for key in keys}
    assert set(sides.values()) == {"left", "right"}
    assert {key.id: side(key) for key in keys} == sides


def cached(server, path, **how):
    """nginx keeps an answer after it has sent it, and before it logs the request."""
    def count():
        return sum(line["uri"] == path.partition("?")[0] for line in server.access_log())

    before = count()
    answer = server.get(path, **how)
    assert answer.status_code == 200, answer.text
    wait_until(lambda: count() > before, what="the end of the request")
    return answer.headers["X-Cache"]


# How each customer sends the key, where the cache must tell them apart.
CACHES = [
    ("/by-key", lambda secret: {"headers": {"apikey": secret}}),
    ("/by-early", lambda secret: {"headers": {"apikey": secret}}),
    ("/by-if", lambda secret: {"headers": {"apikey": secret}}),
    ("/by-uri?a=1&api_key=KEY", lambda secret: {}),
    ("/by-authorization", lambda secret: {"headers": {"Authorization": f"Bearer {secret}"}}),
    ("/by-argument?api_key=KEY", lambda secret: {}),
    ("/by-cookie", lambda secret: {"headers": {"Cookie": f"c=1; api_key={secret}"}}),
    ("/by-id?api_key=KEY", lambda secret: {}),
    ("/by-id/cookie", lambda secret: {"headers": {"Cookie": f"api_key={secret}"}}),
]


@pytest.mark.parametrize("path,how", CACHES, ids=[path for path, _ in CACHES])
def test_a_cache_tells_customers_apart(server, stage, path, how):
    seen = [cached(server, path.replace("KEY", key.secret), **how(key.secret))
            for key in (stage.a, stage.b, stage.a, stage.b)]
    assert seen == ["MISS", "MISS", "HIT", "HIT"]


@pytest.mark.parametrize("vary,headers", [
    ("apikey", {"apikey": "KEY"}), ("Accept, ApiKey", {"apikey": "KEY"}), ("X-API-Key", {"X-API-Key": "KEY"}),
    ("Authorization", {"Authorization": "Bearer KEY"}), ("Cookie", {"Cookie": "c=1; api_key=KEY"}),
    ("X-API-Key", {"apikey": "KEY"}), ("Cookie", {"apikey": "KEY", "Cookie": "c=1"}),
])
def test_vary_on_a_hidden_header_is_not_stored(server, stage, vary, headers):
    path = f"/vary/{abs(hash((vary, tuple(headers))))}"
    stage.upstream.answers[path] = (200, {"Vary": vary}, b"hers alone")
    seen = [cached(server, path, headers={name: text.replace("KEY", key.secret) for name, text in headers.items()})
            for key in (stage.a, stage.b, stage.a)]
    assert "HIT" not in seen


def test_vary_on_what_is_left_is_stored(server, stage):
    stage.upstream.answers["/vary/left"] = (200, {"Vary": "Accept-Language, Authorization"}, b"for all")
    how = {"Accept-Language": "de", "Authorization": "Bearer a.jwt.b"}
    seen = [cached(server, "/vary/left", headers={**how, "apikey": key.secret}) for key in (stage.a, stage.b)]
    assert seen == ["MISS", "HIT"]


def test_an_answer_to_nobody_is_not_that_to_a_customer(server, stage):
    stage.upstream.answers["/optional/x"] = (200, {"Vary": "apikey"}, b"x")
    assert cached(server, "/optional/x") == "MISS"
    assert cached(server, "/optional/x", headers={"apikey": stage.a.secret}) == "MISS"
    assert cached(server, "/optional/x") == "MISS"


def test_a_map_of_keys(server, stage):
    for key, name in ((stage.a, "alice"), (stage.b, "bob")):
        assert server.status("/mapped", headers={"apikey": key.secret}) == 200
        client, volatile, pseudonym = shown(stage, "X-Client")
        assert (client, volatile) == (name, name) and re.fullmatch(PSEUDONYM, pseudonym)
        assert key.secret not in stage.upstream.last.text()
        assert server.status("/mapped-early", headers={"apikey": key.secret}) == 200
        assert shown(stage, "X-Client") == [name, key.id]
        assert server.status("/mapped-too-late", headers={"apikey": key.secret}) == 200
        assert shown(stage, "X-Client") == ["nobody"]


def test_by_name(server, stage):
    """SSI, as Lua and njs, asks for variables by name, which nobody has referred to."""
    stage.upstream.answers["/included"] = (200, {"Content-Type": "text/plain"},
                                           b'<!--# echo var="http_x_api_key" -->|<!--# echo var="arg_api_key" -->')
    answer = server.get(f"/included?api_key={stage.a.secret}", headers={"X-API-Key": stage.a.secret})
    assert re.fullmatch(f"{PSEUDONYM}[|]{PSEUDONYM}", answer.text)


def test_limit_conn_counts_each_key(stage, nginx, registry, upstream):
    keys = [registry.key("alice"), registry.key("bob")]
    server = nginx(f"""location / {{ apikey "api"; apikey_scope any; limit_conn keys 1; limit_rate 400;
        proxy_pass {upstream.url}; }}""", http="limit_conn_zone $http_x_api_key zone=keys:1m;")
    upstream.answers["/slow"] = (200, {}, b"x" * 2000)
    with server.stream("GET", "/slow", headers={"X-API-Key": keys[0].secret}) as slow:
        assert slow.status_code == 200
        assert server.status("/", key=keys[0]) == 503
        assert server.status("/", key=keys[1]) == 200


# nginx -t

SOURCE = 'apikey "api"; apikey_scope any; apikey_from header:apikey query:api_key;'


@pytest.mark.parametrize("http,location,variable", [
    ("limit_req_zone $http_apikey zone=k:1m rate=1r/s;", "", "http_apikey"),
    ("map $http_APIKEY $client { default 1; }", "", "http_apikey"),
    ("", 'add_header X "$arg_api_key$arg_api_key";', "arg_api_key"),
    ("", "apikey_from bearer; proxy_pass http://127.0.0.1:1; proxy_set_header A $http_authorization;", "http_authorization"),
    ("", "apikey_from cookie:k; add_header X $http_cookie;", "http_cookie"),
])
def test_a_referred_variable_is_warned_of_once(nginx, http, location, variable):
    source = SOURCE if "apikey_from" not in location else 'apikey "api"; apikey_scope any;'
    right, said = nginx.check(f"location /a {{ {source} {location} }} location /b {{ {source} {location} }}", http=http)
    assert right
    assert said.count(f'apikey_hide: "${variable}" is read by another directive') == 1


@pytest.mark.parametrize("http,location", [
    ("log_format x '$remote_user $http_other $args $arg_other';", "apikey_from basic;"),
    ("limit_req_zone $http_apikey zone=k:1m rate=1r/s;", "apikey_from header:X-API-Key;"),
    ("limit_req_zone $http_x_api_key zone=k:1m rate=1r/s;", "apikey_hide off;"),
])
def test_others_are_not_warned_of(nginx, http, location):
    right, said = nginx.check(f'location /a {{ apikey "api"; apikey_scope any; {location} }}', http=http)
    assert right and "apikey_hide" not in said


def test_the_default_key_of_a_cache_is_warned_of(nginx, place):
    path = f"proxy_cache_path {place}/cache keys_zone=c:1m;"
    line = "write proxy_cache_key $scheme$proxy_host$request_uri$apikey_id"
    for source, warned in (("query:api_key", True), ("cookie:k", True), ("$arg_k", True), ("header:X-API-Key", False)):
        location = f'location /a {{ apikey "api"; apikey_scope any; apikey_from {source}; }}'
        right, said = nginx.check(location, http=path)
        assert right and (line in said) == warned
        assert line not in nginx.check(location)[1]
    assert line not in nginx.check(f'location /a {{ apikey "api"; apikey_scope any; apikey_hide off; apikey_from query:k; }}',
                                   http=path)[1]


def test_the_key_itself_is_not_kept(nginx):
    right, said = nginx.check(f"location / {{ {SOURCE} apikey_hide on before=$http_apikey; }}")
    assert not right and "before=$http_apikey would keep the key itself" in said


def test_a_variable_of_that_name_that_is_somebody_s(nginx, registry, upstream):
    """`map` and `set` may define a variable by the name of a header: it says what they say."""
    key = registry.key("alice")
    server = nginx(f"""location / {{ apikey "api"; apikey_scope any; apikey_from header:apikey header:X-Set;
        set $http_x_set "set"; proxy_pass {upstream.url}; proxy_set_header X-Shown "$http_apikey|$http_x_set"; }}""",
                   http="map $uri $http_apikey { default mapped; }")
    assert server.status("/", headers={"apikey": key.secret}) == 200
    assert upstream.last.header("X-Shown") == "mapped|set"
