"""What is wrong with the file of /dev/shm or with the checkpoint is said in a sentence, and never kills or lets in anybody."""

import os
import pwd
import subprocess
import time

import pytest

from harness.paths import CAN_MOUNT, IS_ROOT, worker_user
from harness.state import StateDir, fold64, state_file
from harness.store import flip
from harness.waiting import wait_until

LOCATION = 'location / { apikey "api"; apikey_scope any; empty_gif; }'
QUOTA = 10
HEAD = 128


@pytest.fixture
def key(registry):
    registry.plan("small", "--quota", f"{QUOTA}/year")
    return registry.key(plan="small")


@pytest.fixture
def state(place):
    return StateDir(place)


def zone(state, size="2m"):
    return f"apikey_zone zone=apikey:{size} state={state.dir};"


def spend(server, key, count):
    assert [server.status(key=key) for _ in range(count)] == [200] * count


def spend_rest(server, key):
    return [server.status(key=key) for _ in range(QUOTA + 1)].index(429)


def end_and_forget(server):
    """An end in order, and a reboot."""
    server.quit()
    state_file(server.pid_path).unlink()


def true_head(data: bytes, **changes) -> bytes:
    """The same with other numbers in the head, and checks that are true."""
    head = bytearray(data[:HEAD - 8])
    for offset, number in changes.values():
        head[offset:offset + len(number)] = number
    return bytes(head) + fold64(bytes(head)).to_bytes(8, "little") + data[HEAD:]


# What becomes of a good checkpoint, and what the log says of it.
BAD_CHECKPOINTS = {
    "cut in the head": (lambda data: data[:100], "do not begin as a checkpoint does"),
    "cut in the rows": (lambda data: data[:-24], "are not what its head says"),
    "longer than it is": (lambda data: data + bytes(24), "are not what its head says"),
    "a bit of the head flipped": (lambda data: flip(data, 60), "its head does not check"),
    "a bit of a row flipped": (lambda data: flip(data, HEAD + 5), "its rows do not check"),
    "empty": (lambda data: b"", "its 0 bytes do not begin"),
    "zeros": (lambda data: bytes(len(data)), "do not begin"),
    "noise": (lambda data: os.urandom(5000), "do not begin"),
    "another format": (lambda data: true_head(data, format=(8, b"\2\0\0\0")), "it has format 2, this build reads format 1"),
    "rows of another version": (lambda data: true_head(data, layout=(40, b"\x63")), "by another version of this module"),
    "more rows than bytes": (lambda data: true_head(data, rows=(56, b"\xff" * 8)), "are not what its head says"),
}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_a_bad_checkpoint_is_refused(nginx, key, state, name):
    spoil, sentence = BAD_CHECKPOINTS[name]
    server = nginx(LOCATION, http=zone(state))
    spend(server, key, 4)
    end_and_forget(server)
    state.checkpoint.write_bytes(spoil(state.checkpoint.read_bytes()))
    server.start()
    server.wait_for_log(rf"\[warn\].*the checkpoint {state.checkpoint} is not taken: .*{sentence}.*; quotas begin anew")
    assert spend_rest(server, key) == QUOTA
    state.wait_for_save(server)
    end_and_forget(server)
    server.start()
    server.wait_for_log("1 quotas and .* were restored")
    assert server.status(key=key) == 429


def break_by_link(path):
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def break_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


UNTRUSTED = {
    "others may write it": (lambda path: path.chmod(0o666), "alone may write"),
    "a link": (break_by_link, "it cannot be opened"),
    "a pipe": (break_by_pipe, "plain file"),
}
if IS_ROOT:
    UNTRUSTED["another user's"] = (lambda path: os.chown(path, pwd.getpwnam("games").pw_uid, 0), "alone may write")


