"""keyloader locations and keyloader check: what a running nginx asks of keys, told from its node memory, and what it would
answer, told by the same decision."""

import json
import os
import re
import socket
import struct
import subprocess
import termios

import httpx
import pytest

from harness.paths import KEYLOADER
from harness.registry import environment_of
from harness.state import fold64, regions, state_file
from harness.terminal import on_terminal
from harness.waiting import free_port, wait_until

LOCATIONS = """
    apikey "api";
    apikey_scope base:read;
    location /orders/ {
        apikey_scope orders:read methods=GET;
        apikey_scope orders:write methods=POST,PUT;
        apikey_environment live test;
        apikey_limit rate=10r/s burst=20 name=fast by=owner;
        empty_gif;
        location /orders/deep/ { apikey_scope deep; empty_gif; }
    }
    location = /exact { apikey_scope any; apikey_from header:X-Secret query:key; satisfy any; deny all; empty_gif; }
    location ^~ /first/ { empty_gif; }
    location ~ ^/v[0-9]+/ { apikey_scope versioned; empty_gif; }
    location ~* \\.PNG$ { apikey "pictures" optional; apikey_scope any; empty_gif; }
    location @later { empty_gif; }
    location /open/ { apikey off; empty_gif; }
    location /limited/ { apikey_scope read; limit_except GET { apikey_scope write; } empty_gif; }
"""


def told(registry):
    nginx, = registry.json("locations")
    return nginx


def by_name(registry):
    """Of the server that the tests ask, which is not the one of the metrics."""
    server, = (each for each in told(registry)["servers"] if not any("unix:" in listen for listen in each["listen"]))
    return {each["location"]: each for each in server["locations"]}


def test_every_kind_of_location_and_what_it_inherits(registry, nginx):
    nginx(LOCATIONS)
    found = by_name(registry)
    assert list(found) == ["(server)", "/orders/", "/orders/deep/", "= /exact", "^~ /first/", "~ ^/v[0-9]+/",
                           "~* \\.PNG$", "@later", "/open/", "/limited/", "limit_except in /limited/"]
    orders = found["/orders/"]
    assert [(line["scopes"], line["methods"]) for line in orders["scope_lines"]] == [
        (["orders:read"], "GET,HEAD"), (["orders:write"], "POST,PUT")]
    assert orders["environments"] == ["live", "test"] and orders["realm"] == "api" and orders["depth"] == 1
    assert orders["store"] == "default" and orders["store_path"] == str(registry.snapshot)
    assert orders["sources"] == ["header:x-api-key", "scheme:ApiKey"]
    limit, = orders["limits"]
    assert (limit["name"], limit["limit"], limit["by"], limit["place"]) == ("fast", "10/s burst 20", "owner", None)
    deep = found["/orders/deep/"]
    assert deep["depth"] == 2 and deep["environments"] == ["live", "test"] and deep["limits"] == orders["limits"]
    assert [line["scopes"] for line in deep["scope_lines"]] == [["deep"]]
    exact = found["= /exact"]
    assert exact["any_scope"] and exact["satisfy_any"] and exact["sources"] == ["header:x-secret", "query:key"]
    for inherits in ("^~ /first/", "@later"):
        assert [line["scopes"] for line in found[inherits]["scope_lines"]] == [["base:read"]]
    assert found["~* \\.PNG$"]["optional"] and found["~* \\.PNG$"]["realm"] == "pictures"
    assert found["/open/"] == {"location": "/open/", "depth": 1, "asks_for_keys": False}
    assert "POST" in found["limit_except in /limited/"]["except_methods"].split(",")
    assert "GET" not in found["limit_except in /limited/"]["except_methods"].split(",")


