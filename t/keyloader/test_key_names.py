"""By what people and programs know a key: its hint, its ref, and how it begins."""

import hashlib
import sqlite3

import pytest

from harness.old_registry import to_schema_5

LONG = "0123456789abcdefghijWxYz"  # 24 characters
SHORT = LONG[1:]


def csv(keyloader, *lines, status=0):
    return keyloader("import", "-", "--format", "csv", "--create-owners", stdin="\n".join(lines) + "\n", status=status)


def only(keyloader, *arguments):
    return [one["id"] for one in keyloader.json("key", "list", *arguments)]


def test_the_hint_of_a_key_that_was_made(keyloader):
    made, other = keyloader.key(), keyloader.key()
    assert made["hint"] == made["key"][-4:]
    assert keyloader.json("key", "show", made["id"])["hint"] == made["hint"]
    assert made["hint"] in keyloader("key", "list").stdout
    assert made["id"] in only(keyloader, "--hint", made["hint"])
    assert other["id"] not in only(keyloader, "--hint", made["hint"])
    keyloader.refused("key", "list", "--hint", "abc", status=2)
    said = keyloader.refused("key", "list", "--hint", made["key"], status=2)
    assert "--hint got the key itself" in said and made["key"] not in said


def test_hints_of_imported_keys(keyloader):
    digest = hashlib.sha256(b"known elsewhere as this one").hexdigest()
    more = hashlib.sha256(b"and this").hexdigest()
    csv(keyloader, "name,key,digest,hint,owner", f"long,{LONG},,,acme", f"short,{SHORT},,,acme", f"digest,,{digest},,acme",
        f"told,,{more},AbCd,acme", f"weak,{'a1b2' * 6},,,acme")
    hints = {key["name"]: key["hint"] for key in keyloader.json("key", "list")}
    assert hints == {"long": "WxYz", "short": "", "digest": "", "told": "AbCd", "weak": ""}
    assert len(only(keyloader, "--hint", "AbCd")) == 1


def test_what_is_shown_of_hints_and_refs(keyloader):
    csv(keyloader, "key,owner,ref", f"{LONG},acme,crm-1")
    key = keyloader.json("key", "list")[0]["id"]
    assert f"no key ends in wxyz, and case counts: {key} ends in WxYz" in keyloader("key", "list", "--hint", "wxyz").stderr
    assert "case counts" not in keyloader("key", "list", "--hint", "aaaa").stderr
    head, row = keyloader("key", "list", "--ref", "crm-1").stdout.splitlines()
    assert head.split()[-1] == "REF" and row.split()[-1] == "crm-1"
    for said in (keyloader.refused("key", "show", "crm-1", status=2), keyloader.refused("find", stdin="crm-1\n")):
        assert "--hint" in said and "--ref" in said


@pytest.mark.parametrize("line", [f"{LONG},,AbCd,acme", f",{'0' * 64},abc,acme", f",{'0' * 64},ab d,acme"])
def test_hints_that_are_refused(keyloader, line):
    assert "hint" in csv(keyloader, "key,digest,hint,owner", line, status=1).stderr.splitlines()[0]


def test_refs_are_unique_per_owner(keyloader):
    first = keyloader.key("acme", "--ref", "shop/1")["id"]
    said = keyloader.refused("key", "create", "--owner", "acme", "--ref", "shop/1")
    assert first in said and "shop/1" in said
    assert "revoked" not in said
    keyloader.key("other", "--ref", "shop/1")
    second = keyloader.key("acme")["id"]
    assert first in keyloader.refused("key", "set", second, "--ref", "shop/1")
    assert only(keyloader, "--owner", "acme", "--ref", "shop/1") == [first]
    keyloader("key", "set", first, "--ref", "none")
    assert keyloader.json("key", "set", second, "--ref", "shop/1")["ref"] == "shop/1"
    assert keyloader.json("key", "set", second, "--ref", "shop/1")["ref"] == "shop/1"  # as it is already
    assert keyloader.audit("--object", second)[-1]["change"] == "ref shop/1"
    keyloader("key", "revoke", second)
    assert f"{second} of acme, which is revoked, has the ref" in keyloader.refused("key", "set", first, "--ref", "shop/1")


