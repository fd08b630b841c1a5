"""keyloader locations and keyloader check: what a running nginx asks of keys, told from its node memory, and what it would
answer, told by the same decision."""

import struct

import pytest

from harness.state import regions, state_file
from harness.waiting import wait_until

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


def test_more_than_there_was_room_for(registry, nginx):
    """The region grows with the configuration, and what was counted stays."""
    server = nginx('location / { apikey "api"; apikey_scope any; empty_gif; }')
    path = state_file(server.pid_path)
    size = regions(path)[9][1]
    key = registry.key("acme", "--quota", "10/day")
    server.wait_for_generation(registry.generation())
    assert server.status(key=key) == 200
    many = "".join(f'location /many/{i}/ {{ apikey_scope scope:{i}:{"x" * 100}; empty_gif; }}\n' for i in range(500))
    server.reload(locations='apikey "api"; location / { apikey_scope any; empty_gif; }\n' + many)
    assert regions(path)[9][1] > size
    found = by_name(registry)
    assert len(found) == 502 and found["/many/499/"]["scope_lines"][0]["scopes"] == ["scope:499:" + "x" * 100]
    assert registry.json("quota", "show", key.id)[0]["used"] == 1


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
