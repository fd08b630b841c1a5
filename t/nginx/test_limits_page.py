"""docs/limits.md is true: its commands are run, its configurations serve, its tables of requests are sent.

A comment above a table or a block says how: <!-- run: plan=NAME --> sends the requests of each row in turn, with a key of
that plan, and compares every column that is headed by a header, a variable or `left of LIMIT`.
"""

import random
import re
import time
from datetime import datetime, timezone

import pytest

from harness.keys import make_key
from harness.manual_page import check_example, examples, run_examples
from harness.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "limits.md"
TEXT = PAGE.read_text()
EXAMPLES = examples(PAGE)
WRONG = make_key(random.Random(11))
# What tables call them, and what the harness's access log does.
LOGGED = {"$apikey_status": "outcome", "$apikey_limit_name": "limit_name"}


@pytest.fixture(scope="module")
def shell(stage):
    """The commands of the page, run in the directory of the registry that all tests of this file share."""
    stage.registry.run("owner", "create", "somebody")
    return run_examples(PAGE, stage.place, stage.registry.dir)


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=lambda number: EXAMPLES[number][0][:60])
def test_command(shell, number):
    check_example(EXAMPLES[number], shell[number])


def server_blocks(upstream):
    text = "".join(re.findall(r"^```nginx server\n(.*?)^```", TEXT, re.M | re.S))
    return text.replace("http://127.0.0.1:3000", upstream.url)


def matches(wanted, seen):
    return re.fullmatch(re.escape(wanted).replace("…", ".*"), seen)


def rows_of(table):
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    titles = [re.sub(r"^`([^`]*)`$", r"\1", title) for title in lines[0]]
    return [dict(zip(titles, line)) for line in lines[2:]]


def tables(kind):
    found = re.findall(rf"^<!-- {kind}(?:: plan=(\w+))? -->\n\n((?:\|.*\n)+)", TEXT, re.M)
    return [pytest.param(plan, rows_of(table), id=f"{plan or kind}-{number}")
            for number, (plan, table) in enumerate(found, 1)]


def test_all_tables_of_requests_are_found():
    assert len(tables("run")) == TEXT.count("<!-- run:") >= 10


def ask(server, row, key):
    credential = {"wrong": WRONG, "none": None}.get(row.get("key"), key)
    before = len(server.access_log())
    answer = server.get(row["request"].strip("`"), key=credential)
    server.logged(before + 1)
    return answer, server.access_log()[-1]


def shown(server, title, answer, logged, key):
    """What a column of that title would say; None: it is prose."""
    if title == "answer":
        return str(answer.status_code)
    if title.startswith("$"):
        return logged[LOGGED[title]]
    if title.startswith("left of "):
        limits = server.get("/whoami", key=key).json()["limits"]
        return str(next(limit["remaining"] for limit in limits if limit["name"] == title[len("left of "):]))
    if re.fullmatch(r"[A-Z][A-Za-z-]+", title):
        return answer.headers.get(title, "")
    return None


def differences(server, rows, key):
    for row in rows:
        answer, logged = ask(server, row, key)
        for title, wanted in row.items():
            seen = shown(server, title, answer, logged, key)
            if wanted == "until midnight":
                now = datetime.now(timezone.utc)
                left = 86400 - (now.hour * 3600 + now.minute * 60 + now.second)
                wanted = seen if left <= int(seen) <= left + 1 else str(left)
            if seen is not None and wanted not in ("…", seen):
                yield f"{row['request']}: {title} is {seen!r}, not {wanted!r}"


@pytest.mark.parametrize("plan, rows", tables("run"))
def test_table_of_requests(shell, stage, plan, rows):
    for _ in range(5):
        key = stage.registry.key("somebody", plan=plan)
        server = stage.nginx("", server=server_blocks(stage.upstream))
        started = time.monotonic()
        found = list(differences(server, rows, key))
        took = time.monotonic() - started
        server.stop()
        if took < 0.9:
            break  # else this machine was too slow to send them "at once"
    assert found == []


@pytest.mark.parametrize("what, plan, path, block",
                         re.findall(r"^<!-- (headers|body): plan=(\w+) path=(\S+) -->\n\n```\n(.*?)\n```", TEXT, re.M | re.S))
def test_shown_answer(shell, stage, what, plan, path, block):
    server = stage.nginx("", server=server_blocks(stage.upstream))
    headers = re.findall(r"^([\w-]+): (.*)$", block if what == "headers" else "", re.M)
    for _ in range(20):  # on a busy machine a token may be back before the answer says how many are left
        answer = server.get(path, key=stage.registry.key("somebody", plan=plan))
        if all(matches(value, answer.headers[name]) for name, value in headers):
            break
    server.stop()
    if what == "body":
        assert matches(block, answer.text.strip()), answer.text
    for name, value in headers:
        assert matches(value, answer.headers[name]), f"{name}: {answer.headers[name]}"


@pytest.mark.parametrize("plan, rows", tables("share"))
def test_share(shell, stage, plan, rows):
    key = stage.registry.key("somebody", plan=plan)
    block = re.search(r"^```nginx http\n(.*?)^```", TEXT, re.M | re.S)[1]
    server = stage.nginx("", server=server_blocks(stage.upstream), http=block)
    limits = {limit["name"]: limit["limit"] for limit in server.get("/whoami", key=key).json()["limits"]}
    server.stop()
    column = "with `share=1/3`"
    assert limits == {row["limit"]: int(row[column].split()[-1]) for row in rows}


@pytest.mark.parametrize("_plan, rows", tables("sizes"))
def test_sizes(stage, _plan, rows):
    for row in rows:
        size = row["size"].strip("`")
        number = {title: int(cell.replace(",", "")) for title, cell in row.items() if title != "size"}
        assert number == pytest.approx(estimated(int(size[:-1]) << 20, number["token buckets"]), rel=0.01), size
        if size not in ("64m", "256m"):  # which not every machine has room for
            server = stage.nginx("", http=f"apikey_zone zone=apikey:{size};", store="/nonexistent")
            assert server.metric("apikey_zone_slots") == number["token buckets"], size
            assert server.metric("apikey_zone_client_slots") == number["chosen by clients"], size
            assert server.metric("apikey_quota_slots") == number["quotas"], size
            assert server.metric("apikey_usage_slots") == number["keys and hours of use"], size
            server.stop()


def estimated(size, buckets):
    """From how the two pieces of memory are divided, and what one entry of each table takes."""
    flights = buckets * 128 / 7 / 10 / (16 + 4 * 8)
    return {"token buckets": buckets, "chosen by clients": buckets * 4 / 10, "subjects in flight": flights, "requests in flight": 4 * flights,
            "quotas": size / 4 / 16, "keys and hours of use": size * 3 / 4 / 216 - 64}


def test_the_warning_is_the_one_nginx_gives():
    source = (REPOSITORY / "src" / "nginx" / "ngx_http_apikey_room.cpp").read_text()
    said = "".join(re.findall(r'^\s*"(.*)",?$', source.split("NGX_LOG_WARN, log, 0,")[1].split("&store.name")[0], re.M))
    wanted = re.escape(said.replace('\\"', '"')).replace("%V", r"\S+").replace("%uL", r"\d+")
    quoted = " ".join(re.findall(r"^> ((?:apikey store|write zone).*)$", TEXT, re.M))
    assert re.fullmatch(wanted, quoted), (wanted, quoted)
