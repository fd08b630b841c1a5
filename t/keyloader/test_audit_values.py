"""Chain version 2: personal values lie beside the audit, and can be erased without breaking its chain."""

import os
import shutil
import signal
import sqlite3
import subprocess

import pytest

from harness.old_registry import age_audit, rewrite_audit, to_schema_5
from harness.paths import CAN_MOUNT, IS_ROOT, KEYLOADER

SECRET = {"name": "Jana Nowak", "email": "jana@home.example", "meta": "passport-4711", "key": "her laptop", "reason": "Jana left"}


def rows(keyloader, statement, *values):
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        return database.execute(statement, values).fetchall()


def change(keyloader, statement):
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        assert database.execute(statement).rowcount > 0
    database.close()


def make_and_delete(keyloader, name=SECRET["name"]):
    """An owner that was there, with one key. RETURNS: the key's id."""
    keyloader("owner", "create", name, "--email", SECRET["email"], "--meta", f"id={SECRET['meta']}", "--team", "web")
    key = keyloader.key(name, "--name", SECRET["key"], "--meta", f"id={SECRET['meta']}")["id"]
    keyloader("key", "revoke", key, "--reason", SECRET["reason"])
    keyloader("key", "delete", key)
    keyloader("owner", "delete", name, "--reason", SECRET["reason"])
    return key


def doctor(keyloader):
    return subprocess.run([KEYLOADER, "doctor", "--all"], env=keyloader.environment(), capture_output=True, text=True,
                          check=False).stdout


def everything_on_disk(keyloader):
    return b"".join(path.read_bytes() for path in keyloader.dir.glob("registry.db*"))


def test_no_personal_value_is_hashed_as_it_is(keyloader):
    make_and_delete(keyloader)
    chain = str(rows(keyloader, "SELECT actor, object, before, after FROM audit"))
    for value in (*SECRET.values(), f'"user":"{os.getenv("USER", "root")}"'):
        assert value not in chain
    shown = keyloader("audit", "list", "--json").stdout
    for value in SECRET.values():
        assert value in shown
    assert "web" in chain, "a team is no person"
    assert keyloader.audit("--object", SECRET["name"])[0]["action"] == "owner.create"
    assert len(keyloader.audit("--object", SECRET["name"], "--by", keyloader.audit()[0]["actor"]["user"])) == 2


def test_the_same_value_of_two_owners_has_two_hashes(keyloader):
    for name in ("acme", "globex"):
        keyloader("owner", "create", name, "--email", SECRET["email"])
    first, second = [entry["after"]["email"] for entry in keyloader.audit("--chained", "--action", "owner.create")]
    assert first != second and first.startswith("salted-sha256:")


def test_what_was_changed_is_seen_after_an_erasure(keyloader):
    keyloader("owner", "create", "jana", "--email", "a@b.example", "--meta", "id=1", "--no-publish")
    keyloader("owner", "set", "jana", "--email", "c@d.example", "--meta", "id=2", "--no-publish")
    keyloader("owner", "set", "jana", "--team", "web", "--reason", "moved", "--no-publish")
    keyloader("owner", "delete", "jana", "--no-publish")
    keyloader("owner", "erase", "jana", "--reason", "asked for it")
    first, second = keyloader.audit("--action", "owner.set")
    assert first["change"] == "email (erased) → (erased), meta.id (erased) → (erased)"
    assert second["change"] == "reason (erased), team web"
    assert first["after"]["email"] == "(erased, another value)" and second["after"]["email"] == "(erased)"


def test_erased_values_are_gone_and_the_chain_is_whole(keyloader):
    key = make_and_delete(keyloader)
    keyloader("owner", "create", "globex", "--email", "g@globex.example")
    before = keyloader.json("audit", "verify")["hash"]
    said = keyloader("owner", "erase", SECRET["name"], "--reason", "asked for it").stdout
    assert "erased 5 values of owner Jana Nowak" in said
    disk = everything_on_disk(keyloader)
    for value in SECRET.values():
        assert value.encode() not in disk
    whole = keyloader.json("audit", "verify")
    assert whole["ok"] and whole["hash"] != before
    made, = keyloader.audit("--action", "owner.create", "--last", "2")[:1]
    assert made["object"] == made["after"]["name"] == made["after"]["email"] == "(erased)"
    assert keyloader.audit("--object", key)[0]["after"]["owner"] == "(erased)"
    assert keyloader.audit("--object", "globex")[0]["after"]["email"] == "g@globex.example"
    entry = keyloader.audit()[-1]
    assert (entry["action"], entry["after"]) == ("owner.erase", {"values": 5, "reason": "asked for it"})
    assert "knows no deleted owner" in keyloader.refused("owner", "erase", SECRET["name"])
    assert "was erased already; nothing is left" in keyloader("owner", "erase", entry["object"]).stdout
    assert "fine   audit-chain" in doctor(keyloader)


