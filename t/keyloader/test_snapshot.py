"""keyloader snapshot: show, verify, install, seal, list; what a node without a registry takes and what it refuses."""

import json
import os
import random
import stat
import subprocess
from pathlib import Path

import pytest

WRITER = Path(__file__).resolve().parent / "snapshot_writer.py"


@pytest.fixture
def node(keyloader):
    """A second directory, fed once from the first, which has ten keys."""
    keyloader.keys = [keyloader.key("acme", "--no-publish") for _ in range(10)]
    keyloader("publish")
    node = keyloader.beside("second")
    node("snapshot", "install", keyloader.snapshot)
    return node


def test_show(keyloader):
    keyloader.key()
    shown = keyloader.json("snapshot", "show")
    assert shown["generation"] == 2 and shown["keys"] == 1 and shown["digests"] == ["sha256"]
    assert shown["length"] == keyloader.snapshot.stat().st_size and len(shown["sha256"]) == 64
    assert shown["rows"]["owners"] == 1 and shown["rolled_back_to"] is None
    text = keyloader("snapshot", "show", keyloader.snapshot).stdout
    assert shown["registry_id"] in text and shown["sha256"] in text
    assert "owners 1, plans 1" in text and not {"{", "[", '"'} & set(text)


def test_verify_says_one_sentence(keyloader):
    keyloader.key()
    done = keyloader("snapshot", "verify")
    assert len(done.stdout.splitlines()) == 1 and "valid" in done.stdout
    content = bytearray(keyloader.snapshot.read_bytes())
    bad = keyloader.dir / "bad.mdb"
    for wrong in (content[:-4096], content[:100], b"", bytes(len(content)), content + b"x"):
        bad.write_bytes(wrong)
        assert len(keyloader.refused("snapshot", "verify", bad).splitlines()) == 1
    rng = random.Random(1)
    for _ in range(30):
        flipped = bytearray(content)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        bad.write_bytes(flipped)
        keyloader.refused("snapshot", "verify", bad)
    answer = keyloader("snapshot", "verify", bad, "--json", status=1).stdout
    assert '"ok":false' in answer


def test_verify_what_is_not_there(keyloader):
    assert "nosuch" in keyloader.refused("snapshot", "verify", "/nosuch/keys.mdb")


def test_install_on_an_empty_node(keyloader, node):
    assert node.snapshot.read_bytes() == keyloader.snapshot.read_bytes()
    assert stat.S_IMODE(node.snapshot.stat().st_mode) == 0o640
    assert stat.S_IMODE(node.dir.stat().st_mode) == 0o2750
    assert not (node.dir / "registry.db").exists()
    assert "no registry" in node.refused("key", "list")


def test_install_from_standard_input(keyloader, node):
    keyloader("key", "revoke", keyloader.keys[0]["id"])
    with open(keyloader.snapshot, "rb") as file:
        child = node.start("snapshot", "install", "-", stdin=file)
        assert child.wait() == 0
        child.communicate()
    assert node.generation() == keyloader.generation()


def test_install_again_is_no_change(keyloader, node):
    assert "already" in node("snapshot", "install", keyloader.snapshot).stdout


def test_older_is_refused(keyloader, node, tmp_path):
    old = tmp_path / "old.mdb"
    old.write_bytes(keyloader.snapshot.read_bytes())
    keyloader("plan", "create", "gold")
    node("snapshot", "install", keyloader.snapshot)
    before = node.snapshot.read_bytes()
    assert "generation" in node.refused("snapshot", "install", old)
    assert node.snapshot.read_bytes() == before


def test_another_registrys_is_refused(keyloader, node):
    other = keyloader.beside("other")
    other("init")
    for number in range(5):
        other("plan", "create", f"p{number}")
    assert "registry" in node.refused("snapshot", "install", other.snapshot, "--allow-shrink")


def without_counters(keyloader, keys, generation):
    """A snapshot of the same registry by a builder that counts nothing."""
    unsealed, sealed = keyloader.dir / "other.mdb", keyloader.dir / "other.sealed"
    lines = "".join(json.dumps({"key": key["key"], "owner": "acme", "id": key["id"]}) + "\n" for key in keys)
    registry_id = keyloader.json("snapshot", "show")["registry_id"]
    subprocess.run([WRITER, unsealed, "--generation", str(generation), "--registry-id", registry_id], input=lines, text=True,
                   check=True)
    keyloader("snapshot", "seal", unsealed, "--out", sealed)
    return sealed


