"""Node memory: where it lies, who has which row of it, what it outlives, and that nobody can keep nginx from starting."""

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import struct
import subprocess
import threading

import httpx
import pytest

from harness.paths import CAN_MOUNT, IS_ROOT
from harness.server import BAD_LINES, end_master, pid_in
from harness.slow_upstream import SlowUpstream
from harness.state import (DIRECTORY, StateDir, acknowledged_by, announcement, inbox_file, is_locked, legacy_file, node_id, regions,
                           rows, state_file, worker_rows)
from harness.waiting import wait_until

LOCATION = 'location / { apikey "api"; apikey_scope any; empty_gif; }'
QUOTA = 10


@pytest.fixture
def key(registry):
    registry.plan("small", "--quota", f"{QUOTA}/year")
    return registry.key(plan="small")


@pytest.fixture
def slow(registry):
    """A key with two requests an hour."""
    registry.plan("slow", rate="2/h", burst=2)
    return registry.key(plan="slow")


@pytest.fixture
def runtime(place):
    return place / "runtime"


def spend(server, key, count):
    assert [server.status(key=key) for _ in range(count)] == [200] * count


def spend_rest(server, key):
    return [server.status(key=key) for _ in range(QUOTA + 1)].index(429)


def living_rows(path):
    return [row for i, row in enumerate(worker_rows(path)) if is_locked(path, 1 + i)]


class Held:
    """A request that is in flight until the block ends."""

    def __init__(self):
        self.upstream = SlowUpstream()
        self.location = f"location /held {{ apikey off; proxy_pass {self.upstream.url}; }}"
        self._thread = None

    def __call__(self, server, **more):
        def ask():
            with contextlib.suppress(httpx.HTTPError):
                server.get("/held", **more)
        self._thread = threading.Thread(target=ask)
        return self

    def __enter__(self):
        before = self.upstream.waiting
        self._thread.start()
        wait_until(lambda: self.upstream.waiting > before, what="the request at the upstream")

    def __exit__(self, *_):
        self.upstream.finish()
        self._thread.join()


@pytest.fixture
def held():
    held = Held()
    yield held
    held.upstream.close()


# Rows, locks, acknowledgements


def test_every_worker_has_a_row_and_acknowledges(nginx, registry):
    registry.key()
    server = nginx(LOCATION, workers=3)
    path = state_file(server.pid_path)
    server.wait_for_generation(registry.generation())
    wait_until(lambda: len(acknowledged_by(path, server.master)) == 3, what="three acknowledgements")
    assert {row.pid for row in living_rows(path)} == set(server.workers())
    assert is_locked(path, 0), "the master lives"
    registry.key()
    wait_until(lambda: {row.acks[0][0] for row in living_rows(path)} == {registry.generation()},
               what="the acknowledgements of idle workers")
    assert all(state == 1 for row in living_rows(path) for _, _, state in row.acks[:1])
    assert all(ack == (0, 0, 0) for row in living_rows(path) for ack in row.acks[1:]), "there is one store"


def test_the_store_row_says_path_and_name(nginx, registry, place):
    registry.key()
    server = nginx(LOCATION, store=None, http=f"apikey_store {registry.snapshot} name=main;")
    server.wait_for_generation(registry.generation(), store="main")
    row = rows(state_file(server.pid_path), "stores")[0]
    assert struct.unpack_from("<Q", row)[0] != 0
    assert row[128:1152].rstrip(b"\0").decode() == str(registry.snapshot)
    assert row[1152:1216].rstrip(b"\0") == b"main"


def test_a_killed_worker_frees_its_row(nginx, key):
    server = nginx(LOCATION, workers=2)
    server.allow_log("exited on signal 9")
    path = state_file(server.pid_path)
    wait_until(lambda: len(living_rows(path)) == 2, what="two rows")
    dead = server.workers()[0]
    ticket = next(row.ticket for row in living_rows(path) if row.pid == dead)
    os.kill(dead, signal.SIGKILL)
    wait_until(lambda: len(living_rows(path)) == 2 and dead not in {row.pid for row in living_rows(path)},
               what="the successor's row")
    assert len(worker_rows(path)) == 2, "it took the dead one's"
    assert ticket + 1 in {row.ticket for row in worker_rows(path)}


