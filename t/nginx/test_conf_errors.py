"""Every mistake in a configuration: nginx -t refuses it with a message that names directive and value."""

import subprocess

import pytest

from harness.state import DIRECTORY

ON = 'apikey "api"; apikey_scope any;'

# What is written in the location, in http, and what the message must contain.
LOCATION_MISTAKES = [
    ("apikey;", ["apikey"]),
    ('apikey "api" sometimes;', ["apikey", "sometimes"]),
    ('apikey "api" optional more;', ["apikey"]),
    ('apikey "api"; apikey "again";', ["apikey", "is duplicate"]),
    ('apikey off; apikey "again";', ["apikey", "is duplicate"]),
    ("apikey_from;", ["apikey_from"]),
    ("apikey_from nowhere;", ["apikey_from", "nowhere"]),
    ("apikey_from header:;", ["apikey_from", "header:"]),
    ('apikey_from "header:X Key";', ["apikey_from", "X Key"]),
    ("apikey_from query:;", ["apikey_from", "query:"]),
    ("apikey_from cookie:;", ["apikey_from", "cookie:"]),
    ("apikey_from scheme:;", ["apikey_from", "scheme:", "scheme:ApiKey"]),
    ('apikey_from "scheme:Api Key";', ["apikey_from", "Api Key"]),
    ("apikey_from scheme:bearer;", ["apikey_from", "scheme:bearer", "write bearer"]),
    ("apikey_from scheme:BASIC;", ["apikey_from", "scheme:BASIC", "write basic"]),
    ("apikey_from protocol:;", ["apikey_from", "protocol:", "Sec-WebSocket-Protocol"]),
    ('apikey_from "protocol:a,b";', ["apikey_from", "protocol:a,b"]),
    ("apikey_from query:key query:KEY;", ["apikey_from", "query:KEY", "stands twice"]),
    ("apikey_from cookie:key cookie:Key;", ["apikey_from", "cookie:Key", "stands twice"]),
    ("apikey_from scheme:ApiKey scheme:apikey;", ["apikey_from", "scheme:apikey", "stands twice"]),
    ("apikey_from bearer; apikey_from basic;", ["apikey_from", "is duplicate"]),
    ("apikey_format loose;", ["loose"]),
    ("apikey_format strict; apikey_format any;", ["apikey_format", "is duplicate"]),
    ("apikey_scope;", ["apikey_scope"]),
    ('apikey_scope "a b";', ["apikey_scope", "a b"]),
    ("apikey_scope methods=GET;", ["apikey_scope"]),
    ("apikey_scope a methods=FETCH;", ["apikey_scope", "FETCH"]),
    ("apikey_scope a method=GET;", ["apikey_scope", "method=GET", "did you mean methods=GET?"]),
    ("apikey_scope any orders:read;", ["apikey_scope", '"any" stands alone']),
    ("apikey_scope a methods=;", ["apikey_scope", "methods="]),
    ("apikey_scope any; apikey_scope a;", ["apikey_scope"]),
    ("apikey_environment;", ["apikey_environment"]),
    ("apikey_environment LIVE;", ["apikey_environment", "LIVE"]),
    ("apikey_environment live; apikey_environment test;", ["apikey_environment", "is duplicate"]),
    ("apikey_hide perhaps;", ["apikey_hide", "invalid value", "perhaps"]),
    ("apikey_hide;", ["apikey_hide"]),
    ("apikey_hide on sometimes;", ["apikey_hide", "invalid parameter", "sometimes"]),
    ("apikey_hide on before=client;", ["apikey_hide", "before=client", "is not a list of variables"]),
    ("apikey_hide on before=;", ["apikey_hide", "before="]),
    ("apikey_hide on before=$uri,;", ["apikey_hide", "before=$uri,"]),
    ("apikey_hide on before=$uri before=$args;", ["apikey_hide", "duplicate parameter", "before=$args"]),
    ("apikey_hide on redirects=keep redirects=keep;", ["apikey_hide", "duplicate parameter", "redirects=keep"]),
    ("apikey_hide on redirects=drop;", ["apikey_hide", "redirects=drop"]),
    ("apikey_hide off redirects=keep;", ["apikey_hide", "redirects=keep", "no meaning"]),
    ("apikey_from header:X-A; apikey_hide on before=$http_x_a;", ["apikey_hide", "before=$http_x_a", "the key itself"]),
    ("apikey_hide on; apikey_hide off;", ["apikey_hide", "is duplicate"]),
    ("apikey_preflight maybe;", ["maybe"]),
    ("apikey_error_body html;", ["html"]),
    ("apikey_error_detail all;", ["all"]),
    ("apikey_log_level loud;", ["loud"]),
    ("apikey_ratelimit_headers ietf;", ["draft"]),
    ("apikey_use nobody;", ["apikey_use", "nobody"]),
    ("apikey_use a b;", ["apikey_use"]),
    ("apikey_limit;", ["apikey_limit"]),
    ("apikey_limit 5r/s;", ["apikey_limit", "5r/s", "rate=<rate>"]),
    ("apikey_limit burst=5;", ["apikey_limit", "burst=5", "comes without a rate"]),
    ("apikey_limit rate=5;", ["apikey_limit", "rate=5", "is not a rate"]),
    ("apikey_limit rate=0r/s;", ["apikey_limit", "rate=0r/s"]),
    ("apikey_limit rate=1r/s rate=2r/s;", ["apikey_limit", "rate=2r/s", "second"]),
    ("apikey_limit rate=1r/s burst=0;", ["apikey_limit", "burst=0", "would admit nothing"]),
    ("apikey_limit rate=1r/s burst=many;", ["apikey_limit", "burst=many"]),
    ("apikey_limit rate=1r/s by=address;", ["apikey_limit", "by=address", "by=$variable"]),
    ("apikey_limit rate=1r/s by=$;", ["apikey_limit", "by=$"]),
    ('apikey_limit rate=1r/s "name=two words";', ["apikey_limit", "two words"]),
    ("apikey_limit rate=1r/s name=a; apikey_limit rate=2r/s name=a;", ["apikey_limit", "name=a", "two limits of one name"]),
    ("apikey_limit rate=1r/s name=a; apikey_limit rate=1r/s burst=2 name=a;", ["apikey_limit", "name=a"]),
    ("apikey_limit rate=1r/s name=a; apikey_limit rate=1r/s by=owner name=a;", ["apikey_limit", "name=a"]),
    ("apikey_concurrency 5 name=a; apikey_concurrency 6 name=a;",
     ["apikey_concurrency", "name=a", "another number", "two limits of one name"]),
    ("apikey_concurrency 5 name=a; apikey_concurrency 5 by=owner name=a;", ["apikey_concurrency", "name=a"]),
    ("apikey_limit require=a rate=1r/s;", ["apikey_limit", "stands alone"]),
    ("apikey_limit require=;", ["apikey_limit", "require="]),
    ("apikey_limit rate=1r/s nodelay;", ["apikey_limit", "nodelay"]),
    (" ".join(["apikey_limit rate=1r/s;"] * 9), ["apikey_limit", "at most 8"]),
    ("apikey_concurrency;", ["apikey_concurrency"]),
    ("apikey_concurrency 0;", ["apikey_concurrency", "0", "from 1 to 60000"]),
    ("apikey_concurrency 60001;", ["apikey_concurrency", "60001"]),
    ("apikey_concurrency 5 rate=1r/s;", ["apikey_concurrency", "rate=1r/s"]),
    ("apikey_fail_limit;", ["apikey_fail_limit"]),
    ("apikey_fail_limit off rate=1r/s;", ["apikey_fail_limit", "off"]),
    ("apikey_dry_run;", ["apikey_dry_run"]),
    ("apikey_dry_run some;", ["apikey_dry_run", "some", "off, on, limits or scopes"]),
    ("apikey_dry_run on; apikey_dry_run off;", ["apikey_dry_run", "is duplicate"]),
    ("apikey_cost;", ["apikey_cost"]),
    ("apikey_cost some;", ["apikey_cost", "some", "from 0 to 1000000000"]),
    ("apikey_cost -1;", ["apikey_cost", "-1"]),
    ("apikey_cost 1.5;", ["apikey_cost", "1.5"]),
    ("apikey_cost 1000000001;", ["apikey_cost", "1000000001"]),
    ("apikey_cost $;", ["apikey_cost", "names no variable"]),
    ("apikey_cost 1 colour=red;", ["apikey_cost", "colour=red", "of=<measure>"]),
    ("apikey_cost 1 of=;", ["apikey_cost", "of=", "of=tokens"]),
    ("apikey_cost 1 of=tokens.month;", ["apikey_cost", "of=tokens.month", "of=tokens"]),
    ("apikey_cost 1 of=rate;", ["apikey_cost", "of=rate", "of=requests"]),
    ("apikey_cost 1 of=concurrency;", ["apikey_cost", "of=concurrency"]),
    ("apikey_cost 1 of=a of=b;", ["apikey_cost", "of=b", "second"]),
    ("apikey_cost 1 reserve=5;", ["apikey_cost", "reserve=5", "response="]),
    ("apikey_cost 1 reserve=x response=$status;", ["apikey_cost", "reserve=x"]),
    ("apikey_cost 1 reserve=5 reserve=6 response=$status;", ["apikey_cost", "reserve=6", "second"]),
    ("apikey_cost 1 response=header;", ["apikey_cost", "response=header", "response=json:usage.total_tokens"]),
    ("apikey_cost 1 response=json:;", ["apikey_cost", "response=json:"]),
    ("apikey_cost 1 response=json:a..b;", ["apikey_cost", "response=json:a..b"]),
    ("apikey_cost 1 response=json:a.b.c.d.e.f.g.h.i;", ["apikey_cost", "1 to 8"]),
    ("apikey_cost 1; apikey_cost 2;", ["apikey_cost", "second cost of the same measure"]),
    ("apikey_cost 1 of=a; apikey_cost 2 of=a;", ["apikey_cost", "second cost of the same measure"]),
    ("apikey_cost 1; apikey_cost 2 of=*;", ["apikey_cost", "second cost of the same measure", "of=*"]),
    ("apikey_cost 1 of=*; apikey_cost 2 of=*;", ["apikey_cost", "second cost of the same measure"]),
    ("apikey_cost 1 of=a*;", ["apikey_cost", "of=a*", "of=*"]),
    ("apikey_refund;", ["apikey_refund"]),
    ("apikey_refund often;", ["apikey_refund", "often", "200 to 599"]),
    ("apikey_refund 502 600;", ["apikey_refund", "600"]),
    ("apikey_refund 100;", ["apikey_refund", "100"]),
    ("apikey_refund 502 503 502;", ["apikey_refund", "502", "twice"]),
    ("apikey_refund 502; apikey_refund 503;", ["apikey_refund", "is duplicate"]),
    ("apikey_metrics now;", ["apikey_metrics"]),
    ("apikey_usage now;", ["apikey_usage"]),
    ("apikey_usage; apikey_usage;", ["apikey_usage", "is duplicate"]),
    ("apikey_usage; apikey_metrics;", ["apikey_metrics", "location of its own"]),
    ("apikey_verify now;", ["apikey_verify"]),
    ("apikey_whoami now;", ["apikey_whoami"]),
    ("apikey_store /x/keys.mdb;", ["apikey_store", "not allowed here"]),
    ("apikey_zone zone=x:1m;", ["apikey_zone", "not allowed here"]),
]
HTTP_MISTAKES = [
    ("apikey_zone zone=x:2m share=0/3;", ["apikey_zone", "share=0/3"]),
    ("apikey_zone zone=x:2m share=4/3;", ["apikey_zone", "share=4/3", "share=1/3"]),
    ("apikey_zone zone=x:2m share=half;", ["apikey_zone", "share=half"]),
    ("apikey_store;", ["apikey_store"]),
    ("apikey_store /x/keys.mdb name=;", ["apikey_store", "name="]),
    ('apikey_store /x/keys.mdb "name=Two Words";', ["apikey_store", "Two Words"]),
    ("apikey_store /x/keys.mdb memory=shared;", ["apikey_store", "memory=shared", "memory=private", "memory=mapped"]),
    ("apikey_store /x/keys.mdb on_stale=wait;", ["apikey_store", "on_stale=wait"]),
    ("apikey_store /x/keys.mdb on_error=ignore;", ["apikey_store", "on_error=ignore"]),
    ("apikey_store /x/keys.mdb max_age=soon;", ["apikey_store", "max_age=soon"]),
    ("apikey_store /x/keys.mdb min_keep=200%;", ["apikey_store", "min_keep=200%"]),
    ("apikey_store /x/keys.mdb min_keep=half;", ["apikey_store", "min_keep=half"]),
    ("apikey_store /x/keys.mdb verify_key=/x;", ["apikey_store", "verify_key"]),
    ("apikey_store /x/keys.mdb speed=fast;", ["apikey_store", "speed=fast"]),
    ("apikey_store /x/keys.mdb pepper=p1;", ["apikey_store", "pepper=p1"]),
    ("apikey_store /x/keys.mdb pepper=p1:/nonexistent/pepper;", ["apikey_store", "/nonexistent/pepper"]),
    ("apikey_store /x/keys.mdb name=a; apikey_store /y/keys.mdb name=a;", ["apikey_store", "a"]),
    ("apikey_store /x/keys.mdb name=a; apikey_store /x/keys.mdb name=b;", ["apikey_store", "/x/keys.mdb"]),
    ("apikey_zone;", ["apikey_zone"]),
    ("apikey_zone zone=small;", ["apikey_zone", "zone=small"]),
    ("apikey_zone zone=:1m;", ["apikey_zone", "zone=:1m"]),
    ("apikey_zone zone=x:8k;", ["apikey_zone", "8k"]),
    ("apikey_zone zone=x:lots;", ["apikey_zone", "lots"]),
    ("apikey_zone zone=x:1m; apikey_zone zone=x:1m;", ["apikey_zone", "is duplicate"]),
    ("apikey_zone zone=x:1m colour=red;", ["apikey_zone", "colour=red"]),
    ("apikey_zone zone=x:1m state=;", ["apikey_zone", "state="]),
    ("apikey_zone zone=x:1m state=/a state=/b;", ["apikey_zone", "state=/b", "second of its kind"]),
    ("apikey_metrics;", ["apikey_metrics", "not allowed here"]),
    ("apikey_usage;", ["apikey_usage", "not allowed here"]),
]


