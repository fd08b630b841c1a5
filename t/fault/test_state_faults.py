"""What is wrong with node memory or with the checkpoint is said in a sentence, and never kills or lets in anybody."""

import os
import pwd
import subprocess
import time

import pytest

from harness.paths import CAN_MOUNT, IS_ROOT, worker_user
from harness.state import DIRECTORY, PAGE, StateDir, fold64, legacy_file, regions, state_file
from harness.store import flip
from harness.waiting import wait_until

LOCATION = 'location / { apikey "api"; apikey_scope any; empty_gif; }'
QUOTA = 10
HEAD = 160


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
    "cut behind the head of an older format": (lambda data: data[:140], "its head does not check"),
    "cut in the rows": (lambda data: data[:-24], "are not what its head says"),
    "longer than it is": (lambda data: data + bytes(24), "are not what its head says"),
    "a bit of the head flipped": (lambda data: flip(data, 60), "its head does not check"),
    "a bit of a row flipped": (lambda data: flip(data, HEAD + 5), "its rows do not check"),
    "empty": (lambda data: b"", "its 0 bytes do not begin"),
    "zeros": (lambda data: bytes(len(data)), "do not begin"),
    "noise": (lambda data: os.urandom(5000), "do not begin"),
    "another format": (lambda data: true_head(data, format=(8, b"\3\0\0\0")), "it has format 3, this build reads format 2"),
    "rows of another version": (lambda data: true_head(data, layout=(40, b"\x63")), "by another version of this module"),
    "stores of another version": (lambda data: true_head(data, layout=(112, b"\x63")), "by another version of this module"),
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
        """/dev/shm of 4 MB, as a container may have it."""
        server = nginx.make(LOCATION, http="apikey_zone zone=apikey:4m;")
        done = subprocess.run(["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=4m none /dev/shm && exec "$@"', "sh",
                               *server.command()], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        server.allow_log(r"\[emerg\]")
        said = server.wait_for_log(r'\[emerg\].*apikey_zone "apikey": (\d+) bytes for (\S+) cannot be had; make (\S+) '
                                   r"larger .*, write runtime=<directory> with another one, or make the zone smaller")
        assert int(said[1]) > 8 << 20, "twice the zone, and a fixed part"
        assert said[2] == str(state_file(server.pid_path)) and said[3] == str(DIRECTORY)


def make_link(path):
    target = path.with_name(path.name + ".target")
    target.write_bytes(b"somebody else's")
    target.chmod(0o600)
    path.symlink_to(target)


def make_second_name(path):
    path.write_bytes(bytes(1 << 20))
    path.chmod(0o600)
    os.link(path, path.with_name(path.name + ".second"))


def make_open_file(path):
    path.write_bytes(bytes(1 << 20))
    path.chmod(0o666)


def make_file_of_another_user(path):
    path.write_bytes(bytes(1 << 20))
    path.chmod(0o600)
    os.chown(path, pwd.getpwnam("games").pw_uid, 0)


NOT_OURS = {"a link": make_link, "a pipe": os.mkfifo, "a file of two names": make_second_name,
            "a file that others may write": make_open_file}
if IS_ROOT:
    NOT_OURS["a file of another user"] = make_file_of_another_user


@pytest.mark.parametrize("name", NOT_OURS)
def test_what_is_not_ours_is_replaced(nginx, key, name):
    """In a directory of our own only root can have put it there; it is said, and nginx starts all the same."""
    server = nginx.make(LOCATION)
    path = state_file(server.pid_path)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    NOT_OURS[name](path)
    server.start()
    server.wait_for_log(rf"\[warn\].*{path} is not a plain file of the user who starts nginx that nobody else may write: "
                        "it is replaced")
    server.wait_for_generation(1)
    spend(server, key, 2)
    assert path.is_file() and not path.is_symlink() and path.stat().st_uid == os.geteuid()
    assert path.stat().st_mode & 0o7777 == 0o640
    for target in path.parent.glob(path.name + ".target"):
        assert target.read_bytes() == b"somebody else's", "nothing was written through the link"
    server.quit()
    server.start()
    assert spend_rest(server, key) == QUOTA - 2


def test_a_directory_in_the_place_of_the_file_stops_nobody(nginx, key):
    server = nginx.make(LOCATION)
    path = state_file(server.pid_path)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.mkdir()
    try:
        server.start()
        server.wait_for_log(rf"\[error\].*{path} cannot be put in place; quotas will not survive a restart")
        server.wait_for_generation(1)
        spend(server, key, 1)
        server.quit()
    finally:
        path.rmdir()


# What anybody may put into /dev/shm where earlier versions had their file.
@pytest.mark.parametrize("name", [*NOT_OURS, "a directory", "rubbish of our own"])
def test_the_name_of_earlier_versions_stops_nobody(nginx, key, name):
    server = nginx.make(LOCATION)
    path = legacy_file(server.pid_path)
    if name == "a directory":
        path.mkdir()
    elif name == "rubbish of our own":
        path.write_bytes(os.urandom(1 << 20))
        path.chmod(0o600)
    else:
        NOT_OURS[name](path)
    try:
        server.start()
        server.wait_for_generation(1)
        spend(server, key, 1)
        server.quit()
    finally:
        for left in path.parent.glob(path.name + "*"):
            left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def cut(path, size):
    os.truncate(path, size)


def spoil(name, data, at=0):
    """Overwrites the beginning of a region."""
    def do(path):
        overwrite(path, regions(path)[name][0] + at, data)
    return do


BAD_FILES = {
    "magic": (lambda path: overwrite(path, 0, b"x"), "is damaged"),
    "preamble version": (lambda path: overwrite(path, 8, b"\7"), "is damaged"),
    "too many regions": (lambda path: overwrite(path, 12, b"\xff\xff"), "is damaged"),
    "another length than it says": (lambda path: overwrite(path, 16, b"\1"), "is damaged"),
    "a region beyond the end": (lambda path: overwrite(path, 1024 + 8, b"\xff" * 8), "is damaged"),
    "rows of stores": (spoil("stores", b"\xff" * 8), "is damaged"),
    "rows of workers": (spoil("workers", bytes(8)), "is damaged"),
    "tables of quotas": (spoil("quotas", bytes(64)), "the tables of .* are damaged"),
    "tables of usage": (spoil("usage", b"\xff" * 64), "the tables of .* are damaged"),
    "cut": (lambda path: cut(path, 1 << 20), "is damaged"),
    "cut to a page": (lambda path: cut(path, PAGE), "is damaged"),
    "empty": (lambda path: cut(path, 0), "is damaged"),
}


@pytest.mark.parametrize("has_checkpoint", [False, True], ids=["alone", "with a checkpoint"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_damaged_file_is_replaced(nginx, key, state, name, has_checkpoint):
    server = nginx(LOCATION, http=zone(state) if has_checkpoint else "apikey_zone zone=apikey:2m;")
    spend(server, key, 4)
    server.quit()
    spoil_it, sentence = BAD_FILES[name]
    spoil_it(state_file(server.pid_path))
    server.start()
    server.wait_for_log(rf"\[warn\].*{sentence}.*: it is replaced, quotas begin with what the checkpoint says")
    assert spend_rest(server, key) == (QUOTA - 4 if has_checkpoint else QUOTA)
    server.quit()
    server.start()
    assert server.status(key=key) == 429


@pytest.mark.parametrize("name", ["buckets", "flights"])
def test_damaged_tables_of_this_boot_cost_no_quota(nginx, key, name):
    server = nginx(LOCATION)
    spend(server, key, 4)
    server.quit()
    spoil(name, b"\xff" * 64)(state_file(server.pid_path))
    server.start()
    server.wait_for_log(r"is new with .*: 1 quotas and \d+ rows of usage were carried over")
    assert spend_rest(server, key) == QUOTA - 4


def test_rubbish_in_the_tables_kills_nobody(nginx, key, state):
    """All headers are right, everything behind them is noise."""
    server = nginx(LOCATION, http=zone(state), workers=2)
    spend(server, key, 1)
    server.quit()
    path = state_file(server.pid_path)
    for name, header in {"head": 16, "stores": 64, "workers": 64, "counters": 0, "flights": 256, "buckets": 256,
                         "quotas": 256, "usage": 1024}.items():
        offset, size = regions(path)[name]
        overwrite(path, offset + header, os.urandom(size - header))
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