def test_a_worker_that_drains_says_so(nginx, registry, held):
    key = registry.key()
    server = nginx(LOCATION + held.location, workers=1)
    path = state_file(server.pid_path)
    old = server.workers()[0]
    with held(server):
        server.reload(wait_for_old=False)
        wait_until(lambda: [row for row in living_rows(path) if row.pid == old and row.flags & 1], what="a draining row")
        assert [row.flags & 1 for row in living_rows(path) if row.pid != old] == [0]
        # It learns of the next generation all the same.
        registry.key()
        wait_until(lambda: {row.acks[0][0] for row in living_rows(path)} == {registry.generation()},
                   what="the draining worker's acknowledgement")
    assert server.status(key=key) == 200


@pytest.mark.parametrize("who", ["master", "everybody"])
def test_a_killed_master_leaves_no_lock(nginx, key, who):
    server = nginx(LOCATION, workers=2)
    path = state_file(server.pid_path)
    wait_until(lambda: len(living_rows(path)) == 2, what="two rows")
    if who == "everybody":
        server.kill_all()
        assert not living_rows(path)
        assert not is_locked(path, 0)
        return
    workers = server.workers()
    os.kill(server.master, signal.SIGKILL)
    server.process.wait(20)
    try:
        assert not is_locked(path, 0)
        assert len(living_rows(path)) == 2, "the workers live on"
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not living_rows(path), what="the workers' end")
        server.admin_socket.unlink(missing_ok=True)


def test_one_process_makes_locks_and_acknowledges(nginx, registry, key):
    """`master_process off`."""
    server = nginx(LOCATION, main="master_process off;", workers=1)
    path = state_file(server.pid_path)
    server.wait_for_generation(registry.generation())
    row, = living_rows(path)
    assert row.pid == server.master and row.flags & 2 and row.acks[0][0] == registry.generation()
    assert is_locked(path, 0)
    spend(server, key, 3)
    server.quit()
    assert not is_locked(path, 0) and not living_rows(path)
    server.start()
    assert spend_rest(server, key) == QUOTA - 3


def test_a_daemon_keeps_the_masters_lock(nginx, registry, key):
    server = nginx.make(LOCATION)
    server.config_path.write_text(server.config_path.read_text().replace("daemon off;", "daemon on;"))
    subprocess.run(server.command(), check=True, timeout=60)
    pid = int(wait_until(lambda: pid_in(server.pid_path), what="the pid file"))
    try:
        path = state_file(server.pid_path)
        wait_until(lambda: acknowledged_by(path, pid), what="an acknowledgement")
        assert is_locked(path, 0)
        with open(path, "rb") as file:
            assert struct.unpack_from("<Q", file.read(56), 48)[0] == pid, "not that of the process that was started"
    finally:
        end_master(pid)
    assert not is_locked(path, 0)


# What outlives what


def test_buckets_and_counters_outlive_a_restart(nginx, slow):
    server = nginx(LOCATION)
    assert [server.status(key=slow) for _ in range(3)] == [200, 200, 429]
    counted = server.metric("apikey_requests_total", outcome="ok")
    server.quit()
    server.start()
    assert server.status(key=slow) == 429
    assert server.metric("apikey_requests_total", outcome="ok") == counted


def test_buckets_outlive_a_kill(nginx, slow):
    server = nginx(LOCATION)
    assert [server.status(key=slow) for _ in range(3)] == [200, 200, 429]
    server.kill_all()
    server.start()
    assert server.status(key=slow) == 429


def forget_boot(path, boot):
    with open(path, "r+b") as file:
        file.seek(64)
        file.write(boot.ljust(64, b"\0"))