def refused(nginx, needles, location="", **parts):
    right, said = nginx.check(f"location /l {{ {location} }}", **parts)
    assert not right, "this mistake was accepted"
    line = next(line for line in said.splitlines() if "[emerg]" in line)
    for needle in needles:
        assert needle in line, f"{needle!r} is not in: {line}"
    assert "nginx.conf:" in line, f"no file and line in: {line}"


@pytest.mark.parametrize("mistake,needles", LOCATION_MISTAKES, ids=[text for text, _ in LOCATION_MISTAKES])
def test_in_a_location(nginx, mistake, needles):
    on = "" if mistake.startswith("apikey ") or mistake == "apikey;" else 'apikey "api";'
    on += "" if "apikey_scope" in mistake else " apikey_scope any;"
    refused(nginx, needles, f"{on} {mistake}", store="/nonexistent/keys.mdb")


@pytest.mark.parametrize("mistake,needles", HTTP_MISTAKES, ids=[text for text, _ in HTTP_MISTAKES])
def test_in_http(nginx, mistake, needles):
    refused(nginx, needles, http=mistake, store=None)


def test_apikey_without_a_store(nginx):
    right, said = nginx.check(f"location /orders {{ {ON} }}", store=None)
    assert not right
    assert "apikey_store" in said and "/orders" in said