def leave_remains(keyloader, text):
    """SQLite leaves some in the gaps of pages; here one in a page that is free, where it may be any time."""
    file = keyloader.dir / "registry.db"
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("CREATE TABLE filler(text)")
        database.execute("INSERT INTO filler VALUES(randomblob(300000))")
        database.commit()
        database.execute("DROP TABLE filler")
    database.close()
    with sqlite3.connect(file) as database:
        size, pages = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count"))
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    with open(file, "r+b") as raw:
        raw.seek((pages - 10) * size + 100)
        raw.write(text.encode())
    assert text.encode() in everything_on_disk(keyloader)


def test_remains_in_free_space_go_too(keyloader):
    make_and_delete(keyloader)
    leave_remains(keyloader, SECRET["name"])
    keyloader("owner", "erase", SECRET["name"])
    assert SECRET["name"].encode() not in everything_on_disk(keyloader)
    assert keyloader.json("audit", "verify")["ok"]


@pytest.mark.skipif(not (IS_ROOT and CAN_MOUNT), reason="needs mounts of its own")
def test_a_disk_without_room_for_a_second_copy_is_said_and_it_is_done_later(bare, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", small], check=True)
    try:
        tool = type(bare)(small / "node")
        tool("init")
        make_and_delete(tool)
        leave_remains(tool, SECRET["name"])
        with sqlite3.connect(tool.dir / "registry.db") as database:
            database.execute("CREATE TABLE live(bytes)")
            database.execute("INSERT INTO live VALUES(randomblob(800000))")
        database.close()
        owner = tool.audit("--action", "owner.create")[0]["after"]["id"]
        room = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
        (small / "full").write_bytes(bytes(room - 500_000))
        said = tool.refused("owner", "erase", SECRET["name"])
        assert "registry.db could not be written anew" in said and "Make room" in said
        assert f"`keyloader owner erase {owner}` again" in said and tool.audit()[-1]["action"] == "owner.erase"
        (small / "full").unlink()
        assert "was erased already; nothing is left" in tool("owner", "erase", owner).stdout
        assert SECRET["name"].encode() not in everything_on_disk(tool)
    finally:
        subprocess.run(["umount", small], check=True)


def test_what_is_there_is_not_erased(keyloader):
    make_and_delete(keyloader)
    keyloader("owner", "create", SECRET["name"])
    said = keyloader.refused("owner", "erase", SECRET["name"])
    old = keyloader.audit("--action", "owner.create")[0]["after"]["id"]
    assert "exists; only what the audit keeps of a deleted owner" in said and f"give its id, {old}" in said
    assert "dry run" in keyloader("owner", "erase", old, "--dry-run").stdout
    assert keyloader.audit("--object", SECRET["name"])[0]["after"]["email"] == SECRET["email"]
    keyloader("owner", "erase", old)
    first, second = keyloader.audit("--action", "owner.create")
    assert first["after"]["name"] == "(erased)" and second["after"]["name"] == SECRET["name"]
    assert "knows no deleted owner" in keyloader.refused("owner", "erase", "nobody")


def test_one_owner_at_a_time(keyloader):
    make_and_delete(keyloader)
    make_and_delete(keyloader)
    said = keyloader.refused("owner", "erase", SECRET["name"])
    assert "2 deleted owners were called Jana Nowak; give the id of one" in said
    ids = [entry["after"]["id"] for entry in keyloader.audit("--action", "owner.create")]
    keyloader("owner", "erase", ids[0])
    assert [entry["object"] for entry in keyloader.audit("--action", "owner.create")] == ["(erased)", SECRET["name"]]
    keyloader("owner", "create", ids[1])
    keyloader("owner", "delete", ids[1])
    keyloader("owner", "erase", ids[1])
    assert [entry["object"] for entry in keyloader.audit("--action", "owner.create")] == ["(erased)", "(erased)", ids[1]]


def test_a_name_that_looks_like_a_key(keyloader):
    name = "key_06h1qu1ias0emhjpb94h"
    make_and_delete(keyloader, name)
    keyloader("owner", "erase", name)
    assert name.encode() not in everything_on_disk(keyloader)


def test_the_reason_must_not_name_the_owner(keyloader):
    make_and_delete(keyloader)
    said = keyloader.refused("owner", "erase", SECRET["name"], "--reason", "Jana Nowak asked for it", status=2)
    assert "write it without the name" in said


def test_what_cannot_be_written_over_yet_is_said(keyloader):
    """Another process that reads the registry keeps the journal from being written back."""
    make_and_delete(keyloader)
    reader = sqlite3.connect(keyloader.dir / "registry.db")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM audit").fetchall()
    said = keyloader.refused("owner", "erase", SECRET["name"])
    assert "another process is reading registry.db" in said
    reader.close()
    keyloader("owner", "list")
    assert SECRET["name"].encode() not in everything_on_disk(keyloader)
    assert keyloader.json("audit", "verify")["ok"]


def test_a_text_that_looks_like_a_hash(keyloader):
    """Before version 2 it was a text like any other; from then on it is hashed itself."""
    name = "salted-sha256:" + 64 * "a"
    make_and_delete(keyloader, name)
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        to_schema_5(database)
    database.close()
    make_and_delete(keyloader, name)
    assert keyloader.json("audit", "verify")["ok"]
    assert keyloader.audit("--action", "owner.create")[0]["object"] == name
    keyloader("owner", "create", "x", "--meta", "a=(erased)")
    keyloader("owner", "set", "x", "--meta", "b=2")
    keyloader("audit", "revert", str(keyloader.audit("--action", "owner.set")[-1]["seq"]))


def test_an_erased_entry_is_not_reverted(keyloader):
    make_and_delete(keyloader)
    keyloader("owner", "erase", SECRET["name"])
    entry = keyloader.audit("--action", "owner.delete")[0]
    assert "values of it were erased" in keyloader.refused("audit", "revert", str(entry["seq"]))


def test_archived_entries_are_erased_too(keyloader, tmp_path):
    make_and_delete(keyloader)
    file = tmp_path / "audit.ndjson"
    age_audit(keyloader.dir, 86400)
    keyloader("audit", "archive", file, "--before", "1h")
    assert SECRET["name"] not in file.read_text()
    keyloader("owner", "erase", SECRET["name"])
    assert SECRET["name"].encode() not in everything_on_disk(keyloader)
    assert keyloader.json("audit", "verify", "--archive", file)["ok"]


def test_values_of_archived_entries_are_checked(keyloader, tmp_path):
    make_and_delete(keyloader)
    age_audit(keyloader.dir, 86400)
    keyloader("audit", "archive", tmp_path / "audit.ndjson", "--before", "1h")
    change(keyloader, "UPDATE audit_values SET value = 'Somebody Else' WHERE value = 'Jana Nowak'")
    assert "has been altered" in keyloader.refused("audit", "verify")


@pytest.mark.parametrize("statement,said", [
    ("UPDATE audit_values SET value = 'x' WHERE value = 'Jana Nowak'", "has been altered"),
    ("UPDATE audit_values SET salt = zeroblob(16) WHERE value = 'Jana Nowak'", "has been altered"),
    ("DELETE FROM audit_values WHERE value = 'Jana Nowak'", "has been removed"),
    ("UPDATE audit_values SET value = NULL, salt = NULL, erased = 2 WHERE value = 'Jana Nowak'", "no later erasure"),
    ("UPDATE audit_values SET value = NULL, salt = NULL, erased = 999 WHERE value = 'Jana Nowak'", "no erasure accounts for"),
])
def test_tampering_beside_the_chain_is_found(keyloader, statement, said):
    make_and_delete(keyloader)
    change(keyloader, statement)
    assert said in keyloader.refused("audit", "verify")
    assert "wrong  audit-chain" in doctor(keyloader)


def forge_version_entry(keyloader):
    """As one who can write registry.db: behind all entries one that says that version 2 begins there."""
    def edit(entries):
        seq, when, actor, *_ = entries[-1]
        return [*entries, (seq + 1, when, actor, "audit.version", "2", '{"audit_version":1}', '{"audit_version":2}')]
    rewrite_audit(keyloader.dir, edit)


def test_the_border_between_the_versions_cannot_be_moved(keyloader):
    """Removed values would belong to entries that hold none."""
    make_and_delete(keyloader)
    forge_version_entry(keyloader)
    last = len(keyloader.audit())
    assert f"entry {last} of the audit says that version 2 begins there, and it began with entry 1" in \
        keyloader.refused("audit", "verify")
    change(keyloader, "DELETE FROM audit_values WHERE value = 'Jana Nowak'")
    assert "has been removed" in keyloader.refused("audit", "verify")
    assert "wrong  audit-chain" in doctor(keyloader)


def test_an_entry_of_version_1_belongs_before_version_2(keyloader):
    make_and_delete(keyloader)
    rewrite_audit(keyloader.dir, lambda entries: [*entries[:-1], (*entries[-1][:2], '{"uid":0,"user":"root"}', *entries[-1][3:])])
    last = len(keyloader.audit())
    assert f"entry {last} of the audit is of version 1, and follows entries of version 2" in keyloader.refused("audit", "verify")


def test_an_archived_entry_that_is_no_erasure_accounts_for_nothing(keyloader, tmp_path):
    make_and_delete(keyloader)
    keyloader("owner", "erase", SECRET["name"])
    keyloader("owner", "create", "globex", "--email", "g@globex.example")
    keyloader("owner", "set", "globex", "--email", "none")
    age_audit(keyloader.dir, 86400)
    file = tmp_path / "audit.ndjson"
    keyloader("audit", "archive", file, "--before", "1h")
    assert keyloader.json("audit", "verify", "--archive", file)["ok"]
    archived = keyloader.audit()[0]["seq"] - 1
    change(keyloader, f"UPDATE audit_values SET value = NULL, salt = NULL, erased = {archived} WHERE value = 'g@globex.example'")
    said = keyloader.refused("audit", "verify", "--archive", file)
    assert f"entry {archived} is not the one that did it" in said


def test_an_erasure_accounts_for_its_own_values_only(keyloader):
    make_and_delete(keyloader)
    keyloader("owner", "create", "globex", "--email", "g@globex.example")
    keyloader("owner", "erase", SECRET["name"])
    erased = keyloader.audit()[-1]["seq"]
    change(keyloader, f"UPDATE audit_values SET value = NULL, salt = NULL, erased = {erased} WHERE value = 'g@globex.example'")
    assert "no erasure accounts for" in keyloader.refused("audit", "verify")


def test_an_erasure_is_of_one_owner(keyloader):
    """Another's value cannot take the place of one that was erased."""
    make_and_delete(keyloader)
    keyloader("owner", "create", "globex", "--email", "g@globex.example")
    keyloader("owner", "erase", SECRET["name"])
    erased = keyloader.audit()[-1]["seq"]
    keyloader("owner", "set", "globex", "--team", "x")
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        database.execute("DELETE FROM audit_values WHERE hashed = (SELECT min(hashed) FROM audit_values WHERE erased <> 0)")
        database.execute("UPDATE audit_values SET value = NULL, salt = NULL, erased = ? WHERE value = 'g@globex.example'",
                         (erased,))
    database.close()
    keyloader.refused("audit", "verify")


@pytest.fixture
def older(keyloader):
    """A registry of the version before, with a deleted owner in its audit."""
    make_and_delete(keyloader)
    keyloader.before = keyloader.audit()
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        to_schema_5(database)
    database.close()
    return keyloader


def test_a_registry_of_before_goes_on_with_an_entry(older):
    entries = older.audit()
    assert entries[-1]["action"] == "audit.version" and entries[-1]["after"] == {"audit_version": 2}
    strip = [{**entry, "hash": "", "prev_hash": ""} for entry in entries[:-1]]
    assert [entry["object"] for entry in strip] == [entry["object"] for entry in older.before]
    make_and_delete(older, "Second Person")
    assert older.json("audit", "verify")["entries"] == len(older.audit())
    said = older("owner", "erase", "Second Person").stdout
    assert "erased" in said and "cannot be erased" not in said
    said = older("owner", "erase", SECRET["name"]).stdout
    assert "nothing was erased of owner Jana Nowak" in said and "from before version 2 of the audit" in said
    assert older.json("audit", "verify")["ok"]
    change(older, "UPDATE audit SET after = '{}' WHERE action = 'audit.version'")
    assert "altered" in older.refused("audit", "verify")


# SQLite steps through statements of its own, too, which have no text: rows of the schema, nothing that it writes.
KILLER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
int sqlite3_step(void* statement) {
  static int statements;
  const char* (*text)(void*) = (const char* (*)(void*))dlsym(RTLD_NEXT, "sqlite3_sql");
  if (text(statement) && ++statements == atoi(getenv("KILL_AT"))) kill(getpid(), SIGKILL);
  return ((int (*)(void*))dlsym(RTLD_NEXT, "sqlite3_step"))(statement);
}
"""


def test_taking_over_survives_a_kill_at_any_statement(older, tmp_path):
    source, library = tmp_path / "killer.c", tmp_path / "killer.so"
    source.write_text(KILLER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    kept = tmp_path / "kept"
    shutil.copytree(older.dir, kept)
    killed = 0
    for at in range(1, 200):
        shutil.rmtree(older.dir)
        shutil.copytree(kept, older.dir)
        run = subprocess.run([KEYLOADER, "registry", "show"], env={**older.environment(), "LD_PRELOAD": str(library),
                                                                   "KILL_AT": str(at)}, capture_output=True, check=False)
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL, run.stderr
        killed += 1
        assert older.json("audit", "verify")["ok"]
        assert rows(older, "SELECT seq FROM audit WHERE action = 'audit.version'") == [(len(older.before) + 1,)]
    else:
        raise AssertionError("it never came to an end")
    assert killed > 10