@pytest.mark.parametrize("boot", [b"00000000-0000-4000-8000-000000000000", b""], ids=["another", "unknown"])
def test_buckets_end_with_the_boot(nginx, registry, slow, boot):
    """The clock they count by begins again."""
    server = nginx(LOCATION)
    assert [server.status(key=slow) for _ in range(3)] == [200, 200, 429]
    server.quit()
    forget_boot(state_file(server.pid_path), boot)
    server.start()
    assert [server.status(key=slow) for _ in range(3)] == [200, 200, 429]


if CAN_MOUNT:
    def test_a_hidden_boot_id_is_an_unknown_boot(nginx, slow):
        """ProcSubset=pid: nothing is refused for it, buckets begin full."""
        server = nginx.make(LOCATION)
        hidden = ["unshare", "-m", "sh", "-c", 'mount --bind /dev/null /proc/sys/kernel/random/boot_id && exec "$@"', "sh"]
        command = server.command
        server.command = lambda *arguments: [*hidden, *command(*arguments)]
        for _ in range(2):
            server.start()
            server.wait_for_generation(1)
            assert [server.status(key=slow) for _ in range(3)] == [200, 200, 429]
            server.quit()


def test_requests_in_flight_of_a_killed_nginx_are_forgotten(nginx, registry, held):
    key = registry.key()
    server = nginx('apikey "api"; apikey_scope any; apikey_concurrency 1; location / { empty_gif; } '
                   + held.location.replace("apikey off; ", ""))
    with held(server, key=key):
        assert server.status(key=key) == 429
        server.kill_all()
        server.start()
        server.wait_for_generation(registry.generation())
        assert server.status(key=key) == 200


@pytest.fixture
def upgraded(nginx, slow, registry):
    """nginx, and the master that has come beside it. RETURNS: (server, old, new)."""
    server = nginx.make(LOCATION)
    server.start_detached()
    server.wait_for_generation(registry.generation())
    old = int(server.pid_path.read_text())
    assert [server.status(key=slow) for _ in range(3)] == [200, 200, 429]
    os.kill(old, signal.SIGUSR2)
    wait_until(lambda: pid_in(server.pid_path) not in ("", str(old)), 20, "the new master")
    new = int(server.pid_path.read_text())
    wait_until(lambda: len(acknowledged_by(state_file(server.pid_path), new)) == 2, 20, "the new workers' snapshot")
    yield server, old, new
    for master in (old, new):
        if os.path.exists(f"/proc/{master}"):
            end_master(master)
    assert not [line for line in server.error_log().splitlines() if BAD_LINES.search(line)]


def test_buckets_outlive_an_upgrade(upgraded, slow):
    server, old, _ = upgraded
    path = state_file(server.pid_path)
    assert len(living_rows(path)) == 4, "both masters' workers"
    end_master(old)
    assert [server.status(key=slow) for _ in range(4)] == [429] * 4
    assert len(living_rows(path)) == 2 and is_locked(path, 0)
    assert [found.name for found in DIRECTORY.glob(f"{node_id(server.pid_path)}*.state")] == [path.name]
    assert "another nginx" not in server.error_log()


def test_an_upgrade_that_is_taken_back(upgraded, slow):
    """The new master ends, the old one is reloaded, and upgraded again: one file all the time."""
    server, old, new = upgraded
    path = state_file(server.pid_path)
    inode = path.stat().st_ino
    end_master(new)
    wait_until(lambda: pid_in(server.pid_path) == str(old), what="the old master's pid file")
    os.kill(old, signal.SIGHUP)
    wait_until(lambda: {row.configuration for row in living_rows(path)} == {3}, what="the new workers of the old master")
    assert server.status(key=slow) == 429
    os.kill(old, signal.SIGUSR2)
    wait_until(lambda: pid_in(server.pid_path) not in ("", str(old)), 20, "the newest master")
    newest = int(server.pid_path.read_text())
    wait_until(lambda: len(acknowledged_by(path, newest)) == 2, 20, "the newest workers' snapshot")
    end_master(old)
    assert server.status(key=slow) == 429
    assert path.stat().st_ino == inode
    end_master(newest)


