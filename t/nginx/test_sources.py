"""Where a key may come from: every kind of apikey_from, what is somebody else's there, and what is malformed.

One nginx serves all tests; each location reads other sources. The outcome is read from the access log.
"""

import base64

import pytest

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2lnbmF0dXJl"


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(scope="module")
def server(stage):
    up = stage.upstream.url
    stage.key = stage.registry.key("alice", publish=False)
    stage.other = stage.registry.key("alice")
    return stage.nginx(f"""
        apikey "api"; apikey_scope any;
        location /default  {{ proxy_pass {up}; }}
        location /header   {{ apikey_from header:X-Other; proxy_pass {up}; }}
        location /bearer   {{ apikey_from bearer; proxy_pass {up}; }}
        location /basic    {{ apikey_from basic; proxy_pass {up}; }}
        location /query    {{ apikey_from query:api_key; proxy_pass {up}; }}
        location /cookie   {{ apikey_from cookie:api_key; proxy_pass {up}; }}
        location /scheme   {{ apikey_from scheme:Token; proxy_pass {up}; }}
        location /protocol {{ apikey_from protocol:key.; proxy_pass {up}; }}
        location /variable {{ apikey_from $http_x_from_map; proxy_pass {up}; }}
        location /circular {{ apikey_from $apikey_id header:X-API-Key; proxy_pass {up}; }}
        location /all      {{ apikey_from header:X-API-Key bearer basic query:api_key cookie:api_key; proxy_pass {up}; }}
    """)


@pytest.fixture
def ask(server):
    """ask(path, headers) → (status, $apikey_status)."""
    def send(path, headers=None):
        server.clear_access_log()
        status = server.get(path, headers=headers).status_code
        return status, server.logged()[0]["outcome"]
    return send


GOOD = {
    "default": ("/default", {"X-API-Key": "KEY"}),
    "default-any-case": ("/default", {"x-aPi-kEy": "KEY"}),
    "header": ("/header", {"X-Other": "KEY"}),
    "bearer": ("/bearer", {"Authorization": "Bearer KEY"}),
    "bearer-any-case": ("/bearer", {"Authorization": "bEARER   KEY"}),
    "query": ("/query?api_key=KEY", {}),
    "query-among-others": ("/query?a=1&api_key=KEY&b=2", {}),
    "cookie": ("/cookie", {"Cookie": "api_key=KEY"}),
    "cookie-among-others": ("/cookie", {"Cookie": "a=1; api_key=KEY; b=2"}),
    "query-any-case": ("/query?API_Key=KEY", {}),
    "cookie-any-case": ("/cookie", {"Cookie": "a=1; Api_Key=KEY; b=2"}),
    "cookie-behind-a-comma": ("/cookie", {"Cookie": "a=1, api_key=KEY"}),
    "own-scheme-by-default": ("/default", {"Authorization": "ApiKey KEY"}),
    "scheme": ("/scheme", {"Authorization": "Token KEY"}),
    "scheme-any-case": ("/scheme", {"Authorization": "tOKEN  KEY"}),
    "protocol": ("/protocol", {"Sec-WebSocket-Protocol": "chat, key.KEY, superchat"}),
    "protocol-alone": ("/protocol", {"Sec-WebSocket-Protocol": "key.KEY"}),
    "beside-a-strangers-token": ("/all", {"X-API-Key": "KEY", "Authorization": "Bearer github_pat_11ABCDEFG0_abc"}),
    "beside-a-strangers-basic": ("/all", {"X-API-Key": "KEY", "Authorization": basic("sk_live_51Hx", "sb_secret_0A")}),
    "beside-a-strangers-cookie": ("/all", {"X-API-Key": "KEY", "Cookie": "api_key=acme_prod_0123456789abcdef"}),
    "variable": ("/variable", {"X-From-Map": "KEY"}),
    "circular": ("/circular", {"X-API-Key": "KEY"}),
    "same-key-in-two-sources": ("/all?api_key=KEY", {"X-API-Key": "KEY", "Cookie": "api_key=KEY"}),
}


def mistyped(key):
    """Of our form, with a wrong checksum."""
    return key.secret[:-1] + ("0" if key.secret[-1] != "0" else "1")