@pytest.mark.parametrize("handler", ["apikey_verify", "apikey_whoami"])
def test_content_handlers_need_apikey(nginx, handler):
    right, said = nginx.check(f"location /l {{ {handler}; }}", store="/nonexistent/keys.mdb")
    assert not right
    assert handler in said


@pytest.mark.parametrize("make,needle", [
    (lambda path: path.write_text("pepper") and path.chmod(0o644), "0600"),
    (lambda path: path.mkdir(), "regular"),
    (lambda path: path.write_text("") or path.chmod(0o600), "empty"),
], ids=["readable by others", "directory", "empty"])
def test_pepper_files(nginx, place, make, needle):
    pepper = place / "pepper"
    make(pepper)
    right, said = nginx.check(store="/nonexistent/keys.mdb", store_args=f"pepper=p1:{pepper}")
    assert not right
    line = next(line for line in said.splitlines() if "[emerg]" in line)
    assert str(pepper) in line and needle in line, line
    assert "apikey_store" in line


def test_two_peppers_of_one_id_must_be_the_same(nginx, place):
    for name in ("one", "two"):
        (place / name).write_text(f"the pepper {name} with more than enough letters")
        (place / name).chmod(0o600)
    right, said = nginx.check(store="/nonexistent/keys.mdb", store_args=f"pepper=p1:{place}/one",
                              http=f"apikey_store /nonexistent/b.mdb name=b pepper=p1:{place}/two;")
    assert not right
    assert "p1" in said


