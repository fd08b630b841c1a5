"""Manners of the command line: what is wrong is named, what was meant is offered, and what is typed is completed."""

import os
import pty
import re
import signal
import subprocess

import pytest

from harness.paths import KEYLOADER
from harness.terminal import on_terminal

# words, exit code, what standard error must hold. The registry holds owner acme, plan basic and one key.
SENTENCES = [
    # Unknown commands.
    ("kye create", 2, 'there is no command "kye"; did you mean "key"?'),
    ("keys list", 2, 'there is no command "keys"; did you mean "key"?'),
    ("key creat", 2, 'there is no command "key creat"; did you mean "key create"?'),
    ("key lits", 2, 'did you mean "key list"?'),
    ("create key", 2, 'there is no command "create"; did you mean "key create"?'),
    ("list keys", 2, 'did you mean "key list"?'),
    ("rollback", 2, 'did you mean "snapshot rollback"?'),
    ("revoke", 2, 'did you mean "key revoke"?'),
    ("revoke key_00000000000000000000", 2, 'did you mean "key revoke"?'),
    ("suspend acme", 2, 'did you mean "owner suspend" or "key suspend"?'),
    ("key find", 2, 'there is no command "key find"; did you mean "find"?'),
    ("frobnicate", 2, '"frobnicate" is no command; `keyloader help` lists those there are'),
    ("role frobnicate", 2, '"role frobnicate" is no command; "role" has create, set, list, delete'),
    ("kye --help", 2, 'did you mean "key"?'),
    ("help key creat", 2, 'did you mean "key create"?'),
    # Commands without their command.
    ("", 2, "a command is missing; `keyloader help` lists those there are"),
    ("role", 2, '"role" needs a command behind it: create, set, list, delete'),
    ("role --json", 2, '"role" needs a command behind it: create, set, list, delete'),
    # Words that are not expected.
    ("key create web", 2, '"web" is not expected behind "key create"; --owner is missing'),
    ("key list web", 2, '"web" is not expected behind "key list"'),
    ("owner create a b", 2, '"b" is not expected behind "owner create"'),
    ("usage collect merge", 2, '"merge" is not expected behind "usage collect"'),
    ("key create --owner acme --scope a:b c:d", 2, '"c:d" is not expected; repeat the option: --scope c:d'),
    # Options.
    ("key show --plan gold", 2, '"key show" has no option --plan; '),
    ("key show --plan gold", 2, "; it has --"),
    ("key list --onwer acme", 2, '"key list" has no option --onwer; did you mean --owner? It has --'),
    ("--owner web key create", 2, "options of a command are written after it: keyloader key create --owner …"),
    ("key --owner web create", 2, "options of a command are written after it: keyloader key create --owner …"),
    ("--nosuch key list", 2, "keyloader itself has no option --nosuch; "),
    ("key list --json=yes", 2, "--json takes no value"),
    ("--dir key list", 2, '--dir took "key" for its value; write the directory first: keyloader --dir /var/lib/apikey key'),
    ("--dir usage", 2, '--dir took "usage" for its value'),
    ("audit list --last x", 2, '"x" is not a number'),
    ("audit list --last -5", 2, '"-5" is not a number'),
    ("snapshot rollback --to abc", 2, '"abc" is not a number'),
    ("key list --state acitve", 2, "acitve"),
    # Values that are missing or empty never take the next option for themselves.
    ("key create --owner", 2, "--owner needs a value: --owner OWNER"),
    ("key create --owner --json", 2, "--owner needs a value: --owner OWNER"),
    ("key create --owner=", 2, "--owner: an empty value says nothing"),
    ("key create --owner acme --name= --json", 2, "--name: an empty value says nothing"),
    ("key create --owner acme --name '' --json", 2, "--name: an empty value says nothing"),
    ("audit list --last= --json", 2, "--last: an empty value says nothing"),
    ("key list --state= --json", 2, "--state: an empty value says nothing"),
    ("key create --owner acme --scope= --no-publish", 2, "--scope: an empty value says nothing"),
    ("owner set acme --team= --no-publish", 2, "--team: an empty value says nothing"),
    ("quota reset --owner acme --reason= --no-publish", 2, "--reason: an empty value says nothing"),
    ("--dir= key list", 2, "--dir: an empty value says nothing"),
    # Times that were, and times to come.
    ("usage --from tomorrow", 2, '"tomorrow" is not a time; write 7d (ago), 12h, today, yesterday, 2026-01-31'),
    ("usage --from 0d", 2, '"0d" is not a time; write 7d (ago)'),
    ("key create --owner acme --expires tomorrow", 2, '"tomorrow" is not a time; write 90d (from now), 12h, 2w, 2026-01-31'),
]


