"""100,000 keys from a CSV as a spreadsheet writes it, and 20 snapshots swapped under load.

The file has quoting, CRLF, a byte-order mark, UTF-8 names and a few bad lines. Afterwards 1,000 keys drawn at random
all decide right, and under wrk every single answer is compared with the right one.
"""

import csv
import random
import re
import subprocess
from collections import Counter
from typing import NamedTuple

import httpx
import pytest

from harness.keys import make_key

COUNT = 100_000
SWAPS = 20
NAMES = ["plain", 'with "quotes"', "with, comma", "zażółć gęślą jaźń", "多言語", "'; DROP TABLE keys; --"]
KINDS = {  # scopes, environment, not_before → status of GET /read, GET /write
    "reader": ("orders:read", "live", "", 200, 403),
    "writer": ("orders:write other", "live", "", 403, 200),
    "all": ("orders:*", "live", "", 200, 200),
    "none": ("", "live", "", 403, 403),
    "test": ("orders:*", "test", "", 403, 403),
    "future": ("orders:*", "live", "2099-01-01", 401, 401),
}
BAD_LINES = [
    ("a-key", "owner 1", "short", "orders:read", "default", "live", ""),
    ("", "owner 1", "no key", "orders:read", "default", "live", ""),
    ("{mistyped}", "owner 1", "checksum", "orders:read", "default", "live", ""),
    ("{fresh}", "owner 1", "plan", "orders:read", "no-such-plan", "live", ""),
    ("{fresh}", "owner 1", "time", "orders:read", "default", "live", "next tuesday"),
    ("{first}", "owner 1", "again", "orders:read", "default", "live", ""),
    ("{fresh}", "owner 1", "two\r\nlines", "orders:read", "default", "live", ""),
]


class Input(NamedTuple):
    keys: list  # (secret, kind)
    bad: list


def write_csv(path, rng) -> Input:
    keys, bad = [], []
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        out = csv.writer(file, lineterminator="\r\n")
        out.writerow(["key", "owner", "name", "scopes", "plan", "env", "not_before"])
        for number in range(COUNT):
            kind = rng.choice(list(KINDS))
            scopes, env, not_before, *_ = KINDS[kind]
            secret = make_key(rng, env)
            keys.append((secret, kind))
            out.writerow([secret, f"owner {number % 500}", f"{rng.choice(NAMES)} {number}", scopes, "default", env,
                          not_before])
            if number % (COUNT // len(BAD_LINES)) == 500:
                line = list(BAD_LINES[len(bad)])
                fresh = make_key(rng)
                line[0] = line[0].format(mistyped=fresh[:-1] + ("0" if fresh[-1] != "0" else "1"), fresh=fresh,
                                         first=keys[0][0])
                bad.append(line)
                out.writerow(line)
    return Input(keys, bad)


@pytest.fixture(scope="module")
def imported(stage):
    path = stage.place / "keys.csv"
    given = write_csv(path, random.Random(20240229))
    assert len(given.bad) == len(BAD_LINES)
    command = ("import", path, "--format", "csv", "--create-owners")
    refused = stage.registry.run(*command, check=False, timeout=300)
    assert refused.returncode == 1, "bad lines are all or nothing unless --partial"
    assert stage.registry.json("key", "list") in ([], {"keys": []})
    done = stage.registry.run(*command, "--partial", check=False, timeout=300)
    report = done.stdout + done.stderr
    for secret in [line[0] for line in given.bad if len(line[0]) > 20] + [given.keys[0][0]]:
        assert secret[8:30] not in report, "a key was shown in the report"
    assert len(re.findall(r"line \d+", report)) >= len(BAD_LINES), report
    return given


@pytest.fixture(scope="module")
def server(stage, imported):
    (stage.place / "ok.txt").write_text("ok")
    return stage.nginx(f"""
        apikey "api"; root {stage.place};
        keepalive_requests 1000000;
        access_log {stage.place}/pairs.log pairs;
        location = /read  {{ apikey_scope orders:read; try_files /ok.txt =500; }}
        location = /write {{ apikey_scope orders:write; try_files /ok.txt =500; }}
    """, http="log_format pairs '$arg_expect $status';", log_level="notice")


def cases(keys, rng, count):
    """(path, secret, the status that is right)."""
    for secret, kind in rng.sample(keys, count):
        *_, read, write = KINDS[kind]
        path, expected = rng.choice([("/read", read), ("/write", write)])
        yield path, secret, expected


def test_all_good_lines_are_in_service(server, imported):
    assert server.metric("apikey_snapshot_keys") == COUNT


def test_1000_at_random_decide_right(server, imported):
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        wrong = [(path, expected, got) for path, secret, expected in cases(imported.keys, random.Random(7), 1000)
                 if (got := client.get(path, headers={"X-API-Key": secret}).status_code) != expected]
    assert wrong == []


def test_bad_lines_are_not_in_service(server, imported):
    fresh = [line[0] for line in imported.bad if line[0].startswith("ak_live_") and line[0] != imported.keys[0][0]]
    assert {server.status("/read", key=secret) for secret in fresh} == {401}


LUA = """
local cases = {{ {cases} }}
local index = 0
request = function()
  index = index % #cases + 1
  local case = cases[index]
  return wrk.format("GET", case[1], {{ ["X-API-Key"] = case[2] }})
end
"""


def test_20_swaps_under_load_and_no_wrong_answer(server, stage, imported):
    rng = random.Random(11)
    drawn = list(cases(imported.keys, rng, 2000))
    drawn += [("/read", make_key(rng), 401) for _ in range(200)]
    rng.shuffle(drawn)
    script = stage.place / "load.lua"
    script.write_text(LUA.format(cases=",".join(
        f'{{"{path}?expect={status}","{secret}"}}' for path, secret, status in drawn)))
    load = subprocess.Popen(["wrk", "-t1", "-c8", "-d600s", "-s", script, server.url], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    try:
        first = stage.registry.generation()
        for number in range(SWAPS):
            stage.registry.key("swapper", name=f"swap {number}")
            server.wait_for_generation(first + number + 1)
    finally:
        load.send_signal(2)  # wrk prints its summary on SIGINT
        summary = load.communicate(timeout=30)[0]
    assert "Socket errors" not in summary, summary
    answered = Counter()
    for line in (stage.place / "pairs.log").read_text().splitlines():
        expected, status = line.split()
        if expected != "-":
            answered[expected, status] += 1
    wrong = {pair: count for pair, count in answered.items() if pair[0] != pair[1] and pair[1] != "499"}
    assert wrong == {}, f"wrong answers (expected, got): {wrong}"
    assert sum(answered.values()) > 1000
    assert {pair[0] for pair in answered} == {"200", "401", "403"}
