"""Quotas outlive nginx: what is used before a reload, a restart, an upgrade, a kill or a power cut stays used."""

import hashlib
import os
import random
import re
import signal
import subprocess
import threading
import time

import httpx
import pytest

from harness.server import BAD_LINES, end_master, pid_in
from harness.slow_upstream import SlowUpstream
from harness.state import StateDir, acknowledged_by, parent_of, state_file
from harness.timeless import Timeless
from harness.waiting import wait_until

LOCATION = 'location / { apikey "api"; apikey_scope any; add_header X-Pid $pid always; empty_gif; }'
QUOTA = 10


@pytest.fixture
def key(registry):
    registry.plan("small", "--quota", f"{QUOTA}/year")
    return registry.key(plan="small")


@pytest.fixture
def state(place):
    return StateDir(place)


def spend(server, key, count):
    assert [server.status(key=key) for _ in range(count)] == [200] * count


def spend_rest(server, key, most=1000):
    """RETURNS: how many requests were still admitted."""
    for admitted in range(most + 1):
        answer = server.get(key=key)
        if answer.status_code != 200:
            assert answer.status_code == 429, answer.text
            return admitted
    raise AssertionError(f"more than {most} requests were admitted")


def test_a_reload(nginx, key):
    server = nginx(LOCATION)
    assert server.metric("apikey_quota_slots_used") == 0
    spend(server, key, 4)
    assert server.metric("apikey_quota_slots_used") == 1
    server.reload()
    assert spend_rest(server, key) == QUOTA - 4
    assert server.metric("apikey_quota_slots_used") == 1


def test_a_restart(nginx, key):
    server = nginx(LOCATION)
    spend(server, key, 4)
    server.quit()
    server.start()
    assert spend_rest(server, key) == QUOTA - 4


def test_a_kill_of_every_process(nginx, key):
    server = nginx(LOCATION, workers=4)
    spend(server, key, 7)
    server.kill_all()
    server.start()
    assert spend_rest(server, key) == QUOTA - 7


def test_both_masters_of_an_upgrade_count_together(nginx, registry, state):
    quota = 200
    registry.plan("large", "--quota", f"{quota}/year")
    key = registry.key(plan="large")
    server = nginx.make(LOCATION, http=f"apikey_zone zone=apikey:2m state={state.dir};").start_detached()
    server.wait_for_generation(registry.generation())
    old = int(server.pid_path.read_text())
    inode = state_file(server.pid_path).stat().st_ino
    spend(server, key, 5)
    os.kill(old, signal.SIGUSR2)
    wait_until(lambda: pid_in(server.pid_path) not in ("", str(old)), 20, "the new master")
    new = int(server.pid_path.read_text())
    try:
        wait_until(lambda: len(acknowledged_by(state_file(server.pid_path), new)) == 2, 20, "the new workers' snapshot")
        assert server.error_log().count("is active, verified in") == 1, "the new workers took the old ones' copy"
        # This client closes first: while a worker is busy with that, another takes the next connection. Of idle ones it
        # would always be the same.
        with httpx.Client(base_url=server.url, trust_env=False, timeout=20,
                          limits=httpx.Limits(max_keepalive_connections=0)) as client:
            answers = [client.get("/", headers={"X-API-Key": key.secret}) for _ in range(2 * quota)]
        admitted = [answer.headers["X-Pid"] for answer in answers if answer.status_code == 200]
        assert len(admitted) == quota - 5
        parents = {parent_of(pid) for pid in set(admitted)}
        assert parents == {old, new}, "the workers of both masters answered"
        assert state_file(server.pid_path).stat().st_ino == inode
        end_master(old)
        assert server.status(key=key) == 429
        state.wait_for_save(server)
        assert not state.is_final, "the new workers count on"
    finally:
        end_master(new)
    assert state.is_final
    assert not [line for line in server.error_log().splitlines() if BAD_LINES.search(line)]