def test_more_workers_than_there_are_rows_for(nginx, key, slow):
    """Another layout: what is known is carried over, and the old file stays until its workers have ended."""
    server = nginx(LOCATION, workers=1)
    path = state_file(server.pid_path)
    spend(server, key, 3)
    assert [server.status(key=slow) for _ in range(3)] == [200, 200, 429]
    assert len(rows(path, "workers")) == 64
    server.reload(workers=17)
    server.wait_for_log(r"is new with \d+ bytes, the one before had \d+: 1 quotas and \d+ rows of usage were carried over")
    assert len(rows(path, "workers")) == 68
    assert server.status(key=slow) == 429, "buckets have the same size, so they were carried over"
    server.reload(workers=1)
    assert len(rows(path, "workers")) == 68, "fewer workers need no other file"
    assert not list(DIRECTORY.glob(f"{node_id(server.pid_path)}~*")), "nobody used the old file any more"
    assert spend_rest(server, key) == QUOTA - 3


def test_a_replaced_file_stays_while_workers_use_it(nginx, registry, held):
    """They decide by every new snapshot, and acknowledge it where keyloader sees it."""
    key = registry.key()
    server = nginx(LOCATION + held.location, workers=1,
                   http="apikey_zone zone=apikey:2m;")
    old = server.workers()[0]
    with held(server):
        server.reload(wait_for_old=False, http="apikey_zone zone=apikey:4m;")
        kept, = wait_until(lambda: list(DIRECTORY.glob(f"{node_id(server.pid_path)}~*.state")), what="the kept file")
        assert [row.pid for row in living_rows(kept)] == [old]
        with open(kept, "rb") as file:
            assert struct.unpack_from("<Q", file.read(272), 264)[0] == 1, "it says that another has taken its place"
        registry.key()
        wait_until(lambda: {row.acks[0][0] for row in living_rows(kept)} == {registry.generation()},
                   what="the old worker's acknowledgement")
    wait_until(lambda: not living_rows(kept), what="the old worker's end")
    server.reload()
    assert not kept.exists()
    assert server.status(key=key) == 200


def change_region_version(path, kind):
    with open(path, "r+b") as file:
        preamble = file.read(4096)
        count, = struct.unpack_from("<I", preamble, 12)
        at = next(1024 + 32 * i for i in range(count) if struct.unpack_from("<I", preamble, 1024 + 32 * i)[0] == kind)
        version, = struct.unpack_from("<I", preamble, at + 4)
        file.seek(at + 4)
        file.write(struct.pack("<I", version + 1))


@pytest.mark.parametrize("kind,keeps_buckets", [(1, True), (4, False), (5, True), (8, True), (2, True)],
                         ids=["head", "buckets", "flights", "counters", "stores"])
def test_a_file_of_another_version_is_carried_over(nginx, key, slow, kind, keeps_buckets):
    """An upgrade or a downgrade with a restart."""
    server = nginx(LOCATION)
    spend(server, key, 3)
    assert [server.status(key=slow) for _ in range(3)] == [200, 200, 429]
    server.quit()
    change_region_version(state_file(server.pid_path), kind)
    server.start()
    if kind == 2:  # rows that nobody can read make it no node memory at all
        server.wait_for_log("is damaged: it is replaced")
        return
    server.wait_for_log(r"is new with \d+ bytes, the one before had \d+: 1 quotas and \d+ rows of usage were carried over")
    assert spend_rest(server, key) == QUOTA - 3
    assert (server.status(key=slow) == 429) == keeps_buckets


def old_file_of(path, legacy):
    """Writes what an earlier version had: the same tables behind a page of header."""
    with open(path, "rb") as file:
        data = file.read()
    found = regions(path)
    quotas, usage = (data[offset:offset + size] for offset, size in (found["quotas"], found["usage"]))
    size = 4096 + len(quotas) + len(usage)
    assert (size - 4096) // 4 // 128 * 128 == len(quotas)
    header = b"AKYSTATE" + struct.pack("<QQQQ", legacy_layout(), size, 1, 2)
    legacy.write_bytes(header.ljust(4096, b"\0") + quotas + usage)
    legacy.chmod(0o600)