def test_warns_once_of_locations_without_scope(nginx):
    right, said = nginx.check("""
        apikey "api";
        location /one { } location /two { } location /meant { apikey_scope any; } location /scoped { apikey_scope a; }
    """, store="/nonexistent/keys.mdb")
    assert right, said
    warnings = [line for line in said.splitlines() if "[warn]" in line and "apikey_scope" in line]
    assert len(warnings) == 1
    assert "/one" in warnings[0] and "/two" in warnings[0]
    assert "/meant" not in warnings[0] and "/scoped" not in warnings[0]


DROPPED = f"location /l {{ {ON} apikey_from header:api_key; }}"


def second_server(port, *, is_default, inside=""):
    return f"server {{ listen 127.0.0.1:{port}{' default_server' if is_default else ''}; server_name other; {inside} }}"


@pytest.mark.parametrize("server,http,needle", [
    ("", "", "underscores_in_headers on"),
    ("underscores_in_headers off;", "", "underscores_in_headers on"),
    ("listen 127.0.0.1:1;", second_server(1, is_default=True), "underscores_in_headers on"),
    ("listen 127.0.0.1:1;", second_server(2, is_default=True, inside="underscores_in_headers on;"), "underscores_in"),
    ("listen 127.0.0.1:1 default_server;", second_server(1, is_default=False, inside="underscores_in_headers on;"),
     "underscores_in_headers on"),
])
def test_a_header_that_nginx_always_drops_is_refused(nginx, server, http, needle):
    right, said = nginx.check(DROPPED, server=server, http=http, store="/nonexistent/keys.mdb")
    assert not right
    line = next(line for line in said.splitlines() if "[emerg]" in line)
    assert "header:api_key" in line and '"/l"' in line and needle in line, line


