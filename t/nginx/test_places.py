"""Two limits that are configured apart never share a counter, and an edit elsewhere leaves every counter where it is."""

import pytest

from harness.waiting import free_port

STRICT = "apikey_limit rate=1r/h burst=3;"
LOOSE = "apikey_limit rate=100r/s burst=100;"
ASK = 'apikey "api"; apikey_scope any;'


PASSES = (200, 404, 405)  # an `if` does not inherit empty_gif


def drained(server, key, strict, loose, ask=None):
    """Asks both in turn. RETURNS: how often each of them passed."""
    ask = ask or (lambda where: server.status(where, key=key))
    passed = {"strict": 0, "loose": 0}
    for _ in range(8):
        passed["loose"] += ask(loose) in PASSES
        passed["strict"] += ask(strict) in PASSES
    return passed["strict"], passed["loose"]


# name, what stands in the server, a path with the strict limit, one with the loose limit
PAIRS = {
    "exact": (f"location = /login {{ {STRICT} empty_gif; }} location /login {{ {LOOSE} empty_gif; }}",
              "/login", "/login/x"),
    "exact, without the space": (f"location =/login {{ {STRICT} empty_gif; }} location /login {{ {LOOSE} empty_gif; }}",
                                 "/login", "/login/x"),
    "prefix and regex": (f"location ^~ /a/ {{ {STRICT} empty_gif; }} location ~ /a/ {{ {LOOSE} empty_gif; }}",
                         "/a/", "/b/a/"),
    "regex with and without case": (f"location ~ ^/r {{ {STRICT} empty_gif; }} location ~* ^/r {{ {LOOSE} empty_gif; }}",
                                    "/r", "/R"),
    "the same regex in two locations":
        (f"location /a/ {{ location ~ x$ {{ {STRICT} empty_gif; }} }}"
         f"location /b/ {{ location ~ x$ {{ {LOOSE} empty_gif; }} }}", "/a/x", "/b/x"),
    "nested": (f"location /a/ {{ {LOOSE} empty_gif; location /a/b/ {{ {STRICT} empty_gif; }} }}", "/a/b/", "/a/"),
    "nested of one name": (f"location /a {{ {LOOSE} empty_gif; location = /a {{ {STRICT} empty_gif; }} }}", "/a", "/a/b"),
    "if": (f"location /a/ {{ {LOOSE} empty_gif; if ($arg_slow) {{ {STRICT} }} }}", "/a/?slow=1", "/a/"),
    "two ifs": (f"location /a/ {{ empty_gif; if ($arg_slow) {{ {STRICT} }} if ($arg_fast) {{ {LOOSE} }} }}",
                "/a/?slow=1", "/a/?fast=1"),
    "the same if in two locations": (f"location /a/ {{ empty_gif; if ($arg_x) {{ {STRICT} }} }}"
                                     f"location /b/ {{ empty_gif; if ($arg_x) {{ {LOOSE} }} }}", "/a/?x=1", "/b/?x=1"),
    "named locations": (f"location = /s {{ apikey off; error_page 418 = @s; return 418; }} location @s {{ {STRICT} empty_gif; }}"
                        f"location = /l {{ apikey off; error_page 418 = @l; return 418; }} location @l {{ {LOOSE} empty_gif; }}",
                        "/s", "/l"),
    "server and location": (f"{LOOSE} location /a/ {{ {STRICT} empty_gif; }} location /b/ {{ empty_gif; }}",
                            "/a/", "/b/"),
    "two lines": (f"location /a/ {{ {STRICT} empty_gif; }} location /b/ {{ {LOOSE} {LOOSE} empty_gif; }}", "/a/", "/b/"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_each_place_has_its_own_counter(registry, nginx, name):
    locations, strict, loose = PAIRS[name]
    key = registry.key()
    server = nginx(locations, server=ASK)
    assert drained(server, key, strict, loose) == (3, 8)


def test_limit_except_has_its_own_counter(registry, nginx):
    key = registry.key()
    server = nginx(f"location / {{ {LOOSE} limit_except GET {{ {STRICT} }} empty_gif; }}", server=ASK)
    assert drained(server, key, "DELETE", "GET",
                   lambda method: server.request(method, "/", key=key).status_code) == (3, 8)


def other_server(listen, names, limit, locations=""):
    return f"server {{ listen {listen}; server_name {names}; {ASK} location /a/ {{ {limit} empty_gif; }} {locations} }}"


def test_the_same_path_of_another_server(registry, nginx):
    """Of another name, of another port, and of a name that is the same but for those that follow."""
    key, port = registry.key(), free_port()
    server = nginx.make(f"location /a/ {{ {STRICT} empty_gif; }}", server=ASK)
    here = f"127.0.0.1:{server.port}"
    server.write_config(http=other_server(here, "other", LOOSE) + other_server(f"127.0.0.1:{port}", "localhost", LOOSE)
                        + other_server(here, "twin first", LOOSE) + other_server(here, "twin second", LOOSE))
    server.start().wait_for_generation(registry.generation())

    def ask(where):
        host, port_of_it = where
        return server.request("GET", f"http://127.0.0.1:{port_of_it}/a/", key=key, headers={"Host": host}).status_code

    for other in (("other", server.port), ("localhost", port)):
        strict, loose = drained(server, key, ("localhost", server.port), other, ask)
        assert loose == 8
    assert strict == 0, "the three of the first round are used up"
    server.write_config(http=other_server(here, "twin first", STRICT) + other_server(here, "twin second", LOOSE))
    server.reload()
    assert drained(server, key, ("first", server.port), ("second", server.port), ask) == (3, 8)


def test_what_is_inherited_is_shared(registry, nginx):
    key = registry.key()
    server = nginx(f"location /a/ {{ empty_gif; }} location /b/ {{ empty_gif; location /b/c/ {{ empty_gif; }} }}"
                   "location /d/ { empty_gif; if ($arg_x) { set $y 1; } limit_except GET { deny all; } }",
                   server=ASK + "apikey_limit rate=1r/h burst=4;")
    paths = ("/a/", "/b/", "/b/c/", "/d/?x=1", "/a/", "/b/", "/b/c/", "/d/?x=1", "/d/")
    assert [server.status(path, key=key) in PASSES for path in paths] == [True] * 4 + [False] * 5


def test_a_limit_of_http_is_one_for_all_servers(registry, nginx):
    key, port = registry.key(), free_port()
    server = nginx("location /a/ { empty_gif; }",
                   http=f"{ASK} apikey_limit rate=1r/h burst=2;"
                        f"server {{ listen 127.0.0.1:{port}; location /a/ {{ empty_gif; }} }}")
    urls = (f"http://127.0.0.1:{port}/a/", "/a/", f"http://127.0.0.1:{port}/a/", "/a/")
    assert [server.status(url, key=key) for url in urls] == [200, 200, 429, 429]


def test_failed_attempts_are_counted_by_place(registry, nginx):
    """One that is written outside is one for all that inherit it."""
    registry.key()
    server = nginx("location /own/ { apikey_fail_limit rate=1r/h burst=2; empty_gif; }"
                   "location /loose/ { apikey_fail_limit rate=1000r/s burst=1000; empty_gif; }"
                   "location /a/ { empty_gif; } location /b/ { empty_gif; }",
                   server=ASK + "apikey_fail_limit rate=1r/h burst=2;")

    def fail(path):
        return server.status(path, key="ak_live_" + "0" * 38)

    assert [fail(path) for path in ("/a/", "/b/", "/a/", "/b/")] == [401, 401, 429, 429]
    assert [fail(path) for path in ("/own/", "/loose/", "/own/", "/loose/", "/own/", "/own/", "/loose/")] == \
        [401, 401, 401, 401, 429, 429, 401]


def test_a_limit_without_a_name_counts_requests_wherever_it_stands(registry, nginx):
    """The text of a regular expression is not the name of what is counted."""
    key = registry.key()
    server = nginx("location ~ ^/v1/ { apikey_limit rate=1r/h burst=10; apikey_cost 5 of=requests; empty_gif; }"
                   "location v2 { apikey_limit rate=1r/h burst=10; apikey_cost 5 of=requests; empty_gif; }",
                   server=ASK)
    assert [server.status("/v1/x", key=key) for _ in range(3)] == [200, 200, 429]


# An edit that leaves every block where it is

LINE = "apikey_limit rate=1r/h burst=2;"
BLOCKS = [
    f"location = /exact {{ {LINE} empty_gif; }}",
    f"location ^~ /still/ {{ {LINE} empty_gif; }}",
    f"location /out/ {{ {LINE} empty_gif; location /out/in/ {{ {LINE} empty_gif; }} }}",
    f"location ~ ^/regex {{ {LINE} empty_gif; }}",
    f"location ~* ^/case {{ {LINE} empty_gif; }}",
    f'location /if/ {{ {LINE} empty_gif; if ($arg_x = ab) {{ {LINE} }} if ($arg_y) {{ {LINE} }} }}',
    "location = /to-named { apikey off; error_page 418 = @named; return 418; }",
    f"location @named {{ {LINE} empty_gif; }}",
    f"location /except/ {{ {LINE} limit_except GET {{ {LINE} }} empty_gif; }}",
]
PATHS = ["/exact", "/still/", "/out/", "/out/in/", "/regex", "/CASE", "/if/", "/if/?x=ab", "/if/?y=1",
         "/to-named", "/except/", "DELETE /except/", "/rest", "second /exact", "twin /exact"]


def servers_of(server, port, blocks, line=LINE):
    return [f"server {{ listen 127.0.0.1:{port}; server_name localhost; {ASK} {' '.join(blocks)} }}",
            f"server {{ listen 127.0.0.1:{server.port}; server_name twin; {ASK} location = /exact {{ {line} empty_gif; }} }}"]


def edits():
    def blocks(change):
        return lambda parts: {**parts, "blocks": change(parts["blocks"])}

    def limits(change):
        return lambda parts: {**parts, "blocks": [change(block) for block in parts["blocks"]],
                              "line": change(parts["line"])}

    return {
        "comments": blocks(lambda all_: [f"# a line\n{block}\n# and one more\n" for block in all_]),
        "another order": blocks(lambda all_: [*reversed(all_)]),
        "other locations around them": blocks(
            lambda all_: ["location /new/ { apikey_limit rate=1r/h; empty_gif; }", *all_,
                          "location ~ ^/newer { apikey_limit rate=1r/h; empty_gif; }"]),
        "other blocks inside of them": blocks(
            lambda all_: [block.replace("empty_gif;", "empty_gif; if ($arg_z) { apikey_limit rate=1r/h; }")
                          for block in all_]),
        "another rate": limits(lambda text: text.replace("rate=1r/h burst=2", "rate=2r/h burst=3")),
        "other lines with names": limits(
            lambda text: text.replace(LINE, "apikey_limit rate=9r/s name=wide; apikey_concurrency 9; " + LINE)),
        "spaces": blocks(lambda all_: [block.replace("= /", "=/").replace("($arg_x = ab)", '( $arg_x  =  "ab" )')
                                       for block in all_]),
        "another order of servers": lambda parts: {**parts, "turns": True},
        "another server": lambda parts: {**parts, "more": True},
        "another file": lambda parts: {**parts, "includes": True},
    }


@pytest.mark.parametrize("name", edits())
def test_an_edit_elsewhere_keeps_the_counters(registry, nginx, place, name):
    key, port, third = registry.key(), free_port(), free_port()
    server = nginx.make(store=registry.snapshot)

    def write(parts):
        others = servers_of(server, port, parts["blocks"], parts["line"])
        own = " ".join(parts["blocks"])
        if parts.get("turns"):
            others.reverse()
        if parts.get("more"):
            others.insert(0, f"server {{ listen 127.0.0.1:{third}; server_name localhost; {ASK} {own} }}")
        if parts.get("includes"):
            (place / "blocks.conf").write_text(own)
            own = f"include {place}/blocks.conf;"
        server.write_config(locations=own, server=ASK + parts["line"], http="\n".join(others))

    def ask(where):
        method, _, path = where.rpartition(" ")
        host = method if method == "twin" else "localhost"
        url = f"http://127.0.0.1:{port}{path}" if method == "second" else path
        return server.request("DELETE" if method == "DELETE" else "GET", url, key=key,
                              headers={"Host": host}).status_code

    parts = {"blocks": BLOCKS, "line": LINE}
    write(parts)
    server.start().wait_for_generation(registry.generation())
    for path in PATHS:
        assert [ask(path) in PASSES for _ in range(3)] == [True, True, False], path
    write(edits()[name](parts))
    server.reload()
    assert {path: ask(path) for path in PATHS} == {path: 429 for path in PATHS}
