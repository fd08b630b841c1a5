"""docs/snapshot-format.md holds: its vectors, a snapshot written from it in Python, and one of keyloader's read in Python.

What Python does here is written from the page; what keyloader does is asked through its command line.
"""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import snapshot_format as fmt  # noqa: E402
from snapshot_reader import Damaged, Snapshot  # noqa: E402

REPOSITORY = HERE.parent.parent
PAGE = (REPOSITORY / "docs" / "snapshot-format.md").read_text()
KEYLOADER = Path(os.environ.get("APIKEY_BUILD", REPOSITORY / "build")) / "keyloader"

DIGEST = fmt.sha256(b"an imported key")
KEY_ID = "key_0cofi6k00000e2k0c40g"
EXAMPLES = {
    'sha256("an imported key")': lambda: DIGEST,
    f"id({KEY_ID})": lambda: fmt.id_bytes(KEY_ID),
    'record(sha256("an imported key"))': lambda: fmt.record(
        DIGEST, env=1, owner=1, plan=1, scopes=1, name=2, key_id=KEY_ID, expires=2000000000),
    'row(1, 1, "live")': lambda: fmt.row(1, 1, b"live"),
    'row(2, 1, scopes("orders:*", "users:read"))': lambda: fmt.row(2, 1, fmt.scope_set(["users:read", "orders:*"])),
    "limit(rate(name 3, 100 per 1000000000 ns, burst 200))": lambda: fmt.rate(3, 100, 1000000000, 200),
    "limit(calendar_quota(name 3, 1000000 a month, dry run))": lambda: fmt.calendar_quota(3, 1000000, "month", True),
    "limit(rolling_quota(name 3, 1000 per 86400000000000 ns))": lambda: fmt.rolling_quota(3, 1000, 86400000000000),
    "limit(concurrency(name 3, 20))": lambda: fmt.concurrency(3, 20),
    "limit(adjustment(name 3, 5000 until 1900000000, reset 1890000000))": lambda: fmt.adjustment(
        3, 5000, 1900000000, 1890000000),
    "row(3, 1, plan(name 2, rate(name 3, 100 per 1000000000 ns, burst 200)))": lambda: fmt.row(
        3, 1, fmt.plan(2, fmt.rate(3, 100, 1000000000, 200))),
    "row(4, 1, owner(name 4, id 000102030405060708090a0b0c0d0e0f))": lambda: fmt.row(
        4, 1, fmt.owner(4, bytes(range(16)))),
    'home(sha256("an imported key"), 64 buckets)': lambda: fmt.home(DIGEST, 64),
    'tag(sha256("an imported key"))': lambda: fmt.tag(DIGEST).to_bytes(3, "big"),
}


