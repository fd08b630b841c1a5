"""keyloader find reads any text and finds the keys in it, without showing any of it."""

import json
import subprocess

import pytest

from harness.paths import KEYLOADER
from test_key import check_of


@pytest.fixture
def known(keyloader):
    keyloader.first = keyloader.key("acme", "--name", "one")
    keyloader.second = keyloader.key("other", "--env", "test", "--prefix", "shop")
    lines = "key,owner\nlegacy/key+0001==,acme\nplain-old-key-2,acme\n"
    keyloader("import", "-", "--format", "csv", stdin=lines)
    return keyloader


@pytest.mark.parametrize("text", [
    "{}", "  {} \n", "API_KEY={}\n", 'KEY="{}"', "curl -H 'X-API-Key: {}' http://x/", "Authorization: Bearer {}\r\n",
    "GET /a?key={}&b=c HTTP/1.1", '{{"key":"{}","n":1}}', '"\\n{}\\n"', "see <{}>.", "{}.", "a,{},b", "x" * 200000 + "={}"],
    ids=lambda text: text[-30:])
def test_one_in_any_text(known, text):
    done = known("find", "--json", stdin=text.format(known.first["key"]))
    assert json.loads(done.stdout)["id"] == known.first["id"]
    assert "looked at" in done.stderr and known.first["key"] not in done.stdout + done.stderr


@pytest.mark.parametrize("text", ["legacy/key+0001==", "k=legacy/key+0001==", "'legacy/key+0001=='", "a plain-old-key-2.",
                                  "plain-old-key-2,plain-old-key-2", "key: plain-old-key-2;"])
def test_imported_ones(known, text):
    found = known.json("find", stdin=text)
    assert found["owner"] == "acme" and found["prefix"] == ""


@pytest.mark.parametrize("text", ["backup_{}_old.txt", "{}_2026", "{}x", "{}0", "x{}9", "a_{}_{}", "key-{}-key", "f_{}b_c"])
def test_one_with_word_characters_around_it(known, text):
    """As in the name of a file. A key has a fixed length, so what follows it does not hide it."""
    key = known.first["key"]
    found = known.json("find", stdin=text.replace("{}", key))
    assert found["id"] == known.first["id"]
    assert key not in known("find", stdin=text.replace("{}", key)).stderr


def test_a_longer_key_of_others_is_not_a_mistyped_one(known):
    assert "none of our form" in known.refused("find", stdin="sk_live_" + "a" * 60)


@pytest.mark.parametrize("text", ['{"token":"%s","x":1}', "?k=%s&y=1", "{'k':'%s'}", "GET /a?b=1&k=%s HTTP/1.1",
                                  '"{\\"k\\":\\"%s\\",\\"l\\":1}"'])
@pytest.mark.parametrize("key", ["bGVnYWN5a2V5MDE=", "legacy/key+0001==", "pass;word{with}12345"])
def test_imported_ones_in_structured_text(known, key, text):
    if ";" in key and ('"' not in text and "'" not in text):
        pytest.skip("what parts the text parts such a key, too")
    if key != "legacy/key+0001==":
        known("import", "-", "--format", "csv", stdin=f"key,owner\n{key},acme\n")
    assert known.json("find", stdin=text % key)["owner"] == "acme"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("key", ["own", "plain-old-key-2"])
def test_one_in_a_file_of_windows(known, tmp_path, encoding, key):
    text = known.first["key"] if key == "own" else key
    file = tmp_path / "text"
    file.write_bytes(f"{text}\r\na “{text}” b\r\n".encode(encoding))
    done = subprocess.run([KEYLOADER, "find", "--json"], stdin=file.open("rb"), capture_output=True, text=True,
                          env=known.environment(), check=True)
    assert json.loads(done.stdout)["owner"] == "acme"


def test_zero_bytes_part_words(known):
    """As in /proc/PID/environ."""
    assert known.json("find", stdin="A=plain-old-key-2\0B=1\0")["owner"] == "acme"


def test_several(known):
    text = f"first {known.first['key']}\nsecond\t{known.second['key']}\nagain {known.first['key']} plain-old-key-2\n"
    done = known("find", stdin=text)
    assert len(done.stdout.splitlines()) == 3 and "looked at 7 words; 3 of this registry" in done.stderr
    assert [key["id"] for key in known.json("find", stdin=text)][:2] == [known.first["id"], known.second["id"]]


def test_what_it_concludes(known):
    stranger = "ak_live_" + "a" * 32
    stranger += check_of(stranger)
    mistyped = known.first["key"][:-1] + ("0" if known.first["key"][-1] != "0" else "1")
    for text, words, absent in (("just some words, no more\n", "no key in this text", "checksum"),
                                (f"\n\n{stranger}\n", "line 3: ak_live_**** is a whole key, but not of this registry", "checksum"),
                                (f"a={mistyped}\n", "line 1: ak_live_**** has a wrong checksum: it was mistyped", "not of this")):
        sentence = known.refused("find", stdin=text)
        assert words in sentence and absent not in sentence and "looked at" in sentence
        assert stranger not in sentence and mistyped not in sentence
    done = known("find", stdin=f"{known.first['key']} {stranger}")
    assert known.first["id"] in done.stdout and "not of this registry" in done.stderr
