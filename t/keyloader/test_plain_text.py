"""Texts that steer a terminal or hide themselves: nobody can write them, and those from elsewhere are shown as escapes."""

import json
import sqlite3

import pytest

HOSTILE = {"C0": "a\x1b[31mb", "line end": "a\nb", "DEL": "a\x7fb", "C1": "a\u009b31mb", "NEL": "a\u0085b",
           "override": "a\u202egnp.exe", "embedding": "a\u202ab", "isolate": "a\u2066b", "mark": "a\u200fb",
           "Arabic mark": "a\u061cb", "zero width": "ac\u200bme", "joiner": "ac\u200dme", "byte-order mark": "a\ufeffb",
           "line separator": "a\u2028b", "tag": "a\U000e0041b", "filler": "a\u3164b", "soft hyphen": "a\u00adb"}
GOOD = ["O'Neill, Söhne", "Zażółć 多言語 😀", "العربية", "हिन्दी", "a b\u00a0c"]
FIELDS = {
    "name of an owner": ["owner", "create", "TEXT"],
    "owner of a key": ["key", "create", "--create-owner", "--owner", "TEXT"],
    "e-mail": ["owner", "set", "acme", "--email", "TEXT"],
    "team": ["owner", "set", "acme", "--team", "TEXT"],
    "meta of an owner": ["owner", "set", "acme", "--meta", "x=TEXT"],
    "name of a key": ["key", "set", "ID", "--name", "TEXT"],
    "meta of a key": ["key", "set", "ID", "--meta", "x=TEXT"],
    "reason": ["key", "revoke", "ID", "--reason", "TEXT"],
    "reason of a grant": ["quota", "grant", "ID", "--amount", "1", "--reason", "TEXT"],
    "plan": ["plan", "create", "TEXT"], "role": ["role", "create", "TEXT", "--scope", "a"],
}


def is_clean(text):
    return not any(c != "\n" and any(c in bad for bad in HOSTILE.values()) for c in text if not c.isascii() or c < " ")


def test_the_check_knows_what_is_hostile():
    assert [name for name, text in HOSTILE.items() if name not in ("line end", "DEL") and is_clean(text)] == []
    assert all(map(is_clean, GOOD[:4]))


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("field", ["name of an owner", "reason"])
def test_every_kind_is_refused(keyloader, field, kind):
    made = keyloader.key("acme", "--quota", "10/day")
    words = [word.replace("TEXT", HOSTILE[kind]).replace("ID", made["id"]) for word in FIELDS[field]]
    sentence = keyloader.refused(*words, status=2)
    assert is_clean(sentence) and sentence.count("\n") == 1


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_refuses(keyloader, field):
    made = keyloader.key("acme", "--quota", "10/day")
    for text in (HOSTILE["C1"], HOSTILE["override"]):
        words = [word.replace("TEXT", text).replace("ID", made["id"]) for word in FIELDS[field]]
        sentence = keyloader.refused(*words, status=2)
        assert is_clean(sentence)
        assert "\\u009b31m" in sentence or "\\u202egnp" in sentence or "meta x" in sentence


@pytest.mark.parametrize("text", GOOD)
def test_names_of_people_are_taken_and_shown(keyloader, text):
    keyloader("owner", "create", text)
    assert text in keyloader("owner", "list").stdout
    assert text in keyloader("owner", "list", "--json").stdout


@pytest.mark.parametrize("column", ["owner", "name", "meta.team"])
def test_imports_refuse(keyloader, column):
    line = {"key": "imported-key-0123456789abcdef", "owner": "acme", column: HOSTILE["override"]}
    done = keyloader("import", "-", "--format", "ndjson", "--create-owners", stdin=json.dumps(line), status=1)
    assert f"line 1, {column}:" in done.stderr and is_clean(done.stderr)


def test_names_of_columns_are_shown(keyloader):
    line = {"key": "imported-key-0123456789abcdef", "owner": "acme", HOSTILE["C1"]: "x"}
    done = keyloader("import", "-", "--format", "ndjson", stdin=json.dumps(line), status=1)
    assert "a\\u009b31mb" in done.stderr and is_clean(done.stderr)


@pytest.fixture(params=["C0", "line end", "C1", "override", "zero width", "tag"])
def foreign(keyloader, request):
    """A registry in which an older version let such names in. RETURNS: (keyloader, id of the key, the text)."""
    text = HOSTILE[request.param]
    made = keyloader.key("acme", "--name", "nightly", "--meta", "x=y", "--quota", "10/day")
    keyloader("key", "revoke", made["id"], "--reason", "leaked")
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        database.execute("UPDATE owners SET name = ?, email = ?, team = ?", (text, text, text))
        database.execute("UPDATE keys SET name = ?, meta = ?, revoked_reason = ?", (text, json.dumps({"x": text}), text))
    database.close()
    return keyloader, made["id"], text


@pytest.mark.parametrize("command", [
    ["owner", "list"], ["owner", "show", "TEXT"], ["key", "list"], ["key", "show", "ID"], ["quota", "show", "ID"],
    ["owner", "set", "TEXT", "--rate", "5/s"], ["key", "set", "ID", "--plan", "default"], ["audit", "list"],
    ["key", "create", "--owner", "TEXT"], ["owner", "delete", "TEXT"], ["publish"],
])
def test_what_is_there_is_shown_as_escapes(foreign, command):
    keyloader, key, text = foreign
    words = [word.replace("TEXT", text).replace("ID", key) for word in command]
    status = 1 if command[:2] == ["owner", "delete"] else 0
    plain = keyloader(*words, status=status)
    assert is_clean(plain.stdout + plain.stderr), (plain.stdout, plain.stderr)
    assert "\x1b" not in plain.stdout + plain.stderr
    if "list" in command and command[0] != "audit":
        assert len(plain.stdout.splitlines()) == 2, "a name is no line of its own"
    shown = keyloader(*words, "--json", status=status)
    assert is_clean(shown.stdout + shown.stderr) and "\x1b" not in shown.stdout
    if command[0] in ("owner", "key") and command[1] in ("list", "show"):
        assert json.dumps(text)[1:-1] in json.dumps(json.loads(shown.stdout)), "JSON says what it is"


def test_merged_usage_is_checked(keyloader, tmp_path):
    line = {"type": "usage", "hour": "2026-01-01T00:00:00Z", "node": HOSTILE["override"], "instance": "0" * 32,
            "key": "", "owner": "acme", "owner_id": "0" * 32, "complete": True}
    file = tmp_path / "usage.ndjson"
    for field, value in (("node", HOSTILE["override"]), ("type", HOSTILE["C1"]), ("hour", HOSTILE["C0"])):
        file.write_text(json.dumps({**line, "node": "n1", field: value}) + "\n")
        sentence = keyloader.refused("usage", "merge", file)
        assert "line 1" in sentence and is_clean(sentence), sentence
