#!/usr/bin/python3
"""Writes a snapshot that is neither indexed nor sealed, from docs/snapshot-format.md alone.

    snapshot_writer.py OUT [--generation N] [--registry-id HEX] [--counters ADDED,REMOVED] [--requires WORDS]
                       [--format N] [--meta NAME=VALUE] < keys.ndjson
    keyloader snapshot seal OUT --out SEALED

One JSON object a line: key, owner, and if wanted env, name, scopes, rate {amount, period_ns, burst}, limits (a list of
own ones, as limit_bytes() reads them), expires, not_before, tls, revoked, methods (GET POST …), id; and what no version
knows yet: more_flags, bindings_hex. The keys' texts are read from stdin, never from argv.
"""
import argparse
import hashlib
import json
import struct
import sys
import time

import lmdb

import snapshot_format as fmt

METHODS = "GET HEAD POST PUT DELETE PATCH OPTIONS MKCOL COPY MOVE PROPFIND PROPPATCH LOCK UNLOCK TRACE".split()


class Rows:
    """One table: each content has one number, from 1 up."""

    def __init__(self):
        self.numbers = {}

    def number(self, payload):
        return self.numbers.setdefault(payload, len(self.numbers) + 1) if payload else 0


class Builder:
    def __init__(self):
        self.tables = {name: Rows() for name in fmt.TABLES}
        self.records = {}
        self.scopes = set()

    def string(self, text):
        return self.tables["strings"].number(text.encode() if isinstance(text, str) else text)

    def scope_set(self, scopes):
        self.scopes.update(scopes)
        return self.tables["scopes"].number(fmt.scope_set(scopes)) if scopes else 0

    def plan(self, rate):
        if not rate:
            return 0
        limits = fmt.rate(self.string("default"), rate["amount"], rate["period_ns"], rate["burst"])
        return self.tables["plans"].number(fmt.plan(self.string(f"plan of {rate['amount']}"), limits))

    def limit_bytes(self, limit):
        fields = {name: value for name, value in limit.items() if name != "kind"}
        return getattr(fmt, limit["kind"])(**fields | {"name": self.string(limit["name"])})

    def limits(self, limits):
        return self.string(b"".join(map(self.limit_bytes, limits))) if limits else 0

    def bindings(self, methods):
        bits = sum(1 << METHODS.index(method) for method in methods)
        return self.string(struct.pack("<BBI", 4, 4, bits)) if bits else 0

    def add(self, key):
        digest = fmt.sha256(key["key"].encode())
        owner_id = hashlib.sha256(b"owner " + key["owner"].encode()).digest()[:16]
        key_id = key.get("id") or self.next_id()
        self.records[digest] = fmt.record(
            digest,
            env=self.string(key.get("env", "live")),
            owner=self.tables["owners"].number(fmt.owner(self.string(key["owner"]), owner_id)),
            plan=self.plan(key.get("rate")),
            scopes=self.scope_set(key.get("scopes", [])),
            name=self.string(key.get("name", "")),
            bindings=self.string(bytes.fromhex(key.get("bindings_hex", ""))) or self.bindings(key.get("methods", [])),
            limits=self.limits(key.get("limits", [])),
            flags=(fmt.TLS_REQUIRED if key.get("tls") else 0) | (fmt.REVOKED if key.get("revoked") else 0)
            | key.get("more_flags", 0),
            key_id=key_id,
            not_before=key.get("not_before", 0),
            expires=key.get("expires", 0),
        )

    def next_id(self):
        number = (int(time.time() * 1000) << 52) + len(self.records)
        return fmt.id_text((number << 4).to_bytes(13, "big"))

    def write(self, path, generation, registry_id, more_meta=None):
        env = lmdb.open(path, subdir=False, max_dbs=8, map_size=1 << 30, lock=False)
        with env.begin(write=True) as txn:
            database = env.open_db(b"keys", txn)
            for digest in sorted(self.records):
                txn.put(digest, self.records[digest], db=database, append=True)
            for name, table in fmt.TABLES.items():
                self.write_table(env, txn, name, table)
            database = env.open_db(b"meta", txn)
            for name, value in (self.meta(generation, registry_id) | (more_meta or {})).items():
                txn.put(name.encode(), value.encode(), db=database)
        env.close()

    def write_table(self, env, txn, name, table):
        database = env.open_db(name.encode(), txn)
        rows = {number: payload for payload, number in self.tables[name].numbers.items()}
        if name == "scopes":
            rows[0] = fmt.scope_set(self.scopes)
        for number in sorted(rows):
            txn.put(struct.pack(">I", number), fmt.row(table, number, rows[number]), db=database, append=True)

    def meta(self, generation, registry_id):
        return {
            "format": "2",
            "registry_id": registry_id,
            "generation": str(generation),
            "created": str(int(time.time())),
            "builder": "snapshot_writer.py",
            "keys": str(len(self.records)),
            "digests": "sha256",
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--generation", type=int, default=1)
    parser.add_argument("--registry-id", default="c0ffee" + "0" * 26)
    parser.add_argument("--counters")
    parser.add_argument("--requires")
    parser.add_argument("--format", default="2")
    parser.add_argument("--meta", action="append", default=[])
    arguments = parser.parse_args()
    more_meta = {"format": arguments.format} | dict(pair.split("=", 1) for pair in arguments.meta)
    if arguments.counters:
        more_meta["added"], more_meta["removed"] = arguments.counters.split(",")
    if arguments.requires is not None:
        more_meta["requires"] = arguments.requires
    builder = Builder()
    for line in sys.stdin:
        builder.add(json.loads(line))
    builder.write(arguments.out, arguments.generation, arguments.registry_id, more_meta)


if __name__ == "__main__":
    main()
