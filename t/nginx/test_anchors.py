"""Ends of the audit that nginx has seen stay in node memory, where no rewritten audit agrees with them."""

import shutil
import struct

import pytest

from harness.old_registry import rewrite_audit
from harness.state import fold64, regions, state_file
from harness.store import LOCATION, Store
from harness.waiting import wait_until
from harness.written import REGISTRY, Written, make_keys

ROWS, ROW = 1000, struct.Struct("<QQQQQ16s32sQ32x")


def anchors(server):
    """(generation, audit_seq, audit_head) of each, oldest first; read from the layout in docs/node-memory.md."""
    path = state_file(server.pid_path)
    found = []
    with open(path, "rb") as file:
        data = file.read()
    offset, size = regions(path)["anchors"]
    assert size == 64 + ROWS * ROW.size
    for at in range(offset + 64, offset + size, ROW.size):
        number, _, generation, seq, _, registry, head, check = ROW.unpack_from(data, at)
        if number:
            assert check == fold64(data[at : at + 88])
            found.append((number, registry.hex(), (generation, seq, head.hex())))
    return [(registry, anchor) for _, registry, anchor in sorted(found)]


def shown(registry):
    return registry.json("snapshot", "show")


def pair(snapshot):
    return snapshot["registry_id"], (snapshot["generation"], snapshot["audit_seq"], snapshot["audit_head"])


def test_each_adoption_leaves_one(nginx, registry):
    registry.key()
    expected = [pair(shown(registry))]
    server = nginx(LOCATION, workers=3)
    for _ in range(3):
        registry.key()
        expected.append(pair(shown(registry)))
        server.wait_for_generation(registry.generation())
    assert anchors(server) == expected
    assert registry.json("status")["nginx"][0]["audit_anchors"] == 4
    entries = {(entry["seq"], entry["hash"]): entry for entry in registry.json("audit", "list")}
    assert all(entries[anchor[1:]]["action"] == "publish" for _, anchor in expected)

    server.reload()
    assert anchors(server) == expected
    server.quit()
    server.start()
    server.wait_for_generation(registry.generation())
    assert anchors(server) == expected, "the same file is not kept twice"
    server.quit()
    server.write_config(workers=20)  # more rows than there are: another layout
    server.start()
    registry.key()
    server.wait_for_generation(registry.generation())
    assert anchors(server) == [*expected, pair(shown(registry))]


@pytest.mark.parametrize("case", ["of format 1", "without an audit", "a veto"])
def test_files_of_other_builders(nginx, place, case):
    store, written, keys = Store(place), Written(place), make_keys(2)
    store.put(written(1, keys))
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(1)
    audit = {"audit_seq": "41", "audit_head": "ab" * 32}
    store.put(written(2, keys, format=1 if case == "of format 1" else 2, requires="later" if case == "a veto" else None,
                      meta={} if case == "without an audit" else audit))
    name = "apikey_snapshot_veto_generation" if case == "a veto" else "apikey_snapshot_generation"
    wait_until(lambda: server.metric(name) == 2)
    assert anchors(server) == ([(REGISTRY, (2, 41, "ab" * 32))] if case == "a veto" else [])


def test_keyloader_compares_the_audit_with_what_nginx_saw(nginx, registry):
    """Also when whoever rewrote the audit removed the snapshots."""
    server = nginx(LOCATION)
    for _ in range(3):
        registry.key()
        server.wait_for_generation(registry.generation())
    assert registry.json("audit", "verify", "--anchors")["anchors"] >= 3
    rewrite_audit(registry.dir, lambda entries: entries[:-1])
    shutil.rmtree(registry.dir / "history")
    registry.snapshot.unlink()
    assert registry.json("audit", "verify")["ok"]
    refused = registry.run("audit", "verify", "--anchors", check=False)
    assert refused.returncode == 1 and "the audit ends with entry" in refused.stderr and "nginx" in refused.stderr
