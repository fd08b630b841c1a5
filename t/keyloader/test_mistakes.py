"""Mistakes that people make in their first month. Each gets an answer that says what is wrong, with which value, and what to
do."""

import json

import pytest

# (what was typed, exit code, words that the answer has); ID is the id of a key, REVOKED that of a revoked one
MISTAKES = [
    # words of the command
    ("kye create", 2, ['"kye"', 'did you mean "key"?']),
    ("keys list", 2, ['"keys"', 'did you mean "key"?']),
    ("key creat", 2, ['"key creat"', 'did you mean "key create"?']),
    ("create key", 2, ['"create"', 'did you mean "key create"?']),
    ("key create web", 2, ['"web"', "--owner is missing"]),
    ("--owner web key create", 2, ["options of a command are written after it"]),
    ("--dir key list", 2, ['--dir took "key"', "write the directory first"]),
    ("key create --owner web --name= --json", 2, ["--name", "an empty value"]),
    ("key revoke ID --reason= --no-publish", 2, ["--reason", "an empty value"]),
    ("key list --plann gold", 2, ["no option --plann", "did you mean --plan?", "--state"]),
    ("key list --state acitve", 2, ["acitve", "active,suspended"]),
    ("audit list --last x", 2, ['"x" is not a number', "such as 20"]),
    ("snapshot rollback --to abc", 2, ['"abc" is not a number', "such as 20"]),
    ("key create --owner web --scope a:b c:d", 2, ['"c:d"', "repeat the option: --scope c:d"]),
    ("key set --name x", 2, ["which key?", "key_…", "keyloader key list"]),
    ("key revoke storefront", 2, ["argument 1 is no key id", "keyloader find"]),
    ("key revoke ID web", 2, ["argument 2 is no key id"]),
    # names
    ("key create --owner nobody-there", 1, ['no owner "nobody-there"', "keyloader owner create", "--create-owner"]),
    ("key create --owner Web", 1, ['"Web"', 'did you mean "web"?']),
    ("key create --owner web --plan Gold", 1, ['"Gold"', 'did you mean "gold"?']),
    ("key list --owner ghost", 1, ['"ghost"', "keyloader owner list"]),
    ("audit list --object ghost", 1, ['"ghost"', "give the id of a key"]),
    ("plan create gold --rate 7/s", 1, ['a plan "gold" already', "keyloader plan set"]),
    ("role create clerk --scope b", 1, ['a role "clerk" already', "keyloader role set"]),
    ("owner delete web", 1, ["web still has 1 key", "keyloader key revoke --owner web"]),
    ("plan delete gold", 1, ["1 key(s) have plan gold", "keyloader key set"]),
    ("key create --owner web --name storefront", 0, ['is called "storefront", too', "by their ids"]),
    ("key create --owner stopped", 0, ["owner stopped is suspended", "keyloader owner resume stopped"]),
    # times
    ("key create --owner web --expires tomorrow", 2, ['"tomorrow"', "90d (from now)", "2w", "12h"]),
    ("key create --owner web --expires 90", 2, ['"90"', "90d"]),
    ("key create --owner web --expires 1y", 2, ['"1y"', "2w"]),
    ("usage --from 7x", 2, ['"7x"', "7d (ago)", "today", "yesterday"]),
    ("key create --owner web --not-before 2099-02-01 --expires 2099-01-01", 2, ["2099-01-01", "before it becomes valid"]),
    ("key suspend ID --for 10min", 2, ['"10min"', "15m"]),
    ("key create --owner web --expires 2020-01-01", 2, ["2020-01-01", "in the past", "keyloader key revoke"]),
    # restrictions
    ("key create --owner web --allow-ip 10.0.0.1/8", 2, ['"10.0.0.1/8"', "10.0.0.0/8", "no bits set behind the prefix"]),
    ("key create --owner web --allow-ip a,b", 2, ['"a,b"', "192.0.2.7"]),
    ("key create --owner web --allow-origin shop.example.com", 2, ['"shop.example.com"', "https://app.example.com"]),
    ("key create --owner web --allow-host https://x", 2, ['"https://x"', "api.example.com"]),
    ("key create --owner web --allow-method get", 2, ['"get"', "in capitals"]),
    ("key create --owner web --scope orders:read,orders:write", 2, ['"orders:read,orders:write"', "orders:read"]),
    ("key create --owner web --env production", 0, ["production", "apikey_environment production;"]),
    ("owner create x --email notanemail", 2, ['"notanemail"', "ops@acme.example"]),
    # limits
    ("key create --owner web --rate 100", 2, ['--rate "100"', "100/s"]),
    ("plan create x --burst 10", 2, ["--burst needs a rate", "add --rate 10/s"]),
    ("plan create x --quota 1000/monthly", 2, ['"1000/monthly"', "1000000/month", "--rate", "--rolling-quota"]),
    ("plan create x --quota 1M/month", 2, ['"1M"', "a whole number"]),
    ("quota grant ID --amount -5", 2, ['"-5" is no grant', "a whole number"]),
    ("plan create x --rate 50/s --quota 20/day", 0, ["day allows 20/day", "less than rate with 50/s", "raise day or lower rate"]),
    # what is so already
    ("key set ID", 2, ["nothing to set", "--name"]),
    ("role set clerk", 2, ["nothing to set", "--scope"]),
    ("key resume REVOKED", 1, ["is revoked", "reason: leak", "keyloader key create"]),
    ("key revoke REVOKED --reason other", 0, ["is revoked already", "reason: leak", "the new reason is not stored"]),
    ("init", 0, ["already", "stays as it is"]),
    # directories and files
    ("--dir /nowhere key list", 1, ["no registry in /nowhere", "keyloader init --dir /nowhere"]),
    ("--dir /etc/passwd key list", 1, ["/etc/passwd is a file, not a directory", "--dir"]),
    ("--dir /nope/deep/dir init", 1, ["/nope/deep/dir", "mkdir -p /nope/deep"]),
    ("snapshot install /etc/passwd", 1, ["/etc/passwd is not installed", "not sealed"]),
    ("snapshot install /dev/null", 1, ["/dev/null is not installed", "empty"]),
    ("import /dev/null", 2, ["--format csv or --format ndjson"]),
    ("usage", 0, ["nginx does not answer", "only what was collected before is shown"]),
]