@pytest.mark.parametrize("name", UNTRUSTED)
def test_a_checkpoint_that_others_may_have_made_is_refused(nginx, key, state, name):
    spoil, sentence = UNTRUSTED[name]
    server = nginx(LOCATION, http=zone(state))
    spend(server, key, 4)
    end_and_forget(server)
    spoil(state.checkpoint)
    server.start()
    server.wait_for_log(rf"\[warn\].*is not taken: .*{sentence}.*; quotas begin anew")
    assert spend_rest(server, key) == QUOTA
    state.wait_for_save(server)


def test_a_checkpoint_from_before_the_file_in_memory_is_not_looked_at(nginx, key, state):
    server = nginx(LOCATION, http=zone(state))
    spend(server, key, 4)
    server.quit()
    state.checkpoint.write_bytes(b"rubbish")
    server.start()
    assert spend_rest(server, key) == QUOTA - 4
    assert "is not taken" not in server.error_log()


def check_that_it_recovers(nginx, key, state, *, why, mend):
    server = nginx(LOCATION, http=zone(state), workers=3)
    server.wait_for_log(rf"\[warn\].*the checkpoint {state.checkpoint} cannot be {why}; requests go on")
    spend(server, key, 2)
    wait_until(lambda: server.metric("apikey_state_write_errors_total") >= 2, what="a second attempt")
    assert server.metric("apikey_state_checkpoint_timestamp_seconds") == 0
    assert server.error_log().count("cannot be ") == 1, "it is said once"
    spend(server, key, 2)
    mend()
    state.wait_for_save(server)
    server.wait_for_log("is written again")
    end_and_forget(server)
    server.start()
    assert spend_rest(server, key) == QUOTA - 4


def test_a_missing_directory(nginx, key, state):
    state.dir.rmdir()

    def mend():
        state.dir.mkdir(mode=0o700)
        state.give_to(worker_user())

    check_that_it_recovers(nginx, key, state, why="opened", mend=mend)


if IS_ROOT:
    def test_a_directory_that_workers_cannot_write(nginx, key, state):
        state.give_to("root")
        check_that_it_recovers(nginx, key, state, why="opened", mend=lambda: state.give_to(worker_user()))

    def test_what_a_killed_master_left_is_in_nobodys_way(nginx, key, state):
        (state.dir / "apikey.checkpoint.next").write_bytes(b"half of it")
        server = nginx(LOCATION, http=zone(state))
        spend(server, key, 1)
        state.wait_for_save(server)
        assert [path.name for path in state.dir.iterdir()] == ["apikey.checkpoint"]

    def test_a_file_made_by_another_user_is_refused(nginx, key):
        server = nginx.make(LOCATION)
        path = state_file(server.pid_path)
        path.write_bytes(bytes(1 << 20))
        path.chmod(0o600)
        os.chown(path, pwd.getpwnam("games").pw_uid, 0)
        assert refusal_to_start(server, allow=r"\[emerg\].*is not taken").endswith(
            f"with mode 0600, and is one of user {pwd.getpwnam('games').pw_uid} with mode 0600; remove it, or give the "
            "zone another name")