def test_the_table(registry, nginx):
    nginx(LOCATIONS)
    lines = registry.run("locations").stdout.splitlines()
    assert lines[0].split("  ")[0] == "SERVER"
    orders = next(line for line in lines if " /orders/ " in line)
    assert "orders:read (GET,HEAD); orders:write (POST,PUT)" in orders and "10/s burst 20 by owner" in orders
    assert "live test" in orders and "header:x-api-key scheme:ApiKey" in orders
    assert not any("/open/" in line for line in lines)


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_the_table_on_a_terminal(registry, nginx, columns):
    """What does not fit stands below its row: nothing is cut, and what everybody looks for stays in columns."""
    nginx(LOCATIONS)
    code, shown = on_terminal({**environment_of(registry.dir), "NO_COLOR": "1"}, "locations", columns=columns)
    lines = shown.splitlines()
    assert code == 0 and max(map(len, lines)) <= columns and "…" not in shown
    assert lines[0].split() == ["SERVER", "LOCATION", "SCOPES"]
    rows = [line for line in lines[1:] if not line.startswith(" ")]
    assert len(rows) == len(registry.run("locations").stdout.splitlines()) - 1
    start = next(number for number, line in enumerate(lines) if re.match(r"localhost +/orders/ ", line))
    end = next(number for number, line in enumerate(lines) if number > start and not line.startswith(" "))
    words = " ".join(lines[start:end]).split()
    assert words == ("localhost /orders/ orders:read (GET,HEAD); orders:write (POST,PUT) ENVIRONMENTS live test "
                     "LIMITS 10/s burst 20 by owner KEY FROM header:x-api-key scheme:ApiKey STORE default").split()
    scopes = lines[0].index("SCOPES")
    assert lines[start].index("orders:read") == scopes
    if columns == 140:
        assert lines[start].endswith("orders:read (GET,HEAD); orders:write (POST,PUT)") and end - start == 2
    else:
        assert lines[start + 1].index(lines[start + 1].strip()) == scopes, "what goes on stands below"
    if columns == 80:
        assert end - start == 4


def test_a_table_that_fits_a_terminal_is_one(registry, nginx):
    nginx(LOCATIONS)
    code, shown = on_terminal({**environment_of(registry.dir), "NO_COLOR": "1"}, "locations", columns=250)
    assert code == 0 and shown == registry.run("locations").stdout


def test_a_reload_is_seen(registry, nginx):
    server = nginx('location / { apikey "api"; apikey_scope before; empty_gif; }')
    assert by_name(registry)["/"]["scope_lines"][0]["scopes"] == ["before"]
    first = told(registry)["configuration"]
    server.reload(locations='location / { apikey "api"; apikey_scope after; empty_gif; }')
    assert by_name(registry)["/"]["scope_lines"][0]["scopes"] == ["after"]
    assert told(registry)["configuration"] > first


def test_a_reload_that_is_refused_changes_nothing(registry, nginx):
    server = nginx('location / { apikey "api"; apikey_scope before; empty_gif; }')
    before = told(registry)
    server.write_config(locations='location / { apikey "api"; apikey_scope; }')
    server.command("-s", "reload")
    server.write_config(locations='location / { apikey "api"; apikey_scope before; empty_gif; }')
    assert told(registry) == before


def test_more_than_there_is_room_for(registry, nginx):
    """A reload interrupts nobody, so it keeps the file; the next start makes room, and what was counted stays."""
    server = nginx('location / { apikey "api"; apikey_scope any; empty_gif; }')
    path = state_file(server.pid_path)
    size, inode = regions(path)[9][1], path.stat().st_ino
    key = registry.key("acme", "--quota", "10/day")
    server.wait_for_generation(registry.generation())
    assert server.status(key=key) == 200
    many = "".join(f'location /many/{i}/ {{ apikey_scope scope:{i}:{"x" * 100}; empty_gif; }}\n' for i in range(1500))
    server.reload(locations='apikey "api"; location / { apikey_scope any; empty_gif; }\n' + many)
    assert path.stat().st_ino == inode and server.status(key=key) == 200
    done = registry.run("locations", check=False)
    assert done.returncode == 1 and f"which has room for {size - 64}" in done.stderr and "start it again" in done.stderr
    server.wait_for_log("know it again when nginx is started anew")
    server.quit()
    server.start()
    wait_until(lambda: regions(path)[9][1] > size)  # the port is open before the file is in place
    found = by_name(registry)
    assert len(found) == 1502 and found["/many/1499/"]["scope_lines"][0]["scopes"] == ["scope:1499:" + "x" * 100]
    assert registry.json("quota", "show", key.id)[0]["used"] == 2


