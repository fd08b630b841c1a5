"""docs/operations.md: every step of it does what the page says, all of them in one shell, in order."""

import pytest

from harness.manual_page import check_example, examples, run_examples
from harness.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "operations.md"
EXAMPLES = examples(PAGE)


@pytest.fixture(scope="module")
def answers(module_place):
    return run_examples(PAGE, module_place, module_place / "node")


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=lambda number: EXAMPLES[number][0].splitlines()[0][:60])
def test_step(answers, number):
    check_example(EXAMPLES[number], answers[number])