@pytest.mark.parametrize("sizes", [("2m", "4m"), ("4m", "2m")], ids=["larger", "smaller"])
@pytest.mark.parametrize("how", ["reload", "restart"])
def test_another_size(nginx, key, sizes, how):
    server = nginx(LOCATION, http=f"apikey_zone zone=apikey:{sizes[0]};")
    spend(server, key, 3)
    if how == "reload":
        server.reload(http=f"apikey_zone zone=apikey:{sizes[1]};")
    else:
        server.quit()
        server.write_config(http=f"apikey_zone zone=apikey:{sizes[1]};")
        server.start()
    said = server.wait_for_log(r"is new with (\d+) bytes, the one before had (\d+): 1 quotas and \d+ rows")
    assert int(said[1]) != int(said[2])
    wait_until(lambda: state_file(server.pid_path).stat().st_size == int(said[1]), what="the new file in its place")
    assert spend_rest(server, key) == QUOTA - 3
    server.quit()
    server.start()
    assert server.status(key=key) == 429, "the new file is the one that is found again"


def test_a_refused_configuration_changes_nothing(nginx, key, place):
    """Another size whose configuration fails after the zone was made: the file stays, and so does what is in it."""
    server = nginx(LOCATION, http="apikey_zone zone=apikey:2m;")
    spend(server, key, 3)
    before = state_file(server.pid_path).stat()
    server.allow_log("emerg")
    server.write_config(http="apikey_zone zone=apikey:4m; server { listen 192.0.2.1:80; }")
    os.kill(server.master, signal.SIGHUP)
    server.wait_for_log(r"\[emerg\].*192\.0\.2\.1")
    after = state_file(server.pid_path).stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    spend(server, key, 2)
    server.quit()
    server.write_config(http="apikey_zone zone=apikey:2m;")
    server.start()
    assert spend_rest(server, key) == QUOTA - 5


def test_a_file_that_was_removed_is_made_again_by_a_reload(nginx, key):
    server = nginx(LOCATION)
    spend(server, key, 3)
    state_file(server.pid_path).unlink()
    spend(server, key, 1)
    server.reload()
    spend(server, key, 1)
    server.quit()
    server.start()
    assert spend_rest(server, key) == QUOTA - 5


def test_the_file_is_closed_to_others(nginx, key):
    server = nginx(LOCATION)
    server.wait_for_generation(1)
    found = state_file(server.pid_path).stat()
    assert oct(found.st_mode) == "0o100640" and found.st_uid == os.geteuid() and found.st_nlink == 1
    assert found.st_blocks * 512 >= found.st_size, "no page is missing"


def test_two_nginx_do_not_share(nginx, key):
    first, second = nginx(LOCATION), nginx(LOCATION)
    spend(first, key, QUOTA)
    assert first.status(key=key) == 429
    assert spend_rest(second, key) == QUOTA


def test_nginx_t_and_nginx_s_touch_nothing(nginx, key):
    server = nginx.make(LOCATION, http="apikey_zone zone=apikey:2m;")
    assert server.check()[0]
    subprocess.run(server.command("-s", "reload"), capture_output=True, check=False)
    assert not state_file(server.pid_path).exists()
    server.allow_log(r"\[(alert|error|emerg)\].*(kill|invalid PID|open\(\))")
    server.start()
    server.wait_for_generation(1)
    spend(server, key, 2)
    before = state_file(server.pid_path).stat()
    server.write_config(http="apikey_zone zone=apikey:4m;")
    assert server.check()[0]
    after = state_file(server.pid_path).stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert spend_rest(server, key) == QUOTA - 2


def cut_the_power(server):
    """All that was in memory is gone."""
    server.kill_all()
    state_file(server.pid_path).unlink()


def test_what_was_saved_outlives_a_power_cut(nginx, key, state):
    server = nginx(LOCATION, http=f"apikey_zone zone=apikey:2m state={state.dir};")
    spend(server, key, 4)
    state.wait_for_save(server)
    spend(server, key, 2)
    cut_the_power(server)
    server.start()
    server.wait_for_log(r"1 quotas and \d+ rows of usage were restored from a checkpoint \d+ s old, 0 found no room; "
                        "what was used after it is lost")
    assert QUOTA - 6 <= spend_rest(server, key) <= QUOTA - 4


def test_an_end_in_order_loses_nothing(nginx, key, state):
    server = nginx(LOCATION, http=f"apikey_zone zone=apikey:2m state={state.dir};")
    spend(server, key, 4)
    server.quit()
    state_file(server.pid_path).unlink()
    server.start()
    assert server.wait_for_log("were restored from a checkpoint .*")[0].endswith("0 found no room")
    assert spend_rest(server, key) == QUOTA - 4