@pytest.fixture(scope="module")
def busy(lasting):
    lasting("plan", "create", "basic", "--rate", "10/s")
    lasting.id = lasting.key("acme", "--plan", "basic", "--name", "web")["id"]
    lasting("role", "create", "reader", "--scope", "orders:read")
    return lasting


def words_of(line):
    return ["" if word == "''" else word for word in line.split()]


@pytest.mark.parametrize("line, status, sentence", SENTENCES, ids=[f"{row[0]}" for row in SENTENCES])
def test_a_mistake_is_named(busy, line, status, sentence):
    before = busy.json("audit", "verify")
    said = busy.refused(*words_of(line), status=status)
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert busy.json("audit", "verify") == before


@pytest.mark.parametrize("option, hint", [("--rloe", "did you mean --role? It has "), ("--foo", "; it has ")])
def test_an_unknown_option_lists_those_there_are_in_the_order_of_help(busy, option, hint):
    said = busy.refused("key", "list", option, "reader", status=2)
    assert hint in said
    listed = re.findall(r"--[\w-]+", re.split("[Ii]t has ", said)[1])
    assert listed[:4] == ["--help", "--owner", "--env", "--role"] and {"--state", "--dir", "--json"} <= set(listed)


def test_the_value_of_an_unknown_option_is_not_repeated(busy):
    assert "hunter2" not in busy.refused("find", "--key=hunter2", status=2)


@pytest.mark.parametrize("words", [["find"], ["key"], ["key", "list"], [], ["key", "create", "--scope", "a:b"]],
                         ids=" ".join)
def test_a_key_in_the_wrong_place_is_not_repeated(busy, words):
    secret = "ak_live_" + "x" * 40
    said = busy.refused(*words, secret, status=2)
    assert secret not in said and "a word of 48 characters" in said


@pytest.mark.parametrize("words", [["find"], ["key"], ["key", "list"], [], ["key", "create", "--scope", "a:b"]],
                         ids=" ".join)
@pytest.mark.parametrize("secret", ["short_secret_123456", "Zm9vYmFyMQ==", "--ak_live_" + "x" * 38, "--Hunter2222=x"])
def test_no_short_key_and_no_option_that_may_be_one_is_repeated(busy, words, secret):
    assert secret.split("=")[0] not in busy.refused(*words, secret, status=2)



def test_a_value_may_look_like_an_option_behind_an_equals_sign(busy):
    assert busy.key("acme", "--name=--json")["name"] == "--json"
    assert busy.key("acme", "--meta=team=")["meta"] == {}


@pytest.mark.parametrize("words", [["key", "list", "--dir", "DIR", "--json"], ["key", "list", "--dir=DIR", "--json"],
                                   ["key", "--json", "list", "--runtime", "/nowhere", "--dir", "DIR"]], ids=" ".join)
def test_options_of_keyloader_stand_behind_the_command_too(busy, bare, words):
    done = bare(*[word.replace("DIR", str(busy.dir)) for word in words])
    assert busy.id in done.stdout and done.stdout.startswith("[")


@pytest.mark.parametrize("text", ["7d", "today", "yesterday", "2026-01-01", "12h"])
def test_usage_from_looks_back(busy, text):
    asked = busy.json("usage", "--from", text)
    assert asked["from"] < asked["to"] if asked["to"] else asked["from"]