if CAN_MOUNT:
    def test_a_full_disk(nginx, key, state):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", state.dir], check=True)
        try:
            state.give_to(worker_user())
            filler = state.dir / "filler"
            with pytest.raises(OSError), open(filler, "wb") as file:
                while True:
                    file.write(bytes(4096))
            check_that_it_recovers(nginx, key, state, why="written", mend=filler.unlink)
        finally:
            nginx.stop_all()
            subprocess.run(["umount", state.dir], check=True)

    def test_no_room_in_shared_memory(nginx, key):
        """/dev/shm of 2 MB, as a container may have it."""
        server = nginx.make(LOCATION, http="apikey_zone zone=apikey:4m;")
        done = subprocess.run(["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=2m none /dev/shm && exec "$@"', "sh",
                               *server.command()], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        server.allow_log(r"\[emerg\]")
        said = server.wait_for_log(r'\[emerg\].*apikey_zone "apikey": (\d+) bytes for (\S+) cannot be had; make /dev/shm '
                                   r"larger .*, or the zone smaller")
        assert int(said[1]) == 4 << 20 and said[2] == str(state_file(server.pid_path))


def refusal_to_start(server, *, allow):
    server.allow_log(allow)
    done = subprocess.run(server.command(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    return server.wait_for_log(r"\[emerg\].*apikey_zone.*")[0]


def make_link(path):
    target = path.with_name(path.name + ".target")
    target.write_bytes(bytes(1 << 20))
    target.chmod(0o600)
    path.symlink_to(target)


def make_second_name(path):
    path.write_bytes(bytes(1 << 20))
    path.chmod(0o600)
    os.link(path, path.with_name(path.name + ".second"))


def make_open_file(path):
    path.write_bytes(bytes(1 << 20))
    path.chmod(0o644)


NOT_OURS = {
    "a link": (make_link, "cannot be opened"),
    "a directory": (lambda path: path.mkdir(), "cannot be opened"),
    "a pipe": (os.mkfifo, "is not taken"),
    "a file of two names": (make_second_name, "is not taken"),
    "a file that others may read": (make_open_file, "is not taken"),
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_a_file_that_is_not_ours_is_refused(nginx, key, name):
    make, sentence = NOT_OURS[name]
    server = nginx.make(LOCATION)
    path = state_file(server.pid_path)
    make(path)
    try:
        said = refusal_to_start(server, allow=r"\[emerg\].*" + sentence)
        assert sentence in said and str(path) in said and "remove it, or give the zone another name" in said
    finally:
        for left in path.parent.glob(path.name + "*"):
            left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def cut(path, size):
    os.truncate(path, size)


BAD_FILES = {
    "magic": lambda path: overwrite(path, 0, b"x"),
    "another layout": lambda path: overwrite(path, 8, b"x"),
    "another length than it says": lambda path: overwrite(path, 16, b"\1"),
    "header of quotas": lambda path: overwrite(path, 4096, bytes(64)),
    "header of usage": lambda path: overwrite(path, 4096 + ((2 << 20) - 4096) // 4 // 128 * 128, b"\xff" * 64),
    "cut": lambda path: cut(path, 1 << 20),
    "cut to a page": lambda path: cut(path, 4096),
    "empty": lambda path: cut(path, 0),
}


@pytest.mark.parametrize("has_checkpoint", [False, True], ids=["alone", "with a checkpoint"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_damaged_file_is_replaced(nginx, key, state, name, has_checkpoint):
    server = nginx(LOCATION, http=zone(state) if has_checkpoint else "apikey_zone zone=apikey:2m;")
    spend(server, key, 4)
    server.quit()
    BAD_FILES[name](state_file(server.pid_path))
    server.start()
    if name != "empty":
        server.wait_for_log(r"\[warn\].* is damaged or was laid out by another version of this module: it is replaced")
    assert spend_rest(server, key) == (QUOTA - 4 if has_checkpoint else QUOTA)
    server.quit()
    server.start()
    assert server.status(key=key) == 429


def test_rubbish_in_the_tables_kills_nobody(nginx, key, state):
    """All headers are right, everything behind them is noise."""
    server = nginx(LOCATION, http=zone(state), workers=2)
    spend(server, key, 1)
    server.quit()
    path = state_file(server.pid_path)
    half = 4096 + ((2 << 20) - 4096) // 4 // 128 * 128
    overwrite(path, 4096 + 256, os.urandom(half - 4096 - 256))
    overwrite(path, half + 1024, os.urandom((2 << 20) - half - 1024))
    server.start()
    workers = wait_until(lambda: len(server.workers()) == 2 and server.workers(), what="both workers")
    answers = {server.status(key=key) for _ in range(20)}
    assert answers <= {200, 429, 503}, answers
    state.wait_for_save(server)
    assert server.workers() == workers
    server.quit()
    server.write_config(http=zone(state, "4m"))
    server.start()
    assert server.status(key=key) in answers | {200}
    state.wait_for_save(server, since=time.time())
