"""What keyloader says to a command line that is not right: what is wrong, with which word, and what to write."""

import os
import re
import subprocess

import pytest

from harness.paths import KEYLOADER

SECRET = "ak_live_" + "z" * 38

MISTAKES = {
    "a letter swapped": ("kye create", 'there is no command "kye"; did you mean "key"?'),
    "a plural": ("keys list", 'there is no command "keys"; did you mean "key"?'),
    "a letter missing, one level down": ("key creat", 'there is no command "creat" in "keyloader key"; did you mean "key create"?'),
    "the other way round": ("create key", 'there is no command "create"; did you mean "key create"?'),
    "a command of many": ("statement", 'there is no command "statement"; did you mean "usage statement"?'),
    "nothing like it": ("frobnicate", 'there is no command "frobnicate"; `keyloader help` shows the commands'),
    "no command": ("", "which command? `keyloader help` shows them all"),
    "half a command": ("owner", '"keyloader owner" needs a command: "create", "set", '),
    "a stray word": ("key create web", '"web" is one word too many for "keyloader key create"; --owner is missing'),
    "a list without its option": ("key create --owner web --scope a:b c:d",
                                  '"c:d" is one word too many for "keyloader key create"; for more than one write '
                                  "--scope again: --scope c:d"),
    "an option too early": ("--owner web key create", "--owner stands before its command; options of a command are "
                                                      "written after it"),
    "a command for a directory": ("--dir key list", '--dir needs a value, and "key" is a command; write --dir DIR key'),
    "an option that is not there": ("key show --plan gold", '"keyloader key show" has no option --plan; it has '),
    "an option mistyped": ("key create --onwer web", "has no option --onwer; did you mean --owner? it has "),
    "a value missing": ("key create --owner", "--owner needs a value: --owner OWNER"),
    "not a number": ("audit list --last x", '--last: "x" is not a whole number'),
    "an empty value": ("key create --owner= --no-publish", "--owner has an empty value, which says nothing"),
    "another empty value": ("key revoke key_x --reason= --no-publish", "--reason has an empty value, which says nothing"),
    "an empty value of its own": (["key", "create", "--owner", ""], "an empty value says nothing"),
    "no id": ("key set --name x", "which key? give one or more ids, key_… (`keyloader key list` shows them)"),
    "help of nothing": ("help key creat", 'there is no command "creat" in "keyloader key"; did you mean "key create"?'),
}


@pytest.mark.parametrize("words,sentence", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(keyloader, words, sentence):
    said = keyloader.refused(*(words.split() if isinstance(words, str) else words), status=2)
    assert said.startswith("keyloader: ") and sentence in said and said.count("\n") == 1


@pytest.mark.parametrize("words", [[SECRET], ["key", SECRET], ["key", "show", "key_a", SECRET], ["find", SECRET]])
def test_a_key_that_was_written_by_mistake_is_not_printed(keyloader, words):
    done = keyloader(*words, status=2)
    assert "zzzz" not in done.stdout + done.stderr


def test_an_empty_value_changes_nothing(keyloader):
    made = keyloader.key()
    keyloader.refused("key", "revoke", made["id"], "--reason=", "--no-publish", status=2)
    assert keyloader.json("key", "show", made["id"])["state"] == "active"


def test_options_of_all_commands_may_follow_the_command(keyloader, tmp_path):
    assert keyloader("key", "list", "--json").stdout == "[]\n"
    assert "there is no registry in" in keyloader.refused("key", "list", "--dir", str(tmp_path / "none"))


def test_help(keyloader):
    overview = keyloader("help").stdout
    assert [line[:-1] for line in overview.splitlines() if re.fullmatch(r"[A-Za-z]+:", line)] == [
        "Options", "Keys", "nginx", "Data", "Help"], "every command is in a group"
    assert overview == keyloader("--help").stdout
    assert len(overview.splitlines()) < 60
    of_one = keyloader("help", "key", "create").stdout
    assert of_one.startswith("Issue a key") and "--create-owner" in of_one and "--dir DIR" in of_one


def test_version(keyloader):
    assert keyloader("version").stdout == keyloader("--version").stdout == "keyloader 0.1.0\n"


def run_with_closed_output(keyloader, *words):
    """Nobody reads standard output any more when it is first written."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run([KEYLOADER, *words], stdout=write, stderr=subprocess.PIPE, text=True,
                              env=keyloader.environment(), timeout=60, check=False)
    finally:
        os.close(write)


def test_a_reader_that_went_away_ends_a_list_quietly(keyloader):
    done = run_with_closed_output(keyloader, "plan", "list")
    assert done.stderr == "" and done.returncode != 0


def test_a_key_that_nobody_can_read_is_not_made(keyloader):
    done = run_with_closed_output(keyloader, "key", "create", "--owner", "web", "--create-owner")
    assert done.returncode == 1 and "standard output cannot be written" in done.stderr
    assert keyloader.json("key", "list") == []
