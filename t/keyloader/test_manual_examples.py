"""Every example of docs/keyloader.md does what the page says: all of them in one shell, in order."""

import re
import subprocess

import pytest

from harness.manual_page import check_example, examples, run_examples
from harness.paths import KEYLOADER, REPOSITORY

PAGE = REPOSITORY / "docs" / "keyloader.md"
EXAMPLES = examples(PAGE)


@pytest.fixture(scope="module")
def answers(module_place):
    return run_examples(PAGE, module_place, module_place / "node")


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=lambda number: EXAMPLES[number][0].splitlines()[0][:60])
def test_example(answers, number):
    check_example(EXAMPLES[number], answers[number])


def test_the_page_lists_every_command():
    listed = set()
    for family, words in re.findall(r"^keyloader (\w+)(?: (\S+))?$", PAGE.read_text(), re.MULTILINE):
        listed |= {f"{family} {word}".strip() for word in words.split("|")}
    manual = subprocess.run([KEYLOADER, "manual"], capture_output=True, text=True, check=True).stdout
    assert listed == set(re.findall(r"^\.SS keyloader (.+)$", manual, re.MULTILINE))