def filled(path, headers, key):
    return path.replace("KEY", key.secret), {name: text.replace("KEY", key.secret) for name, text in headers.items()}


@pytest.mark.parametrize("way", GOOD)
def test_a_key_is_found(ask, stage, way):
    assert ask(*filled(*GOOD[way], stage.key)) == (200, "ok")


@pytest.mark.parametrize("user,password", [("KEY", ""), ("", "KEY"), ("x", "KEY"), ("KEY", "anything")])
def test_a_key_in_basic(ask, stage, user, password):
    words = [word.replace("KEY", stage.key.secret) for word in (user, password)]
    assert ask("/basic", {"Authorization": basic(*words)}) == (200, "ok")


def test_an_escaped_query_is_decoded(ask, stage):
    escaped = "".join(f"%{ord(c):02x}" for c in stage.key.secret)
    assert ask(f"/query?api_key={escaped}") == (200, "ok")
    assert ask(f"/query?%61pi%5Fkey={stage.key.secret}") == (200, "ok")


@pytest.mark.parametrize("path,headers", [
    ("/default", {}),
    ("/default", {"X-API-Key": ""}),
    ("/header", {"X-API-Key": "KEY"}),
    ("/default?api_key=KEY", {}),
    ("/query?api_key=", {}),
    ("/query?xapi_key=KEY", {}),
    ("/bearer", {"Authorization": "Bearer"}),
    ("/bearer", {"Authorization": "ApiKey KEY"}),
    ("/bearer", {"Authorization": "Bearer sk_live_51HxYz0123456789"}),
    ("/bearer", {"Authorization": "Bearer ak_live_short"}),
    ("/default", {"Authorization": "Token KEY"}),
    ("/default", {"Authorization": "Bearer KEY"}),
    ("/default", {"Authorization": "ApiKey VnVhQ2ZHY0JDZGJrU"}),
    ("/scheme", {"Authorization": "Token sb_secret_0123"}),
    ("/scheme", {"Authorization": "Tokens KEY"}),
    ("/basic", {"Authorization": basic("ak_live_short", "")}),
    ("/basic", {"Authorization": basic("sk_live_51HxYz", "acme_prod_00")}),
    ("/cookie", {"Cookie": "api_key=acme_prod_0123456789abcdef"}),
    ("/protocol", {"Sec-WebSocket-Protocol": "chat, KEY"}),
    ("/protocol", {"Sec-WebSocket-Protocol": "Key.KEY"}),
    ("/protocol", {"Sec-WebSocket-Protocol": "key."}),
    ("/bearer", {"Authorization": f"Bearer {JWT}"}),
    ("/basic", {"Authorization": basic("alice", "password")}),
    ("/basic", {"Authorization": "Basic not*base64"}),
    ("/cookie", {"Cookie": "session=KEY"}),
    ("/cookie", {"Cookie": "api_key=somebody-elses"}),
    ("/variable", {"X-API-Key": "KEY"}),
], ids=lambda part: str(part)[:30])
def test_nothing_of_ours_is_missing(ask, stage, path, headers):
    assert ask(*filled(path, headers, stage.key)) == (401, "missing")


@pytest.mark.parametrize("path,headers", [
    ("/default", {"X-API-Key": "KEY2"}),
    ("/default", {"X-API-Key": "github_pat_11ABCDEFG0_abc"}),
    ("/default", {"Authorization": "ApiKey KEY2"}),
    ("/default", {"X-API-Key": "not-ours"}),
    ("/default", {"X-API-Key": "KEY, KEY"}),
    ("/bearer", {"Authorization": "Bearer KEY2"}),
    ("/scheme", {"Authorization": "Token KEY2"}),
    ("/protocol", {"Sec-WebSocket-Protocol": "chat, key.KEY2"}),
    ("/protocol", {"Sec-WebSocket-Protocol": "key.sk_live_51HxYz, chat"}),
    ("/query?api_key=sk_live_51HxYz0123456789", {}),
    ("/query?api_key=%zz", {}),
    ("/query?api_key=KEY%00", {}),
    ("/cookie", {"Cookie": "api_key=KEY2"}),
    ("/variable", {"X-From-Map": "not-ours"}),
], ids=lambda part: str(part)[:30])
def test_what_is_meant_as_a_key_and_wrong_is_malformed(ask, stage, path, headers):
    headers = {name: text.replace("KEY2", mistyped(stage.key)) for name, text in headers.items()}
    assert ask(*filled(path, headers, stage.key)) == (401, "malformed")


