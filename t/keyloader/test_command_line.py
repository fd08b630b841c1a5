"""What all commands share: help that teaches, exit codes, JSON, completion, the man page."""

import json
import os
import re
import subprocess

import pytest

from harness.paths import KEYLOADER, REPOSITORY


def subcommands(*path):
    """Of the help text: the words listed under "Subcommands"."""
    text = subprocess.run([KEYLOADER, *path, "--help"], capture_output=True, text=True, check=True).stdout
    block = re.search(r"^Subcommands:\n((?:  .*\n?)+)", text, re.MULTILINE)
    return re.findall(r"^  (\S+)", block[1], re.MULTILINE) if block else []


def all_commands(*path):
    below = subcommands(*path)
    return [path] if not below else [command for word in below for command in all_commands(*path, word)]


COMMANDS = all_commands() + [("usage",)]  # it shows something itself, too
EXPECTED = """
init find status doctor why locations check publish import completion manual help version
pepper.create pepper.list
owner.create owner.list owner.show owner.set owner.suspend owner.resume owner.delete owner.erase
plan.create plan.set plan.list plan.show plan.delete
role.create role.set role.list role.delete
admin.create admin.set admin.list admin.adopt
policy.set policy.show policy.test
approval.list approval.show approval.approve approval.refuse
key.create key.list key.show key.set key.suspend key.resume key.revoke key.delete
snapshot.show snapshot.verify snapshot.list snapshot.rollback snapshot.seal snapshot.install
quota.grant quota.reset quota.show
audit.list audit.verify audit.archive audit.revert
registry.show registry.set registry.adopt
node.list node.prune
usage usage.collect usage.statement usage.prune usage.merge
""".split()


def test_all_commands_are_there():
    assert sorted(".".join(command) for command in COMMANDS) == sorted(EXPECTED)


STOPS = """
key.suspend key.revoke key.delete owner.suspend owner.delete owner.erase plan.delete role.delete snapshot.rollback quota.reset
registry.set registry.adopt admin.create admin.set admin.adopt audit.archive audit.revert
owner.create owner.set owner.resume plan.create plan.set role.create role.set key.create key.set key.resume import quota.grant
policy.set approval.refuse
""".split()


def test_what_changes_something_can_be_tried_and_explained(bare):
    for command in COMMANDS:
        text = bare(*command, "--help").stdout
        assert "--wait" not in text or "--dry-run" in text, command
        assert ".".join(command) not in STOPS or "--reason" in text, command


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches(bare, command):
    text = bare(*command, "--help").stdout
    assert text.count("keyloader " + " ".join(command)) >= 2, "usage and an example"
    assert not bare.dir.exists()
    for name, description in re.findall(r"^  (-\S+|[A-Z]+)\b(.*)$", text, re.MULTILINE):
        assert description.strip(), name


@pytest.mark.parametrize("arguments", [
    [], ["nosuch"], ["key"], ["key", "nosuch"], ["key", "create"], ["key", "create", "--nosuch"], ["key", "revoke"],
    ["key", "show", "not-an-id"], ["owner", "create"], ["owner", "create", "a", "b"], ["key", "create", "--owner"],
    ["snapshot", "install"], ["completion", "tcsh"], ["audit", "list", "--last", "many"],
    ["usage", "collect", "--export", "csv"], ["usage", "merge", "x", "--owner", "acme"],
    ["usage", "statement", "--owner", "acme", "--month", "2026-11", "--from", "7d"]])
def test_wrong_use_is_2_and_one_sentence(keyloader, arguments):
    assert len(keyloader.refused(*arguments, status=2).splitlines()) == 1


def test_help_is_80_columns_wide(bare):
    families = sorted({command[:1] for command in COMMANDS})
    for command in [(), *families, *COMMANDS]:
        for line in bare(*command, "--help").stdout.splitlines():
            assert len(line) <= 80, (command, line)


def test_only_keyloader_itself_says_how_to_begin(bare):
    for command in [(), *sorted({command[:1] for command in COMMANDS})]:
        assert ("A first key:" in bare(*command, "--help").stdout) == (command == ()), command


def test_help_of_what_is_new_says_nothing_of_changes(bare):
    for family in ("key", "owner", "plan"):
        made, changed = (bare(family, word, "--help").stdout for word in ("create", "set"))
        assert "--enforce-limit" in changed and "--enforce-limit" not in made and "name= removes" not in made


