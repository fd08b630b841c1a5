"""What README says in "In your own nginx", word for word, on a fresh Debian: it ends with a 200 and a 401."""

import re

from harness.fresh_root import FreshRoot
from harness.paths import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
SECTION = re.search(r"^## In your own nginx\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)[1]


def fences(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)


def test_the_shown_files_are_the_installed_ones():
    shown = "\n".join((REPOSITORY / "packaging" / "nginx" / name).read_text() for name in ("apikey.conf", "orders.conf"))
    assert fences("nginx http") == [shown]


def test_a_200_and_a_401(place):
    root = FreshRoot(place)
    done = root.run("set -e\n" + "\n".join(fences("sh")))
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert re.findall(r"^HTTP/1\.1 (\d+)", done.stdout, re.MULTILINE) == ["200", "401"], said
    assert "Welcome to nginx!" in done.stdout
    assert root.inside("/var/log/nginx/error.log").read_text() == ""