def test_shrunken_is_refused_unless_intended(keyloader, node):
    three = without_counters(keyloader, keyloader.keys[:3], 100)
    assert "--allow-shrink" in node.refused("snapshot", "install", three)
    node.refused("snapshot", "install", three, "--min-keep", "31")
    node.refused("snapshot", "install", three, "--min-keep", "101", status=2)
    assert node.json("snapshot", "show")["keys"] == 10
    node("snapshot", "install", three, "--min-keep", "30")
    assert node.json("snapshot", "show")["keys"] == 3


def test_install_shrunken_with_the_word(keyloader, node):
    node("snapshot", "install", without_counters(keyloader, keyloader.keys[:1], 100), "--allow-shrink")


def test_deletions_that_were_counted_are_intended(keyloader, node):
    for first, last in ((0, 4), (4, 7)):
        keyloader("key", "delete", *[key["id"] for key in keyloader.keys[first:last]], "--no-publish")
        keyloader("publish")
    assert keyloader.json("snapshot", "show")["allow_shrink"] is False
    node("snapshot", "install", keyloader.snapshot, "--min-keep", "100")
    assert node.json("snapshot", "show")["keys"] == 3


@pytest.mark.parametrize("cut", [1, 4096, 20_000])
def test_cut_off_is_refused_and_leaves_nothing(keyloader, node, tmp_path, cut):
    keyloader("plan", "create", "gold")
    part = tmp_path / "part.mdb"
    part.write_bytes(keyloader.snapshot.read_bytes()[:-cut])
    before = node.snapshot.read_bytes()
    node.refused("snapshot", "install", part)
    assert node.snapshot.read_bytes() == before
    assert list(node.dir.glob("keys.mdb.new.*")) == []


def test_empty_input_and_missing_file(node):
    node.refused("snapshot", "install", "-", stdin="")
    assert "nosuch" in node.refused("snapshot", "install", "/nosuch")


def test_a_good_snapshot_replaces_a_damaged_one(keyloader, node):
    node.snapshot.write_bytes(b"damaged")
    node("snapshot", "install", keyloader.snapshot)
    node("snapshot", "verify")


def test_a_sealed_file_is_sealed_again_the_same(keyloader, tmp_path):
    """A snapshot is an LMDB file like any other: sealing a copy gives the same content."""
    keyloader.key()
    done = keyloader.json("snapshot", "seal", keyloader.snapshot, "--out", tmp_path / "out.mdb")
    assert done["generation"] == keyloader.generation()
    keyloader("snapshot", "verify", tmp_path / "out.mdb")
    shown = keyloader.json("snapshot", "show", tmp_path / "out.mdb")
    assert shown["keys"] == 1


def test_seal_names_its_result_itself(keyloader, tmp_path):
    copy = tmp_path / "mine.mdb"
    copy.write_bytes(keyloader.snapshot.read_bytes())
    before = os.stat(copy)
    keyloader("snapshot", "seal", copy)
    keyloader("snapshot", "verify", tmp_path / "mine.mdb.sealed")
    assert copy.read_bytes() == keyloader.snapshot.read_bytes() and os.stat(copy).st_ino == before.st_ino


def test_seal_what_is_no_lmdb_file(keyloader, tmp_path):
    (tmp_path / "x").write_text("x" * 10_000)
    keyloader.refused("snapshot", "seal", tmp_path / "x")
    assert not (tmp_path / "x.sealed").exists()


def test_the_list_tells_generations_apart(keyloader):
    keyloader("init")
    keyloader("key", "create", "--owner", "web", "--create-owner")
    keyloader("snapshot", "rollback", "--allow-shrink")
    listed = keyloader.json("snapshot", "list")
    assert [(entry["keys"], entry["rolled_back_to"], entry["valid"]) for entry in listed] == [
        (0, 1, True), (1, None, True), (0, None, True)]
    lines = keyloader("snapshot", "list").stdout.splitlines()
    assert lines[0].split() == ["GENERATION", "STATE", "CREATED", "KEYS", "BYTES", "FILE"]
    assert "active, rolled back to 1" in lines[1] and listed[1]["created"] in lines[2]
    damaged = next((keyloader.dir / "history").glob("0000000002-*"))
    damaged.chmod(0o640)
    with open(damaged, "r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 64)
    assert "kept, damaged" in keyloader("snapshot", "list").stdout
    assert keyloader.json("snapshot", "list")[1]["valid"] is False
