"""keyloader import: CSV as spreadsheets write it, NDJSON, digests; what is refused, why, and never the key."""

import csv
import hashlib
import hmac
import io
import json

import pytest

HEADER = "key,owner,name,scopes,roles,plan,env,expires,not_before,allow_ip,meta.team\n"


def secret(number=0):
    return hashlib.sha256(str(number).encode()).hexdigest()


def text_of(rows, **dialect):
    out = io.StringIO()
    csv.writer(out, **dialect).writerows(rows)
    return out.getvalue()


def import_csv(keyloader, text, *arguments, status=0):
    return keyloader("import", "-", "--format", "csv", "--create-owners", *arguments, stdin=text, status=status)


def report_of(keyloader, text, *arguments, form="csv", status=1):
    done = keyloader("import", "-", "--format", form, "--json", *arguments, stdin=text, status=status)
    return json.loads(done.stdout)


def test_every_column(keyloader):
    keyloader("plan", "create", "gold", "--rate", "1/s")
    keyloader("role", "create", "clerk", "--scope", "x")
    import_csv(keyloader, text_of([HEADER.strip().split(","), [
        secret(), "acme", "nightly", "b a:*", "clerk", "gold", "test", "2040-01-01", "2030-01-01", "10.0.0.0/8 2001:db8::1",
        "billing"]]))
    key = keyloader.json("find", stdin=secret())
    assert {name: key[name] for name in ("owner", "name", "scopes", "roles", "plan", "env", "prefix", "expires",
                                         "not_before", "allow_ip", "meta")} == {
        "owner": "acme", "name": "nightly", "scopes": ["a:*", "b"], "roles": ["clerk"], "plan": "gold", "env": "test",
        "prefix": "", "expires": "2040-01-01T00:00:00Z", "not_before": "2030-01-01T00:00:00Z",
        "allow_ip": ["10.0.0.0/8", "2001:db8::1"], "meta": {"team": "billing"}}
    assert [entry["action"] for entry in keyloader.audit("--object", key["id"])] == ["key.import"]


@pytest.mark.parametrize("dialect", [
    {}, {"lineterminator": "\n"}, {"quoting": csv.QUOTE_ALL}, {"quoting": csv.QUOTE_ALL, "lineterminator": "\n"}])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_spreadsheets_write(keyloader, dialect, mark):
    names = ['say "hello"', "a, b", "Zażółć 多言語 😀", "plain", "'; DROP TABLE keys; --", '"', ","]
    rows = [["owner", "key", "name"]] + [["O'Neill, Söhne", secret(number), name] for number, name in enumerate(names)]
    import_csv(keyloader, mark + text_of(rows, **dialect))
    assert sorted(key["name"] for key in keyloader.json("key", "list")) == sorted(names)


def test_without_a_last_line_end_and_with_empty_lines(keyloader):
    import_csv(keyloader, f"key,owner\n\n{secret(1)},a\r\n\r\n\n{secret(2)},a")
    assert len(keyloader.json("key", "list")) == 2


def test_a_file_of_own_keys(keyloader, tmp_path):
    other = keyloader.beside("other")
    other("init")
    keys = [other.key("acme", "--env", env)["key"] for env in ("live", "test")]
    file = tmp_path / "keys.csv"
    file.write_text("key,owner\n" + "".join(f"{key},acme\n" for key in keys))
    keyloader("import", file, "--format", "csv", "--create-owners")
    assert [keyloader.json("find", stdin=key)["env"] for key in keys] == ["live", "test"]
    wrong = keys[0][:-1] + ("0" if keys[0][-1] != "0" else "1")
    report = report_of(keyloader, f"key,owner,env\n{wrong},acme,\n{other.key()['key']},acme,test\n")
    assert [(line["line"], line["column"]) for line in report["refused"]] == [(2, "key"), (3, "env")]


@pytest.mark.parametrize("key", [
    "sk_live_51HxYz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz",
    "github_pat_11ABCDEFG0123456789abc_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvw",
    "acme_prod_0123456789abcdef0123456789abcdef",
    "ak_live_0123456789ABCDEFGHIJKLMNOPQRSTUV06nxX",  # shorter than ours by one
])
def test_foreign_keys_that_begin_like_ours(keyloader, key):
    import_csv(keyloader, f"key,owner\n{key},acme\n")
    found = keyloader.json("find", stdin=key)
    assert (found["prefix"], found["env"]) == ("", "live")


def test_find_names_a_wrong_checksum(keyloader):
    key = keyloader.key()["key"]
    assert "checksum" in keyloader.refused("find", stdin=key[:-1] + ("0" if key[-1] != "0" else "1"))
    assert "checksum" not in keyloader.refused("find", stdin=key[:-1])