@pytest.fixture(scope="module")
def month(lasting):
    keyloader = lasting
    keyloader("owner", "create", "web")
    keyloader("owner", "create", "stopped")
    keyloader("owner", "suspend", "stopped")
    keyloader("plan", "create", "gold", "--rate", "10/s")
    keyloader("role", "create", "clerk", "--scope", "a")
    keyloader.words = {
        "ID": keyloader.key("web", "--plan", "gold", "--name", "storefront")["id"],
        "REVOKED": keyloader.key("elsewhere")["id"],
    }
    keyloader("key", "revoke", keyloader.words["REVOKED"], "--reason", "leak")
    return keyloader


@pytest.mark.parametrize("typed,status,words", MISTAKES, ids=[typed for typed, _, _ in MISTAKES])
def test_the_answer_says_what_is_wrong_and_what_to_do(month, typed, status, words):
    done = month(*[month.words.get(word, word) for word in typed.split()], status=status)
    said = done.stdout + done.stderr
    assert [word for word in words if word not in said] == [], said


def test_the_key_itself_instead_of_its_id_is_not_repeated(month):
    made = month.key("secret")
    said = month.refused("key", "revoke", made["key"], status=2)
    assert "argument 1 is the key itself" in said and "revoke it" in said and made["key"] not in said


def test_an_import_names_line_and_column(month, tmp_path):
    (tmp_path / "keys.csv").write_text("key,owner,color\nabc,web,red\n")
    assert "unknown column(s): color; known are key," in month.refused("import", tmp_path / "keys.csv", "--format", "csv",
                                                                      status=2)
    (tmp_path / "keys.ndjson").write_text(json.dumps({"key": "abc", "owner": "web"}) + "\n")
    done = month("import", tmp_path / "keys.ndjson", "--format", "ndjson", status=1)
    assert "line 1, key:" in done.stdout + done.stderr and "8-256" in done.stdout + done.stderr