def test_a_revert_of_a_ref(keyloader):
    first, second = keyloader.key("acme", "--ref", "a")["id"], keyloader.key("acme")["id"]
    keyloader("key", "set", first, "--ref", "b")
    entry = keyloader.audit("--action", "key.set")[-1]["seq"]
    keyloader("key", "set", second, "--ref", "a")
    assert second in keyloader.refused("audit", "revert", entry)
    keyloader("key", "set", second, "--ref", "none")
    keyloader("audit", "revert", entry)
    assert keyloader.json("key", "show", first)["ref"] == "a"


@pytest.mark.parametrize("ref", ["", "x" * 65, "line\nbreak", "\u202e"])
def test_refs_that_are_none(keyloader, ref):
    keyloader.refused("key", "create", "--owner", "acme", "--create-owner", f"--ref={ref}", status=2)


def test_imported_refs(keyloader):
    csv(keyloader, "key,owner,ref", f"{LONG},acme,a")
    refused = csv(keyloader, "key,owner,ref", "another-key-of-acme-1234,acme,b", "another-key-of-acme-5678,acme,b", status=1)
    assert "line 3, ref: line 2 has the same ref for this owner" in refused.stderr and "key_" not in refused.stderr
    taken = csv(keyloader, "key,owner,ref", "another-key-of-acme-1234,acme,a", status=1).stderr
    assert "line 2, ref: key_" in taken and " of acme has this ref already; " in taken
    assert only(keyloader, "--ref", "a") and not only(keyloader, "--ref", "b")


def test_a_registry_from_before(keyloader):
    key = keyloader.key("acme")["id"]
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        to_schema_5(database)
    database.close()
    shown = keyloader.json("key", "show", key)
    assert (shown["hint"], shown["ref"], shown["admin_scopes"]) == ("", "", [])
    assert keyloader.json("registry", "show")["prefix"] == "ak"


def test_the_prefix_of_the_registry(bare):
    assert "begin with ak" not in bare("init", "--prefix", "acme").stderr
    assert bare.key()["key"].startswith("acme_live_")
    assert bare.key("acme", "--prefix", "other")["key"].startswith("other_live_")
    generation = bare.generation()
    tried = bare.json("registry", "set", "--prefix", "shop", "--dry-run")
    assert tried["dry_run"] is True and bare.json("registry", "show")["prefix"] == "acme"
    assert bare.json("registry", "set", "--prefix", "shop", "--reason", "renamed")["prefix"] == "shop"
    entry = bare.audit("--action", "registry.set")[-1]
    assert (entry["before"], entry["after"]) == ({"prefix": "acme"}, {"prefix": "shop", "reason": "renamed"})
    assert bare.generation() == generation
    assert "already" in bare("registry", "set", "--prefix", "shop").stdout
    assert bare.key()["key"].startswith("shop_live_")
    assert bare.json("audit", "verify")


def test_init_warns_of_the_default_once(bare):
    assert "begin with ak" in bare("init").stderr
    assert "begin with ak" not in bare("init").stderr
    assert "registry set --prefix acme" in bare.refused("init", "--prefix", "acme")
    bare("registry", "set", "--prefix", "acme")
    assert "begin with ak" in bare("registry", "set", "--prefix", "ak").stderr


def test_init_with_the_default_by_name(bare):
    assert "begin with ak, the default, which other registries use too" in bare("init", "--prefix", "ak").stderr


def test_none_is_no_prefix(keyloader):
    for command in (["registry", "set"], ["init"], ["key", "create", "--owner", "acme", "--create-owner"]):
        assert '"none" cannot be a prefix' in keyloader.refused(*command, "--prefix", "none", status=2)


@pytest.mark.parametrize("prefix, vendor", [("sk", "Stripe"), ("ghp", "GitHub"), ("github", "GitHub"), ("glpat", "GitLab"),
                                            ("xoxb", "Slack"), ("akia", "Amazon")])
def test_prefixes_of_others(keyloader, prefix, vendor):
    for command in (["registry", "set"], ["init"], ["key", "create", "--owner", "acme", "--create-owner"]):
        said = keyloader.refused(*command, "--prefix", prefix)
        assert vendor in said and "--yes" in said
    keyloader("registry", "set", "--prefix", prefix, "--yes")
    assert keyloader.key()["key"].startswith(f"{prefix}_live_")


@pytest.mark.parametrize("prefix", ["a", "a" * 17, "Acme", "a_b", "ac-me"])
def test_what_is_no_prefix(keyloader, prefix):
    for command in (["registry", "set"], ["init"], ["key", "create", "--owner", "acme", "--create-owner"]):
        assert "is no prefix" in keyloader.refused(*command, "--prefix", prefix, status=2)