def change_region(path, kind, change):
    with open(path, "r+b") as file:
        preamble = file.read(4096)
        count, = struct.unpack_from("<I", preamble, 12)
        at = next(1024 + 32 * i for i in range(count) if struct.unpack_from("<I", preamble, 1024 + 32 * i)[0] == kind)
        change(file, at)


def test_an_nginx_without_this_is_named(registry, nginx):
    server = nginx('location / { apikey "api"; apikey_scope any; empty_gif; }')

    def be_older(file, at):
        file.seek(at)
        file.write(struct.pack("<I", 77))
    change_region(state_file(server.pid_path), 9, be_older)
    done = registry.run("locations", check=False)
    assert done.returncode == 1 and not done.stdout
    assert "does not say what its locations ask for" in done.stderr and f"nginx (pid {server.master})" in done.stderr


def test_damaged_bytes_are_not_shown(registry, nginx):
    server = nginx('location / { apikey "api"; apikey_scope any; empty_gif; }')
    path = state_file(server.pid_path)
    offset, _ = regions(path)[9]
    with open(path, "r+b") as file:
        file.seek(offset + 64 + 9)
        file.write(b"\xff\xff\xff")
    done = registry.run("locations", check=False)
    assert done.returncode == 1 and "damaged" in done.stderr and not done.stdout


@pytest.mark.parametrize("amount,period", [(0, 10**9), (2**63, 10**9), (10, 0), (10, 2**64 - 1)])
def test_numbers_that_nobody_can_have_written_are_damage(registry, nginx, amount, period):
    """Well-formed and with a right check, as a worker that has been taken over can write it."""
    server = nginx('location / { apikey "api"; apikey_scope any; apikey_limit rate=10r/s burst=20; empty_gif; }')
    path = state_file(server.pid_path)
    offset, size = regions(path)[9]
    with open(path, "r+b") as file:
        file.seek(offset)
        region = bytearray(file.read(size))
        configuration, _, length = struct.unpack_from("<QQQ", region, 8)
        entries = region[64:64 + length]
        at = entries.index(struct.pack("<QQQ", 10, 10**9, 20))
        assert struct.unpack_from("<Q", region, 40)[0] == fold64(struct.pack("<Q", configuration) + entries)
        struct.pack_into("<QQ", entries, at, amount, period)
        region[64:64 + length] = entries
        struct.pack_into("<Q", region, 40, fold64(struct.pack("<Q", configuration) + entries))
        file.seek(offset)
        file.write(region)
    for command in (["locations"], ["check", registry.key("acme", "--no-wait").id, "GET", server.url + "/"]):
        done = registry.run(*command, check=False)
        assert done.returncode == 1 and "damaged" in done.stderr and not done.stdout


def test_without_an_nginx(registry):
    done = registry.run("locations", check=False)
    assert done.returncode == 1 and "no nginx of this machine uses" in done.stderr


def test_no_pepper_and_no_key_stands_there(registry, nginx):
    registry.run("pepper", "create", "p1")
    key = registry.key("acme")
    server = nginx('location / { apikey "api"; apikey_scope any; empty_gif; }',
                   store_args=f" pepper=p1:{registry.dir}/peppers/p1")
    path = state_file(server.pid_path)
    offset, size = regions(path)[9]
    data = path.read_bytes()[offset:offset + size]
    pepper = (registry.dir / "peppers" / "p1").read_bytes().strip()
    assert b"api" in data
    for secret in (pepper, b"peppers/", key.secret.encode()):
        assert secret not in data


