"""keyloader status and doctor beside a real nginx: what only a running one can show. The rest is in t/keyloader."""

import json
import mmap
import os
import re
import sqlite3
import struct
import time

import pytest

from harness.state import state_file
from harness.waiting import wait_until

LOCATION = 'location / { apikey "api"; apikey_scope any; empty_gif; }'
HEAD = 1
WALL_US = 88  # of NodeHead


def found(registry):
    """What doctor finds: check → sentence and remedy."""
    report = json.loads(registry.run("doctor", "--json", check=False).stdout)
    return {one["check"]: f"{one['sentence']}. {one['remedy']}" for one in report if one["result"] != "fine"}


def region(path, kind):
    """Offset and size of one region of node memory."""
    preamble = path.read_bytes()[:4096]
    count, = struct.unpack_from("<I", preamble, 12)
    for at in range(1024, 1024 + 32 * count, 32):
        if struct.unpack_from("<I", preamble, at)[0] == kind:
            return struct.unpack_from("<QQ", preamble, at + 8)
    raise AssertionError(f"no region {kind} in {path}")


def test_all_is_well(registry, nginx, place):
    (place / "state").mkdir()
    (place / "state").chmod(0o777)
    key = registry.key()
    server = nginx(LOCATION, http=f"apikey_zone zone=apikey:2m state={place}/state;")
    server.wait_for_generation(registry.generation())
    assert server.status(key=key) == 200
    wait_until(lambda: list((place / "state").iterdir()), what="the first checkpoint")
    assert wait_until(lambda: not found(registry), what="nothing to find")
    status = registry.json("status")
    assert status["active"] is True and status["problems"] == []
    of_nginx, = status["nginx"]
    store, = of_nginx["stores"]
    assert store["generation"] == registry.generation() and of_nginx["pid"] == server.master
    assert {worker["pid"] for worker in store["workers"]} == set(server.workers())
    assert {(worker["state"], worker["draining"]) for worker in store["workers"]} == {("open", False)}
    assert all(table["slots"] > table["used"] for table in of_nginx["tables"].values())


def test_a_file_that_was_refused(registry, nginx):
    registry.key()
    server = nginx(LOCATION)
    server.wait_for_generation(registry.generation())
    registry.snapshot.write_bytes(b"x" * 8192)
    server.wait_for_log("keys.mdb")

    def refusal():
        report = json.loads(registry.run("status", "--json", check=False).stdout)
        return report["nginx"][0]["stores"][0]["last_refusal"]
    said = wait_until(refusal, what="the refusal in node memory")
    assert said["sentence"] in registry.run("status", check=False).stdout


def test_no_checkpoint(registry, nginx):
    registry.key()
    server = nginx(LOCATION)
    server.wait_for_generation(registry.generation())
    assert "keeps no checkpoint" in found(registry)["checkpoint"]


def test_an_nginx_that_takes_an_emptied_snapshot(registry, nginx):
    registry.key()
    server = nginx(LOCATION, store_args="min_keep=0%")
    assert "has min_keep=0% for the store default: it takes a snapshot" in found(registry)["min-keep"]
    for right in ("min_keep=1%", "min_keep=100%", ""):
        server.reload(store=f"apikey_store {registry.snapshot} {right};")
        assert "min-keep" not in found(registry), right


def test_a_debug_log_of_a_location(registry, nginx, place):
    registry.key()
    level = 'error_log {}/a.log {}; location /b/ {{ apikey "b"; apikey_scope any; error_log {}/b.log {}; empty_gif; }}'
    open_ = f"location /open/ {{ apikey off; error_log {place}/open.log debug; empty_gif; }}"
    server = nginx(LOCATION + open_, server=level.format(place, "notice", place, "debug"))
    server.allow_log("")
    assert "to an error log at level debug: /b/ of localhost. Give" in found(registry)["debug-log"]
    server.reload(server=level.format(place, "debug", place, "notice"))
    assert "at level debug: /b/, / of localhost. Give" in found(registry)["debug-log"], "the server's has the headers"
    server.reload(server=level.format(place, "notice", place, "info"))
    assert "debug-log" not in found(registry), "where no key is asked for, none need be sent"


def test_a_clock_that_was_moved(registry, nginx):
    registry.key()
    server = nginx(LOCATION)
    server.wait_for_generation(registry.generation())
    path = state_file(server.pid_path)
    offset, _ = region(path, HEAD)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        wall, = struct.unpack_from("<q", memory, offset + WALL_US)
        assert abs(wall / 1e6 - time.time()) < 3600, "the place is right"
        struct.pack_into("<q", memory, offset + WALL_US, wall - 60_000_000)
    assert re.search("the wall clock has moved by (59|60|61) s", found(registry)["clocks"])


def test_a_change_in_the_future(registry, nginx):
    registry.key()
    server = nginx(LOCATION)
    server.wait_for_generation(registry.generation())
    with sqlite3.connect(registry.dir / "registry.db") as database:
        database.execute("update audit set time = time + 7200 where seq = (select max(seq) from audit)")
    database.close()
    assert "Set the clock" in found(registry)["clock"]


def test_usage_that_nobody_collects_any_more(registry, nginx):
    registry.key()
    server = nginx(LOCATION)
    server.wait_for_generation(registry.generation())
    assert "collection" not in found(registry), "who never collected does not bill"
    registry.run("usage", "collect")
    assert "collection" not in found(registry)
    with sqlite3.connect(registry.dir / "usage.db") as database:
        database.execute("update sources set collected = collected - 200000")
    database.close()
    assert "Run `keyloader usage collect`" in found(registry)["collection"]


def test_a_zone_that_is_too_small(registry, nginx, place):
    """More keys than buckets, and more pairs of key and hour than the table of usage has room for."""
    count = 40_000
    lines = (f"legacy-key-{os.urandom(16).hex()},owner" for _ in range(count))
    (place / "keys.csv").write_text("key,owner\n" + "\n".join(lines) + "\n")
    registry.run("import", place / "keys.csv", "--format", "csv", "--create-owners", timeout=300)
    server = nginx(f"apikey_format any; {LOCATION}", http="apikey_zone zone=apikey:1m;",
                   server="keepalive_requests 100000;")
    server.allow_log("apikey_zone")
    server.wait_for_generation(registry.generation())
    assert f"there are {count} keys" in found(registry)["zone-size"]
    used = (place / "keys.csv").read_text().splitlines()[1:5001]
    with server.connect() as connection:
        answers = b""
        for at in range(0, len(used), 100):
            for line in used[at:at + 100]:
                secret = line.partition(",")[0]
                connection.sendall(f"GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: {secret}\r\n\r\n".encode())
            while answers.count(b"HTTP/1.1 ") < at + 100:
                answers += connection.recv(1 << 20) or pytest.fail("nginx has closed the connection")
    assert 'the table "usage" of' in found(registry)["tables"]
