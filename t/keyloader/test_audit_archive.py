"""audit archive: old entries go into a file, and the chain of hashes goes on behind them."""

import json
import re
import sqlite3
import subprocess
import time

import pytest

from harness.old_registry import age_audit, rechain
from harness.paths import CAN_MOUNT, IS_ROOT


@pytest.fixture
def old(keyloader, tmp_path):
    """A registry whose changes were made two years ago: a key, one that was deleted, an owner that was."""
    keyloader.key_id = keyloader.key("web")["id"]
    keyloader.gone = keyloader.key("web")["id"]
    keyloader("key", "delete", keyloader.gone)
    keyloader("owner", "create", "ghost")
    keyloader("owner", "delete", "ghost")
    age_audit(keyloader.dir, 2 * 365 * 86400)
    keyloader("audit", "verify")
    keyloader.file = tmp_path / "audit.ndjson"
    return keyloader


def entries(keyloader):
    return keyloader.json("audit", "list")


def test_they_move_into_the_file(old):
    before = old.json("audit", "list", "--chained")
    old("owner", "create", "new")
    said = old("audit", "archive", old.file, "--before", "365d", "--reason", "a year is enough").stdout
    assert f"archived {len(before)} entries (1 to {len(before)}, before" in said
    archived = [json.loads(line) for line in old.file.read_text().splitlines()]
    assert archived == before and "ghost" not in old.file.read_text()
    assert old.file.stat().st_mode & 0o777 == 0o600
    left = entries(old)
    assert [entry["seq"] for entry in left] == list(range(len(before) + 1, len(before) + len(left) + 1))
    made, = [entry for entry in left if entry["action"] == "audit.archive"]
    assert made["after"]["entries"] == len(before) and made["after"]["last_hash"] == before[-1]["hash"]
    assert made["after"]["reason"] == "a year is enough"
    assert f"the {len(before)} before them, up to" in old("audit", "verify").stdout
    assert "are whole in the files that were given" in old("audit", "verify", "--archive", old.file).stdout
    assert "fine   audit-chain" in old("doctor", "--all").stdout


def test_several_files(old, tmp_path):
    old("audit", "archive", old.file, "--before", "365d")
    second = tmp_path / "second.ndjson"
    old("plan", "create", "gold")
    with sqlite3.connect(old.dir / "registry.db") as database:
        newest, = database.execute("SELECT max(time) FROM audit").fetchone()
    database.close()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(newest + 1))
    while time.time() < newest + 1:
        time.sleep(0.05)
    old("plan", "create", "silver")
    old("audit", "archive", second, "--before", stamp)
    assert "are whole" in old("audit", "verify", "--archive", old.file, "--archive", second).stdout
    assert "broken before entry" in old.refused("audit", "verify", "--archive", second)
    assert "give all of them" in old.refused("audit", "verify", "--archive", old.file)


def test_what_was_deleted_stays_known(old):
    old("audit", "archive", old.file, "--before", "365d")
    assert f"{old.gone} was deleted at" in old.refused("key", "show", old.gone)
    assert "was deleted already, at" in old("owner", "delete", "ghost").stdout
    old("publish")
    old("key", "revoke", old.key_id)


def test_an_altered_file_is_named(old):
    old("audit", "archive", old.file, "--before", "365d")
    text = old.file.read_text()
    old.file.write_text(text.replace('"team":""', '"team":"x"', 1))
    assert "line 4: entry 4 of the audit has been altered" in old.refused("audit", "verify", "--archive", old.file)
    old.file.write_text(text.split("\n", 1)[1])
    assert "line 1: the audit is broken before entry 2" in old.refused("audit", "verify", "--archive", old.file)
    old.file.write_text("[]\n")
    assert "line 1: this is no entry" in old.refused("audit", "verify", "--archive", old.file)


def test_never_over_a_file(old):
    old.file.write_text("mine")
    before = entries(old)
    assert "is there already" in old.refused("audit", "archive", old.file, "--before", "365d")
    assert old.file.read_text() == "mine" and entries(old) == before
    target = old.file.with_name("target")
    link = old.file.with_name("link")
    link.symlink_to(target)
    old.refused("audit", "archive", link, "--before", "365d")
    assert not target.exists() and entries(old) == before


def test_dry_run_and_nothing_to_do(old):
    before = entries(old)
    assert "archived" in old("audit", "archive", old.file, "--before", "365d", "--dry-run").stdout
    assert "nothing was archived" in old("audit", "archive", old.file, "--before", "2001-01-01").stdout
    assert not old.file.exists() and entries(old) == before


