"""The file of /dev/shm in which quotas and usage outlive nginx, and the checkpoint beside it.

Used by the harness, which leaves none behind, and by the tests of what survives what. The name is computed here a
second time: it is documented, and people look for the file by it.
"""

import os
import pwd
import time
from pathlib import Path

from harness.paths import IS_ROOT, worker_user
from harness.waiting import wait_until

DIRECTORY = Path("/dev/shm")
MASK = 2**64 - 1


def fold64(data: bytes) -> int:
    """include/apikey/fold64.hpp."""
    h = 0x9E3779B97F4A7C15 ^ len(data)
    for at in range(0, len(data), 8):
        word = int.from_bytes(data[at:at + 8].ljust(8, b"\0"), "little")
        product = (word ^ h) * 0xA0761D6478BD642F
        h = (product & MASK) ^ (product >> 64) ^ ((word << 32 | word >> 32) & MASK)
    return h or 1


def state_file(pid_file, zone="apikey") -> Path:
    """Of the nginx that writes its pid there."""
    return DIRECTORY / f"apikey-{zone}-{fold64(str(pid_file).encode()):016x}.v1"


def remove_state(pid_file):
    """Whatever an nginx that wrote its pid there has left in shared memory. Call it when that nginx has ended."""
    for path in DIRECTORY.glob(f"apikey-*-{fold64(str(pid_file).encode()):016x}.v*"):
        path.unlink()


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
