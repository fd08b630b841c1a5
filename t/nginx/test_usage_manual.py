"""Every example of docs/usage.md does what the page says, against an nginx that has served two owners."""

import re

import pytest

from harness.manual_page import check_example, examples, run_examples
from harness.paths import REPOSITORY
from harness.waiting import wait_until

PAGE = REPOSITORY / "docs" / "usage.md"
EXAMPLES = examples(PAGE)


@pytest.fixture(scope="module")
def answers(stage):
    registry = stage.registry
    registry.plan("small", rate="5/h", burst=5)
    acme, zeta = registry.key("acme", plan="small"), registry.key("zeta")
    shown = re.search(r"^```nginx http\n(.*?)^```", PAGE.read_text(), re.M | re.S).group(1)
    server = stage.nginx('location / { apikey "api"; apikey_scope any; empty_gif; }',
                         http=shown.replace("/var/lib/apikey", str(registry.dir)))
    for key, count in ((acme, 8), (zeta, 2)):
        for _ in range(count):
            server.status(key=key)
    wait_until(lambda: server.metric("apikey_requests_total") == 10, what="all requests counted")
    place = stage.place / "manual"
    place.mkdir()
    return run_examples(PAGE, place, registry.dir)


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=lambda number: EXAMPLES[number][0][:60])
def test_example(answers, number):
    check_example(EXAMPLES[number], answers[number])