def checked(registry, key_id, method, url, *arguments, stdin=None):
    done = registry.run("check", key_id, method, url, *arguments, "--json", stdin=stdin, check=False)
    assert done.returncode in (0, 1) and done.stdout, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["allowed"] is True) == (done.returncode == 0) and (answer["allowed"] is None) == bool(answer["doubts"])
    return answer


DECIDED = """
    location /orders/ { apikey "api"; apikey_scope orders:read methods=GET; apikey_scope orders:write methods=POST; empty_gif; }
    location /both/ { apikey "api"; apikey_scope orders:read; apikey_scope orders:write methods=POST; empty_gif; }
    location /any/ { apikey "api"; apikey_scope any; apikey_environment any; empty_gif; }
    location = /any/exact { apikey "api"; apikey_scope admin; empty_gif; }
    location /open/ { empty_gif; }
    location /limited/ { apikey "api"; apikey_scope orders:read; limit_except GET { apikey_scope orders:write; } empty_gif; }
    location /dry/ { apikey "api"; apikey_scope admin; apikey_dry_run scopes; empty_gif; }
    location /capped/ { apikey "api"; apikey_scope any; apikey_limit rate=1r/h burst=1; empty_gif; }
"""
PATHS = ["/orders/1", "/both/", "/any/x", "/any/exact", "/open/", "/limited/", "/dry/"]


def test_check_agrees_with_nginx(registry, nginx):
    made = {"reader": dict(scope="orders:read"), "writer": dict(scope="orders:*"), "none": {},
            "elsewhere": dict(scope="orders:*", allow_ip="10.0.0.0/8"), "test": dict(scope="*", env="test"),
            "getter": dict(scope="*", allow_method="GET"), "tls": dict(scope="*", require_tls=True),
            "host": dict(scope="*", allow_host="127.0.0.1"), "other host": dict(scope="*", allow_host="example.com"),
            "owner": dict(owner="away", scope="*"), "revoked": dict(scope="*"), "suspended": dict(scope="*"),
            "later": dict(scope="*", not_before="2d")}
    keys = {name: registry.key(**{"owner": "acme", **fields}) for name, fields in made.items()}
    keys["expired"] = registry.expired_key(scope="*")
    registry.revoke(keys["revoked"])
    registry.run("key", "suspend", keys["suspended"].id)
    registry.run("owner", "suspend", "away")
    server = nginx(DECIDED)
    server.wait_for_generation(registry.generation())
    wrong = []
    for name, key in keys.items():
        for method in ("GET", "POST", "PUT"):
            for path in PATHS:
                status = server.request(method, path, key=key).status_code
                answer = checked(registry, key.id, method, server.url + path, "--from", "127.0.0.1")
                if answer["allowed"] != (status not in (401, 403, 429, 503)):
                    wrong.append((name, method, path, status, answer["outcome"]))
    assert not wrong


def row(answer, name):
    return next(each for each in answer["checks"] if each["check"] == name)