def test_from_yesterday_is_a_day_before_from_today(busy):
    days = [busy.json("usage", "--from", text)["from"] for text in ("yesterday", "today")]
    assert days[0] < days[1] and all("T00:00:00Z" in day for day in days)


# Help.

def test_help_is_an_overview_of_every_command(bare):
    text = bare("help").stdout
    assert len(text.splitlines()) <= 44
    assert all(len(line) <= 80 for line in text.splitlines())
    titles = re.findall(r"^(\w+)$", text, re.MULTILINE)
    assert titles == ["Keys", "Administrators", "nginx", "Data", "Help"]
    top = re.findall(r"^  (\S+)", bare("--help").stdout.split("Subcommands:")[1], re.MULTILINE)
    shown = re.findall(r"^  (\S+)", text, re.MULTILINE)
    assert set(word for word in top if word.islower()) - {"keyloader"} == set(shown)


def test_help_of_a_command_is_its_help(bare):
    for words in (["key", "create"], ["key"], ["usage", "collect"], ["find"]):
        assert bare("help", *words).stdout == bare(*words, "--help").stdout
    assert not bare.dir.exists()


def test_help_of_a_command_knows_the_options_of_all(bare):
    text = bare("key", "create", "--help").stdout
    for option in ("--dir", "--json", "--runtime"):
        assert option in text


COMMANDS = [["key", "create"], ["key", "set"], ["key", "list"], ["usage"], ["usage", "statement"], ["check"], ["import"],
            ["quota", "show"], ["plan", "create"], ["audit", "list"], ["key"], []]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "all")
def test_help_is_as_wide_as_a_terminal(bare, words):
    lines = bare(*words, "--help").stdout.splitlines()
    assert [line for line in lines if len(line) > 80 and not line.startswith("  keyloader ")] == []


def test_help_names_the_commands_below_a_command_that_does_something_itself(bare):
    text = " ".join(bare("help").stdout.split())
    assert "collect, statement, prune, merge" in text


def test_version_is_a_word_too(bare):
    assert bare("version").stdout == bare("--version").stdout


# A reader that goes away.

def test_a_reading_command_ends_as_others_do_when_its_reader_has_gone(busy):
    child = busy.start("key", "list")
    child.stdout.close()
    assert child.stderr.read() == ""
    assert child.wait() == -13, "SIGPIPE"
    done = subprocess.run(["bash", "-c", f"{KEYLOADER} key list | head -c 1; exit ${{PIPESTATUS[1]}}"], check=True,
                          env=busy.environment(), capture_output=True, text=True)
    assert done.stderr == ""


def test_a_secret_that_nobody_read_is_an_error(busy):
    before = len(busy.json("key", "list"))
    child = busy.start("key", "create", "--owner", "acme")
    child.stdout.close()
    assert "standard output cannot be written" in child.stderr.read()
    assert child.wait() == 1
    assert len(busy.json("key", "list")) == before


# Tables.

def shown_on_terminal(keyloader, *words, columns, **environment):
    """What it shows on a terminal so wide."""
    clean = {name: value for name, value in keyloader.environment().items() if name != "NO_COLOR"}
    code, shown = on_terminal({**clean, "TERM": "xterm", **environment}, *words, columns=columns)
    assert code == 0, shown
    return shown


def display_width(text):
    return sum(2 if "\u1100" <= character <= "\uffe6" and character not in "…→" else 1 for character in text)


WIDE_TEAM = "東京の営業部門と開発部門とその他の部門"


@pytest.fixture
def wide(keyloader):
    keyloader("owner", "create", "acme", "--team", WIDE_TEAM, "--email", "somebody@a-rather-long-name.example.com")
    keyloader("owner", "create", "x", "--team", "small")
    return keyloader