@pytest.mark.parametrize("form", ["plain", "upper", "pepper"])
def test_ready_digests(bare, form):
    bare("init", "--pepper", "2026")
    pepper = (bare.dir / "peppers" / "2026").read_text().strip().encode()
    digest = {
        "plain": hashlib.sha256(b"legacy-key-1").hexdigest(),
        "upper": hashlib.sha256(b"legacy-key-1").hexdigest().upper(),
        "pepper": "hmac-sha256:2026:" + hmac.new(pepper, b"legacy-key-1", "sha256").hexdigest(),
    }[form]
    import_csv(bare, f"digest,owner\n{digest},acme\n")
    assert bare.json("find", stdin="legacy-key-1")["digest_method"] == ("hmac-sha256:2026" if form == "pepper" else "sha256")


def test_plaintext_keys_get_the_current_pepper(bare):
    bare("init", "--pepper", "2026")
    import_csv(bare, f"key,owner\n{secret()},acme\n")
    assert bare.json("find", stdin=secret())["digest_method"] == "hmac-sha256:2026"


@pytest.mark.parametrize("column,value,reason", [
    ("roles", "staff nosuch", "word 2 is no role; make it with `keyloader role create`"),
    ("scopes", "orders:read apikey:view",
     "word 2 begins with apikey:, which is reserved; import without it, then use `keyloader admin set`"),
    ("scopes", "*:a", "word 1 is no scope: segments of"), ("plan", "nosuch", "there is no such plan; make it with")])
def test_what_is_said_without_the_value(keyloader, column, value, reason):
    keyloader("role", "create", "staff", "--scope", "orders:read")
    said = keyloader("import", "-", "--format", "csv", "--create-owners", status=1,
                     stdin=text_of([["key", "owner", column], [secret(), "acme", value]])).stderr
    assert f"line 2, {column}: {reason}" in said and value.split()[-1] not in said


@pytest.mark.parametrize("column,value", [
    ("key", "short"), ("key", "with a space in it"), ("key", "x" * 257), ("key", ""), ("owner", ""), ("owner", "two\nlines"),
    ("name", "bell\a"), ("scopes", "*:a"), ("roles", "nosuch"), ("plan", "nosuch"), ("env", "Live"), ("expires", "tomorrow"),
    ("not_before", "2026-02-30"), ("allow_ip", "10.0.0.1/8"), ("meta.team", "x" * 1025)])
def test_a_bad_value_is_refused_by_line_and_column(keyloader, column, value):
    names = HEADER.strip().split(",")
    good = dict.fromkeys(names, "") | {"key": secret(), "owner": "acme"}
    bad = good | {"key": secret(1), column: value}
    text = text_of([names, list(good.values()), list(bad.values())])
    report = report_of(keyloader, text, "--create-owners")
    assert [(line["line"], line["column"]) for line in report["refused"]] == [(3, column)]
    assert report["imported"] == 0 and keyloader.json("key", "list") == [] and keyloader.json("owner", "list") == []
    report = report_of(keyloader, text, "--create-owners", "--partial", status=0)
    assert report["imported"] == 1 and len(keyloader.json("key", "list")) == 1


@pytest.mark.parametrize("line,word", [("only one", "fields"), ('"no end,acme', "quote"), ('"a"b,acme', "quote"),
                                       ('a"b,acme', "quote")])
def test_broken_lines(keyloader, line, word):
    report = report_of(keyloader, f"key,owner\n{secret(1)},acme\n{line}\n", "--create-owners", "--partial", status=0)
    assert report["imported"] == 1
    assert [(one["line"], one["column"], word in one["reason"]) for one in report["refused"]] == [(3, None, True)]


def test_line_numbers_count_line_ends_in_quotes(keyloader):
    text = f'key,owner,name\n{secret(1)},acme,"two\nlines"\n{secret(2)},acme,fine\nshort,acme,bad\n'
    report = report_of(keyloader, text, "--create-owners")
    assert [line["line"] for line in report["refused"]] == [2, 5]


def test_unknown_columns_are_named(keyloader):
    assert "colour" in keyloader.refused("import", "-", "--format", "csv", stdin="key,owner,colour\n", status=2)
    assert "owner" in keyloader.refused("import", "-", "--format", "csv", stdin="key,owner,owner\n", status=2)


def test_a_file_without_a_header_does_not_show_its_first_key(keyloader):
    assert secret() not in keyloader.refused("import", "-", "--format", "csv", stdin=f"{secret()},acme\n", status=2)


def test_no_key_in_any_report(keyloader):
    """Even where columns are mixed up."""
    names = HEADER.strip().split(",")
    for column in names:
        rows = [dict.fromkeys(names, "") | {"key": secret(7), "owner": "acme", column: secret(9)} for _ in range(2)]
        text = text_of([names] + [list(row.values()) for row in rows])
        for arguments in ((), ("--json",)):
            done = keyloader("import", "-", "--format", "csv", *arguments, stdin=text, status=1)
            assert secret(9) not in done.stdout + done.stderr and secret(7) not in done.stdout + done.stderr, column