def hold(server, key, slow, path="/slow"):
    """A request that its upstream does not answer yet."""
    before = slow.waiting
    client = server.connect()
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key.secret}\r\n\r\n".encode())
    wait_until(lambda: slow.waiting == before + 1, what="a long request")
    return client


def slow_location(slow, path="/slow"):
    return f'location {path} {{ apikey "api"; apikey_scope any; proxy_pass {slow.url}; }}'


def wait_for_thread(worker):
    wait_until(lambda: len(os.listdir(f"/proc/{worker}/task")) == 1, what="the end of the thread that saves")


def test_a_worker_that_quits_saves_at_once(nginx, key, place, registry, state):
    """Debian's stop is QUIT, and 5 s later TERM and KILL: what was counted until QUIT waits for no request, nor timer."""
    slow, timeless = SlowUpstream(), Timeless(place)
    server = nginx.make(LOCATION + slow_location(slow), main=timeless.main, workers=1,
                        http=f"apikey_zone zone=apikey:2m state={state.dir};")
    server.environment = timeless.environment
    server.start().wait_for_generation(registry.generation())
    with hold(server, key, slow):
        state.wait_for_save(server)
        spend(server, key, 3)
        timeless.begin()
        worker = find_saver(server)
        os.kill(server.master, signal.SIGQUIT)
        wait_for_thread(worker)
        cut_the_power(server)
    slow.close()
    timeless.end()
    server.start()
    server.wait_for_generation(registry.generation())
    assert spend_rest(server, key) == QUOTA - 4


def test_what_is_counted_after_quit_is_saved_too(nginx, registry, state):
    """A long request charges at its end what it has cost, while another one goes on."""
    registry.plan("small", "--quota", f"{QUOTA}/year")
    key = registry.key(plan="small")
    slow = SlowUpstream()
    costly = SlowUpstream(b"HTTP/1.1 200 OK\r\nX-Cost: 5\r\nContent-Length: 4\r\nConnection: close\r\n\r\n")
    server = nginx(LOCATION + slow_location(slow) + f'location /costly {{ apikey "api"; apikey_scope any; '
                   f"apikey_cost 1 of=requests response=$upstream_http_x_cost; proxy_pass {costly.url}; }}",
                   http=f"apikey_zone zone=apikey:2m state={state.dir};", workers=1)
    with hold(server, key, slow), hold(server, key, costly, "/costly"):
        state.wait_for_save(server)
        os.kill(server.master, signal.SIGQUIT)
        wait_until(lambda: not server.workers(), what="the worker's farewell")
        wait_for_thread(*server.workers(shutting_down=True))
        before = state.checkpoint.stat().st_ino  # not written again until something is counted
        costly.finish()
        wait_until(lambda: state.checkpoint.stat().st_ino != before, what="one more checkpoint")
        cut_the_power(server)
    slow.close()
    server.start()
    server.wait_for_generation(registry.generation())
    assert spend_rest(server, key) == QUOTA - 6


def test_another_configuration_goes_on_saving(nginx, key, place, state):
    """A reload into another directory, with another size: the old workers write over nothing."""
    (place / "other").mkdir()
    other = StateDir(place / "other")
    server = nginx(LOCATION, http=f"apikey_zone zone=apikey:2m state={state.dir};")
    spend(server, key, 2)
    server.reload(http=f"apikey_zone zone=apikey:4m state={other.dir};")
    spend(server, key, 2)
    other.wait_for_save(server)
    cut_the_power(server)
    server.start()
    assert spend_rest(server, key) == QUOTA - 4


def test_it_is_written_only_when_something_changed(nginx, key, state):
    server = nginx(LOCATION, http=f"apikey_zone zone=apikey:2m state={state.dir};")
    spend(server, key, 1)
    state.wait_for_save(server)
    before = state.checkpoint.stat()
    assert oct(before.st_mode) == "0o100600"
    state.wait_for_save(server)
    assert state.checkpoint.stat().st_ino == before.st_ino
    spend(server, key, 1)
    state.wait_for_save(server)
    assert state.checkpoint.stat().st_ino != before.st_ino
    assert sorted(path.name for path in state.dir.iterdir()) == ["apikey.checkpoint"]