@pytest.mark.parametrize("columns", [60, 80])
def test_a_table_fits_the_terminal(wide, columns):
    lines = shown_on_terminal(wide, "owner", "list", columns=columns, NO_COLOR="1").splitlines()
    assert len(lines) == 3
    assert all(display_width(line) <= columns for line in lines), lines
    assert "…" in lines[1] and "acme" in lines[1]
    at = lines[0].index("EMAIL")
    assert display_width(lines[1][:lines[1].index("some")]) == at, "columns stand below each other"


@pytest.fixture
def crowded(keyloader):
    """Keys whose lines are longer than a usual terminal, and an audit with long words."""
    keyloader("plan", "create", "gold", "--quota", "5000000/month", "--no-publish")
    keyloader("owner", "create", "alice", "--quota", "5000000/month", "--no-publish")
    keyloader.made = [keyloader.key("alice", "--plan", "gold", "--expires", "10d", "--scope", "orders:read", "--scope",
                                    "orders:write", "--name", f"job {number}", "--no-publish") for number in range(2)]
    keyloader("quota", "grant", "--owner", "alice", "--amount", "5000", "--no-publish")
    return keyloader


def beside(lines, heading, value):
    """Whether a value of the first row stands below its heading."""
    return lines[0].index(heading) == lines[1].index(value)


@pytest.mark.parametrize("columns", [40, 80, 100])
@pytest.mark.parametrize("words", [["key", "list"], ["key", "list", "-o", "wide"], ["audit", "list"],
                                   ["quota", "show", "--owner", "alice"]], ids=lambda words: " ".join(words))
def test_what_does_not_fit_stands_below_its_row_and_nothing_to_compare_is_cut(crowded, words, columns):
    text = shown_on_terminal(crowded, *words, columns=columns, NO_COLOR="1")
    lines = text.splitlines()
    table = [line for line in lines if not line.startswith("What was used is not known")]
    assert max(display_width(line) for line in table) <= columns, text
    plain = crowded(*words).stdout
    if words[0] == "audit":  # what has changed is a text, which may be cut between its words
        plain = "\n".join(line.rsplit("  ", 1)[0] for line in plain.splitlines())
    whole = re.findall(r"\d{4}-\d\d-\d\dT[\d:]+Z|key_\w{20}|\b\d+/month\b", plain)
    assert whole and all(each in text for each in whole), text
    assert not re.search(r"(?<!\w)\d+…", text), text


def test_headings_stand_over_their_columns_in_a_narrow_list(crowded):
    lines = shown_on_terminal(crowded, "key", "list", columns=80, NO_COLOR="1").splitlines()
    key = crowded.json("key", "list")[0]
    for heading, value in (("ID", key["id"]), ("OWNER", "alice"), ("STATE", "active"), ("EXPIRES", key["expires"])):
        assert beside(lines, heading, value)
    assert lines[2].startswith("    PLAN gold  SCOPES orders:read orders:write  NAME job 0")


def test_the_change_is_whole_in_a_narrow_audit(crowded):
    text = shown_on_terminal(crowded, "audit", "list", "--object", crowded.made[0]["id"], columns=80, NO_COLOR="1")
    assert "CHANGE env live, " in text and "scopes orders:read orders:write" in text.replace("\n   ", "")


def test_a_table_in_a_pipe_is_whole_and_plain(wide):
    text = wide("owner", "list").stdout
    assert WIDE_TEAM in text and "…" not in text and "\033" not in text


def test_a_wide_terminal_cuts_nothing(wide):
    assert WIDE_TEAM in shown_on_terminal(wide, "owner", "list", columns=200)


def test_numbers_stand_to_the_right_on_a_terminal(wide):
    heading, first, _ = shown_on_terminal(wide, "owner", "list", columns=140, NO_COLOR="1").splitlines()
    end_of_keys = heading.index("KEYS") + len("KEYS")
    column = first.replace(WIDE_TEAM, "w" * display_width(WIDE_TEAM))
    assert column[end_of_keys - 4:end_of_keys] == "   0"


def test_an_id_is_never_cut(busy):
    assert busy.id in shown_on_terminal(busy, "key", "list", columns=40)


