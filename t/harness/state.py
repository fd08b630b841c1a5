"""The files of node memory, in which what an nginx knows outlives its processes, and the checkpoint beside them.

Used by the harness, which leaves none behind, and by the tests of what survives what. Place and name are computed here
a second time: they are documented, and people look for the files by them.
"""

import os
import pwd
import re
import struct
import subprocess
import time
from pathlib import Path

from harness.paths import IS_ROOT, worker_user
from harness.waiting import wait_until

MASK = 2**64 - 1
PAGE = 4096
KINDS = {1: "head", 2: "stores", 3: "workers", 4: "buckets", 5: "flights", 6: "quotas", 7: "usage", 8: "counters",
         13: "anchors"}


def is_memory(path: Path) -> bool:
    done = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=False)
    return done.stdout.strip() == "tmpfs"


def default_directory() -> Path:
    """Where node memory lies when runtime= is not written."""
    run = Path("/run/apikey")
    if run.exists():
        found = run.lstat()
        is_ours = run.is_dir() and not run.is_symlink() and found.st_uid == os.geteuid() and not found.st_mode & 0o022
        if is_ours and is_memory(run):
            return run
    elif is_memory(run.parent) and os.access(run.parent, os.W_OK):
        return run
    return Path(f"/dev/shm/apikey-{os.geteuid()}")


DIRECTORY = default_directory()


def fold64(data: bytes) -> int:
    """include/apikey/fold64.hpp."""
    h = 0x9E3779B97F4A7C15 ^ len(data)
    for at in range(0, len(data), 8):
        word = int.from_bytes(data[at:at + 8].ljust(8, b"\0"), "little")
        product = (word ^ h) * 0xA0761D6478BD642F
        h = (product & MASK) ^ (product >> 64) ^ ((word << 32 | word >> 32) & MASK)
    return h or 1


def node_id(pid_file, zone="apikey") -> str:
    """Of the nginx that writes its pid there."""
    return f"{zone}-{fold64(str(pid_file).encode()):016x}"


def announcement(state) -> str:
    """What the announcement of the node memory in this file is called."""
    return f"{Path(state).stem}.{fold64(str(state).encode()):016x}.json"


def state_file(pid_file, zone="apikey", directory=DIRECTORY) -> Path:
    return directory / f"{node_id(pid_file, zone)}.state"


def inbox_file(pid_file, zone="apikey", directory=DIRECTORY) -> Path:
    return directory / f"{node_id(pid_file, zone)}.inbox"


def legacy_file(pid_file, zone="apikey") -> Path:
    """Where earlier versions kept quotas and usage."""
    return Path("/dev/shm") / f"apikey-{node_id(pid_file, zone)}.v1"


def remove_state(pid_file, stores=()):
    """Whatever an nginx that wrote its pid there has left; `stores`: directories in which it has announced itself. Call
    it when that nginx has ended."""
    instance = f"{fold64(str(pid_file).encode()):016x}"
    left = [*DIRECTORY.glob(f"*-{instance}*"), *Path("/dev/shm").glob(f"apikey-*-{instance}.v*")]
    left += [path for store in stores for path in Path(store).glob(f"nodes/*-{instance}*.json")]
    for path in left:
        path.unlink()


def regions(path: Path) -> dict:
    """RETURNS: {name: (offset, size)} of the regions of a state file."""
    with open(path, "rb") as file:
        preamble = file.read(PAGE)
    count, = struct.unpack_from("<I", preamble, 12)
    found = {}
    for i in range(count):
        kind, _, offset, size, _ = struct.unpack_from("<IIQQQ", preamble, 1024 + 32 * i)
        found[KINDS.get(kind, kind)] = (offset, size)
    return found


def rows(path: Path, name: str) -> list:
    """RETURNS: the bytes of each row of `stores` or `workers`."""
    offset, _ = regions(path)[name]
    with open(path, "rb") as file:
        file.seek(offset)
        row_size, count = struct.unpack("<II", file.read(8))
        file.seek(offset + 64)
        return [file.read(row_size) for _ in range(count)]


class WorkerRow:
    def __init__(self, data: bytes):
        self.pid, self.ticket, self.configuration, self.started_us, self.flags = struct.unpack_from("<5Q", data)
        # By store row: (generation, change, state).
        self.acks = [(low, high >> 8, high & 0xFF) for low, high in struct.iter_unpack("<QQ", data[128:128 + 512])]


