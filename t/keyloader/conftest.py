"""The fixture `keyloader`: the tool on a directory of its own, through its command line only."""

import json
import os
import subprocess

import pytest

from harness.administrators import Shop
from harness.fake_node import FakeNode
from harness.paths import KEYLOADER


class Keyloader:
    def __init__(self, directory):
        self.dir = directory
        self.snapshot = directory / "keys.mdb"

    def environment(self):
        return {**os.environ, "APIKEY_DIR": str(self.dir), "LC_ALL": "C.UTF-8"}

    def __call__(self, *arguments, stdin="", status=0, **options):
        """Runs it. RETURNS: the finished process. `status`: the exit code that is right."""
        done = subprocess.run([KEYLOADER, *map(str, arguments)], input=stdin, capture_output=True, text=True,
                              env=self.environment(), timeout=120, check=False, **options)
        assert done.returncode == status, f"{arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        if status != 0:
            assert done.stderr.splitlines()[-1].startswith("keyloader: "), done.stderr
        return done

    def start(self, *arguments, **options):
        return subprocess.Popen([KEYLOADER, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, env=self.environment(), **options)

    def json(self, *arguments, stdin=""):
        return json.loads(self(*arguments, "--json", stdin=stdin).stdout)

    def refused(self, *arguments, stdin="", status=1):
        """The sentence with which it says no."""
        return self(*arguments, stdin=stdin, status=status).stderr

    def key(self, owner="acme", *arguments):
        return self.json("key", "create", "--owner", owner, "--create-owner", *arguments)

    def generation(self):
        return self.json("snapshot", "show")["generation"]

    def audit(self, *arguments):
        return self.json("audit", "list", *arguments)

    def beside(self, name):
        return Keyloader(self.dir.parent / name)


@pytest.fixture
def bare(tmp_path):
    """No directory yet."""
    return Keyloader(tmp_path / "node")


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """One registry for all examples of a property."""
    tool = Keyloader(tmp_path_factory.mktemp("lasting") / "node")
    tool("init")
    return tool


@pytest.fixture
def keyloader(bare):
    bare("init")
    return bare


@pytest.fixture(scope="session")
def first_shop(tmp_path_factory):
    tool = Keyloader(tmp_path_factory.mktemp("shop") / "node")
    tool("init")
    return Shop(tool, tool.dir.parent)


@pytest.fixture
def shop(first_shop, bare):
    """A registry with administrators."""
    return first_shop.moved_to(bare)


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """Where keyloader looks for node memory."""
    monkeypatch.setenv("APIKEY_RUNTIME", str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture
def nginx(keyloader, runtime):
    """The node memory of one with two workers, which have what is published."""
    node = FakeNode(runtime, keyloader.snapshot)
    node.take(keyloader)
    yield node
    node.close()