def legacy_layout():
    from harness.state import MASK
    h = 0x9E3779B97F4A7C15 ^ 32
    for word in (1, 160, 1, 1):
        product = (word ^ h) * 0xA0761D6478BD642F
        h = (product & MASK) ^ (product >> 64) ^ ((word << 32 | word >> 32) & MASK)
    return h or 1


def test_the_file_of_an_earlier_version_is_carried_over_once(nginx, key):
    server = nginx(LOCATION, http="apikey_zone zone=apikey:2m;")
    spend(server, key, 4)
    server.quit()
    path, legacy = state_file(server.pid_path), legacy_file(server.pid_path)
    old_file_of(path, legacy)
    path.unlink()
    server.start()
    server.wait_for_log(rf"{legacy} of an earlier version was taken over and is removed")
    assert not legacy.exists()
    assert spend_rest(server, key) == QUOTA - 4


# Where it lies


def test_the_test_says_where_and_makes_nothing(nginx, runtime):
    server = nginx.make(LOCATION)
    is_right, said = server.check()
    assert is_right and f'nginx: [notice] apikey_zone "apikey": node memory will lie in {DIRECTORY}' in said
    assert not state_file(server.pid_path).exists()
    server.write_config(http=f"apikey_zone zone=apikey:2m runtime={runtime};")
    is_right, said = server.check()
    assert is_right and f"node memory will lie in {runtime}" in said
    assert not runtime.exists()


def test_a_directory_that_is_named(nginx, key, runtime):
    server = nginx(LOCATION, http=f"apikey_zone zone=apikey:2m runtime={runtime};")
    path = state_file(server.pid_path, directory=runtime)
    spend(server, key, 3)
    assert {found.name for found in runtime.iterdir()} == {path.name, inbox_file(server.pid_path).name}
    assert runtime.stat().st_mode & 0o7777 == 0o750
    assert path.stat().st_mode & 0o7777 == 0o640
    assert inbox_file(server.pid_path, directory=runtime).stat().st_mode & 0o7777 == 0o660
    assert not state_file(server.pid_path).exists()
    server.quit()
    server.start()
    assert spend_rest(server, key) == QUOTA - 3


def test_a_relative_directory_lies_in_the_prefix(nginx, key):
    server = nginx(LOCATION, http="apikey_zone zone=apikey:2m runtime=memory;")
    wait_until(state_file(server.pid_path, directory=server.prefix / "memory").exists, what="the file")


@pytest.mark.parametrize("words,sentence", [
    ("runtime=", "names no directory, write runtime=<directory>"),
    ("runtime=/run/a runtime=/run/b", "is the second of its kind"),
])
def test_a_wrong_directory_is_an_error(nginx, words, sentence):
    is_right, said = nginx.make(LOCATION, http=f"apikey_zone zone=apikey:2m {words};").check()
    assert not is_right and sentence in said


def test_a_reload_into_another_directory(nginx, key, runtime):
    server = nginx(LOCATION)
    spend(server, key, 3)
    server.reload(http=f"apikey_zone zone=apikey:16m runtime={runtime};")
    assert state_file(server.pid_path, directory=runtime).exists()
    assert spend_rest(server, key) == QUOTA - 3


