"""keyloader doctor: each check finds what it is for, and nothing where all is well."""

import fcntl
import json
import os
import re
import shutil
import sqlite3
import struct
import subprocess

import pytest

from harness.fake_node import FENCED, UNCHECKED, FakeNode
from harness.paths import CAN_MOUNT, IS_ROOT, KEYLOADER


def found(keyloader, status=None):
    """What it finds: check → (result, sentence and remedy)."""
    done = subprocess.run([KEYLOADER, "doctor", "--json"], env=keyloader.environment(), capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.stderr == "", done.stderr
    report = json.loads(done.stdout)
    found_ = {one["check"]: (one["result"], f"{one['sentence']}. {one.get('remedy', '')}") for one in report
              if one["result"] != "fine"}
    assert done.returncode == (1 if any(result == "wrong" for result, _ in found_.values()) else 0)
    return found_


def test_nothing_is_wrong(keyloader, nginx):
    assert set(found(keyloader)) <= {"checkpoint", "clocks"}, "what an nginx that does not run cannot show"
    said = keyloader("doctor").stdout
    assert said.splitlines()[-1].endswith("checks: 0 wrong, 0 worth knowing") or "worth knowing" in said
    everything = keyloader("doctor", "--all").stdout
    assert everything.count("\nfine ") + everything.startswith("fine ") >= 25


def chmod(path, mode):
    return lambda keyloader: (keyloader.dir / path).chmod(mode)


MODES = {
    "directory-mode": (chmod(".", 0o2755), "has mode 2755. Run `chmod 2750 "),
    "history-mode": (chmod("history", 0o777), "Run `chmod 2750 "),
    "registry-mode": (chmod("registry.db", 0o644), "has mode 0644. Run `chmod 0600 "),
    "snapshot-mode": (chmod("keys.mdb", 0o600), "has mode 0600. Run `chmod 0640 "),
    "nodes-mode": (lambda keyloader: (keyloader.dir / "nodes").mkdir(mode=0o755) or (keyloader.dir / "nodes").chmod(0o777),
                   "Run `chmod 0755 "),
}


@pytest.mark.parametrize("check", MODES)
def test_modes(keyloader, runtime, check):
    spoil, words = MODES[check]
    spoil(keyloader)
    assert words in found(keyloader)[check][1]


def test_secret_files(keyloader, runtime):
    keyloader("pepper", "create", "p1")
    (keyloader.dir / "peppers" / "p1").chmod(0o640)
    (keyloader.dir / "usage.db").touch()
    (keyloader.dir / "usage.db").chmod(0o640)
    assert {"peppers-mode", "usage-mode"} <= set(found(keyloader))


def test_nodes_is_no_directory(keyloader, runtime):
    (keyloader.dir / "nodes").write_text("")
    assert "is not a directory" in found(keyloader)["nodes-mode"][1]


def test_leftovers_and_a_publisher(keyloader, runtime):
    (keyloader.dir / "keys.mdb.new.abcdef").touch(mode=0o640)
    with open(keyloader.dir / "publish.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        report = found(keyloader)
    assert report["leftovers"][0] == report["publish-lock"][0] == "notice"


def test_the_remedy_has_the_runtime_directory(keyloader, nginx, monkeypatch):
    keyloader("node", "list")
    nginx.die()
    monkeypatch.delenv("APIKEY_RUNTIME")
    assert f"`keyloader node prune --runtime {nginx.state.parent}`" in found(keyloader)["nginx-gone"][1]


if IS_ROOT:
    def test_a_reader_group_is_no_fault(bare, runtime):
        bare("init", "--group", "root", "--reader-group", "games")
        bare("usage", "--by", "owner")
        assert not {"directory-mode", "registry-mode", "usage-mode"} & set(found(bare))
        (bare.dir / "registry.db").chmod(0o660)
        assert "Run `chmod 0640 " in found(bare)["registry-mode"][1]
        (bare.dir / "registry.db").chmod(0o640)
        os.chown(bare.dir / "usage.db", -1, 0)
        assert "can be read by the group root. Run `chgrp games" in found(bare)["usage-mode"][1]

    def test_readable_by_the_workers_group_is_one(keyloader, runtime):
        (keyloader.dir / "registry.db").chmod(0o640)
        os.chown(keyloader.dir / "registry.db", -1, keyloader.dir.stat().st_gid)
        assert "has mode 0640. Run `chmod 0600 " in found(keyloader)["registry-mode"][1]

    def test_a_reader_is_told_what_is_not_his_to_see(bare, runtime):
        for directory in bare.dir.parents:
            if directory.stat().st_uid == os.getuid() and len(directory.parts) > 2:
                directory.chmod(directory.stat().st_mode | 0o001)
        bare("init", "--group", "root", "--reader-group", "games")
        done = subprocess.run([KEYLOADER, "doctor"], env=bare.environment(), capture_output=True, text=True, timeout=60,
                              check=False, cwd="/", user=65534, group=60, extra_groups=[60])
        assert "notice snapshot: nobody may not read" in done.stdout and "keyloader publish" not in done.stdout

    def test_owners_and_groups(keyloader, runtime):
        os.chown(keyloader.dir / "registry.db", 65534, -1)
        os.chown(keyloader.snapshot, -1, 65534)
        report = found(keyloader)
        assert "belongs to nobody, its directory to root" in report["registry-owner"][1]
        assert "has the group nogroup" in report["snapshot-group"][1]


@pytest.fixture
def disk():
    """disk(place, size, inodes): from now on `place` has what it had, on a disk of its own that is so large."""
    mounted = []

    def change(place, size, inodes):
        inside = place.parent / f"{place.name}.inside"
        shutil.copytree(place, inside)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes},mode=2750", "none", place], check=True)
        mounted.append(place)
        shutil.copytree(inside, place, dirs_exist_ok=True)
    yield change
    for place in mounted:
        subprocess.run(["umount", "-l", place], check=True)


if CAN_MOUNT:
    @pytest.mark.parametrize("size,inodes,words", [
        ("40m", "1k", r"(3\d|40) MiB are left on the disk of \S+/node, and publishing may need 64. Make room: "),
        ("80m", "80", r"the disk of \S+/node has room for \d\d? more files. Remove files: "), ("80m", "1k", None)])
    def test_a_disk_that_is_nearly_full(keyloader, runtime, disk, size, inodes, words):
        disk(keyloader.dir, size, inodes)
        report = found(keyloader)
        if words is None:
            assert "disk-space" not in report
        else:
            assert report["disk-space"][0] == "wrong" and re.fullmatch(words + ".*", report["disk-space"][1])

    def test_a_disk_without_room_for_larger_snapshots(keyloader, runtime, disk):
        disk(keyloader.dir, "90m", "1k")
        os.truncate(keyloader.snapshot, 40 << 20)  # a hole, that takes no room
        assert "and publishing may need 120" in found(keyloader)["disk-space"][1]

    @pytest.mark.parametrize("size,is_wrong", [("40m", True), ("80m", False)])
    def test_a_runtime_directory_that_is_nearly_full(keyloader, nginx, disk, size, is_wrong):
        disk(nginx.state.parent, size, "1k")
        report = found(keyloader)
        assert ("runtime-space" in report) == is_wrong
        if is_wrong:
            assert "MiB are left in" in report["runtime-space"][1] and "node prune" in report["runtime-space"][1]


def test_a_damaged_registry(keyloader, runtime):
    path = keyloader.dir / "registry.db"
    with sqlite3.connect(path) as database:
        database.execute("pragma wal_checkpoint(truncate)")
        page, = database.execute("select rootpage from sqlite_schema where name='roles'").fetchone()
        size, = database.execute("pragma page_size").fetchone()
    with open(path, "r+b") as file:
        file.seek((page - 1) * size + 1)
        file.write(b"\xff" * 16)
    report = found(keyloader)
    assert {"registry", "registry-integrity"} & set(report), report


def test_an_altered_audit(keyloader, runtime):
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        database.execute("update audit set object='another' where seq=1")
    assert "entry 1 of the audit has been altered" in found(keyloader)["audit-chain"][1]


def test_a_pepper_that_is_gone(keyloader, runtime):
    keyloader("pepper", "create", "p1")
    keyloader.key()
    (keyloader.dir / "peppers" / "p1").unlink()
    assert "keys that were made with it cannot be decided" in found(keyloader)["peppers"][1]


def test_keys_that_end_soon(keyloader, runtime):
    keyloader.key("web", "--expires", "10d")
    keyloader.key("web", "--expires", "20d")
    assert "1 active key ends within 14 days" in found(keyloader)["expiring"][1]


def test_a_damaged_snapshot(keyloader, runtime):
    with open(keyloader.snapshot, "r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 64)
    assert "Run `keyloader publish`" in found(keyloader)["snapshot"][1]


def test_another_registrys_snapshot(keyloader, runtime, tmp_path):
    keyloader("--dir", str(tmp_path / "other"), "init")
    shutil.copy(tmp_path / "other" / "keys.mdb", keyloader.snapshot)
    report = found(keyloader)
    assert "keys.mdb is from registry" in report["snapshot-registry"][1] and report["history"][0] == "notice"


def test_an_older_registry(keyloader, runtime, tmp_path):
    shutil.copytree(keyloader.dir, tmp_path / "old")
    keyloader("plan", "create", "a")
    shutil.copy(keyloader.snapshot, tmp_path / "old" / "keys.mdb")
    assert "it is an older copy" in found(keyloader.beside("old"))["snapshot-registry"][1]


def test_what_is_not_published(keyloader, runtime):
    keyloader("plan", "create", "a", "--no-publish")
    assert found(keyloader)["published"] == ("wrong", "the registry has changes that are not published. "
                                                      "Run `keyloader publish`")


def test_a_snapshot_without_a_registry(keyloader, nginx):
    for path in keyloader.dir.glob("registry.db*"):
        path.unlink()
    assert "bring registry.db back from a backup" in found(keyloader)["registry"][1]


def test_no_nginx(keyloader, runtime):
    assert found(keyloader)["nginx-known"][0] == "notice"


def test_an_nginx_that_is_gone_or_hidden(keyloader, nginx, runtime):
    keyloader("plan", "create", "a", "--no-wait")
    nginx.die()
    result, said = found(keyloader)["nginx-gone"]
    assert result == "wrong" and f"no nginx that reads {keyloader.snapshot} runs" in said and "keyloader node prune`" in said
    assert "nginx-known" not in found(keyloader), "one sentence is enough"
    second = FakeNode(runtime, keyloader.snapshot, name="api-aaaaaaaaaaaaaaaa", pid=5252)
    second.take(keyloader)
    assert found(keyloader)["nginx-gone"][0] == "notice"
    second.close()
    nginx.state.unlink()
    assert "nobody can see what that nginx does" in found(keyloader)["nginx-hidden"][1]


def test_an_nginx_that_uses_another_generation(keyloader, nginx):
    keyloader("plan", "create", "a", "--no-wait")
    assert "still uses generation 1" in found(keyloader)["nginx-active"][1]


def test_workers_that_cannot_open_it(keyloader, nginx):
    nginx.acknowledge(0, 1, FENCED)
    assert "answers 503" in found(keyloader)["nginx-workers"][1]
    nginx.acknowledge(0, 1, UNCHECKED)
    assert "lets requests pass unchecked" in found(keyloader)["nginx-workers"][1]


def test_a_veto(keyloader, nginx):
    shown = keyloader.json("snapshot", "show")
    nginx.veto(2, shown["registry_id"], "hmac-sha256:p9")
    assert "lacks hmac-sha256:p9" in found(keyloader)["nginx-veto"][1]


def test_a_pepper_that_nginx_is_not_configured_for(keyloader, nginx):
    keyloader("pepper", "create", "p1")
    keyloader("key", "create", "--owner", "web", "--create-owner", "--no-publish")
    assert 'does not know the pepper "p1"' in found(keyloader)["nginx-peppers"][1]


def test_another_version(keyloader, nginx):
    nginx.map[128:133] = b"0.0.9"
    assert "has the module 0.0.9" in found(keyloader)["nginx-version"][1]


if IS_ROOT:
    def test_workers_that_may_not_read_it(keyloader, nginx, tmp_path):
        """A process that is called nginx, of a user who is in no group of ours."""
        fake = tmp_path / "nginx"
        shutil.copy("/bin/sleep", fake)
        fake.chmod(0o755)
        for path in (tmp_path, *tmp_path.parents):
            if path.stat().st_mode & 0o005 != 0o005 and path != tmp_path.parent.parent.parent:
                path.chmod(path.stat().st_mode | 0o055)
        with subprocess.Popen([fake, "60"], user=65534, group=65534, extra_groups=[]) as child:
            try:
                struct.pack_into("<Q", nginx.map, nginx._worker(0), child.pid)
                assert "run as nobody and may not read" in found(keyloader)["workers-can-read"][1]
            finally:
                child.kill()
