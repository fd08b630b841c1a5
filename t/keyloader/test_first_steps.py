"""`init` says what comes next, in words that can be copied, and whether nginx's workers will get to the directory."""

import grp
import json
import shlex

import pytest

from harness.paths import IS_ROOT, worker_user
from harness.registry import run_keyloader


def group_of_workers():
    return grp.getgrnam(worker_user()).gr_name


def steps(directory, *arguments):
    done = run_keyloader(directory, "init", "--json", *arguments)
    return {step["where"]: step["text"] for step in json.loads(done.stdout)["next"]}


def test_lines_name_the_real_paths(place):
    said = steps(place / "node")
    assert said["its http { }"] == f"apikey_store {place}/node/keys.mdb;"
    assert said["the first key"].startswith(f"keyloader --dir {place}/node key create ")
    assert said.get("nginx.conf has") == (f"user {worker_user()};" if IS_ROOT else None)


def test_the_first_key_is_made_by_the_line_as_it_stands(place):
    words = shlex.split(steps(place / "node")["the first key"])
    assert words[:3] == ["keyloader", "--dir", f"{place}/node"]
    assert run_keyloader(place / "node", *words[3:]).stdout.startswith("ak_")


def test_a_pepper_stands_in_the_line_for_nginx(place):
    line = steps(place / "node", "--pepper", "2026")["its http { }"]
    assert line == f"apikey_store {place}/node/keys.mdb pepper=2026:{place}/node/peppers/2026;"


def test_a_path_with_blanks_is_quoted(place):
    (place / "two words").mkdir()
    said = steps(place / "two words" / "node")
    assert said["its http { }"] == f'apikey_store "{place}/two words/node/keys.mdb";'
    assert shlex.split(said["the first key"])[2] == f"{place}/two words/node"


def test_a_person_reads_them_below_one_another(place):
    shown = run_keyloader(place / "node", "init").stdout
    lines = shown[shown.index("Next:"):].splitlines()[1:]
    assert len(lines) >= 4
    assert all(len(line) - len(line.lstrip()) == 2 for line in lines)


@pytest.mark.skipif(not IS_ROOT, reason="only root's nginx has workers of another user")
def test_a_directory_above_that_lets_nobody_pass(place):
    (place / "closed").mkdir(mode=0o700)
    done = run_keyloader(place / "closed" / "node", "init", "--group", group_of_workers())
    assert f"{place}/closed (mode 700) lets nobody of the group {group_of_workers()} pass" in done.stderr
    assert f"chmod o+x {place}/closed" in done.stderr


@pytest.mark.skipif(not IS_ROOT, reason="only root's nginx has workers of another user")
def test_a_directory_that_lets_them_pass_is_no_reason_to_warn(place):
    (place / "open").mkdir(mode=0o711)
    done = run_keyloader(place / "open" / "node", "init", "--group", group_of_workers())
    assert "pass" not in done.stderr, done.stderr
