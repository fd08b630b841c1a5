"""keyloader usage: collecting from nginx exactly once, export, merge, statement. nginx is played by a few lines here, so
that hours, instances and breakdowns come when a test wants them; t/nginx/test_usage_counts.py has the real one."""

import csv
import io
import json
import os
import random
import re
import signal
import sqlite3
import stat
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn, UnixStreamServer
from urllib.parse import parse_qs, urlsplit

import pytest

HOUR = 3600
START = 1_793_491_200  # 2026-11-01T00:00:00Z


def at(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class PlayedNginx:
    """What apikey_usage does, over a table of rows: {row: (hour, key, owner, counters)}."""

    def __init__(self, path):
        self.path, self.lock = path, threading.Lock()
        self.instance, self.created, self.now = "0a" * 16, START - 5 * HOUR, START + HOUR
        self.rows, self.gaps = {}, []
        self.acknowledged, self.unplaced, self.page = 0, 0, 1000
        self.requests, self.garble = [], None
        played = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, text):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def do_GET(self):
                query = parse_qs(urlsplit(self.path).query)
                text = played.part(int(query.get("from", ["0"])[0]))
                self.answer(200, played.garble(text) if played.garble else text)

            def do_POST(self):
                query = parse_qs(urlsplit(self.path).query)
                self.answer(*played.acknowledge(query["acknowledge"][0]))

            def address_string(self):
                return "unix"

            def log_message(self, *_):
                pass

        class Server(ThreadingMixIn, UnixStreamServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, client_address):
                pass  # collectors are killed here

        path.unlink(missing_ok=True)
        self._server = Server(str(path), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def count(self, row, key, hour=START, owner="11" * 16, **counters):
        with self.lock:
            assert hour >= self.acknowledged
            kept = self.rows.setdefault(row, (hour, key, owner, {}))
            for name, n in counters.items():
                kept[3][name] = kept[3].get(name, 0) + n

    def part(self, begin):
        with self.lock:
            lines = [{"apikey_usage": 1, "instance": self.instance, "created": self.created, "now": self.now,
                      "acknowledged_to": self.acknowledged, "overflows": 0, "unplaced": self.unplaced,
                      "gaps": [{"from": one, "to": other} for one, other in self.gaps]}]
            rows = sorted(self.rows.items())[begin:begin + self.page]
            for row, (hour, key, owner, counters) in rows:
                who = {"key": key, "owner": owner} if key else {}
                lines.append({"row": f"{row:016x}", "hour": hour, **who, **counters})
            last = {"rows": len(rows)}
            if begin + self.page < len(self.rows):
                last["next"] = begin + self.page
            self.requests.append("read")
            return "".join(json.dumps(line) + "\n" for line in [*lines, last])

    def acknowledge(self, text):
        instance, _, hour = text.partition(":")
        with self.lock:
            self.requests.append("acknowledge")
            if instance != self.instance or int(hour) + HOUR + 600 > self.now:
                return 409, json.dumps({"error": "not this one"})
            self.acknowledged = max(self.acknowledged, int(hour) + HOUR)
            self.rows = {row: value for row, value in self.rows.items() if value[0] >= self.acknowledged}
            return 200, json.dumps({"acknowledged_to": self.acknowledged})

    def begin_anew(self, instance="0b" * 16):
        with self.lock:
            self.instance, self.created, self.rows, self.acknowledged = instance, self.now, {}, 0

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def played(keyloader):
    nginx = PlayedNginx(keyloader.dir / "usage.sock")
    yield nginx
    nginx.close()


@pytest.fixture
def key(keyloader):
    return keyloader.key("acme")["id"]


def owner_id(keyloader, name="acme"):
    return keyloader.json("owner", "show", name)["id"]


def exported(keyloader, *arguments):
    text = keyloader("usage", "--export", "ndjson", *arguments).stdout
    return [json.loads(line) for line in text.splitlines()]


def counts(keyloader, *arguments):
    return [line for line in exported(keyloader, *arguments) if line["type"] == "usage"]


# Collecting


def test_absolute_counts_are_kept_once_however_often_they_are_collected(keyloader, played, key):
    played.count(1, key, admitted=3, cost=30, bytes=999, upstream_us=1_500_000, refused_rate_limited=2)
    for _ in range(3):
        keyloader("usage", "collect")
    played.count(1, key, admitted=1, cost=5)
    keyloader("usage", "collect")
    [line] = counts(keyloader)
    assert (line["admitted"], line["cost"], line["refunded"], line["bytes"]) == (4, 35, 0, 999)
    assert line["refused"] == {"rate_limited": 2} and line["upstream_seconds"] == 1.5
    assert line["hour"] == at(START) and line["complete"] is False


def test_only_hours_that_ended_ten_minutes_ago_are_acknowledged(keyloader, played, key):
    played.count(1, key, hour=START, admitted=1)
    played.count(2, key, hour=START + HOUR, admitted=1)
    played.now = START + HOUR + 599
    keyloader("usage", "collect")
    assert len(played.rows) == 2
    played.now += 1
    keyloader("usage", "collect")
    assert sorted(row[0] for row in played.rows.values()) == [START + HOUR]
    assert [(line["admitted"], line["complete"]) for line in counts(keyloader)] == [(1, True), (1, False)]


def test_nothing_is_acknowledged_twice(keyloader, played, key):
    played.count(1, key, admitted=1)
    played.now = START + 2 * HOUR
    for _ in range(3):
        keyloader("usage", "collect")
    assert played.requests.count("acknowledge") == 1


def test_two_rows_of_one_key_and_hour_are_added_up(keyloader, played, key):
    played.count(1, key, admitted=3)
    played.count(2, key, admitted=4)
    [line] = counts(keyloader)
    assert line["admitted"] == 7


def test_a_table_larger_than_one_answer(keyloader, played, key):
    for row in range(25):
        played.count(row, key, admitted=1)
    played.page = 10
    keyloader("usage", "collect")
    assert played.requests.count("read") == 3
    assert counts(keyloader)[0]["admitted"] == 25


def test_an_answer_cut_off_in_the_middle_is_not_taken(keyloader, played, key):
    played.count(1, key, admitted=1)
    played.now = START + 2 * HOUR
    played.garble = lambda text: "\n".join(text.splitlines()[:-1]) + "\n"
    assert "ends in the middle" in keyloader.refused("usage", "collect")
    assert "acknowledge" not in played.requests


@pytest.mark.parametrize("old, new", [
    ('"apikey_usage": 1', '"apikey_usage": 2'), ('"admitted"', '"admired"'), ('"admitted": 1', '"admitted": -1'),
    ('"admitted": 1', '"admitted": 1e30'), ('"key": "key_', '"key": "kex_'), ('"hour": 1', '"hour": 2'),
    ('"instance": "0a', '"instance": "0'), ('"rows": 1', '"rows": 2'), ('{"row"', '["row"')])
def test_what_is_not_understood_is_not_taken(keyloader, played, key, old, new):
    played.count(1, key, admitted=1)
    played.now = START + 2 * HOUR
    played.garble = lambda text: text.replace(old, new)
    keyloader.refused("usage", "collect")
    assert "acknowledge" not in played.requests
    played.garble = None
    assert [line["admitted"] for line in counts(keyloader)] == [1]


def test_without_nginx_what_was_collected_is_shown(keyloader, played, key):
    played.count(1, key, admitted=3)
    keyloader("usage", "collect")
    played.close()
    done = keyloader("usage", "--json")
    assert json.loads(done.stdout)["total"]["admitted"] == 3
    assert "nginx does not answer" in done.stderr and "no nginx here is known to read" in done.stderr
    assert "does not answer" in keyloader.refused("usage", "collect")


def test_usage_db_is_private(keyloader, played, key):
    played.count(1, key, admitted=3)
    keyloader("usage", "collect")
    files = list(keyloader.dir.glob("usage.db*"))
    assert files and {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_directory_that_is_not_there(bare):
    assert "No such file" in bare.refused("usage")


def test_kill_9_at_any_moment_loses_and_doubles_nothing(keyloader, played, key):
    rng, true, row = random.Random(7), {}, 0
    started = time.monotonic()
    keyloader("usage", "collect")
    takes = time.monotonic() - started
    for turn in range(25):
        played.now = START + turn * 1200
        hour = played.now // HOUR * HOUR
        for _ in range(20):
            row += 1
            n = rng.randrange(1, 100)
            played.count(row, key, hour=hour, admitted=n, cost=2 * n)
            true[hour] = true.get(hour, 0) + n
        collectors = [keyloader.start("usage", "collect") for _ in range(2)]
        time.sleep(rng.uniform(0, 1.5 * takes))  # the moment itself is what is tested
        for collector in collectors:
            os.kill(collector.pid, signal.SIGKILL)
            collector.communicate()
    keyloader("usage", "collect")
    lines = counts(keyloader)
    assert {line["hour"]: line["admitted"] for line in lines} == {at(hour): n for hour, n in true.items()}
    assert sum(line["cost"] for line in lines) == 2 * sum(true.values())


def test_two_collectors_at_once(keyloader, played, key):
    played.page = 50
    for row in range(500):
        played.count(row, key, hour=START + row % 3 * HOUR, admitted=1)
    played.now = START + 2 * HOUR + 700
    collectors = [keyloader.start("usage", "collect") for _ in range(4)]
    for collector in collectors:
        out, err = collector.communicate(timeout=60)
        assert collector.returncode == 0, out + err
    assert sum(line["admitted"] for line in counts(keyloader)) == 500
    assert {row[0] for row in played.rows.values()} == {START + 2 * HOUR}
    assert not [line for line in exported(keyloader) if line["type"] == "gap"]


def test_the_other_collector_may_change_hands_while_we_read(keyloader, played, key):
    """Another collector acknowledges between two parts: it is read again, from the beginning."""
    played.page, played.now = 2, START + 2 * HOUR
    for row in range(4):
        played.count(row, key, hour=START + row % 2 * HOUR, admitted=1)
    keyloader("usage", "collect")
    played.count(9, key, hour=START + 2 * HOUR, admitted=1)
    played.count(10, key, hour=START + 2 * HOUR, admitted=1)
    played.now = START + 3 * HOUR + 600
    seen = []

    def interfere(text):
        if not seen:
            seen.append(1)
            played.acknowledge(f"{played.instance}:{START + HOUR}")
        return text

    played.garble = interfere
    keyloader("usage", "collect")
    assert sum(line["admitted"] for line in counts(keyloader)) == 6


# Showing and exporting


def test_per_key_and_owner(keyloader, played):
    ids = [keyloader.key("acme")["id"], keyloader.key("acme")["id"], keyloader.key("zeta")["id"]]
    acme, zeta = owner_id(keyloader), owner_id(keyloader, "zeta")
    for row, (one, owner) in enumerate(zip(ids, (acme, acme, zeta))):
        played.count(row, one, owner=owner, admitted=row + 1, cost=10, refused_scope=1, upstream_us=250_000)
    shown = keyloader.json("usage")
    assert {line["key"]: (line["owner"], line["admitted"]) for line in shown["keys"]} == {
        ids[0]: ("acme", 1), ids[1]: ("acme", 2), ids[2]: ("zeta", 3)}
    assert {line["owner"]: line["admitted"] for line in shown["owners"]} == {"acme": 3, "zeta": 3}
    assert shown["total"] == {"admitted": 6, "cost": 30, "refunded": 0, "refused": {"scope": 3}, "bytes": 0,
                              "upstream_seconds": 0.75}
    text = keyloader("usage").stdout
    assert re.search(rf"^acme +{ids[0]} +1 +10 +0 +1 +0 +0.25$", text, re.M)
    assert re.search(r"^acme +\(2 keys\) +3 +20 +0 +2 +0 +0.5$", text, re.M)
    assert re.search(r"^total +6 +30 +0 +3 +0 +0.75$", text, re.M)
    assert [line["admitted"] for line in keyloader.json("usage", "--owner", "zeta")["keys"]] == [3]
    assert [line["admitted"] for line in keyloader.json("usage", "--owner", zeta)["keys"]] == [3]
    assert [line["admitted"] for line in keyloader.json("usage", "--key", ids[1])["keys"]] == [2]
    assert "there is no owner" in keyloader.refused("usage", "--owner", "nobody")
    assert "not the id of a key" in keyloader.refused("usage", "--key", "key_1", status=2)


def test_from_and_to(keyloader, played, key):
    for n in range(5):
        played.count(n, key, hour=START + n * HOUR, admitted=10 ** n)
    assert [line["admitted"] for line in counts(keyloader, "--from", at(START + HOUR), "--to", at(START + 3 * HOUR))] \
        == [10, 100]
    assert [line["admitted"] for line in counts(keyloader, "--from", at(START + 4 * HOUR + 1800))] == [10_000]
    assert keyloader.json("usage", "--from", "2026-11-02")["total"]["admitted"] == 0
    assert keyloader.json("usage", "--from", "1s")["from"] is not None
    keyloader.refused("usage", "--from", "soon", status=2)
    keyloader.refused("usage", "--from", "2026-11-02", "--to", "2026-11-01", status=2)


def test_csv(keyloader, played):
    one = keyloader.key('acme, "the" owner')["id"]
    played.count(1, one, owner=owner_id(keyloader, 'acme, "the" owner'), admitted=3, cost=4, refunded=1, bytes=7,
                 upstream_us=1, refused_scope=2)
    [line] = csv.DictReader(io.StringIO(keyloader("usage", "--export", "csv").stdout))
    assert line["hour"] == at(START) and line["owner"] == 'acme, "the" owner' and line["key"] == one
    assert (line["admitted"], line["cost"], line["refunded"], line["bytes"]) == ("3", "4", "1", "7")
    assert line["upstream_seconds"] == "0.000001" and line["refused_scope"] == "2"
    assert line["refused_rate_limited"] == "0" and line["complete"] == "false"
    assert line["instance"] == played.instance and line["node"]


def test_names_come_from_keys_mdb_where_there_is_no_registry(keyloader, played, key):
    played.count(1, key, owner=owner_id(keyloader), admitted=1)
    for file in keyloader.dir.glob("registry.db*"):
        file.unlink()
    assert counts(keyloader)[0]["owner"] == "acme"
    keyloader.snapshot.unlink()
    line = counts(keyloader)[0]
    assert line["owner"] == line["owner_id"] != ""


def test_without_room_for_the_key(keyloader, played, key):
    played.count(1, key, admitted=1)
    played.count(2, None, admitted=7, refused_scope=2)
    played.unplaced = 3
    lines = counts(keyloader)
    assert sorted((line["key"], line["owner"], line["admitted"]) for line in lines) == [
        ("", "", 7), (key, "11" * 16, 1)]
    done = keyloader("usage")
    assert "7 admitted and 2 refused" in done.stderr and "3 requests" in done.stderr
    assert "(no room for the key)" in done.stdout


# Windows in which counts may be short


def test_gaps_are_told(keyloader, played, key):
    played.gaps = [(START + 100, START + 105)]
    played.count(1, key, admitted=1)
    assert f"{at(START + 100)} to {at(START + 105)}" in keyloader("usage").stderr
    [gap] = [line for line in exported(keyloader) if line["type"] == "gap"]
    assert (gap["kind"], gap["from"], gap["to"]) == ("restored", at(START + 100), at(START + 105))
    assert not keyloader("usage", "--from", "2026-11-02").stderr


def test_an_nginx_that_lost_its_counts_is_noticed(keyloader, played, key):
    played.count(1, key, admitted=5)
    keyloader("usage", "collect")
    played.count(1, key, admitted=5)  # lost
    collected, played.now = played.now, played.now + 100
    played.begin_anew()
    played.count(1, key, admitted=2)
    assert [line["admitted"] for line in counts(keyloader)] in ([5, 2], [2, 5])
    [gap] = [line for line in exported(keyloader) if line["type"] == "gap"]
    assert (gap["kind"], gap["from"], gap["to"]) == ("replaced", at(collected), at(played.now))


def test_a_second_collector_is_noticed(keyloader, played, key):
    other = keyloader.beside("other")
    other("init")
    played.count(1, key, admitted=5)
    played.now = START + 2 * HOUR
    other("usage", "collect", "--socket", played.path)
    [gap] = [line for line in exported(keyloader) if line["type"] == "gap"]
    assert (gap["kind"], gap["to"]) == ("elsewhere", at(START + HOUR))
    assert "another collector" in keyloader("usage").stderr
    # Its export fills the window.
    (other.dir / "export").write_text(other("usage", "--export", "ndjson", "--socket", played.path).stdout)
    keyloader("usage", "merge", other.dir / "export")
    assert [line["admitted"] for line in counts(keyloader)] == [5]


# Merging


@pytest.fixture
def node2(keyloader):
    """Another node, with its export of one hour."""
    node = keyloader.beside("node2")
    node("init")
    nginx = PlayedNginx(node.dir / "usage.sock")
    nginx.instance = "0c" * 16
    nginx.now = START + 3 * HOUR
    yield node, nginx
    nginx.close()


def write(keyloader, name, lines):
    path = keyloader.dir / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_nodes_are_added(keyloader, played, node2, key):
    node, nginx = node2
    played.count(1, key, admitted=5, cost=7)
    nginx.count(1, key, admitted=3, cost=4, bytes=1, upstream_us=1_234_567, refused_rate_limited=9)
    path = write(keyloader, "node2.ndjson", exported(node))
    assert "1 row(s) merged" in keyloader("usage", "merge", path).stdout
    total = keyloader.json("usage")["total"]
    assert total == {"admitted": 8, "cost": 11, "refunded": 0, "refused": {"rate_limited": 9}, "bytes": 1,
                     "upstream_seconds": 1.234567}
    assert {line["instance"] for line in counts(keyloader)} == {played.instance, nginx.instance}
    # What was merged can be exported and merged again elsewhere.
    third = keyloader.beside("third")
    third("init")
    third("usage", "merge", write(keyloader, "both", [line for line in counts(keyloader) if line["complete"]]))
    assert third.json("usage")["total"]["admitted"] == 3


def test_a_file_is_merged_once(keyloader, node2, key):
    node, nginx = node2
    nginx.count(1, key, admitted=3)
    path = write(keyloader, "export", exported(node))
    keyloader("usage", "merge", path)
    copy = write(keyloader, "copy", exported(node))
    for again in (path, copy):
        assert "was merged before" in keyloader.refused("usage", "merge", again)
    assert keyloader.json("usage")["total"]["admitted"] == 3


@pytest.mark.parametrize("change", [{}, {"admitted": 4}])
def test_a_double_is_refused_with_its_line_and_nothing_is_merged(keyloader, node2, key, change):
    node, nginx = node2
    nginx.count(1, key, admitted=3)
    first = exported(node)
    keyloader("usage", "merge", write(keyloader, "first", first))
    fresh = {**first[0], "hour": at(START - HOUR)}
    path = write(keyloader, "second", [fresh, {**first[0], **change}])
    said = keyloader.refused("usage", "merge", path)
    assert f"{path}, line 2" in said and key in said and at(START) in said and "--from" in said
    assert keyloader.json("usage")["total"]["admitted"] == 3
    assert "line 2" in keyloader.refused("usage", "merge", write(keyloader, "twice", [fresh, fresh]))
    assert len(counts(keyloader)) == 1


def test_one_s_own_export_is_a_double(keyloader, played, key):
    played.count(1, key, admitted=3)
    played.now = START + 2 * HOUR
    path = write(keyloader, "own", exported(keyloader))
    assert "line 1" in keyloader.refused("usage", "merge", path)


def test_an_hour_that_was_not_over_is_refused(keyloader, node2, key):
    node, nginx = node2
    nginx.count(1, key, hour=START + 2 * HOUR, admitted=3)
    nginx.now = START + 3 * HOUR + 599
    said = keyloader.refused("usage", "merge", write(keyloader, "early", exported(node)))
    assert "line 1" in said and "not complete" in said and f"--to {at(START + 2 * HOUR)}" in said
    assert not counts(keyloader)


def test_all_files_or_none(keyloader, node2, key):
    node, nginx = node2
    nginx.count(1, key, admitted=3)
    good = write(keyloader, "good", exported(node))
    keyloader.refused("usage", "merge", good, keyloader.dir / "absent")
    assert not counts(keyloader)
    keyloader.refused("usage", "merge", status=2)


@pytest.mark.parametrize("change, reason", [
    ({"type": "other"}, "type"), ({"type": None}, "type"), ({"hour": at(START + 60)}, "begin of an hour"),
    ({"hour": "yesterday"}, "hour"), ({"key": "key_x"}, "key"), ({"owner_id": "abc"}, "owner_id"),
    ({"instance": 5}, "instance"), ({"admitted": -1}, "admitted"), ({"admitted": None}, "admitted"),
    ({"cost": 1.5}, "cost"), ({"bytes": 2 ** 63}, "bytes"), ({"upstream_seconds": "3"}, "upstream_seconds"),
    ({"refused": {"bored": 1}}, "bored"), ({"refused": None}, "refused"), ({"node": 1}, "node")])
def test_a_bad_line_is_named(keyloader, node2, key, change, reason):
    node, nginx = node2
    nginx.count(1, key, admitted=3)
    path = write(keyloader, "bad", [{**exported(node)[0], **change}])
    said = keyloader.refused("usage", "merge", path)
    assert "line 1" in said and reason in said
    assert not counts(keyloader)


def test_no_json(keyloader):
    path = keyloader.dir / "text"
    path.write_text("hour,node\n")
    assert "line 1: it is no JSON object" in keyloader.refused("usage", "merge", path)


# The statement


def month_now():
    return datetime.now(timezone.utc).strftime("%Y-%m")


def this_hour():
    return int(time.time()) // HOUR * HOUR


def test_statement(keyloader, played):
    keyloader("plan", "create", "small", "--rate", "10/s", "--burst", "10")
    keyloader("plan", "create", "big", "--rate", "100/s", "--burst", "100")
    keyloader("plan", "create", "unrelated", "--rate", "1/s", "--burst", "1")
    one = keyloader.key("acme", "--plan", "small")["id"]
    keyloader.key("zeta", "--plan", "unrelated")
    keyloader("key", "set", one, "--plan", "big")
    keyloader("plan", "set", "big", "--rate", "200/s")
    keyloader("plan", "set", "unrelated", "--rate", "2/s")
    keyloader("key", "set", one, "--name", "renamed")
    played.now = int(time.time())
    played.created = played.now - 40 * 86400
    played.count(1, one, hour=this_hour(), owner=owner_id(keyloader), admitted=12, cost=34, refused_rate_limited=5)
    played.count(2, keyloader.key("zeta")["id"], hour=this_hour(), owner=owner_id(keyloader, "zeta"), admitted=99)
    played.gaps = [(this_hour() + 1, this_hour() + 4)]
    stated = keyloader.json("usage", "statement", "--owner", "acme", "--month", month_now())
    assert stated["owner"] == "acme" and stated["total"]["admitted"] == 12
    assert [(line["key"], line["cost"], line["refused"]) for line in stated["keys"]] == [
        (one, 34, {"rate_limited": 5})]
    audit = {entry["seq"]: entry for entry in keyloader.audit()}
    assert stated["audit"]["whole"] is True and stated["audit"]["entries"] == max(audit)
    assert [(entry["action"], entry["object"]) for entry in stated["changes"]] == [
        ("plan.create", "small"), ("plan.create", "big"), ("owner.create", "acme"), ("key.create", one),
        ("key.set", one), ("plan.set", "big")]
    for entry in stated["changes"]:
        assert entry == audit[entry["seq"]]
    kinds = [doubt["kind"] for doubt in stated["may_be_short"]]
    assert kinds == ["restored", "incomplete"]
    text = keyloader("usage", "statement", "--owner", "acme", "--month", month_now()).stdout
    assert 'plan small → big' in text and "Refused: rate_limited 5" in text and "Counts may be short" in text
    assert "The audit is whole" in text and "unrelated" not in text


def test_a_statement_has_grants_and_resets(keyloader, played):
    one = keyloader.key("acme", "--quota", "1000/month")["id"]
    other = keyloader.key("zeta", "--quota", "1000/month")["id"]
    keyloader("owner", "set", "acme", "--quota", "5000/month")
    keyloader("quota", "grant", one, "--amount", "50", "--reason", "ticket 4711")
    keyloader("quota", "reset", "--owner", "acme", "--reason", "our loop")
    keyloader("quota", "grant", other, "--amount", "99")
    stated = keyloader.json("usage", "statement", "--owner", "acme", "--month", month_now())
    assert [(entry["action"], entry["object"]) for entry in stated["changes"]] == [
        ("plan.create", "default"), ("owner.create", "acme"), ("key.create", one), ("owner.set", "acme"),
        ("quota.grant", one), ("quota.reset", "acme")]
    text = keyloader("usage", "statement", "--owner", "acme", "--month", month_now()).stdout
    assert "month: granted 0 → 50" in text and "ticket 4711" in text and "our loop" in text
    assert other not in text


def test_a_key_that_went_to_another_plan_or_is_gone(keyloader, played):
    for plan in ("small", "big"):
        keyloader("plan", "create", plan, "--rate", "10/s")
    one = keyloader.key("acme", "--plan", "small")["id"]
    keyloader("key", "set", one, "--plan", "big")
    keyloader("plan", "set", "small", "--rate", "20/s")
    keyloader("key", "revoke", one)
    keyloader("key", "delete", one)
    keyloader("plan", "set", "big", "--rate", "30/s")
    played.count(1, one, hour=this_hour(), owner=owner_id(keyloader), admitted=1)
    played.now = int(time.time())
    stated = keyloader.json("usage", "statement", "--owner", "acme", "--month", month_now())
    actions = [(entry["action"], entry["object"]) for entry in stated["changes"]]
    assert actions[3:] == [("key.create", one), ("key.set", one), ("plan.set", "small"), ("key.revoke", one),
                           ("key.delete", one), ("plan.set", "big")]
    assert [line["key"] for line in stated["keys"]] == [one]


def test_a_month_without_anything(keyloader, played, key):
    played.now = START + 40 * 86400
    stated = keyloader.json("usage", "statement", "--owner", "acme", "--month", "2026-10")
    assert (stated["from"], stated["to"]) == ("2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z")
    assert stated["keys"] == stated["changes"] == stated["may_be_short"] == []
    text = keyloader("usage", "statement", "--owner", "acme", "--month", "2025-12").stdout
    assert "Counts are complete." in text and "No plan, limit or quota was changed." in text


@pytest.mark.parametrize("month", ["2026", "2026-13", "2026-00", "november", "2026-1"])
def test_no_month(keyloader, key, month):
    assert "is no month" in keyloader.refused("usage", "statement", "--owner", "acme", "--month", month, status=2)


def test_a_statement_tells_of_a_broken_audit(keyloader, played, key):
    with sqlite3.connect(keyloader.dir / "registry.db") as registry:
        registry.execute("UPDATE audit SET time = time + 1 WHERE seq = 2")
    stated = keyloader.json("usage", "statement", "--owner", "acme", "--month", month_now())
    assert stated["audit"]["whole"] is False
    assert "The audit is broken at entry 2" in keyloader("usage", "statement", "--owner", "acme", "--month",
                                                         month_now()).stdout


def test_a_statement_without_registry(keyloader, played, key):
    played.count(1, key, owner=owner_id(keyloader), admitted=1)
    for file in keyloader.dir.glob("registry.db*"):
        file.unlink()
    stated = keyloader.json("usage", "statement", "--owner", "acme", "--month", "2026-11")
    assert stated["changes"] is None and stated["total"]["admitted"] == 1


def test_prune_keeps_months_and_counts_nothing_twice(keyloader, played, key):
    hour, row = START - 2 * HOUR, (START - 2 * HOUR, key, "11" * 16)
    played.now = START - HOUR + 100
    played.count(1, key, hour, admitted=5, bytes=7)
    keyloader("usage", "collect")
    said = keyloader.refused("usage", "prune", "--before", "2026-11-01", "--yes")
    assert "are not complete" in said and at(hour) in said, "what still grows would be counted twice"
    played.count(1, key, hour, admitted=3)
    played.now = START + HOUR
    played.count(2, key, START, admitted=1)
    keyloader("usage", "collect")
    would = keyloader.json("usage", "prune", "--before", "2026-11-01", "--dry-run")
    assert (would["rows"], would["sums"], would["first"], would["done"]) == (1, 1, at(hour), False)
    assert [line["admitted"] for line in counts(keyloader)] == [8, 1], "nothing was done yet"
    assert "pruned 1 row(s)" in keyloader("usage", "prune", "--before", "2026-11-01", "--yes").stdout
    # nginx comes back from an old checkpoint, with what was pruned.
    played.acknowledged = 0
    played.rows[1] = (*row, {"admitted": 8, "bytes": 7})
    for _ in range(2):
        keyloader("usage", "collect")
        assert [(line["admitted"], line["bytes"]) for line in keyloader.json("usage")["keys"]] == [(9, 7)]
    assert keyloader.json("usage", "statement", "--owner", "11" * 16, "--month", "2026-10")["total"]["admitted"] == 8
    assert [(each["day"], each["admitted"]) for each in keyloader.json("usage", "--by", "day")] == [
        ("2026-10", 8), ("2026-11-01", 1)]
    assert keyloader.json("key", "list")[0]["last_used"] == at(START)
    assert "no counts by the hour" in keyloader("usage", "prune", "--before", "2026-11-01", "--yes").stdout
    assert "--from 2026-11-01" in keyloader.refused("usage", "--export", "csv")
    assert len(keyloader("usage", "--export", "csv", "--from", "2026-11-01").stdout.splitlines()) == 2
    part = keyloader("usage", "--from", "2026-10-15", "--json")
    assert json.loads(part.stdout)["total"]["admitted"] == 1 and "by the month only" in part.stderr
    assert "by the month" not in keyloader("usage", "--from", "2026-10-01", "--json").stderr


def test_a_dry_prune_makes_no_file(keyloader):
    before = sorted(keyloader.dir.iterdir())
    said = keyloader("usage", "prune", "--before", "2026-01-01", "--dry-run").stdout
    assert "there are no counts by the hour before" in said and sorted(keyloader.dir.iterdir()) == before


def test_what_was_pruned_is_not_merged(keyloader, played, key, tmp_path):
    played.count(1, key, START - 3 * HOUR, admitted=5)
    other = keyloader.beside("other")
    other("init")
    other("usage", "collect", "--socket", played.path)
    exported = tmp_path / "other.ndjson"
    exported.write_text(other("usage", "--export", "ndjson").stdout)
    keyloader("usage", "merge", exported)
    keyloader("usage", "prune", "--before", "2026-11-01", "--yes")
    exported.write_text(exported.read_text() + "\n")
    assert "was pruned here" in keyloader.refused("usage", "merge", exported)
    played.close()
    assert keyloader.json("usage")["total"]["admitted"] == 5


@pytest.mark.parametrize("words,said", [
    (["--before", "2026-11-02", "--yes"], "begin of a month"), (["--before", "2100-01-01", "--yes"], "is not over"),
    (["--before", "2026-11-01"], "--dry-run"), (["--before", "2026-11-01", "--yes", "--dry-run"], "--dry-run"),
    (["--before", "soon", "--yes"], "soon"), (["--yes"], "--before")])
def test_how_prune_is_refused(keyloader, words, said):
    assert said in keyloader.refused("usage", "prune", *words, status=2)