@pytest.mark.parametrize("server,http", [
    ("underscores_in_headers on;", ""),
    ("ignore_invalid_headers off;", ""),
    ("", "underscores_in_headers on;"),
    ("listen 127.0.0.1:1;", second_server(1, is_default=True, inside="underscores_in_headers on;")),
    ("listen 127.0.0.1:1;", second_server(1, is_default=True, inside="ignore_invalid_headers off;")),
])
def test_a_header_that_nginx_may_drop_is_warned_of_once(nginx, server, http):
    right, said = nginx.check(DROPPED + f" location /m {{ {ON} apikey_from bearer header:API_Key; }}", server=server,
                              http=http, store="/nonexistent/keys.mdb")
    assert right, said
    warnings = [line for line in said.splitlines() if "[warn]" in line and "there is no snapshot" not in line]
    assert len(warnings) == 1 and "header:api_key" in warnings[0] and "underscores_in_headers on" in warnings[0]


def test_a_header_of_other_letters_needs_another_setting(nginx):
    dotted = f"location /l {{ {ON} apikey_from header:x.key; }}"
    right, said = nginx.check(dotted, server="underscores_in_headers on;", store="/nonexistent/keys.mdb")
    assert not right and "ignore_invalid_headers off" in said
    right, said = nginx.check(dotted, server="ignore_invalid_headers off;", store="/nonexistent/keys.mdb")
    assert right, said
    assert "x.key" in said and "ignore_invalid_headers off" in said


def test_a_header_with_an_underscore_in_a_location_without_keys_is_nobodys_matter(nginx):
    right, said = nginx.check(f"apikey_from header:api_key; location /l {{ {ON} apikey_from bearer; }}",
                              store="/nonexistent/keys.mdb")
    assert right, said
    assert "api_key" not in said


def test_a_header_with_an_underscore_is_taken_and_hidden_where_it_passes(nginx, registry, upstream):
    key = registry.key()
    server = nginx(f"location /l {{ {ON} apikey_from header:api_key; proxy_pass {upstream.url}; }}",
                   server="underscores_in_headers on;")
    assert server.status("/l", headers={"API_Key": key.secret}) == 200
    assert key.secret not in upstream.last.text()


