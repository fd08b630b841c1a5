"""Every step of docs/operations.md does what the page says, beside an nginx that reads the directory."""

import pytest

from harness.manual_page import check_example, examples, run_examples
from harness.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "operations.md"
EXAMPLES = examples(PAGE)


@pytest.fixture(scope="module")
def answers(stage):
    stage.nginx('location / { apikey "orders"; apikey_scope any; empty_gif; }')
    place = stage.place / "page"
    place.mkdir()
    return run_examples(PAGE, place, stage.registry.dir)


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=lambda number: EXAMPLES[number][0][:60])
def test_step(answers, number):
    check_example(EXAMPLES[number], answers[number])


def test_all_incidents_are_there():
    text = PAGE.read_text()
    for heading in ("A key has leaked", "The registry is lost", "The disk is full", "A wrong file was pushed"):
        section = text.split(f"### {heading}\n")[1].split("\n##")[0]
        assert "```sh\n$ " in section, f"{heading}: no step that is run"