def test_an_option_that_is_given_twice(bare):
    said = bare.refused("key", "create", "--owner", "a", "--owner", "b", status=2)
    assert "--owner is given twice; it takes one value" in said


def test_version(bare):
    assert re.fullmatch(r"keyloader \d+\.\d+\.\d+\n", bare("--version").stdout)
    assert bare("--version").stdout == f"keyloader {bare.json('version')['version']}\n"


def test_commands_that_sentences_name_have_the_directory(bare, tmp_path, monkeypatch):
    monkeypatch.setattr(bare, "environment", lambda: {name: value for name, value in os.environ.items() if name != "APIKEY_DIR"})
    place = tmp_path / "Jana's keys"
    quoted = "'" + str(place).replace("'", "'\\''") + "'"
    said = bare("--dir", place, "init").stderr
    assert f"`keyloader --dir {quoted} registry set --prefix" in said
    assert f"`keyloader --dir {quoted} owner list`" in bare.refused("--dir", place, "owner", "show", "acme")
    assert "`keyloader help`" in bare.refused("--dir", place, "nosuch", status=2)


def test_a_directory_of_the_environment_is_named_behind_sudo_only(keyloader):
    assert "`keyloader owner list`" in keyloader.refused("owner", "show", "acme")


def test_directory_by_option_and_by_environment(bare, tmp_path):
    other = tmp_path / "by option"
    bare("--dir", other, "init")
    assert (other / "keys.mdb").exists() and not bare.dir.exists()
    bare("key", "list", "--dir", other)
    assert str(bare.dir) in bare.refused("key", "list")


READ_ONLY = [["owner", "list"], ["owner", "show", "acme"], ["plan", "list"], ["plan", "show", "default"], ["role", "list"],
             ["key", "list"], ["quota", "show", "--owner", "acme"], ["pepper", "list"], ["snapshot", "show"], ["snapshot", "verify"], ["snapshot", "list"],
             ["audit", "list"], ["audit", "verify"]]


@pytest.mark.parametrize("command", READ_ONLY, ids=" ".join)
def test_json_and_text_of_what_only_reads(keyloader, command):
    keyloader.key("acme")
    keyloader("role", "create", "reader", "--scope", "orders:read")
    keyloader("owner", "set", "acme", "--quota", "1000/month")
    before = keyloader.json("audit", "verify")
    done = keyloader(*command, "--json")
    json.loads(done.stdout)
    assert done.stderr == ""
    assert keyloader("--json", *command).stdout == done.stdout
    assert keyloader(*command).stdout.strip()
    assert keyloader.json("audit", "verify") == before


def test_control_characters_of_a_value_do_not_reach_the_terminal(keyloader):
    assert "\033" not in keyloader.refused("owner", "show", "\033[31mred")


def complete(keyloader, line):
    script = f"""
        keyloader() {{ {KEYLOADER} "$@"; }}
        source <(keyloader completion bash)
        COMP_WORDS=({line} "") COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        [ "{line[-1]}" = " " ] || {{ unset "COMP_WORDS[-1]"; COMP_CWORD=$((COMP_CWORD - 1)); }}
        _keyloader; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_completion_knows_every_command_and_option(keyloader):
    assert complete(keyloader, "keyloader pub") == ["publish"]
    assert complete(keyloader, "keyloader key cr") == ["create"]
    assert complete(keyloader, "keyloader --dir /x key create --allow-") == [
        "--allow-ip", "--allow-origin", "--allow-method", "--allow-host"]
    assert "--json" in complete(keyloader, "keyloader key list --")
    for command in COMMANDS:
        help_text = keyloader(*command, "--help").stdout
        for option in re.findall(r"^  (?:-\w,)?(--[\w-]+)", help_text, re.MULTILINE):
            assert option in complete(keyloader, f"keyloader {' '.join(command)} {option[:4]}"), (command, option)


def test_man_page_is_the_one_of_this_program():
    page = subprocess.run([KEYLOADER, "manual"], capture_output=True, text=True, check=True).stdout
    assert (REPOSITORY / "docs" / "keyloader.1").read_text() == page, "run `keyloader manual > docs/keyloader.1`"


def test_man_page_renders_without_a_warning():
    page = REPOSITORY / "docs" / "keyloader.1"
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100"}
    done = subprocess.run(["man", "--warnings", page], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and done.stderr == ""
    for command in COMMANDS:
        assert "keyloader " + " ".join(command) in done.stdout