def vectors():
    for block in re.findall(r"^```vectors\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            yield tuple(line.rsplit(" = ", 1))


def evaluate(expression):
    check = re.fullmatch(r"fold64\(([0-9a-f]*)\)", expression)
    if check:
        return format(fmt.fold64(bytes.fromhex(check[1])), "016x")
    value = EXAMPLES[expression]()
    return value.hex() if isinstance(value, bytes) else str(value)


@pytest.mark.parametrize("expression,result", vectors())
def test_vector_of_the_page(expression, result):
    assert evaluate(expression) == result


def test_every_example_is_on_the_page():
    assert set(EXAMPLES) <= {expression for expression, _ in vectors()}


def keyloader(directory, *arguments, stdin="", status=0):
    done = subprocess.run([KEYLOADER, "--dir", directory, *map(str, arguments)], input=stdin, text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == status, (arguments, done.stdout, done.stderr)
    return done


KEYS = [
    {"key": "first imported key", "owner": "acme", "scopes": ["orders:*", "users:read"], "name": "Ünïcode ✓"},
    {"key": "second imported key", "owner": "acme", "env": "test", "expires": 2000000000,
     "rate": {"amount": 100, "period_ns": 1000000000, "burst": 200}},
    {"key": "third imported key", "owner": "shop", "methods": ["GET", "HEAD"], "tls": True},
    {"key": "fourth imported key", "owner": "shop", "revoked": True},
    {"key": "fifth imported key", "owner": "shop", "limits": [
        {"kind": "rate", "name": "rate", "amount": 5, "period_ns": 60000000000, "burst": 3},
        {"kind": "calendar_quota", "name": "month", "amount": 10**12, "unit": "month", "dry_run": True},
        {"kind": "rolling_quota", "name": "tokens.day", "amount": 1, "period_ns": 366 * 86400 * 10**9},
        {"kind": "concurrency", "name": "concurrency", "amount": 60000},
        {"kind": "adjustment", "name": "month", "granted": 10**12, "until": 2**32 - 1, "reset": 2**32 - 1}]},
]

WRONG_LIMITS = [
    {"kind": "rate", "name": "rate", "amount": 0, "period_ns": 1, "burst": 3},
    {"kind": "rate", "name": "rate", "amount": 1, "period_ns": 1, "burst": 10**9 + 1},
    {"kind": "calendar_quota", "name": "month", "amount": 0, "unit": "month"},
    {"kind": "calendar_quota", "name": "month", "amount": 10**12 + 1, "unit": "month"},
    {"kind": "calendar_quota", "name": "month", "amount": 1, "unit": "none"},
    {"kind": "rolling_quota", "name": "day", "amount": 0, "period_ns": 1},
    {"kind": "rolling_quota", "name": "day", "amount": 1, "period_ns": 366 * 86400 * 10**9 + 1},
    {"kind": "concurrency", "name": "concurrency", "amount": 0},
    {"kind": "concurrency", "name": "concurrency", "amount": 60001},
    {"kind": "adjustment", "name": "month", "granted": 10**12 + 1, "until": 1},
    {"kind": "adjustment", "name": "month", "granted": 1, "until": 2**32},
    {"kind": "adjustment", "name": "month", "granted": 1},
    {"kind": "adjustment", "name": "month", "reset": 2**32},
]


def write(path, keys, *arguments, env=None):
    subprocess.run([HERE / "snapshot_writer.py", path, *map(str, arguments)],
                   input="".join(json.dumps(key) + "\n" for key in keys), text=True, check=True, timeout=60,
                   env=os.environ | (env or {}))
    return path


@pytest.fixture
def sealed(tmp_path):
    unsealed = write(tmp_path / "unsealed.mdb", KEYS, "--generation", 7)
    keyloader(tmp_path, "snapshot", "seal", unsealed, "--out", tmp_path / "sealed.mdb")
    return tmp_path / "sealed.mdb"


def check_whole(snapshot):
    """Index and databases lead to the same bytes, for every key and row."""
    for digest, data in snapshot.databases["keys"].items():
        assert snapshot.find(digest) == fmt.read_record(digest, data)
    for name, rows in snapshot.tables.items():
        for number, payload in rows.items():
            assert snapshot.row_by_index(name, number) == payload
    for i in range(500):
        assert snapshot.find(fmt.sha256(b"stranger %d" % i)) is None


def test_reads_what_python_wrote_and_keyloader_sealed(tmp_path, sealed):
    keyloader(tmp_path, "snapshot", "verify", sealed)
    snapshot = Snapshot(sealed)
    check_whole(snapshot)
    assert snapshot.meta["generation"] == "7"
    for key in KEYS:
        found = snapshot.describe(snapshot.find(fmt.sha256(key["key"].encode())))
        assert found["owner"] == key["owner"]
        assert found["env"] == key.get("env", "live")
        assert found["name"] == key.get("name", "")
        assert found["scopes"] == key.get("scopes", [])
        assert found["expires"] == key.get("expires", 0)
        assert found["flags"] == (fmt.TLS_REQUIRED if key.get("tls") else 0) | (fmt.REVOKED if key.get("revoked") else 0)


    found = snapshot.describe(snapshot.find(fmt.sha256(b"fifth imported key")))
    assert [limit["name"] for limit in found["limits"]] == ["rate", "month", "tokens.day", "concurrency", "month"]
    assert [limit["kind"] for limit in found["limits"]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("counters,is_good", [("5,0", True), ("12,7", True), ("5,1", False), ("4,9", False)])
def test_keys_are_what_was_added_less_what_was_removed(tmp_path, counters, is_good):
    unsealed = write(tmp_path / "unsealed.mdb", KEYS, "--counters", counters)
    keyloader(tmp_path, "snapshot", "seal", unsealed, "--out", tmp_path / "sealed.mdb", status=0 if is_good else 1)
    if is_good:
        meta = Snapshot(tmp_path / "sealed.mdb").meta
        assert [meta["added"], meta["removed"]] == counters.split(",")


@pytest.mark.parametrize("words,is_good", [("", True), ("deny max-use", True), ("deny deny", False),
                                           (" ".join(map(str, range(16))), True), (" ".join(map(str, range(17))), False)])
def test_required_features(tmp_path, words, is_good):
    unsealed = write(tmp_path / "unsealed.mdb", KEYS, "--requires", words)
    keyloader(tmp_path, "snapshot", "seal", unsealed, "--out", tmp_path / "sealed.mdb", status=0 if is_good else 1)
    if is_good:
        assert Snapshot(tmp_path / "sealed.mdb").features == words.split()


HEAD = "0123456789abcdef" * 4
VERSION_2 = [
    ({}, True), ({"hash_seed": "0f" * 16, "name": "eu-west_1", "audit_seq": "7", "audit_head": HEAD}, True),
    ({"hash_seed": "0" * 32}, False), ({"hash_seed": "0F" * 16}, False), ({"name": ""}, False), ({"name": "A"}, False),
    ({"name": "a" * 33}, False), ({"audit_seq": "7"}, False), ({"audit_head": HEAD}, False),
    ({"audit_seq": "0", "audit_head": HEAD}, False), ({"audit_seq": "7", "audit_head": "00"}, False),
]


@pytest.mark.parametrize("names,is_good", VERSION_2, ids=str)
@pytest.mark.parametrize("version", [1, 2])
def test_names_of_version_2(tmp_path, version, names, is_good):
    """In a file of version 1 they are names like any other."""
    is_good = is_good or version == 1
    more = [word for name, value in names.items() for word in ("--meta", f"{name}={value}")]
    unsealed = write(tmp_path / "unsealed.mdb", KEYS[:1], "--format", version, *more)
    keyloader(tmp_path, "snapshot", "seal", unsealed, "--out", tmp_path / "sealed.mdb", status=0 if is_good else 1)
    if is_good:
        snapshot = Snapshot(tmp_path / "sealed.mdb")
        assert snapshot.seal["format"] == version
        expected = names if version == 2 else {}
        assert snapshot.name == expected.get("name", "")
        shown = json.loads(keyloader(tmp_path, "--json", "snapshot", "show", tmp_path / "sealed.mdb").stdout)
        assert (shown["format"], shown["name"]) == (version, expected.get("name"))
        assert (shown["audit_seq"], shown["audit_head"]) == (snapshot.audit or (None, None))


def test_a_later_version_is_refused_with_the_sentence_of_the_page(tmp_path):
    unsealed = write(tmp_path / "unsealed.mdb", KEYS[:1], "--format", 3)
    done = keyloader(tmp_path, "snapshot", "seal", unsealed, "--out", tmp_path / "sealed.mdb", status=1)
    assert re.findall(r"^```sentence\n(.*?)\n```", PAGE, re.MULTILINE | re.DOTALL)[1] in done.stderr


@pytest.mark.parametrize("limit", WRONG_LIMITS, ids=str)
def test_refuses_limits_the_page_does_not_allow(tmp_path, limit):
    unsealed = write(tmp_path / "unsealed.mdb", [{"key": "an imported key", "owner": "acme", "limits": [limit]}])
    keyloader(tmp_path, "snapshot", "seal", unsealed, "--out", tmp_path / "sealed.mdb", status=1)


@pytest.mark.parametrize("limits,adjustments,is_good", [(16, 16, True), (17, 0, False), (16, 17, False), (1, 31, True)])
def test_a_list_has_room_for_16_limits_and_32_entries(tmp_path, limits, adjustments, is_good):
    own = [{"kind": "concurrency", "name": f"c{i}", "amount": 1} for i in range(limits)]
    own += [{"kind": "adjustment", "name": f"q{i}", "reset": 1} for i in range(adjustments)]
    unsealed = write(tmp_path / "unsealed.mdb", [{"key": "an imported key", "owner": "acme", "limits": own}])
    keyloader(tmp_path, "snapshot", "seal", unsealed, "--out", tmp_path / "sealed.mdb", status=0 if is_good else 1)
    if is_good:
        check_whole(Snapshot(tmp_path / "sealed.mdb"))


def test_a_node_takes_what_python_wrote(tmp_path, sealed):
    node = tmp_path / "node"
    node.mkdir()
    keyloader(node, "snapshot", "install", sealed)
    assert (node / "keys.mdb").read_bytes() == sealed.read_bytes()
    check_whole(Snapshot(node / "keys.mdb"))


def test_seals_thousands(tmp_path):
    keys = [{"key": f"imported key {i}", "owner": f"owner {i % 50}", "scopes": [f"s:{i % 9}"]} for i in range(5000)]
    unsealed = write(tmp_path / "unsealed.mdb", keys)
    keyloader(tmp_path, "snapshot", "seal", unsealed, "--out", tmp_path / "sealed.mdb")
    check_whole(Snapshot(tmp_path / "sealed.mdb"))


def test_seals_an_empty_one(tmp_path):
    unsealed = write(tmp_path / "unsealed.mdb", [])
    keyloader(tmp_path, "snapshot", "seal", unsealed, "--out", tmp_path / "sealed.mdb")
    check_whole(Snapshot(tmp_path / "sealed.mdb"))


def test_reads_in_python_what_keyloader_wrote(tmp_path):
    directory = tmp_path / "apikey"
    keyloader(directory, "init")
    keyloader(directory, "plan", "create", "gold", "--rate", "100/s", "--burst", "200", "--no-publish")
    created = []
    for arguments in (["--scope", "orders:*", "--plan", "gold", "--name", "web"],
                      ["--env", "test", "--rate", "5/m", "--burst", "3", "--meta", "tier=blue"],
                      ["--allow-ip", "10.0.0.0/8", "--require-tls", "--expires", "2040-01-01"]):
        done = keyloader(directory, "--json", "key", "create", "--owner", "acme", "--create-owner", *arguments)
        created.append(json.loads(done.stdout))
    keyloader(directory, "key", "revoke", created[2]["id"])
    snapshot = Snapshot(directory / "keys.mdb")
    check_whole(snapshot)
    first, second, third = (snapshot.describe(snapshot.find(fmt.sha256(key["key"].encode()))) for key in created)
    assert [first["id"], second["id"], third["id"]] == [key["id"] for key in created]
    assert (first["owner"], first["env"], first["name"]) == ("acme", "live", "web")
    assert first["scopes"] == ["orders:*"] and first["plan"] == "gold"
    limit = first["plan_limits"][0]
    assert (limit["kind"], limit["amount"], limit["period_ns"], limit["burst"]) == (1, 100, 1000000000, 200)
    assert second["env"] == "test" and second["meta"] == {"tier": "blue"}
    assert (second["limits"][0]["amount"], second["limits"][0]["period_ns"]) == (5, 60000000000)
    assert third["expires"] == 2208988800
    assert third["flags"] == fmt.REVOKED | fmt.TLS_REQUIRED


def test_a_head_with_a_base_is_refused_with_the_sentence_of_the_page(tmp_path):
    unsealed = write(tmp_path / "unsealed.mdb", KEYS)
    put(unsealed, b"meta", b"base", b"ab" * 32)
    done = keyloader(tmp_path, "snapshot", "seal", unsealed, "--out", tmp_path / "sealed.mdb", status=1)
    sentence = re.search(r"^```sentence\n(.*?)\n```", PAGE, re.MULTILINE | re.DOTALL)[1]
    assert sentence in done.stderr
    assert not (tmp_path / "sealed.mdb").exists()


def put(path, database, key, value):
    env = lmdb.open(str(path), subdir=False, max_dbs=8, map_size=1 << 30, lock=False)
    with env.begin(write=True) as txn:
        txn.put(key, value, db=env.open_db(database, txn))
    env.close()


def test_a_write_breaks_the_seal(tmp_path, sealed):
    put(sealed, b"meta", b"note", b"harmless")
    keyloader(tmp_path, "snapshot", "verify", sealed, status=1)
    with pytest.raises(Damaged):
        Snapshot(sealed)


def test_a_copy_is_to_be_sealed_again(tmp_path, sealed):
    for options in ([], ["-c"]):
        copied = tmp_path / "copied.mdb"
        copied.unlink(missing_ok=True)
        subprocess.run(["mdb_copy", "-n", *options, sealed, copied], check=True, timeout=60)
        keyloader(tmp_path, "snapshot", "verify", copied, status=1)
        again = tmp_path / "again.mdb"
        again.unlink(missing_ok=True)
        keyloader(tmp_path, "snapshot", "seal", copied, "--out", again)
        check_whole(Snapshot(again))


def test_looking_at_it_breaks_nothing(tmp_path, sealed):
    before = sealed.read_bytes()
    listing = subprocess.run(["mdb_stat", "-n", "-a", sealed], check=True, capture_output=True, text=True, timeout=60)
    for name in ("index", "keys", "meta", "owners", "plans", "scopes", "strings"):
        assert f"Status of {name}" in listing.stdout
    dump = subprocess.run(["mdb_dump", "-p", "-n", "-s", "meta", sealed], check=True, capture_output=True, text=True,
                          timeout=60)
    assert " generation\n 7\n" in dump.stdout
    assert sealed.read_bytes() == before
    keyloader(tmp_path, "snapshot", "verify", sealed)


PAGE_SIZE_SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
long sysconf(int name) {
  long (*real)(int) = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
  return name == _SC_PAGESIZE ? PAGE : real(name);
}
"""


@pytest.mark.parametrize("size", [16384, 32768])
def test_takes_files_of_machines_with_larger_pages(tmp_path, size):
    (tmp_path / "shim.c").write_text(PAGE_SIZE_SHIM)
    subprocess.run(["gcc", "-shared", "-fPIC", f"-DPAGE={size}", "-o", tmp_path / "shim.so", tmp_path / "shim.c", "-ldl"],
                   check=True, timeout=60)
    unsealed = write(tmp_path / "unsealed.mdb", KEYS, env={"LD_PRELOAD": str(tmp_path / "shim.so")})
    keyloader(tmp_path, "snapshot", "seal", unsealed, "--out", tmp_path / "sealed.mdb")
    snapshot = Snapshot(tmp_path / "sealed.mdb")
    assert snapshot.page_size == size
    check_whole(snapshot)
    keyloader(tmp_path, "snapshot", "verify", tmp_path / "sealed.mdb")
