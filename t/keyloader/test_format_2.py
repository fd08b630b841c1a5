"""What keyloader says of its registry in a snapshot of format 2: seed, name, and the end of the audit."""

import sqlite3
import subprocess
from pathlib import Path

import pytest

from harness.old_registry import to_schema_5
from snapshot_reader import Snapshot


def read(keyloader):
    return Snapshot(keyloader.snapshot)


def publish_entries(keyloader):
    return [entry for entry in keyloader.json("audit", "list") if entry["action"] in ("publish", "snapshot.rollback")]


def test_the_audit_entry_is_that_of_the_publication(keyloader):
    for run in (["key", "create", "--owner", "acme", "--create-owner"], ["owner", "create", "shop"],
                ["snapshot", "rollback", "--allow-shrink"], ["publish"]):
        keyloader("--json", *run)
        entry = publish_entries(keyloader)[-1]
        snapshot = read(keyloader)
        assert snapshot.audit == (entry["seq"], entry["hash"])
        assert entry["object"] == snapshot.meta["generation"]
    shown = keyloader.json("snapshot", "show")
    assert (shown["audit_seq"], shown["audit_head"]) == snapshot.audit


def test_the_seed_stays(keyloader):
    keyloader("owner", "create", "acme")
    seed = read(keyloader).hash_seed
    assert len(set(seed)) > 4
    keyloader("registry", "set", "--name", "other")
    keyloader("snapshot", "rollback")
    assert read(keyloader).hash_seed == seed


def test_each_registry_has_its_own_seed(keyloader, tmp_path):
    keyloader("owner", "create", "acme")
    database = sqlite3.connect(keyloader.dir / "registry.db")
    before = read(keyloader).hash_seed
    to_schema_5(database)
    database.commit()
    database.close()
    keyloader("owner", "create", "shop")  # migrates
    after = read(keyloader)
    assert after.name == "default" and len(set(after.hash_seed)) > 4
    assert after.hash_seed != before, "a registry of before gets one"


def test_a_name_for_the_store(keyloader):
    keyloader("owner", "create", "acme")
    assert read(keyloader).name == "default" == keyloader.json("registry", "show")["name"]
    generation = int(read(keyloader).meta["generation"])
    keyloader("registry", "set", "--name", "eu-west_1", "--dry-run")
    assert keyloader.json("registry", "show")["name"] == "default"
    done = keyloader("registry", "set", "--name", "eu-west_1", "--reason", "there are two now")
    assert "the store is called eu-west_1 now" in done.stdout
    assert "eu-west_1" in keyloader("registry", "show").stdout and "eu-west_1" in keyloader("snapshot", "show").stdout
    assert read(keyloader).name == keyloader.json("snapshot", "show")["name"] == "eu-west_1"
    assert int(read(keyloader).meta["generation"]) == generation + 1, "nginx is told"
    entry = keyloader.json("audit", "list", "--action", "registry.rename")[-1]
    assert entry["before"] == {"name": "default"}
    assert entry["after"] == {"name": "eu-west_1", "reason": "there are two now"}
    done = keyloader("registry", "set", "--name", "eu-west_1")
    assert "already" in done.stdout and int(read(keyloader).meta["generation"]) == generation + 1


@pytest.mark.parametrize("name", ["", "Upper", "a b", "ä", "a" * 33])
def test_what_is_not_a_name(keyloader, name):
    done = keyloader("registry", "set", "--name", name, status=2)
    assert name == "" or "write 1 to 32 of a-z 0-9 _ -" in done.stderr


OLD_READER = "nginx (pid 4242) reads snapshot format 1 only; keys.mdb is written in format 1 until it is replaced"
WRITER = Path(__file__).resolve().parent / "snapshot_writer.py"


@pytest.mark.parametrize("said", [0, 1])
def test_format_1_while_an_nginx_reads_no_other(keyloader, nginx, said):
    nginx.reads_format(said)
    done = keyloader("owner", "create", "acme", "--no-wait")
    assert done.stderr.count(OLD_READER) == 1
    assert read(keyloader).meta["format"] == "1"
    assert not {"hash_seed", "name", "audit_seq", "audit_head"} & set(read(keyloader).meta)
    nginx.take(keyloader)
    assert OLD_READER in keyloader("status").stdout
    assert OLD_READER in keyloader("doctor").stdout
    nginx.die()
    assert OLD_READER not in keyloader("owner", "create", "shop", "--no-wait").stderr
    assert read(keyloader).meta["format"] == "2"


def test_what_a_node_says_may_be_anything(keyloader, nginx):
    nginx.reads_format(2**64 - 1)
    keyloader("owner", "create", "acme", "--no-wait")
    assert read(keyloader).meta["format"] == "2"


def incoming(keyloader, *arguments):
    unsealed, sealed = keyloader.dir / "unsealed", keyloader.dir / "sealed"
    registry, generation = keyloader.json("snapshot", "show")["registry_id"], keyloader.generation() + 1
    subprocess.run([WRITER, unsealed, "--registry-id", registry, "--generation", str(generation), *arguments],
                   input="", text=True, check=True, timeout=60)
    keyloader("snapshot", "seal", unsealed, "--out", sealed)
    return sealed


def test_install_refuses_what_a_node_does_not_read(keyloader, nginx):
    keyloader("owner", "create", "acme", "--no-wait")
    nginx.take(keyloader)
    nginx.reads_format(1)
    before = keyloader.snapshot.read_bytes()
    sentence = keyloader.refused("snapshot", "install", incoming(keyloader))
    assert "nginx (pid 4242) reads snapshot format 1 only, this one has format 2" in sentence
    assert keyloader.snapshot.read_bytes() == before
    keyloader("snapshot", "install", incoming(keyloader, "--format", "1"), "--no-wait")
    assert read(keyloader).meta["format"] == "1"


@pytest.mark.parametrize("known,lacks", [("", True), ("base", True), ("base later", False), ("base +", False)])
def test_install_names_a_feature_that_a_node_lacks(keyloader, nginx, known, lacks):
    """And installs: the file is a veto there, so what it revokes is revoked."""
    keyloader("owner", "create", "acme", "--no-wait")
    nginx.take(keyloader)
    nginx.knows_features(known)
    done = keyloader("snapshot", "install", incoming(keyloader, "--requires", "later"), "--no-wait")
    assert ('nginx (pid 4242) does not know the feature "later"' in done.stderr) == lacks
