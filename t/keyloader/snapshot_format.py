"""The pieces of a snapshot in Python, written from docs/snapshot-format.md alone: checks, ids, records, rows, lists.

Used by snapshot_writer.py and snapshot_reader.py. Shares no code with keyloader or the module, on purpose.
"""
import hashlib
import struct

MASK = (1 << 64) - 1
TABLES = {"strings": 1, "scopes": 2, "plans": 3, "owners": 4}
RECORD = struct.Struct("<BBH8I13s13sHqqq")
LIMIT = struct.Struct("<IBBHQQQ")
ID_DIGITS = "0123456789abcdefghijklmnopqrstuv"
REVOKED, SUSPENDED, TLS_REQUIRED = 1, 2, 4
RATE, CALENDAR_QUOTA, ROLLING_QUOTA, CONCURRENCY, ADJUSTMENT = 1, 2, 3, 4, 5
UNITS = ["none", "minute", "hour", "day", "week", "month", "year"]


def fold64(data):
    h = 0x9E3779B97F4A7C15 ^ len(data)
    for at in range(0, len(data), 8):
        word = int.from_bytes(data[at : at + 8].ljust(8, b"\0"), "little")
        product = (word ^ h) * 0xA0761D6478BD642F
        h = (product & MASK) ^ (product >> 64) ^ ((word << 32 | word >> 32) & MASK)
    return h or 1


def sha256(key):
    return hashlib.sha256(key).digest()


def id_bytes(text):
    assert text.startswith("key_") and len(text) == 24
    number = 0
    for digit in text[4:]:
        number = number * 32 + ID_DIGITS.index(digit)
    return (number << 4).to_bytes(13, "big")


def id_text(data):
    number = int.from_bytes(data, "big")
    assert number & 15 == 0
    return "key_" + "".join(ID_DIGITS[number >> shift & 31] for shift in range(99, 3, -5))


def record(digest, *, env, owner, key_id, family=None, flags=0, plan=0, scopes=0, name=0, meta=0, bindings=0, limits=0,
           not_before=0, expires=0, suspended_until=0):
    body = RECORD.pack(1, flags, 96, env, owner, plan, scopes, name, meta, bindings, limits, id_bytes(key_id),
                       id_bytes(family or key_id), 0, not_before, expires, suspended_until)
    return body + struct.pack("<Q", fold64(digest + body))


def read_record(digest, data):
    assert len(data) == 96 and struct.unpack("<Q", data[88:])[0] == fold64(digest + data[:88]), "record does not check"
    names = ("version flags size env owner plan scopes name meta bindings limits id family zero not_before expires "
             "suspended_until").split()
    fields = dict(zip(names, RECORD.unpack(data[:88])))
    assert (fields.pop("version"), fields.pop("size"), fields.pop("zero")) == (1, 96, 0)
    assert fields["env"] and fields["owner"] and fields["flags"] & ~7 == 0
    return fields | {"id": id_text(fields["id"]), "family": id_text(fields["family"])}


def row(table, number, payload):
    check = fold64(struct.pack("<BxxxI", table, number) + payload)
    return struct.pack("<IIQ", number, len(payload), check) + payload


def read_row(table, number, data):
    found, length, check = struct.unpack_from("<IIQ", data)
    payload = bytes(data[16 : 16 + length])
    assert found == number and len(payload) == length
    assert check == fold64(struct.pack("<BxxxI", table, number) + payload), "row does not check"
    return payload


def scope_set(scopes):
    encoded = sorted({scope.encode() for scope in scopes})
    return struct.pack("<H", len(encoded)) + b"".join(struct.pack("<H", len(s)) + s for s in encoded)


def read_scope_set(payload):
    count, at, scopes = struct.unpack_from("<H", payload)[0], 2, []
    for _ in range(count):
        length = struct.unpack_from("<H", payload, at)[0]
        scopes.append(payload[at + 2 : at + 2 + length].decode())
        at += 2 + length
    assert at == len(payload)
    return scopes


def rate(name, amount, period_ns, burst):
    return LIMIT.pack(name, 1, 0, 0, amount, period_ns, burst)


def calendar_quota(name, amount, unit, dry_run=False):
    return LIMIT.pack(name, 2, UNITS.index(unit), dry_run, amount, 0, 0)


def rolling_quota(name, amount, period_ns, dry_run=False):
    return LIMIT.pack(name, 3, 0, dry_run, amount, period_ns, 0)


def concurrency(name, amount, dry_run=False):
    return LIMIT.pack(name, 4, 0, dry_run, amount, 0, 0)


def adjustment(name, granted=0, until=0, reset=0):
    assert granted or reset
    return LIMIT.pack(name, 5, 0, 0, granted, until, reset)


def read_limits(data):
    names = "name kind unit flags amount period_ns burst".split()
    assert len(data) % 32 == 0
    limits = [dict(zip(names, LIMIT.unpack_from(data, at))) for at in range(0, len(data), 32)]
    assert len(limits) <= 32 and sum(limit["kind"] != ADJUSTMENT for limit in limits) <= 16
    for limit in limits:
        check_limit(**limit)
    return limits


def check_limit(name, kind, unit, flags, amount, period_ns, burst):
    assert name and flags in (0, 1) and 1 <= kind <= 5
    assert (1 <= unit <= 6) if kind == CALENDAR_QUOTA else unit == 0
    if kind == ADJUSTMENT:
        assert flags == 0 and (amount or burst) and bool(amount) == bool(period_ns)
        assert amount <= 10**12 and period_ns < 1 << 32 and burst < 1 << 32
        return
    assert 1 <= amount <= {RATE: 10**9, CONCURRENCY: 60000}.get(kind, 10**12)
    assert 1 <= burst <= 10**9 if kind == RATE else burst == 0
    assert period_ns > 0 if kind in (RATE, ROLLING_QUOTA) else period_ns == 0
    assert kind != ROLLING_QUOTA or period_ns <= 366 * 86400 * 10**9


def plan(name, limits=b""):
    return struct.pack("<IHH", name, len(limits) // 32, 0) + limits


def owner(name, owner_id, limits=b"", meta=0, flags=0, suspended_until=0):
    return struct.pack("<IIBBHIq16s", name, meta, flags, 0, len(limits) // 32, 0, suspended_until, owner_id) + limits


def home(digest, buckets):
    return int.from_bytes(digest[:8], "little") * buckets >> 64


def tag(digest):
    return int.from_bytes(digest[8:11], "little")
