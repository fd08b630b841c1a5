"""audit verify --anchors: snapshots name the newest entry of their time, so a rewritten audit does not agree with them."""

import shutil

import pytest

from harness.old_registry import age_audit, rewrite_audit


@pytest.fixture
def published(keyloader):
    for owner in ("a", "b", "c"):
        keyloader.key(owner)
    return keyloader


def test_what_was_seen_is_the_same(published):
    whole = published.json("audit", "verify", "--anchors")
    generations = len([*published.dir.glob("history/*.mdb")])
    assert whole["ok"] and whole["anchors"] == generations == 4 and whole["anchors_not_checked"] == 0
    assert "4 of its entries were seen by snapshots or nginx, and are the same" in published("audit", "verify", "--anchors").stdout
    assert "anchors" not in published.json("audit", "verify")


def test_a_rewritten_audit(published):
    def change_one(entries):
        seq, when, *rest = entries[2]
        return [*entries[:2], (seq, when - 1, *rest), *entries[3:]]

    rewrite_audit(published.dir, change_one)
    assert published.json("audit", "verify")["ok"], "by itself it is whole"
    said = published.refused("audit", "verify", "--anchors")
    assert "is not the one that generation" in said and "has seen" in said


def test_a_cut_off_end(published):
    rewrite_audit(published.dir, lambda entries: entries[:-1])
    assert published.json("audit", "verify")["ok"]
    said = published.refused("audit", "verify", "--anchors")
    assert "the audit ends with entry" in said and "its end was cut off, or the registry is an older copy" in said


def test_other_files_say_nothing(published, tmp_path):
    """Another registry's snapshot, a damaged one, one that names no entry."""
    other = published.beside("other")
    other("init")
    other.key("x")
    shutil.copy(other.snapshot, published.dir / "history" / "0000000099-00000000.mdb")
    (published.dir / "history" / "0000000098-00000000.mdb").write_bytes(b"no snapshot")
    assert published.json("audit", "verify", "--anchors")["anchors"] == 4
    published.snapshot.unlink()
    shutil.rmtree(published.dir / "history")
    assert "none of its entries was seen" in published("audit", "verify", "--anchors").stdout


def test_archived_entries(published, tmp_path):
    age_audit(published.dir, 86400)
    shutil.rmtree(published.dir / "history")
    published("plan", "create", "gold")
    published("role", "create", "x", "--scope", "a")
    published("audit", "archive", tmp_path / "old.ndjson", "--before", "1h")
    whole = published.json("audit", "verify", "--anchors", "--archive", tmp_path / "old.ndjson")
    assert whole["ok"] and whole["anchors"] >= 1
