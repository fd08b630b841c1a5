"""A liblmdb that is not 0.9 is named for what it is, by keyloader and by nginx; no file is said to be at fault.

Played by a library that is loaded first and says that it is LMDB 1.0.
"""

import subprocess

import pytest

from harness.registry import run_keyloader

SOURCE = """
char *mdb_version(int *major, int *minor, int *patch) {
  if (major) *major = 1;
  if (minor) *minor = 0;
  if (patch) *patch = 3;
  return "LMDB 1.0.3";
}
"""


@pytest.fixture
def preload(place):
    (place / "lmdb1.c").write_text(SOURCE)
    library = place / "lmdb1.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, place / "lmdb1.c"], check=True)
    return library


@pytest.mark.parametrize("has_snapshot", [False, True])
def test_keyloader_says_so_and_replaces_nothing(registry, preload, monkeypatch, has_snapshot):
    registry.run("owner", "create", "alice", "--no-publish")
    if has_snapshot:
        registry.publish()
    else:
        registry.snapshot.unlink(missing_ok=True)
    before = registry.snapshot.read_bytes() if has_snapshot else None
    monkeypatch.setenv("LD_PRELOAD", str(preload))
    done = run_keyloader(registry.dir, "key", "create", "--owner", "alice", check=False)
    assert done.returncode != 0
    assert "liblmdb 1.0 is loaded" in done.stderr and "0.9" in done.stderr
    assert "replaced" not in done.stderr and "damaged" not in done.stderr
    assert (registry.snapshot.read_bytes() if has_snapshot else None) == before
    assert [path.name for path in registry.dir.iterdir() if "tmp" in path.name or path.name.startswith(".")] == []
    monkeypatch.delenv("LD_PRELOAD")
    registry.publish()


def test_nginx_says_so_and_does_not_start(registry, nginx, preload, monkeypatch):
    server = nginx.make('location / { apikey "api"; apikey_scope any; return 204; }')
    assert server.check()[0]
    monkeypatch.setenv("LD_PRELOAD", str(preload))
    right, said = server.check()
    assert not right
    assert "apikey_store: liblmdb 1.0 is loaded" in said and "0.9" in said
