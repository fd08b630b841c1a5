"""The fixtures every pytest of the project may use: registry, nginx, upstream; stage for a whole file.

Found by pytest for all folders below t/. What they do is in t/harness; this file only makes and ends things.
"""

import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from harness.registry import Registry
from harness.server import Server
from harness.upstream import Upstream


# A shell that runs the tests in the background has them ignore these, and so would all that they start.
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def _make_place() -> Path:
    path = Path(tempfile.mkdtemp(prefix="apikey-test-", dir="/tmp"))
    path.chmod(0o755)
    return path


@pytest.fixture
def place():
    """A directory that nginx's workers can reach, whoever they are; pytest's own tmp_path is closed to them."""
    path = _make_place()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def module_place():
    """The same for all tests of a file."""
    path = _make_place()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def registry(place):
    return Registry(place / "node")


@pytest.fixture
def upstream():
    server = Upstream()
    yield server
    server.close()


class Nginxes:
    """nginx(locations, http=…, store=…) makes and starts a Server; `store` None: the test names its own, if any."""

    def __init__(self, place: Path, registry: Registry):
        self._place = place
        self._registry = registry
        self.all = []

    def make(self, locations="", *, store="registry", store_args="", **parts) -> Server:
        """A server that is configured but not started."""
        if store == "registry":
            store = self._registry.snapshot
        line = f"apikey_store {store} {store_args};" if store is not None else ""
        prefix = self._place / f"nginx{len(self.all)}"
        prefix.mkdir()
        made = Server(prefix, locations, store=line, **parts)
        self.all.append(made)
        return made

    def __call__(self, locations="", *, wait=True, **parts) -> Server:
        """`wait`: until the registry's snapshot is in service (when the registry is the store)."""
        server = self.make(locations, **parts).start()
        if wait and parts.get("store", "registry") == "registry" and self._registry.snapshot.exists():
            server.wait_for_generation(self._registry.generation())
        return server

    def check(self, locations="", **parts):
        """nginx -t of a configuration. RETURNS: (is it right, what nginx says)."""
        return self.make(locations, **parts).check()

    def stop_all(self):
        problems = []
        for server in self.all:
            try:
                server.stop()
            except AssertionError as problem:
                problems.append(str(problem))
        assert not problems, "\n".join(problems)


@pytest.fixture
def nginx(place, registry):
    servers = Nginxes(place, registry)
    yield servers
    servers.stop_all()


class Stage:
    """A registry, an upstream and nginx that all tests of one file share."""

    def __init__(self, place: Path):
        self.place = place
        self.registry = Registry(place / "node")
        self.upstream = Upstream()
        self.nginx = Nginxes(place, self.registry)

    def close(self):
        self.upstream.close()
        self.nginx.stop_all()


@pytest.fixture(scope="module")
def stage():
    path = _make_place()
    shared = Stage(path)
    yield shared
    try:
        shared.close()
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of nginx's error log."""
    report = (yield).get_result()
    fixtures = getattr(item, "funcargs", {})
    servers = fixtures.get("nginx") or getattr(fixtures.get("stage"), "nginx", None)
    if report.when == "call" and report.failed and isinstance(servers, Nginxes):
        for server in servers.all:
            report.sections.append((f"error log of {server.prefix.name}", server.error_log()[-3000:]))
