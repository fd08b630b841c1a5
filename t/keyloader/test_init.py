"""keyloader init and pepper: the directory, who may read what in it, and the secrets digests are made with."""

import grp
import os
import re
import stat

import pytest

from harness.paths import IS_ROOT
from harness.terminal import on_terminal


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_whatever_the_umask(bare, umask):
    bare("init", "--pepper", "2026", preexec_fn=lambda: os.umask(umask))
    bare("key", "create", "--owner", "a", "--create-owner", preexec_fn=lambda: os.umask(umask))
    assert mode(bare.dir) == mode(bare.dir / "history") == 0o2750
    assert mode(bare.dir / "registry.db") == 0o600
    assert mode(bare.snapshot) == 0o640
    assert mode(bare.dir / "peppers" / "2026") == 0o600
    assert {mode(path) for path in (bare.dir / "history").iterdir()} == {0o640}
    open_to_others = [path for path in bare.dir.rglob("*") if mode(path) & 0o007]
    assert open_to_others == []


def test_group_of_nginx(bare):
    group = grp.getgrgid(os.getgid()).gr_name
    bare("init", "--group", group)
    bare("key", "create", "--owner", "a", "--create-owner")
    assert {path.stat().st_gid for path in (bare.dir, bare.dir / "history", bare.snapshot)} == {os.getgid()}
    if IS_ROOT:
        other = bare.beside("other")
        other("init", "--group", "www-data")
        wanted = grp.getgrnam("www-data").gr_gid
        assert {path.stat().st_gid for path in (other.dir, other.dir / "history", other.snapshot)} == {wanted}


@pytest.mark.skipif(not IS_ROOT, reason="only root gives files to any group")
def test_who_may_read_is_said_kept_and_taken_back(bare):
    made = bare.json("init", "--reader-group", "games")
    assert made["reader_group"] == "games"
    made_generation = bare.generation()
    bare("usage", "--by", "owner")
    games = grp.getgrnam("games").gr_gid
    files = [bare.dir / name for name in ("registry.db", "registry.db-wal", "registry.db-shm", "usage.db")]
    assert {(mode(path), path.stat().st_gid) for path in files} == {(0o640, games)} and mode(bare.dir) == 0o2751
    entry, = bare.audit("--action", "registry.reader")
    assert (entry["before"], entry["after"]) == ({"group": "none"}, {"group": "games"})
    assert "the group games can read registry.db and usage.db" in bare("init", "--reader-group", "games").stdout
    assert len(bare.audit("--action", "registry.reader")) == 1
    said = bare("init", "--reader-group", "none").stdout
    assert "nobody but the owner of the directory can read registry.db and usage.db\n" in said
    assert {mode(path) for path in files} == {0o600} and mode(bare.dir) == 0o2750
    entry = bare.audit("--action", "registry.reader")[-1]
    assert (entry["before"], entry["after"]) == ({"group": "games"}, {"group": "none"})
    assert bare.generation() == made_generation, "no snapshot says who may read"


def test_unknown_group(bare):
    assert "no-such-group" in bare.refused("init", "--group", "no-such-group")
    assert not bare.dir.exists()


def test_second_init_says_so_and_changes_nothing(keyloader):
    before = keyloader.json("audit", "verify"), keyloader.snapshot.read_bytes()
    assert "already" in keyloader("init").stdout
    assert (keyloader.json("audit", "verify"), keyloader.snapshot.read_bytes()) == before


@pytest.mark.parametrize("answer, prefix", [("acme", "acme"), (" acme ", "acme"), ("", "ak")])
def test_the_prefix_is_asked_for_on_a_terminal(bare, answer, prefix):
    code, said = on_terminal(bare.environment(), "init", answer=answer)
    assert code == 0 and "How are keys to begin?" in said and ("the default" in said) == (prefix == "ak")
    assert bare.key()["key"].startswith(f"{prefix}_live_")
    code, said = on_terminal(bare.environment(), "init")
    assert code == 0 and "How are" not in said, "the registry is there"


