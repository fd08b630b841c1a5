"""A directory nginx takes its snapshot from, apart from the registry's: a test decides what comes to lie there, and how.

Used by the tests of t/fault and by t/nginx/test_adoption.py. Snapshots are made by keyloader; here they are only broken.
"""

import hashlib
import os
import pwd
import struct
from pathlib import Path

from harness.paths import IS_ROOT, worker_user

PAGE = 4096
LOCATION = 'location / { apikey "api"; apikey_scope any; empty_gif; }'


class Store:
    def __init__(self, place: Path):
        self.dir = place / "store"
        self.dir.mkdir(mode=0o755)
        self.path = self.dir / "keys.mdb"

    def write_beside(self, data: bytes, *, name="keys.mdb.next", mode=0o640, owner=None) -> Path:
        """A finished file in the store's directory that nobody looks at yet."""
        path = self.dir / name
        path.write_bytes(data)
        if IS_ROOT:
            uid = pwd.getpwnam(owner).pw_uid if owner else 0
            os.chown(path, uid, pwd.getpwnam(worker_user()).pw_gid)
        path.chmod(mode)
        return path

    def put(self, data: bytes, **how):
        """As a publisher does: a new file renamed over the old one."""
        self.write_beside(data, **how).rename(self.path)

    def overwrite(self, data: bytes):
        """As cp does: the same inode, truncated and written again."""
        with open(self.path, "r+b") as file:
            file.truncate(0)
            file.write(data)


class Generations:
    """keys[i] is in snapshots[i] and all later ones."""

    def __init__(self, registry, count):
        self.keys, self.snapshots = [], []
        for _ in range(count):
            self.keys.append(registry.key())
            self.snapshots.append(registry.snapshot.read_bytes())
        self.first = registry.generation() - count + 1

    def number(self, i) -> int:
        return self.first + i


def flip(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1:]


def reseal(data: bytes, *, version=None) -> bytes:
    """The same with a seal that is true again (docs/snapshot-format.md): what only a hostile builder would make."""
    body, seal = data[:-PAGE], bytearray(data[-PAGE:])
    seal[24:56] = hashlib.sha256(body).digest()
    if version is not None:
        seal[8:12] = struct.pack("<I", version)
    return body + bytes(seal)