def test_two_keys_that_differ_are_malformed(ask, stage):
    headers = {"X-API-Key": stage.key.secret, "Authorization": f"Bearer {stage.other.secret}"}
    assert ask("/all", headers) == (401, "malformed")
    assert ask(f"/query?api_key={stage.key.secret}&api_key={stage.other.secret}") == (401, "malformed")
    assert ask("/cookie", {"Cookie": f"api_key={stage.key.secret}; api_key={stage.other.secret}"}) == (401, "malformed")


def test_two_keys_that_differ_in_one_basic_pair_are_malformed(ask, stage):
    for other in (stage.other.secret, mistyped(stage.key)):
        assert ask("/basic", {"Authorization": basic(stage.key.secret, other)}) == (401, "malformed")
        assert ask("/basic", {"Authorization": basic(other, stage.key.secret)}) == (401, "malformed")
    assert ask("/basic", {"Authorization": basic(stage.key.secret, stage.key.secret)}) == (200, "ok")
    headers = {"Sec-WebSocket-Protocol": f"key.{stage.key.secret}, key.{stage.other.secret}"}
    assert ask("/protocol", headers) == (401, "malformed")


STRANGERS = {
    "Authorization": ["Bearer github_pat_11ABCDEFG0_abc", "Bearer sk_live_51HxYz0123456789", f"Bearer {JWT}",
                      basic("sk_live_51HxYz", ""), "Token OTHER"],
    "Cookie": ["session=a_b_c; api_key=sb_secret_0123456789"],
    "Sec-WebSocket-Protocol": ["chat, other.OTHER"],
}


@pytest.mark.parametrize("name,value", [(name, value) for name, values in STRANGERS.items() for value in values])
def test_a_strangers_credential_stays_for_the_upstream(server, stage, name, value):
    value = value.replace("OTHER", stage.other.secret)  # a copy of the presented key would be replaced
    stage.upstream.clear()
    server.clear_access_log()
    assert server.status("/all", key=stage.key, headers={name: value}) == 200
    assert server.logged()[0]["outcome"] == "ok"
    assert stage.upstream.last.header(name) == value
    assert stage.upstream.last.header("X-API-Key") is None


@pytest.mark.parametrize("path,name,value,left", [
    ("/default", "Authorization", "ApiKey SECRET", None),
    ("/scheme", "Authorization", "token SECRET", None),
    ("/query", "", "", None),
    ("/cookie", "Cookie", "a=1; API_KEY=SECRET; b=2", "a=1; b=2"),
    ("/cookie", "Cookie", "a=1,api_key=SECRET; b=2", "a=1; b=2"),
    ("/protocol", "Sec-WebSocket-Protocol", "key.SECRET", None),
    ("/protocol", "Sec-WebSocket-Protocol", "key.SECRET, chat", "chat"),
    ("/protocol", "Sec-WebSocket-Protocol", "chat,key.SECRET,superchat", "chat,superchat"),
    ("/protocol", "Sec-WebSocket-Protocol", "chat, superchat, key.SECRET", "chat, superchat"),
    ("/protocol", "Sec-WebSocket-Protocol", "chat, key.SECRET, key.SECRET", "chat"),
])
def test_what_is_ours_is_hidden_and_the_rest_left(server, stage, path, name, value, left):
    stage.upstream.clear()
    server.clear_access_log()
    query = f"?a=1&API_KEY={stage.key.secret}&b=2" if path == "/query" else ""
    value = value.replace("SECRET", stage.key.secret)
    headers = {name: value} if name else {}
    assert server.status(f"{path}{query}", headers=headers) == 200
    seen = stage.upstream.last
    assert stage.key.secret not in seen.text()
    assert name == "" or seen.header(name) == left
    entry = server.logged()[0]
    assert stage.key.secret not in str(entry)
    if query:
        assert entry["args"] == "a=1&b=2"