def test_every_check_has_a_row(registry, nginx):
    key = registry.key("acme", "--allow-ip", "10.0.0.0/8", "--rate", "10/s", "--quota", "10/day", scope="orders:read")
    server = nginx(DECIDED)
    server.wait_for_generation(registry.generation())
    done = registry.run("check", key.id, "POST", server.url + "/orders/", "--from", "127.0.0.1", check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("refused (wrong_address): POST /orders/, location /orders/ of")
    names = [line.split()[0] for line in done.stdout.splitlines()[1:-1]]
    assert names == ["known", "state", "time", "environment", "address", "origin", "method", "host", "tls", "scope", "limit",
                     "limit"]
    answer = checked(registry, key.id, "PATCH", server.url + "/orders/", "--from", "10.1.1.1")
    assert answer["outcome"] == "scope" and row(answer, "address")["ok"]
    assert "no API key may use PATCH here" in row(answer, "scope")["why"]
    answer = checked(registry, key.id, "POST", server.url + "/orders/", "--from", "10.1.1.1")
    assert row(answer, "scope") == {"check": "scope", "ok": False, "why": "needs orders:write; the key has orders:read"}
    without = checked(registry, key.id, "GET", server.url + "/orders/")
    assert without["outcome"] == "wrong_address" and "--from ADDRESS" in row(without, "address")["why"]


def test_limits_are_those_of_the_running_nginx(registry, nginx):
    key = registry.key("acme", "--quota", "3/day")
    server = nginx(DECIDED)
    server.wait_for_generation(registry.generation())
    url = server.url + "/any/"
    for left in (3, 2, 1):
        answer = checked(registry, key.id, "GET", url)
        assert answer["allowed"] and row(answer, "limit")["why"].startswith(f"day: {left} of 3 left")
        assert server.status("/any/", key=key) == 200
    answer = checked(registry, key.id, "GET", url)
    assert answer["outcome"] == "quota_exceeded" and not row(answer, "limit")["ok"]
    assert server.status("/any/", key=key) == 429
    other = registry.key("acme")
    server.wait_for_generation(registry.generation())
    assert checked(registry, other.id, "GET", server.url + "/capped/")["allowed"]
    assert checked(registry, other.id, "GET", server.url + "/capped/")["allowed"], "it takes nothing"
    assert server.status("/capped/", key=other) == 200
    assert checked(registry, other.id, "GET", server.url + "/capped/")["outcome"] == "rate_limited"
    assert server.status("/capped/", key=other) == 429


def test_the_key_itself_on_standard_input(registry, nginx):
    key = registry.key("acme")
    server = nginx(DECIDED)
    server.wait_for_generation(registry.generation())
    answer = checked(registry, "-", "GET", server.url + "/any/", stdin=key.secret + "\n")
    assert answer["allowed"] and key.id in row(answer, "known")["why"] and key.secret not in str(answer)
    wrong = key.secret[:-1] + ("a" if key.secret[-1] != "a" else "b")
    assert checked(registry, "-", "GET", server.url + "/any/", stdin=wrong)["outcome"] == "unknown"


def test_a_key_typed_on_a_terminal_is_not_shown(registry, nginx):
    key = registry.key("acme")
    server = nginx(DECIDED)
    server.wait_for_generation(registry.generation())
    command = ["check", "-", "GET", server.url + "/any/"]
    code, shown = on_terminal(environment_of(registry.dir), *command, answer=key.secret)
    assert code == 0 and "key (it is not shown): \n" in shown and "allowed (ok)" in shown and key.id in shown
    assert key.secret not in shown
    code, shown = on_terminal(environment_of(registry.dir), *command, answer="")
    assert code == 2 and "there is no key on standard input" in shown


def test_a_key_that_is_typed_is_not_shown_where_nobody_can_be_asked(registry, nginx):
    """Standard error goes to a file, and the key would stay on the screen."""
    key = registry.key("acme")
    server = nginx(DECIDED)
    server.wait_for_generation(registry.generation())
    ours, terminal = os.openpty()
    with subprocess.Popen([KEYLOADER, "check", "-", "GET", server.url + "/any/"], stdin=terminal, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=environment_of(registry.dir), text=True) as child:
        try:
            wait_until(lambda: not termios.tcgetattr(terminal)[3] & termios.ECHO, what="that nothing is shown")
            os.write(ours, key.secret.encode() + b"\n")
            shown, errors = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 0 and "allowed (ok)" in shown and key.secret not in errors, errors
    assert termios.tcgetattr(terminal)[3] & termios.ECHO, "the terminal is as it was"
    os.set_blocking(ours, False)
    with pytest.raises(BlockingIOError):
        os.read(ours, 4096)
    os.close(ours)
    os.close(terminal)


def test_a_change_is_seen(registry, nginx):
    key = registry.key("acme", scope="orders:read")
    server = nginx('location / { apikey "api"; apikey_scope orders:read; empty_gif; }')
    server.wait_for_generation(registry.generation())
    assert checked(registry, key.id, "GET", server.url + "/")["allowed"]
    server.reload(locations='location / { apikey "api"; apikey_scope orders:write; empty_gif; }')
    assert checked(registry, key.id, "GET", server.url + "/")["outcome"] == "scope"
    registry.revoke(key)
    assert checked(registry, key.id, "GET", server.url + "/")["outcome"] == "revoked"


def test_a_location_that_a_regular_expression_may_come_before_is_not_judged(registry, nginx):
    """nginx tries the expressions unless `=` or `^~` ends its search; those that plainly cannot match are no doubt."""
    key = registry.key("acme", scope="base:read orders:read any".split())
    server = nginx(LOCATIONS + """
        location /deep/ { apikey off; location ^~ /deep/first/ { apikey off; empty_gif; } empty_gif; }
        location ~ ^/d { empty_gif; }
        location /dw/ { location = /dw/exact { apikey off; empty_gif; } location ~ \\.x$ { empty_gif; } empty_gif; }
    """)
    server.wait_for_generation(registry.generation())
    v, d, x = "'~ ^/v[0-9]+/'", "'~ ^/d'", "'~ \\.x$'"
    for path, location, rivals in (("/orders/deep/1", "/orders/deep/", ()), ("/orders/x?a=b", "/orders/", ()),
                                   ("/first/1", "^~ /first/", ()), ("/exact", "= /exact", ()),
                                   ("/v1/x", "(server)", (v,)), ("/v", "(server)", (v,)),
                                   ("/orders/a.png", "/orders/", ("'~* \\.PNG$'",)),
                                   ("/deep/1", "/deep/", (d,)), ("/deep/first/1", "^~ /deep/first/", (d,)),
                                   ("/dw/exact", "= /dw/exact", ()), ("/dw/1", "/dw/", (d,)), ("/dw/1.x", "/dw/", (x, d))):
        answer = checked(registry, key.id, "GET", server.url + path)
        assert (answer["location"], answer["is_proposed"]) == (location, True)
        named = [each for each in (v, d, x, "'~* \\.PNG$'") if any(each in doubt for doubt in answer["doubts"])]
        assert sorted(named) == sorted(rivals), path
    done = registry.run("check", key.id, "GET", server.url + "/deep/1", check=False)
    assert done.returncode == 1 and done.stdout.splitlines()[-1].startswith("cannot be judged (off): GET /deep/1")
    assert "say with --location which of them it is" in done.stderr
    assert not registry.run("check", key.id, "GET", server.url + "/orders/1").stderr, "nothing is said without a reason"


def test_a_location_is_named_as_nginx_logs_it(registry, nginx):
    key = registry.key("acme", scope="base:read")
    server = nginx(LOCATIONS + 'location ^~ /same { empty_gif; } location ~ /same { empty_gif; }')
    server.wait_for_generation(registry.generation())
    for named in ("~ ^/v[0-9]+/", "^/v[0-9]+/"):
        for url in (server.url + "/v1/x", "/v1/x"):
            answer = checked(registry, key.id, "GET", url, "--location", named)
            assert (answer["location"], answer["outcome"], answer["is_proposed"]) == ("~ ^/v[0-9]+/", "scope", False)
    for named, name in (("/exact", "= /exact"), ("\\.PNG$", "~* \\.PNG$"), ("/first/", "^~ /first/")):
        assert checked(registry, key.id, "GET", server.url + "/x", "--location", named)["location"] == name
    twice = registry.run("check", key.id, "GET", server.url + "/same", "--location", "/same", check=False)
    assert twice.returncode == 2 and "may be '^~ /same' or '~ /same'; write one of them" in twice.stderr
    refused = registry.run("check", key.id, "GET", "/x", "--location", "/nosuch/", check=False)
    assert refused.returncode == 1 and "there is no location \"/nosuch/\"" in refused.stderr


def test_an_if_with_other_rules_is_not_judged(registry, nginx):
    key = registry.key("acme", scope="read")
    server = nginx("""
        location /other/ { apikey "x"; apikey_scope read; if ($arg_a) { apikey_scope write; } empty_gif; }
        location /same/ { apikey "x"; apikey_scope read; if ($arg_a) { set $b 1; } empty_gif; }
    """)
    server.wait_for_generation(registry.generation())
    assert checked(registry, key.id, "GET", server.url + "/same/")["allowed"]
    assert "if in /other/" in str(checked(registry, key.id, "GET", server.url + "/other/")["doubts"])
    assert checked(registry, key.id, "GET", server.url + "/other/", "--location", "/other/")["allowed"]
    assert checked(registry, key.id, "GET", server.url + "/other/", "--location", "if in /other/")["outcome"] == "scope"


def test_a_server_that_is_not_certain_is_not_judged(registry, nginx):
    key = registry.key("acme", scope="a")
    port = free_port()
    server = nginx(http="\n".join(
        f'server {{ listen 127.0.0.1:{port}; server_name {name}; location / {{ apikey "x"; apikey_scope a; empty_gif; }} }}'
        for name in ("a.example.com", "b.example.com")))
    server.wait_for_generation(registry.generation())
    assert "default_server" in str(checked(registry, key.id, "GET", f"http://c.example.com:{port}/")["doubts"])
    elsewhere = registry.run("check", key.id, "GET", "https://nohost.example/", check=False)
    assert elsewhere.returncode == 1 and not elsewhere.stdout
    assert "no server of nginx listens on port 443, and none is called nohost.example" in elsewhere.stderr
    answer = checked(registry, key.id, "GET", "https://a.example.com/")
    assert answer["allowed"] and "No server listens on port 443" in answer["remarks"][0], "TLS may end before nginx"


def test_an_nginx_that_is_gone_answers_nobody(registry, nginx):
    key = registry.key("acme", scope="base:read")
    server = nginx(LOCATIONS)
    server.wait_for_generation(registry.generation())
    assert checked(registry, key.id, "GET", server.url + "/orders/deep/1")["outcome"] == "scope"
    assert told(registry)["running"] is True
    server.quit()
    done = registry.run("check", key.id, "GET", server.url + "/first/", check=False)
    assert done.returncode == 1 and not done.stdout and "gone) is not running" in done.stderr
    shown = registry.run("locations", check=False)
    assert shown.returncode == 1 and "/orders/" in shown.stdout and "is not running" in shown.stderr


def test_an_nginx_without_a_snapshot_lets_nobody_in(registry, nginx):
    key = registry.key("acme", scope="a")
    kept = registry.snapshot.with_suffix(".kept")
    registry.snapshot.rename(kept)
    server = nginx('location / { apikey "x"; apikey_scope a; empty_gif; }')
    assert server.status("/", key=key) == 503
    answer = checked(registry, key.id, "GET", server.url + "/")
    assert (answer["allowed"], answer["outcome"]) == (False, "unavailable")


def test_servers_are_told_apart_by_host(registry, nginx):
    key = registry.key("acme", scope="a")
    port = free_port()
    server = nginx(http="\n".join(
        f'server {{ listen 127.0.0.1:{port}; server_name {name}; location / {{ apikey "x"; apikey_scope {scope}; empty_gif; }} }}'
        for name, scope in (("a.example.com", "a"), ("*.example.com", "b"), ("other.org", "c"))))
    server.wait_for_generation(registry.generation())
    for host, is_allowed in (("a.example.com", True), ("b.example.com", False), ("A.EXAMPLE.COM", True), ("other.org", False)):
        answer = httpx.get(f"http://127.0.0.1:{port}/", headers={"Host": host, "X-Api-Key": key.secret})
        assert (answer.status_code == 200) == is_allowed, host
        assert checked(registry, key.id, "GET", f"http://{host}:{port}/")["allowed"] == is_allowed, host
    refused = registry.run("check", key.id, "GET", "/", check=False)
    assert refused.returncode == 2 and "3 servers are possible (a.example.com, *.example.com, other.org)" in refused.stderr


@pytest.mark.parametrize("arguments,status,words", [
    (("nonsense", "GET", "/"), 2, "key_"), (("key_00000000000000000000", "GET", "x"), 2, "is no URL"),
    (("key_00000000000000000000", "GET", "ftp://x/"), 2, "is no URL of http or https"),
    (("key_00000000000000000000", "GET", "/"), 1, "no nginx of this machine uses")])
def test_wrong_use_is_said(registry, arguments, status, words):
    done = registry.run("check", *arguments, check=False)
    assert done.returncode == status and words in done.stderr


def test_check_names_an_nginx_without_this(registry, nginx):
    key = registry.key("acme")
    server = nginx(DECIDED)

    def be_older(file, at):
        file.seek(at + 4)
        file.write(struct.pack("<I", 77))
    change_region(state_file(server.pid_path), 9, be_older)
    done = registry.run("check", key.id, "GET", server.url + "/any/", check=False)
    assert done.returncode == 1 and "does not say what its locations ask for" in done.stderr


ODD_PATHS = ["/public/../admin/x", "/public/%2e%2e/admin/x", "/public/..%2fadmin/x", "//admin/x", "/public//../admin/x",
             "/public/./x", "/admin/..", "/admin/.", "/admin", "/public/a/../../admin/"]


def raw_status(server, path, key):
    """Of a request whose path is sent as it stands."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key.secret}\r\nConnection: close\r\n\r\n".encode())
        return int(client.makefile("rb").readline().split()[1])


def test_a_path_is_read_as_nginx_reads_it(registry, nginx):
    """The key may not do what /admin/ asks for: where nginx refuses, check does."""
    key = registry.key("acme", scope="other")
    server = nginx("""location / { empty_gif; }
                      location /admin/ { apikey "a"; apikey_scope admin; empty_gif; }
                      location /public/ { empty_gif; }""")
    server.wait_for_generation(registry.generation())
    for path in ODD_PATHS:
        assert (raw_status(server, path, key) != 403) == checked(registry, key.id, "GET", server.url + path)["allowed"], path
    assert any("merge_slashes" in remark for remark in checked(registry, key.id, "GET", server.url + "//admin/x")["remarks"])
    for path in ("/public/../../x", "/admin%00x"):
        assert raw_status(server, path, key) == 400
        done = registry.run("check", key.id, "GET", server.url + path, check=False)
        assert done.returncode == 1 and "nginx answers 400" in done.stderr


def test_a_method_nobody_knows_is_not_excepted(registry, nginx):
    key = registry.key("acme", scope="read")
    server = nginx("""location / { apikey "a"; apikey_scope read; limit_except GET { apikey_scope write; } empty_gif; }""")
    server.wait_for_generation(registry.generation())
    for method in ("GET", "POST", "PURGE"):
        is_refused = server.request(method, "/x", key=key).status_code == 403
        assert checked(registry, key.id, method, server.url + "/x")["allowed"] != is_refused, method


def test_servers_of_one_name_on_two_addresses_are_not_guessed(registry, nginx):
    key = registry.key("acme", scope="a")
    port = free_port()
    server = nginx(http="".join(f"server {{ listen 127.0.0.{n}:{port}; server_name twin.example; location / {{ {rule} empty_gif; }} }}"
                                for n, rule in ((1, ""), (2, 'apikey "a"; apikey_scope b;'))))
    server.wait_for_generation(registry.generation())
    answer = checked(registry, key.id, "GET", f"http://twin.example.:{port}/")
    assert "2 servers are called twin.example" in answer["doubts"][0] and f"127.0.0.2:{port}" in answer["doubts"][0]


def test_the_nginx_that_listens_there_is_asked(registry, nginx):
    """Two on one store: the first of them is not the answer for both."""
    key = registry.key("acme", scope="other")
    first = nginx("location / { empty_gif; }")
    second = nginx('location / { apikey "a"; apikey_scope admin; empty_gif; }')
    for server, is_allowed in ((first, True), (second, False)):
        server.wait_for_generation(registry.generation())
        assert checked(registry, key.id, "GET", server.url + "/")["allowed"] == is_allowed
    assert " and nginx (pid " in checked(registry, key.id, "GET", "/", "--location", "/")["doubts"][-1]