def test_duplicates(keyloader):
    known = keyloader.key("acme")
    text = f"key,owner\n{secret(1)},acme\n{secret(1)},acme\n{known['key']},acme\n"
    report = report_of(keyloader, text)
    assert [line["line"] for line in report["refused"]] == [3, 4]
    assert "line 2" in report["refused"][0]["reason"] and known["id"] in report["refused"][1]["reason"]
    digest = hashlib.sha256(secret(1).encode()).hexdigest()
    report = report_of(keyloader, f"key,digest,owner\n{secret(1)},,acme\n,{digest},acme\n")
    assert [line["line"] for line in report["refused"]] == [3]


def test_the_same_key_under_another_pepper_is_a_duplicate(keyloader):
    import_csv(keyloader, f"key,owner\n{secret(1)},acme\n")
    keyloader("pepper", "create", "new")
    report = report_of(keyloader, f"key,owner\n{secret(1)},acme\n")
    assert [line["column"] for line in report["refused"]] == ["key"]


def test_key_and_digest_or_neither(keyloader):
    report = report_of(keyloader, f"key,digest,owner\n{secret(1)},{secret(2)},acme\n,,acme\n", "--create-owners")
    assert [line["line"] for line in report["refused"]] == [2, 3]


@pytest.mark.parametrize("digest", ["abc", "x" * 64, "md5:" + "0" * 64, "hmac-sha256:nosuch:" + "0" * 64])
def test_digests_that_are_none(keyloader, digest):
    report = report_of(keyloader, f"digest,owner\n{digest},acme\n", "--create-owners")
    assert [line["column"] for line in report["refused"]] == ["digest"]


def test_owners_must_be_known(keyloader):
    report = report_of(keyloader, f"key,owner\n{secret(1)},acme\n")
    assert "--create-owners" in report["refused"][0]["reason"]


@pytest.mark.parametrize("key,is_weak", [
    ("password-12345", True), ("0123456789abcdef", True), ("a" * 64, True), ("1234567890" * 3, True),
    ("8f14e45fceea167a5a36dedd4bea2543", False), ("8f14e45f-ceea-467a-9a36-dedd4bea2543", False),
    ("Zx81mQpL0vR7yTb2NcWd", False), ("sk_" + "Ab3" * 10 + "xYz019QwErT", False)])
def test_weak_keys_are_warned_of(keyloader, key, is_weak):
    report = report_of(keyloader, f"key,owner\n{key},acme\n", "--create-owners", status=0)
    assert report["imported"] == 1
    assert [warning["line"] for warning in report["warnings"]] == ([2] if is_weak else [])


def test_ndjson(keyloader):
    lines = [
        {"key": secret(1), "owner": "acme", "scopes": ["a", "b:c"], "meta": {"x": "1"}, "name": None},
        {"key": secret(2), "owner": "acme", "scopes": "a b:c", "meta.x": "1", "allow_ip": ["10.0.0.1"]},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + "\n\n"
    keyloader("import", "-", "--format", "ndjson", "--create-owners", stdin=text)
    keys = [keyloader.json("find", stdin=secret(number)) for number in (1, 2)]
    assert [(key["scopes"], key["meta"]) for key in keys] == [(["a", "b:c"], {"x": "1"})] * 2
    assert keys[1]["allow_ip"] == ["10.0.0.1"]


@pytest.mark.parametrize("line", [
    "not json", "[1]", '{"key": 5, "owner": "acme"}', '{"colour": "red"}', '{"owner": "acme", "key": "%s", "x": "y"}' % secret(5),
    '{"key": "%s", "owner": "acme", "scopes": [1]}' % secret(5), '{"key": "%s", "owner": ["acme"]}' % secret(5), "\ud800"])
def test_ndjson_that_is_none(keyloader, line):
    good = json.dumps({"key": secret(1), "owner": "acme"})
    text = (good + "\n" + line + "\n").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    report = report_of(keyloader, text, "--create-owners", "--partial", form="ndjson", status=0)
    assert report["imported"] == 1 and [one["line"] for one in report["refused"]] == [2]
    assert secret(5) not in json.dumps(report)


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file(keyloader, text):
    keyloader.refused("import", "-", "--format", "csv", stdin=text)


def test_header_only(keyloader):
    generation = keyloader.generation()
    assert "0 key(s)" in import_csv(keyloader, "key,owner\n").stdout
    assert keyloader.generation() == generation


@pytest.mark.parametrize("arguments", [["-"], ["-", "--format", "xml"], ["--format", "csv"]])
def test_wrong_use(keyloader, arguments):
    keyloader.refused("import", *arguments, status=2)


def test_a_file_that_is_not_there(keyloader):
    assert "/nosuch" in keyloader.refused("import", "/nosuch", "--format", "csv")


def test_no_publish(keyloader):
    generation = keyloader.generation()
    import_csv(keyloader, f"key,owner\n{secret(1)},acme\n", "--no-publish")
    assert keyloader.generation() == generation
    assert keyloader.json("publish")["keys"] == 1


def test_a_long_report_is_cut_on_a_terminal_only(keyloader):
    text = "key,owner\n" + "short,acme\n" * 150
    assert "50 more" in keyloader("import", "-", "--format", "csv", stdin=text, status=1).stderr
    assert len(report_of(keyloader, text)["refused"]) == 150
