"""Snapshots of any registry, generation, counters and features, made without a registry: what a publisher of another
history, or of a later version, would put before nginx.

Used by tests of what nginx adopts. Written by t/keyloader/snapshot_writer.py, sealed by keyloader.
"""

import json
import random
import subprocess
from pathlib import Path

from harness.keys import make_key
from harness.registry import run_keyloader

WRITER = Path(__file__).resolve().parents[1] / "keyloader" / "snapshot_writer.py"
REGISTRY = "c0ffee" + "0" * 26
OTHER_REGISTRY = "decade" + "0" * 26


def make_keys(count, seed=1):
    rng = random.Random(seed)
    return [make_key(rng) for _ in range(count)]


class Written:
    def __init__(self, place: Path):
        self._dir = place / "written"
        self._dir.mkdir()
        self._count = 0

    def __call__(self, generation, keys, *, counters=None, requires=None, registry=REGISTRY, format=2, meta=None,
                 **changes) -> bytes:
        """`keys`: their texts. `meta`: more names of it. `changes`: fields of single keys by their number, as k3={"revoked": True}."""
        self._count += 1
        lines = [{"key": key, "owner": "tester"} | changes.get(f"k{i}", {}) for i, key in enumerate(keys)]
        unsealed, sealed = self._dir / f"{self._count}.mdb", self._dir / f"{self._count}.sealed"
        arguments = ["--generation", generation, "--registry-id", registry, "--format", format]
        arguments += [word for name, value in (meta or {}).items() for word in ("--meta", f"{name}={value}")]
        arguments += ["--counters", ",".join(map(str, counters))] if counters else []
        arguments += ["--requires", requires] if requires else []
        subprocess.run([WRITER, unsealed, *map(str, arguments)], input="".join(json.dumps(one) + "\n" for one in lines),
                       text=True, check=True, timeout=60)
        run_keyloader(self._dir, "snapshot", "seal", unsealed, "--out", sealed)
        return sealed.read_bytes()