def test_the_same_header_twice_is_malformed(server, stage):
    server.clear_access_log()
    assert server.status("/default", headers=[("X-API-Key", stage.key.secret)] * 2) == 401
    assert server.logged()[0]["outcome"] == "malformed"


def test_a_key_beside_a_users_jwt(ask, stage):
    assert ask("/all", {"X-API-Key": stage.key.secret, "Authorization": f"Bearer {JWT}"}) == (200, "ok")


def test_a_head_of_many_cookies(ask, stage):
    cookies = "; ".join(f"c{i}={i}" for i in range(100))
    assert ask("/cookie", {"Cookie": f"{cookies}; api_key={stage.key.secret}"}) == (200, "ok")


def test_imported_keys_of_any_form(stage):
    csv = "key,owner,name\nlegacy-key-0123456789abcdef,alice,old\nodd.two.dots-in-it-0123456789,alice,dots\n"
    stage.registry.run("import", "-", "--format", "csv", stdin=csv)
    server = stage.nginx(f"""
        apikey "api"; apikey_scope any;
        location /strict {{ proxy_pass {stage.upstream.url}; }}
        location /any    {{ apikey_format any; apikey_from header:X-API-Key bearer; proxy_pass {stage.upstream.url}; }}
    """)
    legacy = "legacy-key-0123456789abcdef"
    dotted = "odd.two.dots-in-it-0123456789"
    assert server.status("/strict", key=legacy) == 401
    assert server.status("/any", key=legacy) == 200
    assert server.status("/any", key=dotted) == 200
    assert server.status("/any", headers={"Authorization": f"Bearer {legacy}"}) == 200
    assert server.status("/any", key=stage.key.secret) == 200
    assert server.status("/any/mistyped", key=mistyped(stage.key)) == 401
    assert server.last_logged("/any/mistyped")["outcome"] == "malformed"
    assert server.status("/any", key="short") == 401
    # A bearer token with two dots is a JWT: somebody else's, whoever imported what.
    assert server.status("/any/dotted", headers={"Authorization": f"Bearer {dotted}"}) == 401
    assert server.last_logged("/any/dotted")["outcome"] == "missing"


FOREIGN_KEYS = {
    "stripe": "sk_live_51HxYz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    "short stripe": "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "supabase": "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz",
    "github": "github_pat_11ABCDEFG0123456789abc_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvw",
    "hex of 32": "acme_prod_0123456789abcdef0123456789abcdef",
    "hex of 40": "acme_prod_0123456789abcdef0123456789abcdef01234567",
}


def test_foreign_keys_that_begin_like_ours(stage):
    """They can be imported, and pass from every source, whole; what is not imported is unknown, not malformed."""
    rows = "".join(f"{key},alice,{name}\n" for name, key in FOREIGN_KEYS.items())
    stage.registry.run("import", "-", "--format", "csv", stdin=f"key,owner,name\n{rows}")
    server = stage.nginx(f"""
        apikey "api"; apikey_scope any; apikey_format any;
        apikey_from header:X-API-Key scheme:ApiKey bearer basic query:api_key cookie:api_key protocol:key. $http_x_var;
        location / {{ proxy_pass {stage.upstream.url}; }}
    """)
    for key in FOREIGN_KEYS.values():
        ways = [("/", {"X-API-Key": key}), ("/", {"Authorization": f"ApiKey {key}"}),
                ("/", {"Authorization": f"Bearer {key}"}), ("/", {"Authorization": basic(key, "")}),
                ("/", {"Authorization": basic("", key)}), (f"/?api_key={key}", {}), ("/", {"Cookie": f"api_key={key}"}),
                ("/", {"Sec-WebSocket-Protocol": f"key.{key}"}), ("/", {"X-Var": key})]
        assert [server.status(path, headers=headers) for path, headers in ways] == [200] * len(ways), key
        assert server.status("/unknown", key=key[:-1] + "~") == 401
        assert server.last_logged("/unknown")["outcome"] == "unknown"