class Asking:
    """Spends a quota all along. `admitted`: when each request was."""

    def __init__(self, server, key):
        self.admitted = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(server, key))
        self._thread.start()

    def _run(self, server, key):
        while not self._done.wait(0.01):
            try:
                if server.status(key=key) == 200:
                    self.admitted.append(time.time())
            except Exception:  # the server is being killed
                return

    def end(self):
        self._done.set()
        self._thread.join()


@pytest.mark.parametrize("kills_the_saver", [False, True], ids=["at any moment", "after the saving worker was killed"])
def test_a_power_cut_loses_at_most_5_seconds(nginx, registry, state, kills_the_saver):
    quota = 100_000
    registry.plan("large", "--quota", f"{quota}/year")
    key = registry.key(plan="large")
    server = nginx(LOCATION, http=f"apikey_zone zone=apikey:2m state={state.dir};", workers=3)
    server.allow_log("exited on signal 9")
    state.wait_for_save(server)
    asking = Asking(server, key)
    try:
        state.wait_for_save(server)
        moment = time.monotonic() + random.uniform(0, 4)
        if kills_the_saver:
            os.kill(find_saver(server), signal.SIGKILL)
        wait_until(lambda: time.monotonic() >= moment, what="a moment")
        cut = time.time()
        cut_the_power(server)
    finally:
        asking.end()
    server.start()
    server.wait_for_generation(registry.generation())
    remaining = int(server.get(key=key).headers["X-RateLimit-Remaining"])
    saved = quota - remaining - 1
    late = sum(1 for at in asking.admitted if at > cut - 5)
    assert 0 < saved <= len(asking.admitted) + 1
    assert len(asking.admitted) - saved <= late, "use of more than 5 s is lost"


def find_saver(server):
    def with_thread():
        return [pid for pid in server.workers() if len(os.listdir(f"/proc/{pid}/task")) > 1]
    return wait_until(with_thread, what="a worker that saves")[0]


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGSTOP])
def test_another_worker_takes_over_the_saving(nginx, key, state, with_signal):
    server = nginx(LOCATION, http=f"apikey_zone zone=apikey:2m state={state.dir};", workers=3)
    server.allow_log("exited on signal 9")
    state.wait_for_save(server)
    saver = find_saver(server)
    os.kill(saver, with_signal)
    try:
        started = time.monotonic()
        wait_until(lambda: any(pid != saver for pid in savers(server)), what="another worker that saves")
        assert time.monotonic() - started < 5
    finally:
        if with_signal == signal.SIGSTOP:
            os.kill(saver, signal.SIGCONT)
    state.wait_for_save(server)
    wait_until(lambda: len(savers(server)) == 1, what="one worker that saves")


def savers(server):
    return [pid for pid in server.workers() if len(os.listdir(f"/proc/{pid}/task")) > 1]


def test_too_many_keys_are_warned_of_once(nginx, registry, place):
    server = nginx(LOCATION, http="apikey_zone zone=apikey:1m;", workers=3)
    slots = int(server.metric("apikey_zone_slots"))
    lines = "".join(f"{hashlib.sha256(b'%d' % i).hexdigest()},owner\n" for i in range(slots + 1))
    (place / "keys.csv").write_text("digest,owner\n" + lines)
    registry.run("import", place / "keys.csv", "--format", "csv", "--create-owners", timeout=300)
    server.wait_for_generation(registry.generation())
    said = server.wait_for_log(r'\[warn\].*its (\d+) keys are more than apikey_zone "apikey" has room for \((\d+) '
                               r"buckets, \d+ quotas\); write zone=apikey:(\d+m)")
    assert int(said[1]) == slots + 1 and int(said[2]) == slots
    wait_until(lambda: server.metric("apikey_worker_generation_skew") == 0, what="all workers' change-over")
    assert server.error_log().count("has room for") == 1
    server.reload(http=f"apikey_zone zone=apikey:{said[3]};")
    wait_until(lambda: server.metric("apikey_zone_slots") > slots, what="the larger zone")
    server.wait_for_generation(registry.generation())
    assert server.error_log().count("has room for") == 1, "with the size that was named there is room"