def worker_rows(path: Path) -> list:
    """Those that somebody has or had. nginx listens a moment before the file has its name."""
    if not path.exists():
        return []
    return [row for row in map(WorkerRow, rows(path, "workers")) if row.ticket]


def parent_of(pid) -> int:
    try:
        return int(re.search(r"^PPid:\t(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])
    except FileNotFoundError:
        return 0


def acknowledged_by(path: Path, master: int) -> list:
    """The rows of that master's workers that decide with some generation of the first store."""
    return [row for row in worker_rows(path) if parent_of(row.pid) == master and row.acks[0][0]]


RESULTS = ("adopted", "refused", "damaged", "not_trusted", "unsupported", "unreadable", "failed", "veto", "taken_over")


class StoreRow:
    """What nginx knows of a store: include/apikey/adoption.hpp."""

    def __init__(self, data: bytes):
        self.key, = struct.unpack_from("<Q", data)
        self._adoption = data[2048:]
        self.change, = struct.unpack_from("<Q", self._adoption)

    def _words(self, offset, count):
        return b"".join(self._adoption[at:at + 8] for at in range(offset, offset + 16 * count, 16))

    @property
    def adopted(self) -> dict:
        data = self._words(128 + self.change % 2 * 1280, 80)
        change, highest = struct.unpack_from("<QQ", data)
        return {"change": change, "highest": highest, "registry": data[16:32].hex(),
                "active": self._file(data[64:320]), "veto": self._file(data[320:576]),
                "lack": data[576:].rstrip(b"\0").decode()}

    @staticmethod
    def _file(data):
        names = ("generation", "keys", "created", "added", "removed", "configuration", "flags")
        return dict(zip(names, struct.unpack_from("<7Q", data, 96))) | {"seal": data[48:80].hex()}

    @property
    def refusal(self) -> dict:
        data = self._words(2688, 64)
        generation, result, configuration, wall_us = struct.unpack_from("<4Q", data, 88)
        return {"inode": struct.unpack_from("<Q", data, 8)[0], "seal": data[40:72].hex(), "registry": data[72:88].hex(),
                "generation": generation, "result": RESULTS[result], "configuration": configuration,
                "wall_us": wall_us, "sentence": data[192:].rstrip(b"\0").decode()}


def store_row(path: Path) -> StoreRow:
    """Of the first store."""
    return StoreRow(rows(path, "stores")[0])


def grant(pid_file, seal: bytes, registry: str, generation: int, *, store=None):
    """Permits nginx to take this snapshot over what it has, as `keyloader … --take-over` does; `store`: key of its row,
    the first one's if it is not said."""
    store = store_row(state_file(pid_file)).key if store is None else store
    slot = struct.pack("<32s16sQQQ48x", seal, bytes.fromhex(registry), generation, store, int(time.time() * 1e6))
    with open(inbox_file(pid_file), "r+b") as file:
        for state in (1, 2):  # being written, granted
            file.seek(128)
            file.write(struct.pack("<Q", state) + slot)
            file.flush()


def is_locked(path: Path, byte: int) -> bool:
    """Does another process hold a lock on that byte? Asked as keyloader asks: with a descriptor that cannot write."""
    import fcntl
    fd = os.open(path, os.O_RDONLY)
    try:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        return struct.unpack_from("h", fcntl.fcntl(fd, fcntl.F_GETLK, lock))[0] != fcntl.F_UNLCK
    finally:
        os.close(fd)


class StateDir:
    """A directory for `apikey_zone … state=`, and waiting for what is written into it."""

    def __init__(self, place: Path, zone="apikey"):
        self.dir = place / "state"
        self.dir.mkdir(mode=0o700)
        self.give_to(worker_user())
        self.checkpoint = self.dir / f"{zone}.checkpoint"

    def give_to(self, user):
        if IS_ROOT:
            entry = pwd.getpwnam(user)
            os.chown(self.dir, entry.pw_uid, entry.pw_gid)

    @property
    def is_final(self) -> bool:
        """Does the checkpoint say that nothing was counted after it?"""
        return self.checkpoint.read_bytes()[12] == 1

    @staticmethod
    def wait_for_save(server, since=None, timeout=10):
        """Until all that was used before `since` (default: now) is in the checkpoint."""
        since = time.time() if since is None else since
        wait_until(lambda: server.metric("apikey_state_checkpoint_timestamp_seconds") >= since, timeout, "the checkpoint",
                   interval=0.02)
