"""Node memory outlives a reload: counters, buckets, what is in service. A test of the configuration touches nothing."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.server import BAD_LINES, end_master, pid_in
from harness.state import acknowledged_by, state_file
from harness.store import LOCATION, Generations, Store
from harness.waiting import wait_until


@pytest.fixture
def store(place):
    return Store(place)


@pytest.fixture
def made(registry):
    return Generations(registry, 2)


def counted(server, outcome="ok"):
    return server.metric("apikey_requests_total", outcome=outcome)


def ask_all_along(server, key, done):
    """Asks until `done`. RETURNS: the answers that were not 200."""
    wrong = []
    while not done.is_set():
        status = server.status(key=key)
        if status != 200:
            wrong.append(status)
    return wrong


@pytest.fixture
def asking(registry):
    """asking(server, key) is a context in which a client asks without a pause; every answer has to be 200."""
    class Asking:
        def __init__(self, server, key):
            self._done = threading.Event()
            self._pool = ThreadPoolExecutor(1)
            self._ask = lambda: ask_all_along(server, key, self._done)

        def __enter__(self):
            self._wrong = self._pool.submit(self._ask)

        def __exit__(self, *_):
            self._done.set()
            with self._pool:
                wrong = self._wrong.result()
            assert not wrong, f"answers other than 200: {wrong}"

    return Asking


def test_counters_go_on(nginx, store, made):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path)
    for _ in range(5):
        server.status(key=made.keys[0])
    wait_until(lambda: counted(server) == 5)
    server.reload()
    server.status(key=made.keys[0])
    wait_until(lambda: counted(server) == 6)
    assert server.metric("apikey_snapshot_adoptions_total", result="adopted") == 1


def test_buckets_go_on(registry, nginx):
    registry.plan("small", rate="2/h", burst=2)
    key = registry.key(plan="small")
    server = nginx(LOCATION)
    assert [server.status(key=key) for _ in range(3)] == [200, 200, 429]
    used = server.metric("apikey_zone_slots_used")
    assert used == 1
    server.reload()
    assert server.status(key=key) == 429
    assert server.metric("apikey_zone_slots_used") == used


def test_a_reload_interrupts_nobody(nginx, store, made, asking):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path)
    with asking(server, made.keys[0]):
        for _ in range(3):
            server.reload()


def test_another_size_keeps_counters_and_says_so(nginx, store, made, asking):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path, http="apikey_zone zone=apikey:4m;")
    slots = server.metric("apikey_zone_slots")
    server.status(key=made.keys[0])
    with asking(server, made.keys[0]):
        server.reload(http="apikey_zone zone=apikey:8m;")
    server.wait_for_log(r'apikey_zone "apikey": \S+ is new with \d+ bytes, the one before had \d+: ')
    assert server.metric("apikey_requests_total", outcome="ok") > 1, "counters go on"
    assert server.metric("apikey_zone_slots") > 1.8 * slots
    store.put(made.snapshots[1])
    server.wait_for_generation(made.number(1))


def test_stores_in_another_order_find_their_own(place, nginx, store, made):
    (place / "other").mkdir()
    second = Store(place / "other")
    store.put(made.snapshots[0])
    second.put(made.snapshots[1])
    lines = [f"apikey_store {store.path} name=first;", f"apikey_store {second.path} name=second;"]
    location = 'location / { apikey "api"; apikey_use second; apikey_scope any; empty_gif; }'
    server = nginx(location, store=None, http="\n".join(lines))
    server.wait_for_generation(made.number(0), store="first")
    server.wait_for_generation(made.number(1), store="second")
    server.reload(http="\n".join(reversed(lines)))
    assert server.metric("apikey_snapshot_generation", store="first") == made.number(0)
    assert server.metric("apikey_snapshot_generation", store="second") == made.number(1)
    assert server.status(key=made.keys[1]) == 200, "key 1 is in the second store only"
    assert server.metric("apikey_snapshot_adoptions_total", result="adopted") == 2, "nothing was verified again"


def test_a_store_of_another_path_is_another_store(place, nginx, store, made):
    (place / "other").mkdir()
    other = Store(place / "other")
    store.put(made.snapshots[1])
    other.put(made.snapshots[0])  # an older generation, but not of the same store
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(made.number(1))
    server.reload(store=f"apikey_store {other.path};")
    wait_until(lambda: server.metric("apikey_snapshot_generation") == made.number(0))
    wait_until(lambda: server.status(key=made.keys[0]) == 200)
    assert server.status(key=made.keys[1]) == 401


def test_nginx_t_touches_nothing(nginx, store, made):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path)
    server.status(key=made.keys[0])
    wait_until(lambda: counted(server) == 1)
    before = sorted((path.name, path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in store.dir.iterdir())
    is_right, said = server.check()
    assert is_right, said
    assert counted(server) == 1
    assert before == sorted((path.name, path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in store.dir.iterdir())


@pytest.fixture
def daemon(nginx, store, made):
    """nginx that can be upgraded: it takes USR2 only when whoever started it has gone. RETURNS: (server, pid)."""
    store.put(made.snapshots[0])
    server = nginx.make(LOCATION, store=store.path)
    server.start_detached()
    yield server, server.pid_path
    if server.pid_path.exists():
        end_master(int(server.pid_path.read_text()))
    assert not [line for line in server.error_log().splitlines() if BAD_LINES.search(line)]


def test_a_binary_upgrade_interrupts_nobody(daemon, made, asking):
    server, pid_file = daemon
    server.wait_for_generation(made.number(0))
    old = pid_file.read_text().strip()
    with asking(server, made.keys[0]):
        os.kill(int(old), signal.SIGUSR2)
        wait_until(lambda: pid_in(pid_file) not in ("", old), 20, "the new master")
        new = int(pid_file.read_text())
        wait_until(lambda: len(acknowledged_by(state_file(pid_file), new)) == 2, 20, "the new workers' snapshot")
        end_master(int(old))
    assert server.status(key=made.keys[0]) == 200
    assert server.error_log().count("is active, verified in") == 1, "the new workers took the old ones' copy"


@pytest.mark.parametrize("with_signal", [signal.SIGQUIT, signal.SIGTERM])
def test_the_end_during_a_verification_is_clean(nginx, store, made, with_signal):
    """The fixture looks for alerts and crashes in the log."""
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(made.number(0))
    store.put(made.snapshots[1])
    os.kill(server.master, with_signal)
    assert server.process.wait(20) == 0