def refusal_to_start(server, command=None):
    server.allow_log(r"\[emerg\]")
    done = subprocess.run(command or server.command(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    return server.wait_for_log(r"\[emerg\].*apikey_zone.*")[0]


@pytest.mark.parametrize("how", ["a file", "others may write", *(["another user's"] if IS_ROOT else [])])
def test_a_directory_that_is_not_ours_is_refused(nginx, runtime, how):
    server = nginx.make(LOCATION, http=f"apikey_zone zone=apikey:2m runtime={runtime};")
    if how == "a file":
        runtime.write_bytes(b"")
        assert f"the runtime directory {runtime} cannot be opened" in refusal_to_start(server)
        return
    runtime.mkdir()
    runtime.chmod(0o757 if how == "others may write" else 0o755)
    if how == "another user's":
        os.chown(runtime, pwd.getpwnam("games").pw_uid, 0)
    said = refusal_to_start(server)
    assert f"the runtime directory {runtime} is not used" in said and "write runtime=<directory> with another one" in said
    assert list(runtime.iterdir()) == []


if CAN_MOUNT:
    IN_PRIVATE = ["unshare", "-m", "sh", "-c",
                  'mount -t tmpfs none /dev/shm && mount -t tmpfs none /run && eval "$1" && shift && exec "$@"', "sh"]

    def in_private(server, shell):
        """The command that starts nginx with an empty /run and /dev/shm, after something was done there."""
        return [*IN_PRIVATE, shell, *server.command()]

    def make_hostile(name, path):
        user = pwd.getpwnam("games").pw_uid
        return {
            "a file": f"touch {path}",
            "a pipe": f"mkfifo {path}",
            "a link": f"ln -s /etc {path}",
            "a link to nothing": f"ln -s /nowhere/at/all {path}",
            "a directory that others may write": f"mkdir {path} && chmod 777 {path}",
            "a directory of another user": f"mkdir {path} && chown {user} {path}",
        }[name]

    NAMES = ["a file", "a pipe", "a link", "a link to nothing", "a directory that others may write",
             "a directory of another user"]

    def begun_in_private(server, shell):
        with open(server.prefix / "stderr.log", "wb") as errors:
            process = subprocess.Popen(in_private(server, shell), stdin=subprocess.DEVNULL, stderr=errors)
        wait_until(lambda: pid_in(server.pid_path) or process.poll() is not None, what="nginx")
        assert process.poll() is None, server.error_log()
        server.process = process
        return process

    def memory_of(server):
        """Where the state file lies, as nginx sees it."""
        def found():
            return [directory for directory in ("/run/apikey", "/dev/shm/apikey-0") if os.path.isfile(
                f"/proc/{server.process.pid}/root{directory}/{node_id(server.pid_path)}.state")]
        where, = wait_until(found, what="the state file")
        return where

    def test_run_apikey_is_preferred(nginx, key):
        server = nginx.make(LOCATION)
        process = begun_in_private(server, "true")
        assert memory_of(server) == "/run/apikey"
        found = os.stat(f"/proc/{process.pid}/root/run/apikey")
        assert found.st_mode & 0o7777 == 0o750
        server.quit()

    def test_a_directory_that_systemd_has_made_is_used(nginx, key):
        server = nginx.make(LOCATION)
        begun_in_private(server, "mkdir -m 755 /run/apikey")
        assert memory_of(server) == "/run/apikey"
        server.quit()

    @pytest.mark.parametrize("name", NAMES)
    def test_what_others_put_at_run_apikey_is_not_used(nginx, key, name):
        server = nginx.make(LOCATION)
        process = begun_in_private(server, make_hostile(name, "/run/apikey"))
        assert memory_of(server) == "/dev/shm/apikey-0"
        assert os.stat(f"/proc/{process.pid}/root/dev/shm/apikey-0").st_mode & 0o7777 == 0o700
        server.quit()

    @pytest.mark.parametrize("name", NAMES)
    def test_what_others_put_in_dev_shm_is_refused_with_the_way_out(nginx, key, name):
        server = nginx.make(LOCATION)
        shell = "touch /run/apikey && " + make_hostile(name, "/dev/shm/apikey-0")
        said = refusal_to_start(server, in_private(server, shell))
        assert "/dev/shm/apikey-0" in said and "write runtime=<directory>" in said

    def test_run_without_memory_is_not_used(nginx, key):
        """/run on a disk, as some containers have it."""
        server = nginx.make(LOCATION)
        command = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev/shm && mkdir -p "$1" && mount --bind "$1" /run '
                   '&& shift && exec "$@"', "sh", server.prefix / "run", *server.command()]
        if subprocess.run(["stat", "-f", "-c", "%T", server.prefix], capture_output=True, text=True,
                          check=True).stdout.strip() == "tmpfs":
            pytest.skip("the tests' own directory is memory")
        with open(server.prefix / "stderr.log", "wb") as errors:
            server.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors)
        wait_until(lambda: pid_in(server.pid_path), what="nginx")
        assert memory_of(server) == "/dev/shm/apikey-0"
        server.quit()

    def containers(nginx, runtime, count):
        """nginx with one pid path and one runtime directory, each in pid and mount namespaces of its own."""
        servers = []
        for _ in range(count):
            server = nginx.make(LOCATION, http=f"apikey_zone zone=apikey:2m runtime={runtime};")
            server.config_path.write_text(server.config_path.read_text().replace(
                f"pid {server.pid_path};", f"pid {runtime.parent}/shared/nginx.pid;"))
            command = server.command
            alone = ["unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c",
                     f'mount -t tmpfs none {runtime.parent}/shared && exec "$@"', "sh"]
            server.command = lambda *arguments, command=command, alone=alone: [*alone, *command(*arguments)]
            servers.append(server)
        return servers

    def test_two_containers_with_one_pid_path_share_nothing(nginx, registry, key, runtime):
        (runtime.parent / "shared").mkdir()
        first, second = containers(nginx, runtime, 2)
        first.start()
        first.wait_for_generation(registry.generation())
        second.start()
        second.wait_for_generation(registry.generation())
        second.wait_for_log(r"\[warn\].*\.state belongs to another nginx that runs with the same pid path .another "
                            r"container\?.; this one takes a name of its own")
        assert len(list(runtime.glob("*.state"))) == 2
        spend(first, key, QUOTA)
        assert first.status(key=key) == 429
        assert spend_rest(second, key) == QUOTA


