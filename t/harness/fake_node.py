"""The node memory of an nginx that does not run: a test decides what it has adopted, refused and acknowledged.

Written from the layouts in include/apikey/node_memory.hpp, node_rows.hpp, adoption.hpp and node_inbox.hpp, and shares no
code with them. Its locks are held by the test's own process, as a master and its workers would hold theirs.
"""

import fcntl
import mmap
import os
import struct
import time

PREAMBLE = 4096
PAGE = 4096
STORE_ROWS, STORE_ROW = 32, 2048 + 8192
WORKER_ROWS, WORKER_ROW = 64, 704
PATH, NAME, METHODS, FEATURES, NEWEST_FORMAT, ADOPTION = 128, 1152, 1216, 1472, 1736, 2048
ADOPTED_WORDS, REFUSED_WORDS = 80, 64
OPEN, FENCED, VETOED, UNCHECKED = 1, 2, 3, 4
F_OFD_SETLK = 37
HAS_COUNTERS = 1


def _round_up(size):
    return (size + PAGE - 1) // PAGE * PAGE


class FakeNode:
    def __init__(self, runtime, store, *, name="api-0123456789abcdef", pid=4242, workers=(4243, 4244), methods="sha256",
                 newest_format=2):
        self.workers = workers
        runtime.mkdir(exist_ok=True)
        self.state, self.inbox = runtime / f"{name}.state", runtime / f"{name}.inbox"
        self.stores = PREAMBLE
        self.rows = self.stores + _round_up(64 + STORE_ROWS * STORE_ROW)
        size = self.rows + _round_up(64 + WORKER_ROWS * WORKER_ROW)
        self.instance = os.urandom(16)
        self.file = open(self.state, "w+b", buffering=0)  # pylint: disable=consider-using-with
        self.state.chmod(0o640)
        self.file.truncate(size)
        self.map = mmap.mmap(self.file.fileno(), size)
        self._preamble(size, pid)
        struct.pack_into("<II", self.map, self.stores, STORE_ROW, STORE_ROWS)
        struct.pack_into("<II", self.map, self.rows, WORKER_ROW, WORKER_ROWS)
        self.store = self.stores + 64
        struct.pack_into("<QQQ", self.map, self.store, 1, 1, 1)
        self._text(self.store + PATH, 1024, str(store))
        self._text(self.store + NAME, 64, "keys")
        self._text(self.store + METHODS, 256, methods)
        self.reads_format(newest_format)
        for row, worker in enumerate(workers):
            struct.pack_into("<QQQ", self.map, self._worker(row), worker, 1, 1)
        inbox = bytearray(65536)
        struct.pack_into("<8sII16s", inbox, 0, b"AKINBOX1", 1, 0, self.instance)
        self.inbox.write_bytes(inbox)
        self.inbox.chmod(0o660)
        self.change = 0
        self.lock(0)
        for row in range(len(workers)):
            self.lock(1 + row)

    def _preamble(self, size, pid):
        struct.pack_into("<8sIIQ16sQQQ", self.map, 0, b"AKNODE01", 1, 2, size, self.instance, 0, pid, 0)
        self._text(128, 64, "0.1.0")
        self._text(192, 64, "1.22.1")
        struct.pack_into("<Q", self.map, 256, 1)
        struct.pack_into("<IIQQQ", self.map, 1024, 2, 1, self.stores, 64 + STORE_ROWS * STORE_ROW, 0)
        struct.pack_into("<IIQQQ", self.map, 1056, 3, 1, self.rows, 64 + WORKER_ROWS * WORKER_ROW, 0)

    def _text(self, at, size, text):
        self.map[at : at + size] = text.encode()[:size].ljust(size, b"\0")

    def reads_format(self, newest):
        """0: a module of before it was said."""
        struct.pack_into("<Q", self.map, self.store + NEWEST_FORMAT, newest)

    def knows_features(self, words):
        self._text(self.store + FEATURES, 256, words)

    def _worker(self, row):
        return self.rows + 64 + row * WORKER_ROW

    def lock(self, byte, kind=fcntl.F_RDLCK):
        fcntl.fcntl(self.file, F_OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, byte, 1, 0))

    def unlock(self, byte):
        self.lock(byte, fcntl.F_UNLCK)

    def die(self):
        """All its processes are gone."""
        for byte in range(1 + len(self.workers)):
            self.unlock(byte)

    def worker_gone(self, row):
        self.unlock(1 + row)

    # -- what is adopted

    def _file(self, change, generation, registry_id, seal, keys=0):
        file = struct.pack("<Q40s32s16sQQqQQQQ", change, b"\0" * 40, bytes.fromhex(seal), bytes.fromhex(registry_id),
                           generation, keys, 0, 0, 0, 1, 0)
        return file.ljust(256, b"\0")

    def _adopted(self, highest, registry_id, active, veto=b"", lack=""):
        head = struct.pack("<QQ16sQQ16s", self.change, highest, bytes.fromhex(registry_id), 0, 0, b"")
        text = head + active.ljust(256, b"\0") + veto.ljust(256, b"\0") + lack.encode().ljust(64, b"\0")
        assert len(text) == ADOPTED_WORDS * 8
        at = self.store + ADOPTION + 128 + (self.change % 2) * ADOPTED_WORDS * 16
        for word in range(ADOPTED_WORDS):
            struct.pack_into("<8sQ", self.map, at + word * 16, text[word * 8 : word * 8 + 8], self.change)
        struct.pack_into("<Q", self.map, self.store + ADOPTION, self.change)

    def adopt(self, generation, registry_id, seal="00" * 32, highest=None):
        self.change += 1
        self.active = self._file(self.change, generation, registry_id, seal)
        self._adopted(highest or generation, registry_id, self.active)

    def veto(self, generation, registry_id, lack, seal="00" * 32):
        self.change += 1
        self._adopted(generation, registry_id, self.active, self._file(self.change, generation, registry_id, seal), lack)

    def refuse(self, seal, sentence, *, result=1, configuration=1):
        text = struct.pack("<40s32s16sQQQQ", b"", bytes.fromhex(seal), b"", 0, result, configuration, 0).ljust(192, b"\0")
        text += sentence.encode().ljust(320, b"\0")
        at = self.store + ADOPTION + 2688
        for word in range(REFUSED_WORDS):
            struct.pack_into("<8sQ", self.map, at + word * 16, text[word * 8 : word * 8 + 8], 1)

    def verifying(self, is_verifying=True):
        struct.pack_into("<QQ", self.map, self.store + ADOPTION + 8, 1 << 32 | (4243 if is_verifying else 0),
                         time.monotonic_ns() // 1_000_000)

    def acknowledge(self, row, generation, state=OPEN, change=None):
        struct.pack_into("<QQ", self.map, self._worker(row) + 128, generation,
                         (self.change if change is None else change) << 8 | state)

    def take(self, keyloader):
        """As an nginx does that is well: adopts keys.mdb and acknowledges it in every worker."""
        shown = keyloader.json("snapshot", "show")
        self.adopt(shown["generation"], shown["registry_id"], shown["sha256"])
        for row in range(len(self.workers)):
            self.acknowledge(row, shown["generation"])
        return shown

    # -- the inbox

    def permissions(self):
        """(state, seal, registry id, generation) of each permission for our store that is not free."""
        inbox = self.inbox.read_bytes()
        found = [struct.unpack_from("<Q32s16sQQ", inbox, 128 + slot * 128) for slot in range(16)]
        return [(state, seal.hex(), registry.hex(), generation) for state, seal, registry, generation, store in found
                if state and store == 1]

    def close(self):
        self.map.close()
        self.file.close()
