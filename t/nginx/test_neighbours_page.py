"""docs/neighbours.md is true: its commands are run, each configuration is started, each row of its tables is sent.

The blocks above a table, up to the table before, are its configuration. A column is a header of the request (`apikey`),
of the answer, or after `upstream` of what the upstream got, where an empty cell says that it got nothing.
"""

import re

import pytest

from harness.manual_page import check_example, examples, run_examples
from harness.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "neighbours.md"
TEXT = PAGE.read_text()
EXAMPLES = examples(PAGE)


@pytest.fixture(scope="module")
def shell(stage):
    stage.registry.run("owner", "list")
    return run_examples(PAGE, stage.place, stage.registry.dir)


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=lambda number: EXAMPLES[number][0][:40])
def test_command(shell, number):
    check_example(EXAMPLES[number], shell[number])


def sections():
    """(blocks by level, rows of the table) for each table of requests."""
    found = []
    for part in TEXT.split("<!-- requests -->\n\n"):
        blocks = {level: text for level, text in re.findall(r"^```nginx (http|server)\n(.*?)^```", part, re.M | re.S)}
        found.append((blocks, part.split("\n\n", 1)[0]))
    pairs = [(found[i][0], found[i + 1][1]) for i in range(len(found) - 1)]
    return [pytest.param(blocks, rows_of(table), id=str(number)) for number, (blocks, table) in enumerate(pairs, 1)]


def rows_of(table):
    lines = [[cell.strip().strip("`") for cell in line[1:-1].split("|")] for line in table.splitlines()]
    return [dict(zip(lines[0], line)) for line in lines[2:]]


def difference(row, answer, seen):
    if str(answer.status_code) != row["answer"]:
        return f"the answer is {answer.status_code}"
    for title, wanted in row.items():
        if title.startswith("upstream "):
            found = "" if seen is None else seen.header(title.removeprefix("upstream ")) or "none"
        elif re.fullmatch(r"[A-Z][\w-]+", title):
            found = re.sub(r"^http://[^/]*", "", answer.headers.get(title, ""))
        else:
            continue
        if found != wanted:
            return f"{title} is {found!r}"
    return None


def test_all_tables_are_found():
    assert len(sections()) == 5


@pytest.mark.parametrize("blocks,rows", sections())
def test_requests(shell, stage, blocks, rows):
    cache = stage.place / f"cache{len(stage.nginx.all)}"
    http = blocks.get("http", "").replace("/var/lib/apikey/cache", str(cache))
    server = stage.nginx("", http=http, server=blocks["server"].replace("http://127.0.0.1:3000", stage.upstream.url))
    wrong = []
    for row in rows:
        stage.upstream.clear()
        answer = server.get(row["request"], headers={"apikey": row["apikey"]} if row.get("apikey") else {})
        seen = stage.upstream.requests[-1] if stage.upstream.requests else None
        if problem := difference(row, answer, seen):
            wrong.append(f"{row}: {problem}")
    server.stop()
    assert wrong == []