# What is announced


def test_it_is_announced_in_the_stores_directory(nginx, registry):
    registry.key()
    server = nginx(LOCATION, store=None, http=f"apikey_store {registry.snapshot} name=main;")
    server.wait_for_generation(registry.generation(), store="main")
    said = json.loads((registry.snapshot.parent / "nodes" / announcement(state_file(server.pid_path))).read_text())
    assert said == {"state": str(state_file(server.pid_path)), "inbox": str(inbox_file(server.pid_path)),
                    "pid_file": str(server.pid_path), "store": str(registry.snapshot), "name": "main"}


def test_a_directory_that_cannot_be_written_is_passed_over(nginx, registry, place):
    """And a link in it leads nowhere."""
    registry.key()
    (place / "elsewhere").mkdir()
    (registry.snapshot.parent / "nodes").symlink_to(place / "elsewhere")
    server = nginx(LOCATION, store=None, http=f"apikey_store {registry.snapshot};")
    server.wait_for_generation(registry.generation())
    assert list((place / "elsewhere").iterdir()) == []


# The highest generation


@pytest.mark.parametrize("memory", ["stays", "is wiped"])
def test_an_older_snapshot_is_refused_after_a_restart(nginx, registry, place, memory):
    """Revoke; put the previous keys.mdb in place; restart: the revoked key stays refused."""
    state = StateDir(place)
    key, other = registry.key(), registry.key()
    server = nginx(LOCATION, http=f"apikey_zone zone=apikey:2m state={state.dir};")
    server.wait_for_generation(registry.generation())
    assert server.status(key=key) == 200
    before = registry.snapshot.read_bytes()
    registry.revoke(key)
    revoked, generation = registry.snapshot.read_bytes(), registry.generation()
    server.wait_for_generation(generation)
    state.wait_for_save(server)
    for end in ("quit", "kill_all"):
        getattr(server, end)()
        if memory == "is wiped":
            state_file(server.pid_path).unlink()
        put(registry.snapshot, before)
        server.start()
        server.wait_for_log(rf"is not higher than generation {generation}, which was active")
        assert server.status(key=key) == 503
        assert server.status(key=other) == 503, "nobody is let in by it"
        put(registry.snapshot, revoked)
        wait_until(lambda: server.status(key=other) == 200, what="the right snapshot")
        assert server.status(key=key) == 401
        state.wait_for_save(server)


def put(path, content):
    new = path.with_name("put.new")
    new.write_bytes(content)
    shutil.copystat(path, new)
    os.chown(new, path.stat().st_uid, path.stat().st_gid)
    new.rename(path)