@pytest.mark.parametrize("environment, is_bold", [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_headings_are_bold_where_there_is_colour(busy, environment, is_bold):
    text = shown_on_terminal(busy, "owner", "list", columns=80, **environment)
    assert text.startswith("\033[1m") == is_bold
    assert ("\033" in text) == is_bold


@pytest.mark.parametrize("words, sentence", [(["key", "list"], "no keys\n"), (["role", "list"], "no roles\n"),
                                             (["owner", "list"], "no owners\n")], ids=["key", "role", "owner"])
def test_an_empty_list_says_so(keyloader, words, sentence):
    done = keyloader(*words)
    assert (done.stdout, done.stderr) == ("", sentence)
    assert keyloader.json(*words) == []


# Completion.

@pytest.fixture(scope="module")
def shell_path(tmp_path_factory):
    """PATH, with keyloader in it."""
    place = tmp_path_factory.mktemp("bin")
    (place / "keyloader").symlink_to(KEYLOADER)
    return f"{place}:{os.environ['PATH']}"


def in_bash(busy, path, *words):
    script = """
        source <(keyloader completion bash)
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _keyloader; printf '%s\\n' "${COMPREPLY[@]}"
    """
    return subprocess.run(["bash", "-c", script, "bash", "keyloader", *words], capture_output=True, text=True,
                          check=True, env={**busy.environment(), "PATH": path}).stdout.split()


def in_fish(busy, path, *words):
    line = "keyloader " + " ".join(words)
    done = subprocess.run(["fish", "--no-config", "-c", f"keyloader completion fish | source; complete -C '{line}'"],
                          capture_output=True, text=True, check=True,
                          env={**busy.environment(), "PATH": path, "HOME": str(busy.dir.parent)})
    return done.stdout.split()


def in_zsh(busy, path, *words):
    """Runs the function as zsh would, with a stand-in for what takes the words."""
    script = """
        compdef() { : }; compadd() { shift; print -l -- ${(P)1} }; _files() { : }
        source <(keyloader completion zsh)
        words=("$@"); CURRENT=$#
        _keyloader
    """
    return subprocess.run(["zsh", "-f", "-c", script, "zsh", "keyloader", *words], capture_output=True, text=True,
                          check=True, env={**busy.environment(), "PATH": path}).stdout.split()


COMPLETIONS = [
    (["key", "rev"], ["revoke"]),
    (["snapshot", "rollback", "--t"], ["--to"]),
    (["key", "list", "--state", "re"], ["revoked"]),
    (["key", "list", "--owner", ""], ["acme"]),
    (["key", "create", "--plan", "b"], ["basic"]),
    (["key", "create", "--json", "--role", ""], ["reader"]),
    (["owner", "show", "a"], ["acme"]),
    (["role", "delete", ""], ["reader"]),
    (["plan", "show", "bas"], ["basic"]),
    (["completion", ""], ["bash", "zsh", "fish"]),
    (["help", "audit", ""], ["archive", "list", "revert", "verify"]),
    (["admin", "create", "--role", "s"], ["support"]),
    (["admin", "adopt", "--role", ""], ["reader"]),
    (["policy", "set", "--approve-action", "plan.d"], ["plan.delete"]),
    (["policy", "test", "--as", ""], ["local"]),
]


@pytest.mark.parametrize("complete", [in_bash, in_zsh, in_fish])
@pytest.mark.parametrize("words, found", COMPLETIONS, ids=[" ".join(row[0]) for row in COMPLETIONS])
def test_tab_offers_what_there_is(busy, shell_path, complete, words, found):
    assert sorted(complete(busy, shell_path, *words)) == sorted(found)


def test_tab_offers_what_administrators_name(shop, shell_path):
    def offered(*words):
        return in_bash(shop.run, shell_path, *words)

    shop.run("policy", "set", "--approve-action", "plan")
    shop.run("key", "create", "--owner", "acme", "--ref", "crm-1", "--no-publish")
    shop.as_("alice", "plan", "create", "gold", status=3)
    assert sorted(offered("policy", "test", "--as", "")) == sorted([*shop.ids.values(), "local"])
    assert offered("owner", "set", "acme", "--team", "s") == ["shop"] and offered("key", "list", "--ref", "c") == ["crm-1"]
    assert offered("key", "create", "--ref", "c") == [] and offered("owner", "erase", "a") == []
    assert offered("approval", "approve", "") == offered("approval", "show", "") == ["1"]
    shop.run("approval", "refuse", "1")
    assert offered("approval", "approve", "") == [] and offered("approval", "show", "") == ["1"]


def test_tab_offers_ids_of_keys(busy, shell_path):
    assert busy.id in in_bash(busy, shell_path, "key", "revoke", "key_")
    assert busy.id in in_bash(busy, shell_path, "key", "revoke", "--reason", "a leak", "")


def test_bash_makes_three_words_of_an_equals_sign(busy, shell_path):
    assert in_bash(busy, shell_path, "key", "list", "--owner", "=", "ac") == ["acme"]
    assert in_bash(busy, shell_path, "key", "list", "--owner", "=") == ["acme"]


def test_other_shells_leave_one_word_of_an_equals_sign(busy, shell_path):
    assert in_zsh(busy, shell_path, "key", "list", "--owner=ac") == ["--owner=acme"]


NAMES_TO_QUOTE = ["$(touch ran)", "`touch ran`", ";touch ran", "'\"$(touch ran)", "é$(touch ran)", "\\$(touch ran)"]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_tab_then_enter_runs_nothing_of_a_name(bare, shell_path, tmp_path, locale):
    """Whoever may make owners must not get commands run by whoever completes their names."""
    bare("init")
    for number, name in enumerate(NAMES_TO_QUOTE):
        bare("owner", "create", f"evil{number}{name}", "--no-publish")
    words = ["bash", "--norc", "--noprofile", "-i"]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        os.execvpe(words[0], words, {**bare.environment(), "PATH": shell_path, "TERM": "dumb", "LC_ALL": locale,
                                     "HOME": str(tmp_path)})
    shown = b""
    try:
        typed = [f"keyloader owner show evil{number}\t\n" for number in range(len(NAMES_TO_QUOTE))]
        for number, line in enumerate(["source <(keyloader completion bash)\n", *typed]):
            os.write(terminal, f"{line}echo do''ne {number}\n".encode())
            while f"done {number}\r".encode() not in shown:
                shown += os.read(terminal, 65536)
                assert b"\n> " not in shown, "a quote was left open"
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)
    assert not (tmp_path / "ran").exists()


def test_tab_quotes_a_name_and_goes_on_behind_the_quotes(bare, shell_path):
    bare("init")
    bare("owner", "create", "Acme Corp")
    script = """
        source <(keyloader completion bash)
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _keyloader; printf '%s\\n' "${COMPREPLY[@]}"
    """
    for typed in ("Ac", "Acme\\ C"):
        done = subprocess.run(["bash", "-c", script, "bash", "keyloader", "owner", "show", typed], capture_output=True,
                              text=True, check=True, env={**bare.environment(), "PATH": shell_path})
        assert done.stdout == "Acme\\ Corp\n"


def test_tab_knows_the_directory(busy, bare, shell_path):
    assert in_bash(bare, shell_path, "--dir", str(busy.dir), "owner", "show", "") == ["acme"]


def test_tab_is_silent_where_there_is_nothing_to_ask(bare):
    done = bare("complete-words", "owner", "show", "")
    assert (done.stdout, done.stderr) == ("", "")
    assert not bare.dir.exists()


@pytest.mark.parametrize("shell, check", [("bash", ["bash", "-n"]), ("zsh", ["zsh", "-n"]), ("fish", ["fish", "-n"])])
def test_completion_scripts_are_sound(bare, tmp_path, shell, check):
    script = tmp_path / f"script.{shell}"
    script.write_text(bare("completion", shell).stdout)
    done = subprocess.run([*check, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
