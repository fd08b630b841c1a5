"""A registry knows its directory and its machine. A copy elsewhere can be read, and has to be adopted to be changed."""

import os
import shutil
import sqlite3
import subprocess

import pytest

from harness.old_registry import to_schema_4
from harness.paths import KEYLOADER


@pytest.fixture
def copy(keyloader, tmp_path):
    """The directory of a copy, of a registry with one key of `web`."""
    keyloader.id = keyloader.key("web")["id"]
    there = tmp_path / "copy"
    shutil.copytree(keyloader.dir, there)
    return there


def run(directory, *arguments, status=0):
    done = subprocess.run([KEYLOADER, "--dir", directory, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def info(directory):
    with sqlite3.connect(directory / "registry.db") as database:
        database.row_factory = sqlite3.Row
        return dict(database.execute("SELECT * FROM info").fetchone())


def test_it_belongs_where_it_was_made(keyloader):
    home = keyloader.json("registry", "show")
    assert home["home"] == {"directory": str(keyloader.dir), "host": os.uname().nodename}
    assert home["at_home"]


CHANGES = [
    ["owner", "create", "acme"],
    ["plan", "set", "default", "--rate", "1/s"],
    ["role", "create", "clerk", "--scope", "a"],
    ["key", "create", "--owner", "web"],
    ["key", "revoke", "--owner", "web"],
    ["key", "set", "--dry-run", "ID", "--name", "x"],
    ["quota", "reset", "ID"],
    ["quota", "reset", "ID", "--reason", "x"],
    ["pepper", "create", "2027"],
    ["audit", "revert", "3"],
]


@pytest.mark.parametrize("command", CHANGES, ids=[" ".join(command) for command in CHANGES])
def test_a_copy_is_not_changed(keyloader, copy, command):
    words = [keyloader.id if word == "ID" else word for word in command]
    files = (info(copy), (copy / "keys.mdb").read_bytes())
    said = run(copy, *words, status=1)
    assert f"this registry belongs to {keyloader.dir} on" in said and f"here, in {copy} on" in said
    assert f"`keyloader --dir {copy} registry adopt --reason TEXT`" in said
    assert (info(copy), (copy / "keys.mdb").read_bytes()) == files


READS = ["key list", "owner list", "plan list", "role list", "audit list", "audit verify", "status", "registry show"]


@pytest.mark.parametrize("command", READS)
def test_a_copy_can_be_read(copy, command):
    assert "Traceback" not in run(copy, *command.split())


def test_adoption_moves_it_and_raises_the_generation(keyloader, copy):
    before = info(copy)
    said = run(copy, "registry", "adopt", "--reason", "moved to a faster disk")
    assert f"belongs to {copy} on" in said and f"no longer to {keyloader.dir} on" in said
    after = info(copy)
    assert (after["home_directory"], after["generation"]) == (str(copy), before["generation"] + 1)
    run(copy, "key", "revoke", keyloader.id)
    assert "adopt" in run(copy, "audit", "list", "--action", "registry") and "faster disk" in run(copy, "audit", "list")
    run(copy, "audit", "verify")
    assert "belongs here already" in run(copy, "registry", "adopt", "--reason", "again")


def test_it_takes_a_reason(copy):
    assert "--reason" in run(copy, "registry", "adopt", status=2)
    assert "--reason" in run(copy, "registry", "adopt", "--reason=", status=2)


def test_dry_run_adopts_nothing(copy):
    before = info(copy)
    run(copy, "registry", "adopt", "--reason", "x", "--dry-run")
    assert info(copy) == before


def test_an_older_copy_makes_no_revoked_key_good(keyloader, copy):
    """The copy is adopted, but not published over what is newer: not by one generation, not by many."""
    keyloader("key", "revoke", keyloader.id)
    shutil.copy(keyloader.dir / "keys.mdb", copy / "keys.mdb")
    published = (copy / "keys.mdb").read_bytes()
    said = run(copy, "registry", "adopt", "--reason", "the disk died", status=3)
    assert "the registry is an older copy" in said and "--take-over" in said
    assert (copy / "keys.mdb").read_bytes() == published


def test_another_machine(keyloader):
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        database.execute("UPDATE info SET home_machine = ?, home_host = 'web-1'", ("0" * 32,))
    has_id = os.path.exists("/etc/machine-id") and len(open("/etc/machine-id").read().strip()) == 32
    if has_id:
        assert f"belongs to {keyloader.dir} on web-1" in keyloader.refused("owner", "create", "acme")
        keyloader("registry", "adopt", "--reason", "moved")
    keyloader("owner", "create", "acme")


def test_a_machine_without_an_id_is_any(keyloader):
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        database.execute("UPDATE info SET home_machine = ''")
    keyloader("owner", "create", "acme")


def test_one_of_before_belongs_to_where_it_is_changed_next(keyloader, tmp_path):
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        to_schema_4(database)
    assert keyloader.json("registry", "show")["home"] is None
    keyloader("owner", "create", "acme")
    assert info(keyloader.dir)["home_directory"] == str(keyloader.dir)


def test_a_link_to_the_directory_is_the_directory(keyloader, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(keyloader.dir)
    run(link, "owner", "create", "acme")


def test_a_link_instead_of_the_file_is_refused(keyloader, tmp_path):
    shutil.move(keyloader.dir / "registry.db", tmp_path / "elsewhere.db")
    (keyloader.dir / "registry.db").symlink_to(tmp_path / "elsewhere.db")
    assert "registry.db is a link, which is not followed" in keyloader.refused("owner", "create", "acme")


def test_a_backup_comes_back_to_its_own_directory(keyloader, tmp_path):
    shutil.copy(keyloader.dir / "registry.db", tmp_path / "backup.db")
    for file in ("registry.db", "registry.db-wal", "registry.db-shm"):
        (keyloader.dir / file).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", keyloader.dir / "registry.db")
    keyloader("owner", "create", "acme")
