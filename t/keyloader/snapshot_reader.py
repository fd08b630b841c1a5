#!/usr/bin/python3
"""Reads a sealed snapshot, from docs/snapshot-format.md alone: seal, databases, rows, and look-ups through the index.

    snapshot_reader.py FILE < keys      prints one JSON object per key (line) of stdin
"""
import hashlib
import json
import re
import struct
import sys

import lmdb

import snapshot_format as fmt

SEAL = struct.Struct("<8sIIQ32sQ32sI28s")


class Damaged(Exception):
    pass


def require(holds, sentence):
    if not holds:
        raise Damaged(sentence)


class Snapshot:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.file = file.read()
        self.seal = self.check_seal()
        env = lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_dbs=8)
        require((env.info()["last_pgno"] + 2) * self.page_size == len(self.file), "wrong length")
        with env.begin() as txn:
            self.databases = {name.decode(): dict(txn.cursor(env.open_db(name, txn, create=False)))
                              for name in dict(txn.cursor())}
        env.close()
        self.meta = {name.decode(): value.decode() for name, value in self.databases["meta"].items()}
        require(self.meta["format"] == str(self.seal["format"]), "another format than in the seal")
        self.check_names_of_version_2()
        require("base" not in self.meta, "a head with a base")
        require(int(self.meta["generation"]) == self.seal["generation"], "seal and meta disagree")
        require(int(self.meta["keys"]) == len(self.databases["keys"]), "wrong number of keys")
        self.check_counters()
        self.features = self.meta["requires"].split(" ") if self.meta.get("requires") else []
        require(len(self.features) <= 16 and all(self.features), "required features")
        self.tables = {name: self.read_table(name, table) for name, table in fmt.TABLES.items()}
        self.open_index()

    def check_counters(self):
        require(("added" in self.meta) == ("removed" in self.meta), "one counter without the other")
        if "added" in self.meta:
            difference = int(self.meta["added"]) - int(self.meta["removed"])
            require(difference == int(self.meta["keys"]), "keys are not added less removed")

    def check_names_of_version_2(self):
        patterns = {"hash_seed": r"(?!0{32})[0-9a-f]{32}", "name": "[a-z0-9_-]{1,32}", "audit_seq": "[1-9][0-9]*",
                    "audit_head": "[0-9a-f]{64}"}
        found = {name: self.meta[name] for name in patterns if name in self.meta and self.seal["format"] >= 2}
        require(all(re.fullmatch(patterns[name], value) for name, value in found.items()), "a value of version 2")
        require(("audit_seq" in found) == ("audit_head" in found), "half an audit entry")
        self.hash_seed, self.name = bytes.fromhex(found.get("hash_seed", "")), found.get("name", "")
        self.audit = (int(found["audit_seq"]), found["audit_head"]) if "audit_seq" in found else None

    def check_seal(self):
        for self.page_size in (4096, 8192, 16384, 32768):
            page = self.file[-self.page_size :]
            if page[:8] == b"AKSEAL01" and struct.unpack_from("<I", page, 12)[0] == self.page_size:
                break
        else:
            raise Damaged("no seal")
        names = "magic format page_size length sha256 generation base signatures zero".split()
        seal = dict(zip(names, SEAL.unpack_from(page)))
        require(seal["format"] in (1, 2), "another format")
        require(seal["length"] == len(self.file), "the seal is for another file")
        require(not any(page[100:128]) and not any(page[128 + 96 * seal["signatures"] :]), "no zeros in the seal")
        require(hashlib.sha256(self.file[: -self.page_size]).digest() == seal["sha256"], "the hash differs")
        return seal

    def read_table(self, name, table):
        first = 0 if name == "scopes" else 1
        rows = {}
        for place, key in enumerate(sorted(self.databases[name])):
            number = struct.unpack(">I", key)[0]
            require(number == first + place, "a gap in the numbers")
            rows[number] = fmt.read_row(table, number, self.databases[name][key])
        return rows

    def open_index(self):
        value = self.databases["index"][b"1"]
        places = [at + 16 for at in range(0, len(self.file), self.page_size)
                  if self.file[at + 16 : at + 24] == b"AKINDEX1" and self.file[at + 16 : at + 16 + len(value)] == value]
        require(places and value[:8] == b"AKINDEX1", "the index is not at the start of a page")
        self.buckets, self.max_probe, zero, *self.row_counts = struct.unpack_from("<QII4I", value, 8)
        require(struct.unpack_from("<Q", value, 40)[0] == fmt.fold64(value[:40]) and zero == 0, "header of the index")
        require(len(value) == 48 + 64 * self.buckets + 8 * sum(self.row_counts), "length of the index")
        self.index = value

    def find(self, digest):
        """The record of a digest through the index; None when the key is not there."""
        bucket = fmt.home(digest, self.buckets)
        for _ in range(self.max_probe + 1):
            raw = self.index[48 + 64 * bucket : 112 + 64 * bucket]
            check, *entries = struct.unpack("<8Q", raw)
            require(check == fmt.fold64(struct.pack("<Q", bucket) + raw[8:]), "bucket does not check")
            for entry in entries:
                if entry == 0:
                    return None
                place = entry >> 24
                if entry & 0xFFFFFF == fmt.tag(digest) and self.file[place : place + 32] == digest:
                    return fmt.read_record(digest, self.file[place + 32 : place + 128])
            bucket = (bucket + 1) % self.buckets
        return None

    def row_by_index(self, name, number):
        at = 48 + 64 * self.buckets
        for table, count in zip(fmt.TABLES, self.row_counts):
            first = 0 if table == "scopes" else 1
            if table == name:
                require(first <= number < first + count, "no such row")
                place = struct.unpack_from("<Q", self.index, at + 8 * (number - first))[0]
                return fmt.read_row(fmt.TABLES[name], number, self.file[place : place + 16 + (1 << 20)])
            at += 8 * count
        raise KeyError(name)

    def string(self, number):
        return self.tables["strings"][number].decode() if number else ""

    def describe(self, found):
        owner = self.tables["owners"][found["owner"]]
        result = {name: found[name] for name in ("id", "family", "flags", "not_before", "expires")}
        result["env"] = self.string(found["env"])
        result["name"] = self.string(found["name"])
        result["owner"] = self.string(struct.unpack_from("<I", owner)[0])
        result["scopes"] = fmt.read_scope_set(self.tables["scopes"][found["scopes"]]) if found["scopes"] else []
        result["meta"] = json.loads(self.string(found["meta"]) or "{}")
        result["limits"] = self.limits(self.tables["strings"][found["limits"]] if found["limits"] else b"")
        result["owner_limits"] = self.limits(owner[40:])
        plan = self.tables["plans"][found["plan"]] if found["plan"] else b""
        result["plan"] = self.string(struct.unpack_from("<I", plan)[0]) if plan else ""
        result["plan_limits"] = self.limits(plan[8:])
        require(all(limit["kind"] != fmt.ADJUSTMENT for limit in result["plan_limits"]), "a plan with an adjustment")
        return result

    def limits(self, data):
        return [limit | {"name": self.string(limit["name"])} for limit in fmt.read_limits(data)]


def main():
    snapshot = Snapshot(sys.argv[1])
    for line in sys.stdin:
        found = snapshot.find(fmt.sha256(line.rstrip("\n").encode()))
        print(json.dumps(None if found is None else snapshot.describe(found)))


if __name__ == "__main__":
    main()