def test_warns_of_the_debug_log(nginx):
    right, said = nginx.check(f"location / {{ {ON} }}", store="/nonexistent/keys.mdb", log_level="debug")
    assert right, said
    assert [line for line in said.splitlines() if "[warn]" in line and "debug" in line]


def test_a_clean_configuration_says_only_where_node_memory_lies(nginx, registry):
    right, said = nginx.check(f"location / {{ {ON} }}", store=str(registry.snapshot))
    assert right, said
    ours = [line for line in said.replace("apikey-test", "").splitlines() if "apikey" in line]
    assert ours == [f'nginx: [notice] apikey_zone "apikey": node memory will lie in {DIRECTORY}']
    server = nginx.make(f"location / {{ {ON} }}", store=str(registry.snapshot))
    done = subprocess.run(server.command("-t", "-q"), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_checking_a_configuration_touches_nothing_that_runs(registry, nginx, upstream):
    key = registry.key(rate="1/h", burst=2)
    server = nginx(f"location / {{ {ON} proxy_pass {upstream.url}; }}")
    assert server.status(key=key) == 200
    before = sorted((path.name, path.stat().st_mtime_ns) for path in registry.dir.rglob("*"))
    workers = server.workers()
    for _ in range(3):
        right, said = server.check()
        assert right, said
    assert server.workers() == workers
    assert sorted((path.name, path.stat().st_mtime_ns) for path in registry.dir.rglob("*")) == before
    assert [server.status(key=key) for _ in range(2)] == [200, 429], "buckets were touched"


def test_a_bad_reload_leaves_the_old_configuration_in_service(registry, nginx, upstream):
    key = registry.key()
    server = nginx(f"location / {{ {ON} proxy_pass {upstream.url}; }}")
    server.allow_log(r"\[emerg\].*apikey_from")
    workers = server.workers()
    server.write_config(locations="location / { apikey_from nowhere; }")
    subprocess.run(["kill", "-HUP", str(server.master)], check=True)
    server.wait_for_log(r"\[emerg\].*nowhere")
    assert server.workers() == workers
    assert server.status(key=key) == 200


NAMED = {"apikey_limit": ("rate=1r/s name=a", "rate=2r/s name=a"), "apikey_concurrency": ("5 name=a", "6 name=a")}
PLACES = {
    "two locations": "location /a {{ {ON} {one} }} location /b {{ {ON} {two} }}",
    "a location and one within": "location /a {{ {ON} {one} location /a/b {{ {two} }} }}",
    "a location and its if": "location /a {{ {ON} {one} if ($arg_x) {{ {two} }} }}",
    "a location and its limit_except": "location /a {{ {ON} {one} limit_except GET {{ {two} }} }}",
    "server and location": "{ON} {one} location /a {{ {two} }}",
    "two stores": "location /a {{ {ON} apikey_use default; {one} }} location /b {{ {ON} apikey_use other; {two} }}",
}


@pytest.mark.parametrize("directive", NAMED)
@pytest.mark.parametrize("name", PLACES)
def test_one_name_with_two_values(nginx, directive, name):
    one, two = (f"{directive} {text};" for text in NAMED[directive])
    parts = dict(store="/nonexistent/keys.mdb", http="apikey_store /nonexistent/other.mdb name=other;")
    right, said = nginx.check(PLACES[name].format(ON=ON, one=one, two=two), **parts)
    assert not right and f"{directive}: name=a is a limit with another" in said
    assert nginx.check(PLACES[name].format(ON=ON, one=one, two=one), **parts)[0]


@pytest.mark.parametrize("directive", NAMED)
def test_one_name_with_two_values_in_two_servers_and_in_http(nginx, directive):
    one, two = (f"{directive} {text};" for text in NAMED[directive])
    for http in (f"server {{ listen 127.0.0.1:1; location /b {{ {ON} {two} }} }}", two):
        right, said = nginx.check(f"location /a {{ {ON} {one} }}", store="/nonexistent/keys.mdb", http=http)
        assert not right and f"{directive}: name=a is a limit with another" in said


def test_a_rate_and_a_concurrency_of_one_name_are_two_limits(nginx):
    location = f"location /a {{ {ON} apikey_limit rate=1r/s name=a; apikey_concurrency 5 by=owner name=a; }}"
    assert nginx.check(location, store="/nonexistent/keys.mdb")[0]
