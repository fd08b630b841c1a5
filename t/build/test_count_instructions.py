"""The measurements of t/bench still build and run. What they say is in docs/performance.md."""

import re
import subprocess

from harness.paths import BUILD, REPOSITORY

SCRIPT = REPOSITORY / "t" / "bench" / "count_instructions.py"


def counted(*arguments):
    """{title: instructions}"""
    done = subprocess.run([SCRIPT, *arguments, "--runs", "1"], capture_output=True, text=True, check=True, timeout=300)
    return {title: int(number) for title, number in re.findall(r"^(\S.*?)\s{2,}(\d+)$", done.stdout, re.M)}


def test_the_core():
    subprocess.run(["cmake", "--build", BUILD, "--target", "bench_core", "bench_limits"], check=True,
                   stdout=subprocess.DEVNULL)
    found = counted("core", "--rounds", "300", "--only", "(gather: no limit|: mixed, 4)")
    assert found.keys() == {"gather: no limit", "gather: mixed, 4", "take: mixed, 4"}
    assert all(100 < count < 100_000 for count in found.values())


def test_a_request_to_nginx():
    found = counted("nginx", "--requests", "300", "--only", "(without the module|rate, 1, headers x)")
    assert 1_000 < found["without the module"] < found["rate, 1, headers x"] < 100_000