@pytest.mark.parametrize("answer, status, needle", [("Acme!", 2, '"Acme!" is no prefix'), ("sk", 1, "Stripe"),
                                                    ("none", 2, "cannot be a prefix")])
def test_an_answer_that_is_no_prefix_makes_nothing(bare, answer, status, needle):
    code, said = on_terminal(bare.environment(), "init", answer=answer)
    assert code == status and needle in said and not bare.dir.exists()


def test_who_says_the_prefix_is_not_asked(bare):
    code, said = on_terminal(bare.environment(), "init", "--prefix", "acme")
    assert code == 0 and "How are" not in said


def test_init_publishes_an_empty_snapshot_and_the_plan_default(keyloader):
    assert keyloader.json("snapshot", "show")["keys"] == 0
    plans = keyloader.json("plan", "list")
    assert [(plan["name"], plan["limits"]) for plan in plans] == [("default", [])]


def test_registries_have_different_ids(bare):
    ids = {bare.beside(str(number)).json("init")["registry_id"] for number in range(5)}
    assert len(ids) == 5
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def test_no_registry(bare):
    assert "keyloader init" in bare.refused("key", "list")
    assert not bare.dir.exists()


def test_pepper_is_used_and_its_file_is_64_hex_digits(bare):
    bare("init", "--pepper", "2026")
    assert re.fullmatch("[0-9a-f]{64}\n", (bare.dir / "peppers" / "2026").read_text())
    assert bare.key()["digest_method"] == "hmac-sha256:2026"
    assert bare.json("snapshot", "show")["digests"] == ["hmac-sha256:2026"]


def test_later_pepper(keyloader):
    plain = keyloader.key()
    keyloader("pepper", "create", "a")
    old = keyloader.key()
    keyloader("pepper", "create", "b")
    new = keyloader.key()
    assert [key["digest_method"] for key in (plain, old, new)] == ["sha256", "hmac-sha256:a", "hmac-sha256:b"]
    assert keyloader.json("snapshot", "show")["digests"] == ["hmac-sha256:b", "hmac-sha256:a", "sha256"]
    assert [(one["id"], one["current"]) for one in keyloader.json("pepper", "list")] == [("b", True), ("a", False)]
    for key in (plain, old, new):
        assert keyloader.json("find", stdin=key["key"])["id"] == key["id"]


def test_no_more_methods_than_a_snapshot_holds(keyloader):
    keyloader.key()
    for name in "abc":
        keyloader("pepper", "create", name)
        keyloader.key()
    assert "digest methods" in keyloader.refused("pepper", "create", "d")


def test_existing_pepper_file_is_taken(bare):
    bare("init")
    peppers = bare.dir / "peppers"
    peppers.mkdir()
    (peppers / "old").write_text("a pepper that came from elsewhere\n")
    (peppers / "old").chmod(0o600)
    bare("pepper", "create", "old")
    assert (peppers / "old").read_text() == "a pepper that came from elsewhere\n"
    assert bare.key()["digest_method"] == "hmac-sha256:old"


@pytest.mark.parametrize("content,mode_bits", [("short\n", 0o600), ("long enough, but others can read it\n", 0o644)])
def test_bad_pepper_file_is_refused(keyloader, content, mode_bits):
    peppers = keyloader.dir / "peppers"
    peppers.mkdir()
    (peppers / "x").write_text(content)
    (peppers / "x").chmod(mode_bits)
    assert "peppers/x" in keyloader.refused("pepper", "create", "x")
    assert keyloader.json("pepper", "list") == []


@pytest.mark.parametrize("name", ["../evil", "UPPER", "", "a" * 33])
def test_bad_pepper_name(keyloader, name):
    keyloader.refused("pepper", "create", name, status=2)
    assert not (keyloader.dir / "evil").exists()


def test_pepper_twice(keyloader):
    keyloader("pepper", "create", "x")
    before = keyloader.json("audit", "verify")
    assert "already" in keyloader("pepper", "create", "x").stdout
    assert keyloader.json("audit", "verify") == before