def test_a_broken_chain_is_not_archived(old):
    with sqlite3.connect(old.dir / "registry.db") as database:
        database.execute("UPDATE audit SET object = 'other' WHERE seq = 3")
    database.close()
    assert "entry 3 of the audit has been altered" in old.refused("audit", "archive", old.file, "--before", "365d")
    assert not old.file.exists() and len(entries(old)) > 3


def test_a_later_change_reads_as_before(old):
    """The state before it stands in the entry itself."""
    old("audit", "archive", old.file, "--before", "365d")
    old("key", "set", old.key_id, "--name", "renamed")
    entry = entries(old)[-2]
    old("audit", "revert", str(entry["seq"]))
    assert old.json("key", "show", old.key_id)["name"] == ""


def test_what_passed_over_the_policy_stays_for_a_month(old):
    """`policy show` and doctor tell of it by its entry."""
    old("policy", "set", "--require-meta", "crm")
    old("key", "create", "--owner", "web", "--break-glass", "--reason", "the rule came too late")
    glass, = [entry["seq"] for entry in entries(old) if entry["action"] == "policy.break_glass"]
    age_audit(old.dir, 29 * 86400)
    said = old("audit", "archive", old.file, "--before", "1d").stdout
    assert f"archived {glass - 1} entries (1 to {glass - 1}," in said
    assert f"But entry {glass} says that the policy was passed over with --break-glass, less than 30 days ago: it and " \
        "what follows it stay" in said
    assert old.json("policy", "show")["break_glass"]["last_30_days"] == 1
    again = old("audit", "archive", old.file.with_name("again"), "--before", "1d").stdout
    assert f"entry {glass} says" in again and "nothing was archived" in again
    age_audit_behind(old, 2 * 86400)
    old("audit", "archive", old.file.with_name("again"), "--before", "1d")
    assert glass not in [entry["seq"] for entry in entries(old)]


def age_audit_behind(keyloader, seconds):
    """age_audit() of a registry whose first entries are archived: the chain is not looked at."""
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        rows = database.execute("SELECT seq, time - ?, actor, action, object, before, after FROM audit ORDER BY seq",
                                (seconds,)).fetchall()
        prev, = database.execute("SELECT archived_hash FROM info").fetchone()
        rechain(database, rows, prev)
    database.close()


def test_what_verify_says_is_a_sentence(old):
    old("audit", "archive", old.file, "--before", "365d")
    said = old("audit", "verify", "--anchors").stdout
    archived = old.audit()[0]["seq"] - 1
    assert f"the audit is whole: 1 entry, last hash " in said
    assert f"; the {archived} before it, up to" in said and "are archived, and were not looked at" in said
    assert re.search("; none of its entries was seen by snapshots or nginx; ([0-9]+ archived entries that they have seen were|"
                     "1 archived entry that they have seen was) not compared\n", said)
    old("plan", "create", "gold", "--no-publish")
    old("publish")
    said = old("audit", "verify", "--anchors").stdout
    assert re.search(r"whole: \d+ entries, .*; the \d+ before them, .*; 1 of its entries was seen by snapshots or nginx, and "
                     "is the same; ", said)


def test_statements(old):
    """Of a month behind the archive it is known which plan a key had; of one before, it is said that it is not."""
    old("plan", "create", "gold", "--rate", "1/s")
    old("key", "set", old.key_id, "--plan", "gold")
    this_month = time.strftime("%Y-%m", time.gmtime())
    whole = old.json("usage", "statement", "--owner", "web", "--month", this_month)
    old("audit", "archive", old.file, "--before", "365d")
    assert old.json("usage", "statement", "--owner", "web", "--month", this_month)["changes"] == whole["changes"]
    said = old.refused("usage", "statement", "--owner", "web", "--month", "2020-01")
    assert "are archived, and a statement from" in said and "run this with --dir on a backup of the directory" in said
    first = re.search(r"the first month of which there is one is (\d{4}-\d\d)\.", said)[1]
    old("usage", "statement", "--owner", "web", "--month", first)


if IS_ROOT and CAN_MOUNT:
    def test_a_full_disk_keeps_everything(old, tmp_path):
        small = tmp_path / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", small], check=True)
        try:
            before = entries(old)
            old.refused("audit", "archive", small / "audit.ndjson", "--before", "365d")
            assert entries(old) == before and list(small.iterdir()) == []
        finally:
            subprocess.run(["umount", small], check=True)
