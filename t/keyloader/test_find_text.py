"""keyloader find reads any text and finds the keys in it, without showing any of it."""

import json

import pytest

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
